"""Files that only grow, one whole line at a time, and that a full disk cannot stop."""

import contextlib
import os
from pathlib import Path

from installer.report.sinks import LossError


class GrowingFile:
    """Appends lines. When one cannot be written it is lost, and the next one is tried again."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._fd: int | None = None
        self._told = False
        self.lost = 0

    def append(self, text: str) -> None:
        """Write whole lines, and hand them to the kernel before returning.

        Raises:
            OSError: the file cannot be opened.
            LossError: it could not be written for the first time.
        """
        if self._fd is None:
            self._fd = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
        # a lone surrogate (a file name that is no UTF-8) becomes \udcXX, which JSON allows
        rest = text.encode("utf-8", "backslashreplace")
        written = 0
        try:
            while written < len(rest):
                written += os.write(self._fd, rest[written:])
        except OSError as error:
            if written:
                # half a line would spoil the one that follows
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            self.lost += 1
            if not self._told:
                self._told = True
                raise LossError(f"{self._name} loses lines: {error.strerror}") from None
            return
        self.lost = 0

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
