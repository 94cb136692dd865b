"""Turns what happens into events: stamps them, measures rates, keeps the times of the steps."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from installer.model.errors import InstallError
from installer.model.events import (
    AnyEvent,
    Failed,
    Finished,
    Message,
    Observed,
    Planned,
    Stage,
    StepFinished,
    StepProgress,
    StepStarted,
)
from installer.model.facts import Facts
from installer.model.plan import Plan, Step

Emit = Callable[[AnyEvent], None]


class Progress(Protocol):
    """Is told how many bytes are done so far, as often as one likes, and what is slowest."""

    def __call__(self, done: int, bottleneck: Stage | None = None) -> None: ...


_PROGRESS_INTERVAL = 0.5
_RATE_WINDOW = 5.0


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Narrator:
    """The only maker of events. `emit` must not block or raise: that is the sinks' contract."""

    emit: Emit
    current: str | None = None
    phases: dict[str, float] = field(default_factory=dict)

    def observed(self, version: str, facts: Facts) -> None:
        """Tell what was seen of the machine."""
        self.emit(Observed(time=time.time(), uptime=_uptime(), version=version, facts=facts))

    def planned(self, plan: Plan) -> None:
        """Tell the decision."""
        self.emit(Planned(time=time.time(), uptime=_uptime(), plan=plan))

    @contextmanager
    def step(self, step: Step, number: int, count: int) -> Iterator[None]:
        """Tell the beginning of a step and, unless it raises, its end."""
        self.current = step.id
        begun = time.monotonic()
        self.emit(
            StepStarted(
                time=time.time(),
                uptime=_uptime(),
                step=step.id,
                title=step.title,
                number=number,
                count=count,
            )
        )
        yield
        seconds = time.monotonic() - begun
        self.phases[step.id] = seconds
        self.emit(StepFinished(time=time.time(), uptime=_uptime(), step=step.id, seconds=seconds))
        self.current = None

    def progress(self, total: int | None) -> Progress:
        """Return a function that is told how many bytes are done so far, as often as one likes."""
        step = self.current or ""
        seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        last = 0.0

        def tell(done: int, bottleneck: Stage | None = None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _PROGRESS_INTERVAL and done != total:
                return
            last = now
            seen.append((now, done))
            while len(seen) > 2 and now - seen[0][0] > _RATE_WINDOW:
                seen.popleft()
            then, before = seen[0]
            rate = (done - before) / (now - then) if now > then else 0.0
            left = (total - done) / rate if total is not None and rate > 0 else None
            self.emit(
                StepProgress(
                    time=time.time(),
                    uptime=_uptime(),
                    step=step,
                    done=done,
                    total=total,
                    rate=rate,
                    seconds_left=left,
                    bottleneck=bottleneck,
                )
            )

        return tell

    def say(self, text: str, level: Literal["debug", "info", "output", "warning"] = "info") -> None:
        """Tell a line."""
        self.emit(
            Message(time=time.time(), uptime=_uptime(), level=level, text=text, step=self.current)
        )

    def output(self, line: str) -> None:
        """Tell a line that a program printed."""
        self.say(line, "output")

    def failed(self, error: InstallError) -> None:
        """Tell that the work stops."""
        self.emit(
            Failed(
                time=time.time(),
                uptime=_uptime(),
                step=self.current,
                exit_code=int(error.exit_code),
                problems=error.problems,
            )
        )

    def finished(self, seconds: float) -> None:
        """Tell that the machine is installed."""
        self.emit(
            Finished(time=time.time(), uptime=_uptime(), seconds=seconds, phases=dict(self.phases))
        )
