"""The console: what the owner of the machine sees, on a serial line or on a terminal."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TextIO

from installer.model.events import (
    AnyEvent,
    Failed,
    Finished,
    Message,
    Observed,
    Planned,
    StepFinished,
    StepProgress,
    StepStarted,
)
from installer.model.units import format_seconds
from installer.report.lines import Line, Style, ascii_only, wrap
from installer.report.progress import Pace, progress_text
from installer.report.text import failure_text, header_text, plan_summary, success_text

_INDENT = " " * 8


class Manner(Protocol):
    """How lines and progress get onto a console."""

    def lines(self, lines: Iterable[Line]) -> None: ...

    def begin(self, label: str, event: StepStarted) -> None: ...

    def progress(self, event: StepProgress) -> None: ...

    def end(self, label: str, event: StepFinished) -> None: ...

    def stop(self) -> None:
        """Leave the terminal as it was: nothing moves any more."""


class PlainManner:
    """Whole lines of ASCII and nothing else: for serial lines, files and CI logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace()

    def lines(self, lines: Iterable[Line]) -> None:
        # one write: lines of the kernel get between ours, not into them
        self._stream.write("".join(f"{ascii_only(line.text).rstrip()}\n" for line in lines))
        self._stream.flush()

    def begin(self, label: str, event: StepStarted) -> None:
        self._pace.begin(event.uptime)
        self.lines(map(Line, wrap(event.title, first=label)))

    def progress(self, event: StepProgress) -> None:
        if self._pace.due(event):
            self.lines([Line(_INDENT + progress_text(event))])

    def end(self, label: str, event: StepFinished) -> None:  # noqa: ARG002 - the live one shows it
        self.lines([Line(f"{_INDENT}done in {format_seconds(event.seconds)}")])

    def stop(self) -> None:
        pass


def can_be_live(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is a terminal on which a line can be drawn again: a virtual console or a
    pseudo terminal, with a TERM that is known. Serial lines and hypervisor consoles are not: who
    looks at them, and through what, is unknown."""
    if environment.get("TERM", "") in ("", "dumb", "unknown") or environment.get("CI"):
        return False
    try:
        return stream.isatty() and bool(
            re.fullmatch(r"/dev/(pts/[0-9]+|tty[0-9]+)", os.ttyname(stream.fileno()))
        )
    except OSError:
        return False


class ConsoleSink:
    """Tells people what happens.

    Args:
        stream: where to; it may block, so put the sink behind a `Threaded`.
        live: draw progress in place; None finds out whether the stream can.
        verbose: show also what programs print, and debug messages.
        log: where the whole log is, for the failure block.
        name: what to call this console in a warning.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        live: bool | None = None,
        verbose: bool = False,
        log: str = "",
        name: str = "the console",
    ) -> None:
        self.name = name
        self._live = can_be_live(stream) if live is None else live
        self._manner = _live_manner(stream) if self._live else PlainManner(stream)
        self._verbose = verbose
        self._log = log
        self._label = ""
        self._step = ""
        self._titles: dict[str, str] = {}
        self._destroying: set[str] = set()
        self._touched = False

    def emit(self, event: AnyEvent) -> None:
        match event:
            case Observed():
                self._manner.lines(header_text(event.version, event.facts))
            case Planned(plan=plan):
                self._destroying = {step.id for step in plan.steps if step.destroys is not None}
                self._manner.lines(plan_summary(plan))
            case StepStarted():
                self._touched = self._touched or event.step in self._destroying
                self._titles[event.step] = event.title
                self._label = f"[{event.number:2d}/{event.count:2d}] "
                self._step = f"step {event.number} of {event.count}: {event.title}"
                self._manner.begin(self._label, event)
            case StepProgress():
                self._manner.progress(event)
            case StepFinished():
                self._manner.end(self._label, event)
                self._step = ""
            case Message():
                self._message(event)
            case Failed():
                self._manner.stop()
                self._manner.lines(
                    failure_text(event, step=self._step, log=self._log, touched=self._touched)
                )
            case Finished():
                self._manner.stop()
                self._manner.lines(success_text(event.seconds, event.phases, self._titles))

    def close(self, deadline_s: float) -> None:  # noqa: ARG002 - a stream has no deadline
        self._manner.stop()

    def _message(self, event: Message) -> None:
        indent = _INDENT if event.step else ""
        first, style, wanted = _MESSAGES[event.level]
        if wanted or self._verbose or (self._live and event.level == "output"):
            texts = wrap(event.text, first=indent + first)
            self._manner.lines(Line(text, style) for text in texts)


_MESSAGES: dict[str, tuple[str, Style, bool]] = {
    "debug": (". ", "dim", False),
    "info": ("", "", True),
    "output": ("| ", "dim", False),
    "warning": ("warning: ", "warning", True),
}
"""For each level: what precedes it, its style, and whether it is always shown."""


def _live_manner(stream: TextIO) -> Manner:
    # rich takes a second to import on a slow machine, and a serial line does not need it
    from installer.report.live import LiveManner  # noqa: PLC0415

    return LiveManner(stream)
