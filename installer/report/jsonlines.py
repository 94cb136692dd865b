"""Events as JSON lines in a file: one event, one line (https://jsonlines.org)."""

from pathlib import Path

from installer.model.codec import to_json
from installer.model.events import AnyEvent
from installer.report.files import GrowingFile


class JsonLinesSink:
    """Writes every event, also progress, as `installer.model.codec` encodes it."""

    def __init__(self, path: Path) -> None:
        self.name = f"the event log {path}"
        self._file = GrowingFile(path, self.name)

    def emit(self, event: AnyEvent) -> None:
        self._file.append(to_json(event) + "\n")

    def close(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing is left to flush
        self._file.close()
