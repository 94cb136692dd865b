"""Machines and answers to decide on."""

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from installer.decide.planner import decide
from installer.model.answers import AnswerFile
from installer.model.codec import from_json
from installer.model.config import Config
from installer.model.errors import InstallError
from installer.model.facts import Disk, Facts
from installer.model.plan import Plan
from installer.model.units import GIB

CASES = Path(__file__).parent.parent / "cases"

MINIMAL = """
version = 1
payload = { url = "http://192.0.2.1/system.tar.zst", unverified = true }
[[disks]]
match = { transport = "virtio" }
wipe = "force"
partitions = [ { size = "rest", mount = "/" } ]
"""


@cache
def saved(name: str) -> Facts:
    """Return a saved machine."""
    return from_json(Facts, (CASES / name / "facts.json").read_text(), where=name)


def machine(*disks: Disk, **changes: Any) -> Facts:
    """Return the virtual machine with other disks (if any are given) and other facts."""
    facts = saved("virtio-vm")
    return replace(facts, disks=disks or facts.disks, **changes)


def disk(node: str = "/dev/vda", size: int = 20 * GIB, **changes: Any) -> Disk:
    """Return a disk without anything on it."""
    given = {"transport": "virtio", "serial": node[-3:], "by_id": (f"virtio-{node[-3:]}",)}
    return Disk(node, size, **{**given, **changes})


def answers(toml: str = MINIMAL, **tables: Any) -> AnswerFile:
    """Return an answer file, with some tables replaced."""
    return AnswerFile.model_validate({**tomllib.loads(toml), **tables})


def plan(facts: Facts, given: AnswerFile) -> Plan:
    """Decide."""
    return decide(facts, Config(given, "answers.toml"))


def refusal(facts: Facts, given: AnswerFile) -> str:
    """Decide, and return the text of the error that comes of it."""
    with pytest.raises(InstallError) as caught:
        plan(facts, given)
    return str(caught.value)
