"""The one error style."""

from pathlib import Path

import pytest

from installer.model.errors import CODES, ExitCode, InstallError, Problem, fail

ROOT = Path(__file__).parent.parent.parent


def test_text_says_what_where_and_what_to_try() -> None:
    error = fail("disk.none", "no disk matches", where="a.toml: disks[0]", hint="look again")
    assert str(error) == (
        "error[disk.none]: no disk matches\n  where: a.toml: disks[0]\n  try:   look again"
    )
    assert error.exit_code is ExitCode.HARDWARE


def test_problems_are_told_together_and_the_first_decides_the_exit_code() -> None:
    error = InstallError([Problem("answers.field", "one"), Problem("disk.none", "two")])
    assert str(error) == "error[answers.field]: one\nerror[disk.none]: two"
    assert error.exit_code is ExitCode.ANSWERS


def test_codes_are_known() -> None:
    with pytest.raises(ValueError, match=r"unknown error code 'disk\.nnoe'"):
        Problem("disk.nnoe", "x")


def test_every_code_is_documented_and_used() -> None:
    reference = (ROOT / "docs/errors.md").read_text()
    sources = "".join(
        path.read_text() for path in (ROOT / "installer").rglob("*.py") if path.name != "errors.py"
    )
    for code in CODES:
        assert f"`{code}`" in reference, f"docs/errors.md lacks {code}"
        assert f'"{code}"' in sources, f"nothing raises {code}"
