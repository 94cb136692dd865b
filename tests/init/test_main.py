"""init as PID 1 of real namespaces; only the end (reboot) is injected."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

NAMESPACE = Path(__file__).with_name("namespace.py")


class Init:
    """init in a namespace; leaving the fixture kills the namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "console").touch()
        (folder / "cmdline").write_text("console=ttyS0\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *worker: str, umask: int = -1) -> None:
        self.process = subprocess.Popen(
            [
                *("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, str(NAMESPACE), str(self.folder), str(self.folder / "cmdline")),
                *worker,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=umask,
        )

    def finish(self, *worker: str, umask: int = -1) -> str:
        """Run to the end, beginning with that umask; return what `end` was told."""
        self.start(*worker, umask=umask)
        assert self.process is not None
        said = self.process.communicate(timeout=30)[0].decode()
        assert self.process.returncode == 0, said
        return (self.folder / "end").read_text()

    def outcome(self, text: str) -> tuple[str, ...]:
        """A worker that leaves this outcome and ends with an error."""
        return (
            "sh",
            "-c",
            'printf %s "$1" >"$2"; exit 4',
            "sh",
            text,
            f"{self.folder}/run/outcome.json",
        )

    @property
    def console(self) -> str:
        return (self.folder / "console").read_text().replace("\r\n", "\n")

    def pid_inside(self) -> int:
        """init's own PID as this namespace sees it."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline, f"waited 20 s for {path}\n{self.console}"
            time.sleep(0.02)


@pytest.fixture
def init(tmp_path: Path) -> Iterator[Init]:
    made = Init(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def test_success_reboots(init: Init) -> None:
    assert init.finish("true") == "reboot"
    assert init.console == "netinstall: prepared\nnetinstall: reboot\n"


def test_nothing_becomes_writable_by_everybody_after_a_stage_1_of_systemd(init: Init) -> None:
    assert init.finish("touch", str(init.folder / "written"), umask=0) == "reboot"
    assert (init.folder / "run").stat().st_mode & 0o777 == 0o755
    assert (init.folder / "written").stat().st_mode & 0o777 == 0o644


def test_the_outcome_says_what_success_means(init: Init) -> None:
    worker = init.outcome('{"exit_code": 0, "on_success": "poweroff"}')
    assert init.finish(*worker[:2], 'printf %s "$1" >"$2"', *worker[3:]) == "poweroff"


def test_failure_counts_down_and_does_what_the_outcome_says(init: Init) -> None:
    worker = init.outcome('{"on_failure": "poweroff", "failure_delay_seconds": 1}')
    assert init.finish(*worker) == "poweroff"
    assert init.console == (
        "netinstall: prepared\n"
        "netinstall: the installation ended with exit code 4\n"
        f"netinstall: the log: {init.folder}/run/log.txt "
        f"(for programs: {init.folder}/run/log.jsonl)\n"
        "netinstall: poweroff in 1 s\n"
        "netinstall: poweroff\n"
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"on_failure": "explode", "failure_delay_seconds": -1}', '{"on_failure": []}'],
)
def test_an_outcome_that_makes_no_sense_leaves_it_to_the_command_line(
    init: Init, text: str
) -> None:
    (init.folder / "cmdline").write_text(
        "quiet netinstall.on-failure=reboot netinstall.failure-delay=0\n"
    )
    assert init.finish(*init.outcome(text)) == "reboot"


def test_a_stale_outcome_does_not_count(init: Init) -> None:
    (init.folder / "run").mkdir()
    (init.folder / "run/outcome.json").write_text('{"on_success": "poweroff"}')
    assert init.finish("true") == "reboot"


def test_a_killed_worker_is_told_and_its_orphans_go_with_it(init: Init) -> None:
    (init.folder / "cmdline").write_text("netinstall.on-failure=reboot netinstall.failure-delay=0")
    # an orphan that would go on writing; it notes its parent, which must be init
    script = (
        '(setsid sh -c "while :; do date +%s.%N >$1/beat; sleep 0.05; done" sh "$1" &)\n'
        'while [ ! -s "$1/beat" ]; do sleep 0.05; done\n'
        "kill -9 $$"
    )
    assert init.finish("sh", "-c", script, "sh", str(init.folder)) == "reboot"
    assert "netinstall: the installation was killed by SIGKILL\n" in init.console
    last = (init.folder / "beat").read_text()
    time.sleep(0.3)
    assert (init.folder / "beat").read_text() == last


def test_orphans_are_reaped(init: Init) -> None:
    # twenty orphans end while the worker runs; none may stay a zombie
    script = (
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (setsid true &); done\n"
        "sleep 0.5\n"
        'grep -l "^State:.Z" /proc/[0-9]*/status >"$1/zombies"; true'
    )
    assert init.finish("sh", "-c", script, "sh", str(init.folder)) == "reboot"
    assert (init.folder / "zombies").read_text() == ""


def test_the_worker_is_told_the_consoles_and_has_a_session_of_its_own(init: Init) -> None:
    script = (
        'echo "$NETINSTALL_CONSOLES" >"$1/told"; echo $$ >>"$1/told"; '
        'cut -d\' \' -f6 /proc/$$/stat >>"$1/told"; cat /proc/$$/oom_score_adj >>"$1/told"; '
        # of grep, which inherits it: dash blocks all signals while it starts a program
        'grep SigBlk /proc/self/status >>"$1/told"'
    )
    init.finish("sh", "-c", script, "sh", str(init.folder))
    consoles, pid, session, oom, mask = (init.folder / "told").read_text().splitlines()
    assert consoles == f"{init.folder}/console"
    assert pid == session
    assert oom == "0"
    assert mask.split()[1] == "0" * 16


def test_ctrl_alt_del_interrupts_the_worker_and_reboots(init: Init) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    pathlib.Path(sys.argv[1], 'stopped').touch()\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "pathlib.Path(sys.argv[1], 'started').touch()\n"
        "time.sleep(60)\n"
    )
    init.start(sys.executable, "-c", script, str(init.folder))
    init.wait_for(init.folder / "started")
    os.kill(init.pid_inside(), signal.SIGINT)
    init.wait_for(init.folder / "end")
    assert (init.folder / "end").read_text() == "reboot"
    assert (init.folder / "stopped").exists()
    assert "netinstall: stopping the installation\n" in init.console


def test_a_failure_of_its_own_is_shown_and_does_not_end_it(init: Init) -> None:
    (init.folder / "prepare-fails").touch()
    (init.folder / "cmdline").write_text(
        "netinstall.on-failure=poweroff netinstall.failure-delay=0"
    )
    assert init.finish("true") == "poweroff"
    assert "error[internal]: a mistake of this program" in init.console
    assert "the kernel refused" in init.console


def test_a_worker_that_does_not_exist(init: Init) -> None:
    (init.folder / "cmdline").write_text(
        "netinstall.on-failure=poweroff netinstall.failure-delay=0"
    )
    assert init.finish("/does/not/exist") == "poweroff"
    assert "No such file or directory: '/does/not/exist'" in init.console


def test_failure_offers_a_shell_with_job_control_that_comes_back(init: Init) -> None:
    ours, theirs = pty.openpty()
    (init.folder / "pty").write_text(os.ttyname(theirs))
    init.start("false")

    said = b""

    def expect(text: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 20
        while text not in said:
            ready = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"waited 20 s for {text!r}: {said!r}"
            said += os.read(ours, 4096)
        said = said.partition(text)[2]

    expect(b"a shell on the main console")
    os.write(ours, b"echo tty=$(tty) jobs=$-\r")
    expect(f"tty={os.ttyname(theirs)} jobs=".encode())
    os.write(ours, b"sh -c 'echo slee\"\"ping; exec sleep 60'\r")
    expect(b"sleeping")
    os.write(ours, b"\x1a")
    expect(b"Stopped")
    os.write(ours, b"exit\rexit\r")
    os.write(ours, b"echo again=$((6*7))\r")
    expect(b"again=42")
    os.write(ours, b"kill -USR2 1\r")
    init.wait_for(init.folder / "end")
    assert (init.folder / "end").read_text() == "poweroff"
    os.close(ours)
    os.close(theirs)
