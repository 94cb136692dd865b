"""What a machine (on its serial line) or a server (on its standard output) says, as events.

A thread reads the socket; `expect` sleeps on a condition that the thread signals. Nothing polls.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

KERNEL_PANIC: tuple[str, ...] = (
    r"Kernel panic - not syncing[^\n]*",
    r"Attempted to kill init![^\n]*",
)

# ECMA-48: CSI sequences, OSC strings (ended by BEL or ST), other two-character escapes.
_ESCAPE = re.compile(
    r"\x1b\[(?P<params>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[()*+#%][ -~]"
    r"|\x1b[0-Z\\^-~]"
)
# What may still grow into one of those when the next bytes arrive. The limit keeps a stray
# ESC from withholding text for ever.
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256}\x1b?|[()*+#%])?|\r+)\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TAIL_LINES = 40


class ConsoleError(AssertionError):
    """The console did not say what was expected; the text holds the tail and the log's path."""


class Cleaner:
    """Turns terminal output into plain lines, across arbitrary chunk boundaries.

    Carriage returns become line ends (a progress bar that redraws itself becomes a line for each
    state), and so do cursor jumps: SeaBIOS and OVMF place text by coordinates, and words from
    two places of the screen must not be glued into one.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished else len(text)
        self._held = text[cut:]
        return _clean(text[:cut])

    def finish(self) -> str:
        text, self._held = self._held, ""
        return _clean(text)


def _clean(text: str) -> str:
    text = _ESCAPE.sub(lambda found: "\n" if found["final"] in ("H", "f") else "", text)
    return _CONTROL.sub("", re.sub(r"\r+\n|\r+", "\n", text))


class Console:
    """One line of talk: `line` is our end of it, a connected socket.

    `log` gets every line with the seconds since `started` (time.monotonic) at which it began.
    `on_bytes` sees the raw bytes as they arrive (for a demo that mirrors the terminal).
    """

    def __init__(
        self,
        name: str,
        line: socket.socket,
        log: Path,
        *,
        fail_on: Sequence[str] = KERNEL_PANIC,
        on_bytes: Callable[[bytes], None] | None = None,
        started: float | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._line = line
        self._fail_on = tuple(fail_on)
        self._on_bytes = on_bytes
        self._started = time.monotonic() if started is None else started
        self._text = ""
        self._position = 0
        self._closed = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name=f"console-{name}", daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything said so far, without escape sequences."""
        with self._changed:
            return self._text

    @property
    def closed(self) -> bool:
        """The other end is gone (the process exited)."""
        with self._changed:
            return self._closed

    def expect(self, pattern: str, deadline_s: float, fail_on: Sequence[str] = ()) -> re.Match[str]:
        """Wait until `pattern` (a multi-line regex) matches finished lines; consume the match.

        Only text after the last match counts. A kernel panic, a match of one of `fail_on` before
        `pattern`, the end of the process and the deadline raise ConsoleError.
        """
        # On unfinished lines "(.*)" would match whatever part had arrived.
        return self._expect(pattern, deadline_s, fail_on, finished_lines=True)

    def expect_prompt(
        self, pattern: str, deadline_s: float, fail_on: Sequence[str] = ()
    ) -> re.Match[str]:
        """Like `expect`, but also matches a line that has not ended, as a prompt's does not."""
        return self._expect(pattern, deadline_s, fail_on, finished_lines=False)

    def send(self, data: bytes) -> None:
        """Type raw bytes (b"\\x03" is Ctrl-C). Raises OSError when nobody is there any more."""
        self._line.sendall(data)

    def send_line(self, text: str) -> None:
        """Type one line and Enter, which a terminal sends as a carriage return."""
        self.send(text.encode() + b"\r")

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines that are not empty."""
        spoken = [line for line in self.text.splitlines() if line.strip()]
        return "\n".join(spoken[-lines:])

    def wait_closed(self, deadline_s: float) -> bool:
        """Wait until all that was said before the end has been read; False after the deadline."""
        self._reader.join(deadline_s)
        return not self._reader.is_alive()

    def close(self) -> None:
        """Hang up; the log is complete afterwards. May be called again."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._reader.join(10)
        self._line.close()

    def _expect(
        self, pattern: str, deadline_s: float, fail_on: Sequence[str], *, finished_lines: bool
    ) -> re.Match[str]:
        wanted = re.compile(pattern, re.MULTILINE)
        unwanted = [re.compile(text, re.MULTILINE) for text in (*self._fail_on, *fail_on)]
        end = time.monotonic() + deadline_s
        with self._changed:
            while True:
                text = self._text
                if finished_lines and not self._closed:
                    text = text[: text.rfind("\n") + 1]
                found = wanted.search(text, self._position)
                bad = min(
                    (hit for one in unwanted if (hit := one.search(self._text, self._position))),
                    key=lambda hit: hit.start(),
                    default=None,
                )
                if bad and (not found or bad.start() < found.start()):
                    self._position = bad.end()
                    raise self._error(pattern, f"it said: {bad.group()}")
                if found:
                    self._position = found.end()
                    return found
                if self._closed:
                    raise self._error(pattern, "it ended")
                left = end - time.monotonic()
                if left <= 0:
                    raise self._error(pattern, f"{deadline_s:g} s passed")
                self._changed.wait(left)

    def _error(self, pattern: str, reason: str) -> ConsoleError:
        return ConsoleError(
            f"{self.name}: waited for {pattern!r}, but {reason}\n"
            f"--- last lines (all of it: {self.log}) ---\n{self.tail()}\n---"
        )

    def _read(self) -> None:
        cleaner = Cleaner()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self.log.open("w", encoding="utf-8", buffering=1) as log:
            lines = _TimedLines(log.write, self._started)
            while True:
                try:
                    data = self._line.recv(65536)
                except OSError:
                    data = b""
                if data and self._on_bytes:
                    self._on_bytes(data)
                text = decoder.decode(data, final=not data)
                text = cleaner.feed(text) + ("" if data else cleaner.finish())
                lines.feed(text)
                with self._changed:
                    self._text += text
                    self._closed = not data
                    self._changed.notify_all()
                if not data:
                    lines.finish()
                    return


class _TimedLines:
    def __init__(self, write: Callable[[str], object], started: float) -> None:
        self._write = write
        self._started = started
        self._open = ""
        self._began = 0.0

    def feed(self, text: str) -> None:
        now = time.monotonic() - self._started
        for piece in text.splitlines(keepends=True):
            if not self._open:
                self._began = now
            self._open += piece
            if piece.endswith("\n"):
                self._flush()

    def finish(self) -> None:
        if self._open:
            self._open += "\n"
            self._flush()

    def _flush(self) -> None:
        self._write(f"[{self._began:9.3f}] {self._open}")
        self._open = ""
