"""The lab's own processes: they die with the lab, and their end is awaited, not polled."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab.console import Console


class ProcessError(AssertionError):
    """A tool of the lab failed; the text holds its argv and what it said."""


def start(
    argv: Sequence[str],
    output: int,
    *,
    prefix: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when this thread ends, however it ends.

    `prefix` enters a network namespace. Both outputs go to the descriptor `output`.
    """
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *prefix, *argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
    )


class Server:
    """A server in the foreground; `said` is its output, which a test can await."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        ready: str,
        prefix: Sequence[str] = (),
        deadline_s: float = 30,
    ) -> None:
        """Start it and wait until it says `ready` (a regex). Raises ConsoleError."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = start(argv, theirs.fileno(), prefix=prefix)
        self.said = Console(name, ours, log, fail_on=(), started=time.monotonic())
        try:
            self.said.expect(ready, deadline_s)
        except BaseException:
            self.stop()
            raise

    def terminate(self, deadline_s: float) -> int | None:
        """Ask it to end (SIGTERM); return its exit status, None if it still runs after that."""
        self._process.terminate()
        return wait(self._process, deadline_s)

    def stop(self) -> None:
        """Kill it; its log is complete afterwards. May be called again."""
        if self._process.returncode is None:
            stop(self._process)
        self.said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()


def wait(process: subprocess.Popen[bytes], deadline_s: float) -> int | None:
    """The exit status, or None if the process still runs after `deadline_s` seconds."""
    if process.returncode is not None:
        return process.returncode
    # Popen.wait(timeout) wakes up 20 times a second; a pidfd becomes readable at the end.
    pidfd = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], max(0.0, deadline_s))
    finally:
        os.close(pidfd)
    return process.wait() if ended else None


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and reap it: the lab's servers keep nothing that a polite end would save."""
    process.kill()
    process.wait()


def run(argv: Sequence[str], deadline_s: float = 60, *, stdin: bytes = b"") -> bytes:
    """Run a tool to its end and return what it printed.

    Raises ProcessError for an exit status other than 0 and after `deadline_s` seconds.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"{' '.join(argv)}: still running after {deadline_s:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ProcessError(f"{' '.join(argv)}: exit status {done.returncode}: {said}")
    return done.stdout


def run_merged(argv: Sequence[str], deadline_s: float = 60) -> str:
    """Like `run`, for tools that exit with 0 and complain on standard error: both, as text."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProcessError(f"{' '.join(argv)}: still running after {deadline_s:g} s") from None
    return done.stdout.decode(errors="replace")
