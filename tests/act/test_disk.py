"""Disks for real: loop devices, libparted, mkfs."""

import fcntl
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from installer.act import disk
from installer.act.run import Runner
from installer.decide.layout import lay_out
from installer.model.answers import Partition
from installer.model.errors import InstallError
from installer.model.facts import Disk
from installer.model.filesystems import FILESYSTEMS
from installer.model.plan import MakeFilesystem, PartitionRef, WipeDisk, WriteTable
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.loop

GUID = "5b193300-fc78-40cd-8002-e86c45580b47"
PARTITIONS = [
    {"type": "esp", "size": "300 MiB"},
    {"type": "bios-boot", "size": "1 MiB"},
    {"type": "swap", "size": "10 %"},
    {"mount": "/", "size": "rest"},
]


def _plan(node: Path, sector: int) -> WriteTable:
    facts = Disk(str(node), 2 * GIB, logical_sector=sector)
    laid, problems = lay_out(
        facts, [Partition.model_validate(part) for part in PARTITIONS], "00" * 16, "disks[0]"
    )
    assert not problems
    return WriteTable(str(node), GUID, sector, tuple(row.planned for row in laid))


def _wipe(node: Path, size: int = 2 * GIB) -> None:
    disk.wipe(WipeDisk(str(node), str(node), size, None, None, ""), Runner())


def _sfdisk(node: Path) -> dict[str, object]:
    text = subprocess.run(
        ["sfdisk", "--json", str(node)], check=True, capture_output=True, text=True
    ).stdout
    table: dict[str, object] = json.loads(text)["partitiontable"]
    return table


@pytest.mark.parametrize(
    "loop_disk", [(2 * GIB, 512), (2 * GIB, 4096)], indirect=True, ids=["512", "4096"]
)
def test_table_is_as_planned_and_repeatable(
    loop_disk: Path, request: pytest.FixtureRequest
) -> None:
    sector = 4096 if "4096" in request.node.name else 512
    step = _plan(loop_disk, sector)
    for _ in range(2):
        _wipe(loop_disk)
        disk.write_table(step, Runner())
        table = _sfdisk(loop_disk)
        assert table["label"] == "gpt"
        assert str(table["id"]).lower() == GUID
        rows = table["partitions"]
        assert isinstance(rows, list)
        seen = [
            (row["start"] * sector, row["size"] * sector, row["uuid"].lower(), row["type"].lower())
            for row in rows
        ]
        planned = [(p.ref.start, p.ref.size, p.ref.partuuid, p.type_guid) for p in step.partitions]
        assert seen == planned
        assert [row["name"] for row in rows] == ["ESP", "bios-boot", "swap", "root"]
        for row in step.partitions:
            assert disk.partition_node(row.ref).is_block_device()
        with loop_disk.open("rb") as stream:
            assert stream.read(2) == b"\xcd\x18", "a BIOS would hang in the protective MBR"


