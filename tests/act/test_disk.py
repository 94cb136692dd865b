"""Disks for real: loop devices, libparted, sfdisk."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.steps import ESP, GUID, gpt, row, run, signatures, wiped

from installer.act import disk
from installer.act.devices import node_of, partition_nodes
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.facts import Disk
from installer.model.partition_types import MBR_ACTIVE
from installer.model.storage_steps import WipeDisk, WriteTable
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.loop

BOTH_SECTORS = pytest.mark.parametrize(
    "loop_disk", [(2 * GIB, 512), (2 * GIB, 4096)], indirect=True, ids=["512", "4096"]
)


def _plan(node: Path, sector: int = 512) -> WriteTable:
    return gpt(
        node,
        row(node, 1, 1, 300, "ESP", type_id=ESP),
        row(node, 2, 301, 1, "bios-boot", type_id="21686148-6449-6e6f-744e-656564454649"),
        row(node, 3, 302, 200, "swap", attributes=(63,)),
        row(node, 4, 502, 1500, "the root", attributes=(0, 2, 59)),
        sector=sector,
    )


def _wipe(node: Path, size: int = 2 * GIB) -> None:
    disk.wipe(wiped(node, size), Runner())


def _sector(node: Path) -> int:
    return int(run("blockdev", "--getss", node))


def _sfdisk(node: Path) -> dict[str, object]:
    text = subprocess.run(
        ["sfdisk", "--json", str(node)], check=True, capture_output=True, text=True
    ).stdout
    table: dict[str, object] = json.loads(text)["partitiontable"]
    return table


@BOTH_SECTORS
def test_table_is_as_planned_and_repeatable(loop_disk: Path) -> None:
    sector = _sector(loop_disk)
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
            (r["start"] * sector, r["size"] * sector, r["uuid"].lower(), r["type"].lower())
            for r in rows
        ]
        planned = [(p.ref.start, p.ref.size, p.ref.partuuid, p.type_id) for p in step.partitions]
        assert seen == planned
        assert [r["name"] for r in rows] == ["ESP", "bios-boot", "swap", "the root"]
        assert [r.get("attrs") for r in rows] == [
            *(None, None, "GUID:63"),
            "RequiredPartition LegacyBIOSBootable GUID:59",
        ]
        for part in step.partitions:
            assert node_of(part.ref).is_block_device()
        with loop_disk.open("rb") as stream:
            assert stream.read(2) == b"\xcd\x18", "a BIOS would hang in the protective MBR"


@BOTH_SECTORS
def test_an_mbr_is_as_planned_and_repeatable(loop_disk: Path) -> None:
    sector = _sector(loop_disk)
    rows = (
        replace(row(loop_disk, 1, 1, 300, type_id="83"), attributes=(MBR_ACTIVE,)),
        row(loop_disk, 2, 301, 200, type_id="82"),
        row(loop_disk, 3, 501, 1500, type_id="fd"),
    )
    step = WriteTable(str(loop_disk), "mbr", "1234abcd", sector, rows)
    for _ in range(2):
        _wipe(loop_disk)
        disk.write_table(step, Runner())
        table = _sfdisk(loop_disk)
        assert (table["label"], table["id"]) == ("dos", "0x1234abcd")
        seen: Any = table["partitions"]
        assert [(r["start"] * sector, r["size"] * sector, r["type"]) for r in seen] == [
            (r.ref.start, r.ref.size, r.type_id) for r in rows
        ]
        assert [r.get("bootable", False) for r in seen] == [True, False, False]
        for part in rows:
            assert node_of(part.ref).is_block_device()
        with loop_disk.open("rb") as stream:
            boot = stream.read(512)
        assert boot[:2] == b"\xcd\x18"
        assert boot[510:] == b"\x55\xaa"


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
    step = replace(wiped(loop_disk), **changes)
    with pytest.raises(InstallError) as caught:
        disk.wipe(step, Runner())
    assert str(caught.value) == (
        f"error[disk.changed]: {loop_disk} {text.format(node=loop_disk)}\n"
        f"  where: {loop_disk}\n"
        "  try:   plan again; nothing was written to it"
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
    step = _plan(loop_disk)
    last = step.partitions[-1]
    beyond = replace(last, ref=replace(last.ref, size=4 * GIB))
    with pytest.raises(InstallError) as caught:
        disk.write_table(replace(step, partitions=(*step.partitions[:-1], beyond)), Runner())
    assert str(caught.value).startswith("error[device.io]: libparted could not write the table: ")
    assert f"  where: {loop_disk}\n  try:   look at the kernel's log" in str(caught.value)


def test_a_partition_in_use_is_named(loop_disk: Path, tmp_path: Path) -> None:
    disk.write_table(_plan(loop_disk), Runner())
    root = node_of(_plan(loop_disk).partitions[3].ref)
    run("mkfs.ext4", "-q", root)
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", root, where)
    try:
        with pytest.raises(InstallError) as caught:
            _wipe(loop_disk)
    finally:
        run("umount", where)
    assert str(caught.value) == (
        f"error[disk.in-use]: {loop_disk} is in use ({root} is mounted at {where})\n"
        f"  where: {loop_disk}\n"
        "  try:   see `lsblk` for what holds it; nothing was written to it"
    )
    run("fsck.ext4", "-fn", root)


def test_old_partitions_are_forgotten(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk), Runner())
    assert len(partition_nodes(loop_disk)) == 4
    _wipe(loop_disk)
    assert partition_nodes(loop_disk) == []


def test_a_partition_that_a_program_looks_at_is_awaited(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk), Runner())
    lines: list[str] = []
    opened = os.open(partition_nodes(loop_disk)[0], os.O_RDONLY)

    def heard(line: str) -> None:
        lines.append(line)
        os.close(opened)

    disk.wipe(wiped(loop_disk), Runner(heard))
    (line,) = lines
    assert line.startswith(f"waiting for {loop_disk}: ")
    assert partition_nodes(loop_disk) == []


def test_a_disk_is_refused_on_which_something_was_not_seen(loop_disk: Path) -> None:
    unmarked = replace(wiped(loop_disk), unmarked=True)
    disk.examine(unmarked)
    subprocess.run(["mkfs.ext4", "-q", loop_disk], check=True)
    with pytest.raises(InstallError) as caught:
        disk.examine(unmarked)
    assert str(caught.value) == (
        f"error[disk.carries-data]: {loop_disk} carries ext4, and had nothing on it that was "
        "recognised when the plan was made\n"
        f"  where: {loop_disk}\n"
        "  try:   let udev look again (`udevadm trigger`), and plan again; nothing was written to "
        "it"
    )
    disk.examine(wiped(loop_disk))


def test_a_blank_disk_may_be_wanted(loop_disk: Path) -> None:
    disk.examine(wiped(loop_disk, blank=True))
    disk.wipe(wiped(loop_disk, blank=True), Runner())


@pytest.mark.parametrize("place", [0, 300, 5 * MIB, GIB, 2 * GIB - 2 * MIB, 2 * GIB - 1])
def test_a_disk_that_is_not_blank_is_refused(loop_disk: Path, place: int) -> None:
    with loop_disk.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"x")
    for refuse in (disk.examine, lambda step: disk.wipe(step, Runner())):
        with pytest.raises(InstallError) as caught:
            refuse(wiped(loop_disk, blank=True))
        assert str(caught.value) == (
            f"error[disk.carries-data]: {loop_disk} is not blank: there is something in the MiB "
            f"at {place // MIB * MIB} bytes\n"
            f"  where: {loop_disk}\n"
            '  try:   look what it is; wipe = "force" destroys it; nothing was written to it'
        )
    with loop_disk.open("rb") as stream:
        stream.seek(place)
        assert stream.read(1) == b"x"


def test_a_disk_that_will_be_released_is_examined_all_the_same(
    loop_disk: Path, tmp_path: Path
) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", loop_disk, where)
    try:
        with pytest.raises(InstallError, match="is in use"):
            disk.examine(wiped(loop_disk))
        disk.examine(wiped(loop_disk), {str(loop_disk)})
        with pytest.raises(InstallError, match=r"the plan was made for 1\.00 GiB"):
            disk.examine(wiped(loop_disk, GIB), {str(loop_disk)})
    finally:
        run("umount", where)
    assert signatures(loop_disk) == ["ext4"]


def test_a_finished_installation_is_marked_while_it_is_mounted(
    loop_disk: Path, tmp_path: Path
) -> None:
    step = _plan(loop_disk)
    disk.write_table(step, Runner())
    root = node_of(step.partitions[3].ref)
    run("mkfs.ext4", "-q", root)
    before = _sfdisk(loop_disk)
    run("mount", root, tmp_path)
    try:
        disk.mark(str(loop_disk), "99999999-fc78-40cd-8002-e86c45580b47", Runner())
    finally:
        run("umount", tmp_path)
    after = _sfdisk(loop_disk)
    assert after["id"] == "99999999-FC78-40CD-8002-E86C45580B47"
    assert after["partitions"] == before["partitions"]
    assert run("sfdisk", "--verify", loop_disk).startswith(f"{loop_disk}:\nNo errors detected.")


def test_a_disarmed_disk_has_no_table(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk), Runner())
    disk.disarm(Disk(str(loop_disk), 2 * GIB), print)
    with loop_disk.open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)
        stream.seek(-MIB, os.SEEK_END)
        assert stream.read() == bytes(MIB)


def test_only_the_planned_disk_is_disarmed(loop_disk: Path) -> None:
    disk.write_table(_plan(loop_disk), Runner())
    lines: list[str] = []
    disk.disarm(Disk(str(loop_disk), GIB), lines.append)
    (line,) = lines
    assert line.startswith(
        f"{loop_disk} could not be wiped after the failure, and may boot half a system: "
        f"error[disk.changed]: {loop_disk} is not {loop_disk} of 1.00 GiB any more"
    )
    assert _sfdisk(loop_disk)["label"] == "gpt"
