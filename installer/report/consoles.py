"""Several consoles at once, of which a dead one holds up nobody: the kernel's and our own."""

import contextlib
import io
import os
import select
import termios
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from installer.report.console import ConsoleSink, can_be_live
from installer.report.sinks import Threaded

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LINES = 400


class _Port(io.RawIOBase):
    """A character device that is waited for, but not longer than anybody wants to."""

    def __init__(self, path: Path) -> None:
        # Opening a serial port without a carrier waits for one, unless it is opened non-blocking;
        # and such a descriptor can be waited for together with the order to give up (termios(3)).
        self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)

    @property
    def line_end(self) -> str:
        """What ends a line here: somebody may have made the terminal raw (ONLCR in termios(3))."""
        try:
            flags = termios.tcgetattr(self._fd)[1]
        except termios.error:
            return "\r\n"
        return "\n" if flags & termios.OPOST and flags & termios.ONLCR else "\r\n"

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        """Write everything, however long it takes.

        Raises:
            OSError: the device is gone, or `abandon` was called.
        """
        rest = memoryview(data)
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.register(self._wake, select.POLLIN)
        while rest:
            if any(fd == self._wake for fd, _ in poll.poll()):
                raise OSError("given up")
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._fd, rest) :]
        return len(memoryview(data))

    def close(self) -> None:
        if not self.closed:
            for fd in (self._fd, self._wake, self._waker):
                os.close(fd)
        super().close()

    def abandon(self) -> None:
        """End a `write` that waits, and forget what the device has not sent yet."""
        os.write(self._waker, b"x")
        # Otherwise the last close waits for the other side, 30 s long (closing_wait: setserial(8)).
        with contextlib.suppress(termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)


def open_console(path: Path, *, verbose: bool = False, log: str = "") -> Threaded:
    """Return a sink for a kernel console such as /dev/ttyS0, in the plain manner.

    Lines arrive with CR LF, whatever the settings of the terminal are. A console that takes nothing
    (flow control, nobody there) loses lines, and is told how many when it goes on.

    Raises:
        OSError: there is no such device.
    """
    port = _Port(path)
    stream = io.TextIOWrapper(io.BufferedWriter(port), encoding="ascii", newline=port.line_end)
    sink = ConsoleSink(stream, live=False, verbose=verbose, log=log, name=f"the console {path}")
    return Threaded(sink, limit=_LINES, abandon=port.abandon)


def open_consoles(
    paths: Iterable[Path], *, verbose: bool = False, log: str = ""
) -> tuple[list[Threaded], list[str]]:
    """Open all consoles that can be; also return why the others could not."""
    sinks: list[Threaded] = []
    problems: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            sinks.append(open_console(path, verbose=verbose, log=log))
        except OSError as error:
            problems.append(f"the console {path} cannot be used: {error.strerror}")
    return sinks, problems


def terminal(
    stream: TextIO, *, live: bool | None = None, verbose: bool = False, log: str = ""
) -> Threaded:
    """Return a sink for our own output (`sys.stdout`); a terminal that was stopped with Ctrl-S
    does not stop the installation."""
    chosen = can_be_live(stream) if live is None else live
    # A stream of its own: when the program ends, Python flushes sys.stdout, and aborts if a thread
    # that waits for the terminal holds it (seen with Debian's 3.11.2-6+deb12u9).
    own = os.fdopen(
        os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="backslashreplace"
    )
    return Threaded(ConsoleSink(own, live=chosen, verbose=verbose, log=log), limit=_LINES)
