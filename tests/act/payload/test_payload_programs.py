"""The runner's programs that run beside us."""

import os
import time

import pytest

from installer.act.run import Runner
from installer.model.errors import InstallError, Problem


def test_a_missing_program() -> None:
    with pytest.raises(InstallError) as error:
        Runner().start(["no-such-program"], stdin=0, purpose="decompressing")
    assert error.value.problems == (
        Problem(
            "tool.missing",
            "no-such-program is not installed here",
            "decompressing",
            "add the package that holds no-such-program to the boot environment",
        ),
    )


def test_its_end_and_its_words() -> None:
    told: list[str] = []
    script = "cat >&2; exit 3"
    reader, writer = os.pipe()
    os.write(writer, b"one\n\n two\xff\n")
    os.close(writer)
    with Runner(told.append).start(["sh", "-c", script], stdin=reader, purpose="x") as program:
        os.close(reader)
        code = program.end(10)
        assert code == 3
        assert tuple(told) == program.last_words == ("one", "two\\xff")
        assert program.failure(code).problems == (
            Problem(
                "command.failed",
                "sh ended with exit code 3",
                "x: sh -c 'cat >&2; exit 3'",
                "its last words:\none\ntwo\\xff",
            ),
        )


def test_it_is_killed_with_its_children_when_nobody_waits() -> None:
    reader, writer = os.pipe()
    begun = time.monotonic()
    with Runner().start(["sh", "-c", "sleep 60 & wait"], stdin=0, stdout=writer) as program:
        os.close(writer)
        with pytest.raises(InstallError, match=r"sh did not end within 0\.1 s") as error:
            program.end(0.1)
    assert error.value.problems[0].code == "command.timeout"
    # the end of the pipe: nobody holds its other end any more
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert time.monotonic() - begun < 10
