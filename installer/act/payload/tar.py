"""GNU tar, which unpacks what was approved: a program with a pipe, and why it failed."""

import contextlib
import fcntl
import io
import os
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from installer.act.run import Program, Runner
from installer.act.trouble import full, hopeless, no_room
from installer.model.errors import InstallError, fail
from installer.model.units import MIB, format_seconds

TAR = (
    "tar",
    "--extract",
    "--file=-",
    # 128 KiB at once instead of 10: a third less time in the kernel
    "--blocking-factor=256",
    "--preserve-permissions",
    "--same-owner",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    # a machine whose clock is wrong would get a line for each file
    "--warning=no-timestamp",
)
"""How GNU tar unpacks; without -P, so that its own defences stand behind ours."""

_TICK = 0.25
_NOT_SET = "xattrat: Cannot set '"
"""GNU tar's setxattrat and lsetxattrat (src/xattrs.c)."""


class Tar:
    """A tar that unpacks into a folder what is written to `end`, a pipe that does not block."""

    def __init__(
        self,
        target: Path,
        *options: str,
        runner: Runner,
        stuck: float,
        capacity: int = MIB,
    ) -> None:
        """Start it; use it as a context, which ends it.

        Args:
            target: the folder.
            options: more of tar's.
            runner: `on_line` is told what tar prints.
            stuck: seconds in which tar takes no data, or does not end, after which it is given up.
            capacity: bytes of the pipe.
        """
        self.target = target
        self._not_set = 0
        self._first_not_set = ""
        self._on_line = runner.on_line
        self._stuck = stuck
        reader, self.end = pipe(capacity)
        os.set_blocking(self.end.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self.end, select.POLLOUT)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.end)
            with reader:
                self._program: Program = stack.enter_context(
                    replace(runner, on_line=self._listen).start(
                        (*TAR, *options, f"--directory={target.absolute()}"),
                        stdin=reader.fileno(),
                        purpose=f"unpacking into {target}",
                    )
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(
        self,
        data: memoryview,
        put: Callable[[memoryview], int | None],
        idle: Callable[[], None],
    ) -> None:
        """Give tar the next bytes of the archive.

        Args:
            data: the bytes.
            put: writes what the pipe takes now, and says how much that was.
            idle: is called again and again while tar takes nothing; it may raise.

        Raises:
            BrokenPipeError: tar ended, or will not get any further; `error` says why.
            InstallError: `command.timeout`.
        """
        if hopeless(self._program.last_words):
            # tar itself would go on and fail for every other file
            raise BrokenPipeError
        moved = time.monotonic()
        while data:
            if count := put(data):
                data = data[count:]
                moved = time.monotonic()
                continue
            self._poll.poll(_TICK * 1000)
            idle()
            if time.monotonic() - moved > self._stuck:
                raise fail(
                    "command.timeout",
                    f"tar took no data for {format_seconds(self._stuck)}",
                    where=f"unpacking into {self.target}",
                    hint="the kernel's log (dmesg) tells of a disk that does not answer",
                )

    def finish(self) -> None:
        """Wait for its end, when it makes links and sets times.

        Raises:
            BrokenPipeError: it failed; `error` says why.
            InstallError: `command.timeout`.
        """
        self.end.close()
        if self._program.end(self._stuck) != 0:
            raise BrokenPipeError

    @property
    def warning(self) -> str | None:
        """What it could not keep although it ended well: an extended attribute is none of its
        reasons to fail."""
        if not self._not_set:
            return None
        first = self._first_not_set.removeprefix("tar: ")
        return f"extended attributes that could not be set: {self._not_set}; first: {first}"

    def _listen(self, line: str) -> None:
        if _NOT_SET in line:
            self._not_set += 1
            self._first_not_set = self._first_not_set or line
        self._on_line(line)

    def error(self, mounts: Mapping[str, int], where: str) -> InstallError:
        """Say why it failed; `mounts` are mount points below the target, `where` is how far."""
        if not full(self._program.last_words):
            self.end.close()
            try:
                code = self._program.end(self._stuck)
            except InstallError as error:
                return error
            if not full(self._program.last_words):
                return self._program.failure(code)
        return no_room(self.target, mounts, self._program.last_words, where=where)


def pipe(capacity: int = MIB) -> tuple[io.FileIO, io.FileIO]:
    """Make a pipe: its reading and its writing end."""
    reader, writer = os.pipe()
    # fewer, larger pieces; without the right to it, a pipe of 64 KiB does as well (pipe(7))
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, capacity)
    return io.FileIO(reader, "rb"), io.FileIO(writer, "wb")
