"""The one place that starts processes: argv lists, a clean environment, a deadline, one error."""

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Self

from installer.model.errors import InstallError, fail
from installer.model.programs import SEARCH_PATH
from installer.model.units import format_seconds

CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": SEARCH_PATH,
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
}
"""All that a child sees of our environment: nothing that a payload's code could learn from."""

_KEPT_ERROR_LINES = 12
_CAPTURE_LIMIT = 64 * 1024**2
_KILLED_SECONDS = 10.0
"""A killed program is gone at once, unless it waits for a disk that does not answer."""


def _ignore_line(_line: str) -> None:
    pass


@dataclass(frozen=True)
class Runner:
    """Runs programs; `on_line` is told each line they print on standard error (and on standard
    output, when it is not captured)."""

    on_line: Callable[[str], None] = _ignore_line

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        chroot: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
        stdin_text: str | None = None,
        capture: bool = False,
        purpose: str = "",
    ) -> str:
        """Run a program to its end; return its standard output if `capture`, else "".

        Args:
            argv: the program and its arguments; no shell is involved.
            timeout: seconds until its whole process group is killed.
            chroot: run it in this root (as root).
            environment: added to `CLEAN_ENVIRONMENT`.
            stdin: what it reads; nothing by default. `stdin_text` is a short text instead.
            purpose: said in the error, for people: "making ext4 on /dev/vda2".

        Raises:
            InstallError: `tool.missing`, `command.failed` or `command.timeout`.
        """
        full = list(argv)
        if chroot is not None:
            # by its path: Popen would look for it in the PATH of the environment in the root
            program = shutil.which("chroot", path=SEARCH_PATH) or "chroot"
            full = [program, str(chroot), *argv]
        shown = shlex.join(full)
        if stdin_text is not None:
            # a pipe holds 64 KiB (pipe(7)); anything longer would block before the child reads
            if len(stdin_text.encode()) > 60_000:
                raise ValueError("stdin_text is for short texts")
            read_end, write_end = os.pipe()
            os.write(write_end, stdin_text.encode())
            os.close(write_end)
            stdin = os.fdopen(read_end, "rb")
        try:
            process = _popen(
                full,
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                environment=environment,
                purpose=purpose,
            )
        finally:
            if stdin_text is not None and stdin is not None:
                stdin.close()
        try:
            output, kept, timed_out = self._attend(process, time.monotonic() + timeout, capture)
        except BaseException:
            _kill_group(process)
            raise
        if timed_out:
            raise fail(
                "command.timeout",
                f"{argv[0]} did not end within {format_seconds(timeout)}",
                where=_where(purpose, shown),
                hint="\n".join(kept) or "it printed nothing",
            )
        if process.returncode != 0:
            raise _failed(argv[0], process.returncode, _where(purpose, shown), kept)
        return output

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
        purpose: str = "",
    ) -> "Program":
        """Start a server, or a part of a pipeline; `with` kills it at the end if it still runs.

        Args:
            argv: the program and its arguments; no shell is involved.
            stdin, stdout: file descriptors; the caller closes its copies.
            environment: added to `CLEAN_ENVIRONMENT`.
            purpose: said in the error, for people.

        `on_line` is called from another thread.

        Raises:
            InstallError: `tool.missing`.
        """
        process = _popen(argv, stdin=stdin, stdout=stdout, environment=environment, purpose=purpose)
        return Program(process, argv[0], _where(purpose, shlex.join(argv)), self.on_line)

    def _attend(
        self, process: subprocess.Popen[bytes], deadline: float, capture: bool
    ) -> tuple[str, deque[str], bool]:
        """Read both outputs until the process ends or the deadline passes (it is killed then)."""
        assert process.stdout is not None  # noqa: S101 - for the type checker
        assert process.stderr is not None  # noqa: S101
        captured = bytearray()
        kept: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
        partial: dict[int, bytes] = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
        timed_out = False

        def tell(line: bytes) -> None:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r")
            if text.strip():
                kept.append(text)
                self.on_line(text)

        with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
            for stream in (process.stdout, process.stderr):
                selector.register(stream.fileno(), selectors.EVENT_READ)
            while selector.get_map() and not timed_out:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                timed_out = not ready
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fd)
                    if capture and key.fd == process.stdout.fileno():
                        captured += chunk[: max(0, _CAPTURE_LIMIT - len(captured))]
                        continue
                    *lines, partial[key.fd] = (partial[key.fd] + chunk).split(b"\n")
                    for line in lines:
                        tell(line)
            for rest in partial.values():
                tell(rest)
            if not timed_out:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    timed_out = True
            if timed_out:
                _kill_group(process)
        return captured.decode("utf-8", "backslashreplace"), kept, timed_out


class Program:
    """A program that runs beside us."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        where: str,
        on_line: Callable[[str], None],
    ) -> None:
        self._kept: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
        self._process = process
        self._name = name
        self._where = where
        self._on_line = on_line
        self._listener = Thread(target=self._listen, name=f"errors of {name}", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _kill_group(self._process)
        self._listener.join(_KILLED_SECONDS if self._process.returncode is not None else 0)

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines that it printed as errors."""
        return tuple(self._kept)

    def end(self, timeout: float | None) -> int:
        """Wait for its end; return its exit code, negative for a signal.

        Args:
            timeout: seconds; None for a server, which runs until somebody ends it.

        Raises:
            InstallError: `command.timeout`; it still runs then.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired as expired:
            raise fail(
                "command.timeout",
                f"{self._name} did not end within {format_seconds(expired.timeout)}",
                where=self._where,
                hint="\n".join(self.last_words) or "it printed nothing",
            ) from None
        self._listener.join(timeout)
        return code

    def failure(self, code: int) -> InstallError:
        """Make the error for its exit code."""
        return _failed(self._name, code, self._where, self.last_words)

    def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        with self._process.stderr as stream:
            # a "line" of a foreign program has no end: take it in pieces
            while line := stream.readline(4096):
                text = line.decode("utf-8", "backslashreplace").strip()
                if text:
                    self._kept.append(text)
                    self._on_line(text)


def _popen(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes],
    stdout: int,
    environment: Mapping[str, str] | None,
    purpose: str,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**CLEAN_ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise fail(
            "tool.missing",
            f"{argv[0]} is not installed here",
            where=purpose or shlex.join(argv),
            hint=f"add the package that holds {argv[0]} to the boot environment",
        ) from None


def _failed(name: str, code: int, where: str, last_words: Sequence[str]) -> InstallError:
    return fail(
        "command.failed",
        f"{name} {_ended(code)}",
        where=where,
        hint="its last words:\n" + "\n".join(last_words) if last_words else "it printed nothing",
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_SECONDS)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _where(purpose: str, shown: str) -> str:
    return f"{purpose}: {shown}" if purpose else shown
