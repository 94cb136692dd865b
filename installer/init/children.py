"""Starting, awaiting and reaping processes as PID 1.

`installer.act.run` is not used here: it waits for its own children only, and PID 1 has to reap
everybody's, in whatever order they end.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from installer.model.programs import SEARCH_PATH

_ASKING = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}
_SIGNALS = {signal.SIGCHLD, *_ASKING}

ENVIRONMENT = {
    "PATH": SEARCH_PATH,
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


class Children:
    """All processes that this one has to reap. Only one may exist: it owns the signals."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._ours: set[int] = set()
        self._ended: dict[int, int] = {}
        self.asked: signal.Signals | None = None
        """The last signal that asked for something; whoever acts on it sets it to None."""

    def start(
        self,
        argv: Sequence[str],
        environment: dict[str, str] | None = None,
        terminal: Path | None = None,
    ) -> int:
        """Start a program in a session of its own; return its PID.

        Its output goes to ours and its input is empty, unless it gets a `terminal` to control.
        Raises OSError.
        """
        if terminal is None:
            files: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
            ]
        else:
            # The first terminal that a new session's leader opens becomes its controlling one.
            files = [
                (os.POSIX_SPAWN_OPEN, 0, str(terminal), os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
            ]
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            {**ENVIRONMENT, **(environment or {})},
            file_actions=files,
            setsid=True,
            setsigmask=[],
            setsigdef=list(_SIGNALS),
        )
        self._ours.add(pid)
        return pid

    def fork(self, work: Callable[[], None]) -> int:
        """Run a function in a child, whose exit code is 1 if it raises; return the PID.

        What the function imports never takes memory in this process.
        """
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                work()
                code = 0
            except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
                import traceback  # noqa: PLC0415 - rarely needed

                traceback.print_exc()
            finally:
                os._exit(code)
        self._ours.add(pid)
        return pid

    def wait(self, pid: int, seconds: float | None) -> int | None:
        """Return the exit code of a child that was started here, -N if signal N killed it.

        None if it still runs after `seconds`, or when a signal asked for something (see `asked`).
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self._reap()
            if pid in self._ended:
                return self._ended.pop(pid)
            if self.asked is not None or not self._pause(deadline):
                return None

    def sleep(self, seconds: float) -> None:
        """Wait, reaping; returns early when a signal asks for something."""
        deadline = time.monotonic() + seconds
        while self.asked is None and self._pause(deadline):
            self._reap()

    def run(self, argv: Sequence[str], seconds: float) -> str | None:
        """Run a program to its end; return what was wrong, or None if nothing was."""
        try:
            pid = self.start(argv)
        except OSError as error:
            return f"{argv[0]}: {error.strerror}"
        code = self.wait(pid, seconds)
        if code is None:
            self.kill(pid)
            return f"{' '.join(argv)} did not end within {seconds:g} s"
        return None if code == 0 else f"{' '.join(argv)} {describe(code)}"

    def kill(self, pid: int, first: signal.Signals | None = None, seconds: float = 0) -> None:
        """End a child that was started here: politely with `first`, after `seconds` for good."""
        asked, self.asked = self.asked, None
        if first is not None:
            os.kill(pid, first)
            if self.wait(pid, seconds) is not None:
                self.asked = asked
                return
        os.kill(pid, signal.SIGKILL)
        self.asked = None
        self.wait(pid, 10)
        self.asked = asked

    def others(self) -> set[int]:
        """Return the PIDs of our direct children, adopted ones included."""
        me = os.getpid()
        found = set()
        for entry in os.listdir("/proc"):  # noqa: PTH208 - names, not paths
            if entry.isdigit():
                try:
                    stat = Path("/proc", entry, "stat").read_text()
                except OSError:
                    continue
                # proc(5): the name, in parentheses, may hold anything
                state, parent = stat.rpartition(")")[2].split()[:2]
                if int(parent) == me and state != "Z":
                    found.add(int(entry))
        return found

    def kill_others(self, keep: set[int]) -> None:
        """Kill all children but `keep`, and the orphans that this makes, for at most 10 s."""
        deadline = time.monotonic() + 10
        while (rest := self.others() - keep) and time.monotonic() < deadline:
            for pid in rest:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._ours:
                self._ours.discard(pid)
                self._ended[pid] = os.waitstatus_to_exitcode(status)

    def _pause(self, deadline: float | None) -> bool:
        """Sleep until a signal comes; False when the deadline has passed."""
        if deadline is None:
            number = signal.sigwait(_SIGNALS)
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            info = signal.sigtimedwait(_SIGNALS, left)
            if info is None:
                return False
            number = info.si_signo
        if number in _ASKING:
            self.asked = signal.Signals(number)
        return True


def describe(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
