"""A bounded queue of events between the installation and a sink that may be slow."""

import threading
from collections import deque

from installer.model.events import AnyEvent, Message, StepProgress


class Backlog:
    """Takes events without ever waiting.

    When it is full, the oldest progress is dropped, else the oldest message, else the oldest
    event: a console that missed which steps began would be wrong about what happened to the disks.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: deque[AnyEvent] = deque()
        self._dropped = 0
        self._finished = False
        self._changed = threading.Condition()

    def put(self, event: AnyEvent) -> None:
        """Add an event."""
        with self._changed:
            if len(self._events) >= self._limit:
                self._drop_one()
            self._events.append(event)
            self._changed.notify_all()

    def _drop_one(self) -> None:
        self._dropped += 1
        for kind in (StepProgress, Message):
            for index, event in enumerate(self._events):
                if isinstance(event, kind):
                    del self._events[index]
                    return
        self._events.popleft()

    def finish(self) -> None:
        """Say that nothing more will come: `take` stops waiting."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self._finished

    def take(self, most: int, gather: float = 0.0) -> tuple[list[AnyEvent], int]:
        """Wait for events; return at most so many, and how many were dropped before them.

        After the first event it waits `gather` seconds for more. No events means that there will
        be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._finished)
            if gather:
                self._changed.wait_for(lambda: len(self._events) >= most or self._finished, gather)
            taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            dropped, self._dropped = self._dropped, 0
            return taken, dropped

    def pause(self, seconds: float) -> None:
        """Wait so long, or until nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished, seconds)