def test_filesystems_get_the_planned_uuid_and_label(loop_disk: Path) -> None:
    _wipe(loop_disk)
    step = _plan(loop_disk, 512)
    disk.write_table(step, Runner())
    root = step.partitions[3].ref
    for filesystem in FILESYSTEMS.values():
        # mkfs.btrfs refuses a UUID that it has seen on another file system
        uuid = "1A2B-3C4D" if filesystem.name == "vfat" else str(uuid4())
        argv = filesystem.make_argv(uuid, "nixos")
        disk.make_filesystem(MakeFilesystem(root, filesystem.name, uuid, argv), Runner())
        node = disk.partition_node(root)
        seen = subprocess.run(
            ["blkid", "--probe", "--output", "export", str(node)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert f"\nUUID={uuid}\n" in f"\n{seen}"
        assert f"\nTYPE={filesystem.name}\n" in f"\n{seen}"
        assert "LABEL=nixos" in seen


def test_a_disk_in_use_is_refused_and_untouched(loop_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(loop_disk)], check=True)
    where = tmp_path / "mounted"
    where.mkdir()
    subprocess.run(["mount", str(loop_disk), str(where)], check=True)
    try:
        with pytest.raises(InstallError) as caught:
            _wipe(loop_disk)
    finally:
        subprocess.run(["umount", str(where)], check=True)
    assert caught.value.problems[0].code == "disk.in-use"
    assert f"{loop_disk} is in use" in str(caught.value)
    subprocess.run(["fsck.ext4", "-fn", str(loop_disk)], check=True, capture_output=True)


def test_another_size_than_planned_is_refused(loop_disk: Path) -> None:
    with pytest.raises(InstallError) as caught:
        _wipe(loop_disk, size=GIB)
    assert "has 2.00 GiB, the plan was made for 1.00 GiB" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"serial": "S1"}, "has the serial unknown, the plan was made for S1"),
        ({"wwn": "0x1"}, "has the wwn unknown, the plan was made for 0x1"),
        ({"node": "/dev/sdz"}, "is {node} now, the plan was made for /dev/sdz"),
    ],
)
def test_another_disk_than_planned_is_refused(
    loop_disk: Path, changes: dict[str, Any], text: str
) -> None:
    with loop_disk.open("r+b") as stream:
        stream.write(b"precious")
    step = replace(WipeDisk(str(loop_disk), str(loop_disk), 2 * GIB, None, None, ""), **changes)
    with pytest.raises(InstallError) as caught:
        disk.wipe(step, Runner())
    assert str(caught.value) == (
        f"error[disk.changed]: {loop_disk} {text.format(node=loop_disk)}\n"
        f"  where: {loop_disk}\n"
        "  try:   plan again; nothing was written"
    )
    with loop_disk.open("rb") as stream:
        assert stream.read(8) == b"precious"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gone", ("error[disk.changed]: {path} is gone\n  where: {path}\n"
         "  try:   was it unplugged? compare with `netinstall probe`")),
        ("file", ("error[disk.changed]: {path} is no block device\n  where: {path}\n"
         "  try:   plan again")),
    ],
)  # fmt: skip
def test_what_is_no_disk_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    path = tmp_path / name
    with pytest.raises(InstallError) as caught:
        disk.wipe(WipeDisk(str(path), str(path), 8, None, None, ""), Runner())
    assert str(caught.value) == text.format(path=path)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_table_that_libparted_refuses_is_told(loop_disk: Path) -> None:
    step = _plan(loop_disk, 512)
    last = step.partitions[-1]
    beyond = replace(last, ref=replace(last.ref, size=4 * GIB))
    with pytest.raises(InstallError) as caught:
        disk.write_table(replace(step, partitions=(*step.partitions[:-1], beyond)), Runner())
    assert str(caught.value).startswith(
        "error[device.io]: libparted could not write the table, or the kernel did not take it: "
    )
    assert f"  where: {loop_disk}\n  try:   look at the kernel's log" in str(caught.value)


def test_a_partition_that_is_not_there_or_elsewhere_is_told(loop_disk: Path) -> None:
    _wipe(loop_disk)
    step = _plan(loop_disk, 512)
    disk.write_table(step, Runner())
    ref = step.partitions[3].ref
    with pytest.raises(InstallError) as caught:
        disk.partition_node(replace(ref, number=9))
    assert str(caught.value) == (
        f"error[device.timeout]: the kernel does not show partition 9 of {loop_disk}\n"
        f"  where: {loop_disk}\n"
        "  try:   look at the kernel's log (dmesg) and `lsblk`"
    )
    with pytest.raises(InstallError) as caught:
        disk.partition_node(PartitionRef(ref.disk, ref.number, ref.partuuid, MIB, ref.size))
    assert (
        f"error[device.timeout]: partition 4 of {loop_disk} lies at {ref.start} with {ref.size} "
        f"bytes, planned were {MIB} and {ref.size}\n"
    ) in str(caught.value)
    assert "try:   something else changed the table meanwhile; install again" in str(caught.value)


def test_a_disk_that_somebody_keeps_locked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    with path.open() as theirs, path.open() as ours:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        with pytest.raises(InstallError) as caught:
            disk._lock(ours.fileno(), path, seconds=0.2)
        assert str(caught.value) == (
            f"error[device.timeout]: another program kept {path} locked for 0.2 s\n"
            f"  where: {path}\n"
            "  try:   end that program; udev only locks a disk while it looks at it"
        )
        fcntl.flock(theirs, fcntl.LOCK_UN)
        disk._lock(ours.fileno(), path, seconds=0.2)


def test_a_disarmed_disk_has_no_table(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk, 512), Runner())
    disk.disarm(Disk(str(loop_disk), 2 * GIB), Runner())
    with loop_disk.open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)
        stream.seek(-MIB, os.SEEK_END)
        assert stream.read() == bytes(MIB)


def test_only_the_planned_disk_is_disarmed(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk, 512), Runner())
    lines: list[str] = []
    disk.disarm(Disk(str(loop_disk), GIB), Runner(lines.append))
    (line,) = lines
    assert line.startswith(
        f"could not wipe {loop_disk} after the failure: "
        f"error[disk.changed]: {loop_disk} is not {loop_disk} of 1.00 GiB any more"
    )
    assert _sfdisk(loop_disk)["label"] == "gpt"
