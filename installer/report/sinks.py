"""Where events go: the contract of a sink, and the fanout that no sink can stop."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from installer.model.events import AnyEvent, Message
from installer.report.backlog import Backlog

CLOSE_SECONDS = 5.0
_REMEMBERED = 100


class LossError(Exception):
    """A sink lost something but goes on. The others are told, so a sink raises it once."""


class Sink(Protocol):
    """Takes events. `name` is for people: "the log /run/netinstall/log.txt"."""

    @property
    def name(self) -> str: ...

    def emit(self, event: AnyEvent) -> None:
        """Take one event, quickly.

        Raises:
            LossError: something was lost, but the sink goes on.
            Exception: anything else means that the sink is of no more use.
        """

    def close(self, deadline_s: float) -> None:
        """Finish within `deadline_s` seconds; nothing is emitted afterwards."""


class Fanout:
    """Gives each event to every sink. Neither `emit` nor `close` ever raises.

    A sink that fails is dropped, with one warning to the others. May be used from any thread.
    What can block (a terminal, a serial line) goes behind a `Threaded`.
    """

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._first_events: list[AnyEvent] = []
        self._lock = threading.RLock()

    def add(self, sink: Sink) -> None:
        """Give all further events to one more sink, after the first `_REMEMBERED` that there were:
        where to report is known only after the machine was looked at."""
        with self._lock:
            self._sinks.append(sink)
            for event in list(self._first_events):
                if sink in self._sinks:
                    self._give_all([sink], event)

    def emit(self, event: AnyEvent) -> None:
        """Give an event to every sink."""
        with self._lock:
            if len(self._first_events) < _REMEMBERED:
                self._first_events.append(event)
            self._give_all(list(self._sinks), event)

    def _give_all(self, sinks: list[Sink], event: AnyEvent) -> None:
        """Give an event to some sinks, and the warnings that come of it to all others."""
        warnings: deque[tuple[AnyEvent, Sink]] = deque()
        for sink in sinks:
            if warning := self._give(sink, event, with_loss=True):
                warnings.append((warning, sink))
        while warnings:
            current, about = warnings.popleft()
            for sink in [sink for sink in self._sinks if sink is not about]:
                if warning := self._give(sink, current, with_loss=False):
                    warnings.append((warning, sink))

    def _give(self, sink: Sink, event: AnyEvent, *, with_loss: bool) -> Message | None:
        try:
            sink.emit(event)
        except LossError as loss:
            # a loss of a warning about a loss is not told: two sinks could go on for ever
            return _warning(event, str(loss)) if with_loss else None
        except Exception as error:  # noqa: BLE001 - that no sink can stop us is the point
            self._sinks.remove(sink)
            return _warning(event, f"{sink.name} is not used any more: {_reason(error)}")
        return None

    def close(self, deadline_s: float = CLOSE_SECONDS) -> None:
        """Close all sinks at the same time, and give up those that need longer."""
        with self._lock:
            sinks, self._sinks = self._sinks, []
        threads = [
            threading.Thread(target=_close, args=(sink, deadline_s), daemon=True) for sink in sinks
        ]
        until = time.monotonic() + deadline_s + 0.5
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _close(sink: Sink, deadline_s: float) -> None:
    # nobody is left who could be told
    with contextlib.suppress(Exception):
        sink.close(deadline_s)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _warning(after: AnyEvent, text: str) -> Message:
    return Message(time=after.time, uptime=after.uptime, level="warning", text=text)


class Threaded:
    """Another sink, fed by a thread of its own, so that it may block for as long as it likes.

    What does not fit into the backlog is dropped, progress first, and the sink is told how much.
    `abandon` is called when the sink does not finish in time; it should end what it waits for.
    """

    def __init__(
        self, sink: Sink, *, limit: int = 1000, abandon: Callable[[], None] = lambda: None
    ) -> None:
        self._sink = sink
        self._backlog = Backlog(limit)
        self._abandon = abandon
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=sink.name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._sink.name

    def emit(self, event: AnyEvent) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, LossError):
                self._backlog.put(event)
            raise error
        self._backlog.put(event)

    def close(self, deadline_s: float) -> None:
        self._backlog.finish()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            self._abandon()

    def _work(self) -> None:
        try:
            while True:
                events, dropped = self._backlog.take(1)
                if not events:
                    break
                for event in events:
                    if dropped:
                        self._pass_on(_warning(event, f"{dropped} lines were dropped here"))
                    self._pass_on(event)
            self._sink.close(CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the next emit raises it
            self._error = error

    def _pass_on(self, event: AnyEvent) -> None:
        try:
            self._sink.emit(event)
        except LossError as loss:
            self._error = loss
