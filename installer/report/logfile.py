"""The log for people: everything that happened, also what programs printed, with its time."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

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
from installer.report.files import GrowingFile
from installer.report.lines import paragraphs
from installer.report.progress import Pace, progress_text
from installer.report.text import facts_text, header_text, plan_text

_MARKS = {"debug": "debug: ", "info": "", "output": "| ", "warning": "warning: "}


class LogFileSink:
    """Writes lines that begin with the seconds since boot, as the kernel's log does.

    Progress becomes a line every ten seconds at most: the event log has all of it.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"the log {path}"
        self._file = GrowingFile(path, self.name)
        self._pace = Pace(least=10.0, most=60.0)
        self._begun = False

    def emit(self, event: AnyEvent) -> None:
        texts = list(self._texts(event))
        if self._file.lost and texts:
            texts.insert(0, f"({self._file.lost} entries were lost here)")
        if not self._begun:
            self._begun = True
            when = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="seconds")
            texts.insert(0, f"this log begins at {when}")
        stamp = f"[{event.uptime:10.3f}] "
        if texts:
            self._file.append("".join(f"{stamp}{text}\n" for text in texts))

    def close(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing is left to flush
        self._file.close()

    def _texts(self, event: AnyEvent) -> Iterator[str]:
        match event:
            case Observed(version=version, facts=facts):
                yield from (line.text for line in header_text(version, facts))
                yield from (line.text for line in facts_text(facts))
            case Planned(plan=plan):
                yield from (line.text for line in plan_text(plan))
            case StepStarted():
                self._pace.begin(event.uptime)
                yield from paragraphs(f"step {event.number} of {event.count}: {event.title}")
            case StepProgress():
                if self._pace.due(event):
                    yield f"  {progress_text(event)}"
            case StepFinished():
                yield f"  done in {format_seconds(event.seconds)}"
            case Message():
                mark = ("  " if event.step else "") + _MARKS[event.level]
                yield from (mark + text for text in paragraphs(event.text))
            case Failed():
                yield f"FAILED with exit code {event.exit_code}"
                for problem in event.problems:
                    yield from ("  " + text for text in paragraphs(str(problem)))
            case Finished():
                yield f"INSTALLED in {format_seconds(event.seconds)}"
