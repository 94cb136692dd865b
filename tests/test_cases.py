"""Saved machines and what is decided for them, word for word.

Each `tests/cases/NAME/` holds the facts of a machine and answer files. What `netinstall plan`
says for `answers.toml` is in `answers.txt`, its JSON in `answers.json`. After a change that is
meant: `UPDATE_GOLDENS=1 pytest tests/test_cases.py`, then read the diff.
"""

import json
import os
from pathlib import Path

import pytest
from processes import netinstall

CASES = Path(__file__).parent / "cases"
ANSWERS = sorted(CASES.glob("*/*.toml"))

FAILING = {
    "equal-disks/answers.toml": 3,
    "live-stick/stick.toml": 3,
    "no-disk/answers.toml": 3,
    "old-storage-server/answers.toml": 3,
    "san-multipath/answers.toml": 3,
    "old-storage-server/shared.toml": 3,
    "three-cards/wrong.toml": 3,
}
"""The exit codes of those that cannot be installed."""


def _compare(golden: Path, seen: str) -> None:
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(seen)
    assert seen == golden.read_text()


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_plan_is_the_expected_one(answers: Path) -> None:
    arguments = ("plan", answers.name, "--facts", "facts.json")
    text = netinstall(*arguments, cwd=answers.parent)
    document = netinstall(*arguments, "--json", cwd=answers.parent)
    name = f"{answers.parent.name}/{answers.name}"
    assert text.returncode == document.returncode == FAILING.get(name, 0)
    assert text.stderr == document.stderr
    _compare(
        answers.with_suffix(".txt"),
        f"$ netinstall {' '.join(arguments)}\n{text.stdout}{text.stderr}"
        f"exit code {text.returncode}\n",
    )
    _compare(answers.with_suffix(".json"), document.stdout)
    plan = json.loads(document.stdout)
    assert ("problems" in plan) == (text.returncode != 0)
    assert "not-shown" not in text.stdout + text.stderr + document.stdout


def test_every_machine_has_answers() -> None:
    assert {path.parent.name for path in ANSWERS} == {
        path.parent.name for path in CASES.glob("*/facts.json")
    }
