"""Every example is a valid answer file, and a plan can be made of it for a machine it is for."""

import json
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from processes import ROOT, netinstall

from installer.model.answers import json_schema
from installer.model.codec import from_json, to_json
from installer.model.facts import Disk, Facts, FoundPartition
from installer.model.units import GIB, MIB

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
CASES = ROOT / "tests/cases"
TOOLS = (
    *("mdadm", "cryptsetup", "systemd-cryptenroll", "lvm", "thin_check", "zpool", "btrfs"),
    *("mkfs.xfs", "mkfs.btrfs", "mkswap", "swapon", "swapoff", "unsquashfs", "nix"),
)


def _saved(name: str) -> Facts:
    return from_json(Facts, (CASES / name / "facts.json").read_text(), where=name)


def _with_tools(facts: Facts) -> Facts:
    return replace(facts, tools={**facts.tools, **dict.fromkeys(TOOLS, "/usr/bin/x")})


def _with(*disks: Disk) -> Facts:
    return replace(_with_tools(_saved("virtio-vm")), disks=disks)


def _blank(*serials: str) -> Facts:
    return _with(
        *(
            Disk(
                f"/dev/vd{'abc'[n]}", 20 * GIB, by_id=(f"virtio-{s}",), serial=s, transport="virtio"
            )
            for n, s in enumerate(serials)
        )
    )


def _carrying(disk: str, serial: str, *parts: FoundPartition) -> Disk:
    return Disk(
        disk, 40 * GIB, by_id=(f"ata-{serial}",), serial=serial, table="gpt", partitions=parts
    )


def _data() -> Facts:
    photos = FoundPartition("/dev/vdb1", 1, 30 * GIB, MIB, filesystem="ext4", label="photos")
    (system,) = _blank("SYSTEM-1").disks
    return _with(system, _carrying("/dev/vdb", "DATA-1", photos))


def _windows() -> Facts:
    return _with(
        _carrying(
            "/dev/sda",
            "LAPTOP-1",
            FoundPartition("/dev/sda1", 1, 100 * MIB, MIB, filesystem="vfat"),
            FoundPartition("/dev/sda2", 2, 16 * MIB, 101 * MIB),
            FoundPartition("/dev/sda3", 3, 20 * GIB, 117 * MIB, filesystem="ntfs", label="Windows"),
            FoundPartition("/dev/sda4", 4, GIB, 21 * GIB, filesystem="ext4", label="old"),
        )
    )


MACHINES: dict[str, Callable[[], Facts]] = {
    "uefi-simple": lambda: _saved("virtio-vm"),
    "bios-swap": lambda: _saved("equal-disks"),
    "static-address-rebuild": lambda: _saved("nvme-server"),
    "btrfs-separate-home": lambda: _saved("sata-usb"),
    "hybrid-boot": lambda: _blank("HYBRID-1"),
    "btrfs-two-disks": lambda: _blank("a", "b"),
    "lvm-thin": lambda: _blank("LVM-1"),
    "raid1-mirrored-esp": lambda: _blank("a", "b"),
    "raid5-lvm": lambda: _blank("a", "b", "c"),
    "luks-tpm2": lambda: _blank("LUKS-1"),
    "lvm-on-luks": lambda: _blank("LUKS-1"),
    "luks-on-lvm": lambda: _blank("LUKS-1"),
    "zfs-mirror": lambda: _blank("a", "b"),
    "tmpfs-root": lambda: _blank("TMPFS-1"),
    "data-disk-kept": _data,
    "windows-kept": _windows,
    "squashfs": lambda: _blank("SQUASH-1"),
    "closure": lambda: _blank("CLOSURE-1"),
    "static-from-lease": lambda: _saved("virtio-vm"),
    "bond-vlan": lambda: _with_tools(_saved("nvme-server")),
    "ipv6-only": lambda: replace(_saved("virtio-vm"), leases=()),
    "packed-mirrors": lambda: _blank("PACKED-1"),
}
"""What each is planned for."""


def test_every_example_has_a_machine() -> None:
    assert {path.stem for path in EXAMPLES} == MACHINES.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_valid_and_can_be_planned(path: Path) -> None:
    done = netinstall("check", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: no mistakes found\n")
    # the command runs as nobody, who may not look into pytest's own folders
    with tempfile.NamedTemporaryFile("w", suffix=".json") as facts:
        facts.write(to_json(MACHINES[path.stem]()))
        facts.flush()
        Path(facts.name).chmod(0o644)
        done = netinstall("plan", path, "--facts", facts.name, "--json")
    assert done.returncode == 0, done.stderr
    wanted = sum(disk.get("count", 1) for disk in tomllib.loads(path.read_text())["disks"])
    assert len(json.loads(done.stdout)["chosen"]) == wanted


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_takes_the_example(path: Path) -> None:
    Draft202012Validator(json_schema()).validate(tomllib.loads(path.read_text()))
