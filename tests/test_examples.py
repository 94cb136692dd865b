"""Every example is a valid answer file, and a plan can be made of it for a machine it is for."""

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from processes import ROOT, netinstall

from installer.model.answers import json_schema

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))

MACHINES = {
    "uefi-simple": "virtio-vm",
    "bios-swap": "equal-disks",
    "static-address-rebuild": "nvme-server",
    "btrfs-separate-home": "sata-usb",
}
"""Which saved machine each is planned for."""


def test_every_example_has_a_machine() -> None:
    assert {path.stem for path in EXAMPLES} == MACHINES.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_valid_and_can_be_planned(path: Path) -> None:
    done = netinstall("check", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: no mistakes found\n")
    facts = ROOT / "tests/cases" / MACHINES[path.stem] / "facts.json"
    done = netinstall("plan", path, "--facts", facts, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["chosen"]) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_takes_the_example(path: Path) -> None:
    Draft202012Validator(json_schema()).validate(tomllib.loads(path.read_text()))
