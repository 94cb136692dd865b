"""The one runner, with real processes."""

import signal
import time
from pathlib import Path

import pytest
from lab import steps

from installer.act.run import Runner
from installer.model.errors import InstallError


def test_output_is_captured_and_errors_are_told_line_by_line() -> None:
    lines: list[str] = []
    out = Runner(lines.append).run(
        ["sh", "-c", "echo out; echo first >&2; printf second >&2"], timeout=10, capture=True
    )
    assert out == "out\n"
    assert lines == ["first", "second"]


def test_a_failure_can_be_pasted_and_has_the_last_words() -> None:
    with pytest.raises(InstallError) as caught:
        Runner().run(["sh", "-c", "echo no room >&2; exit 3"], timeout=10, purpose="making x")
    assert str(caught.value) == (
        "error[command.failed]: sh ended with exit code 3\n"
        "  where: making x: sh -c 'echo no room >&2; exit 3'\n"
        "  try:   its last words:\n         no room"
    )


def test_a_signal_is_named() -> None:
    with pytest.raises(InstallError) as caught:
        Runner().run(["sh", "-c", "kill -SEGV $$"], timeout=10)
    assert "sh was killed by SIGSEGV" in str(caught.value)
    assert "it printed nothing" in str(caught.value)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(InstallError) as caught:
        Runner().run(["mkfs.nonsense", "/dev/null"], timeout=10)
    assert str(caught.value) == (
        "error[tool.missing]: mkfs.nonsense is not installed here\n"
        "  where: mkfs.nonsense /dev/null\n"
        "  try:   add the package that holds mkfs.nonsense to the boot environment"
    )


def test_the_whole_process_group_ends_at_the_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(InstallError) as caught:
        # the grandchild keeps the pipe open: killing only the shell would hang here
        Runner().run(["sh", "-c", "sleep 600 & wait"], timeout=0.3)
    assert time.monotonic() - begun < 10
    assert "sh did not end within 0.3 s" in str(caught.value)


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    seen = Runner().run(["env"], timeout=10, capture=True, environment={"NIX_PATH": "x"})
    assert "hunter2" not in seen
    assert {line.split("=")[0] for line in seen.splitlines()} == {
        "PATH",
        "LC_ALL",
        "HOME",
        "TERM",
        "NIX_PATH",
    }


def test_a_child_cannot_read_our_terminal() -> None:
    assert Runner().run(["cat"], timeout=10, capture=True) == ""
    assert Runner().run(["cat"], timeout=10, capture=True, stdin_text="hello") == "hello"


def test_long_output_does_not_block() -> None:
    lines: list[str] = []
    Runner(lines.append).run(
        ["sh", "-c", "seq 1 50000 >&2; seq 1 50000"], timeout=30, purpose="flood"
    )
    assert len(lines) == 100_000


@pytest.mark.root
def test_chroot() -> None:
    assert Runner().run(["/bin/echo", "in"], timeout=10, chroot=Path("/"), capture=True) == "in\n"


@pytest.mark.loop
@pytest.mark.slow
def test_a_program_that_cannot_be_killed_keeps_nobody(loop_disk: Path, tmp_path: Path) -> None:
    """A frozen file system keeps a writer like a disk that does not answer: no signal ends it."""
    root = tmp_path / "mnt"
    root.mkdir()
    steps.run("mkfs.ext4", "-q", loop_disk)
    steps.run("mount", loop_disk, root)
    try:
        steps.run("fsfreeze", "--freeze", root)
        try:
            begun = time.monotonic()
            with Runner().start(["mkdir", str(root / "a")]) as program:
                pass
            assert 9 < time.monotonic() - begun < 15
        finally:
            steps.run("fsfreeze", "--unfreeze", root)
        assert program.end(10) == -signal.SIGKILL
    finally:
        steps.run("umount", root)
