"""Tables of which something is kept: everything of it stays, and nothing else."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.steps import GUID, edited, gpt, row, run, signatures

from installer.act import disk
from installer.act.devices import node_of, partition_nodes
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.facts import FoundPartition
from installer.model.storage_steps import PlannedPartition
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.loop

BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
BOTH_SECTORS = pytest.mark.parametrize(
    "loop_disk", [(2 * GIB, 512), (2 * GIB, 4096)], indirect=True, ids=["512", "4096"]
)


def _found(part: PlannedPartition, node: Path) -> FoundPartition:
    ref = part.ref
    return FoundPartition(str(node), ref.number, ref.size, ref.start, ref.partuuid, part.type_id)


def _table(node: Path) -> Any:
    return json.loads(run("sfdisk", "--json", node))["partitiontable"]


def _written(node: Path, sector: int = 512) -> list[FoundPartition]:
    """A disk with Windows on its second partition, and something old on the others."""
    rows = (
        row(node, 1, 1, 100, "old one"),
        row(node, 2, 101, 300, "Basic data", type_id=BASIC_DATA, attributes=(0, 63)),
        row(node, 3, 401, 100, "old three"),
    )
    disk.write_table(gpt(node, *rows, sector=sector), Runner())
    nodes = partition_nodes(node)
    for one in nodes:
        run("mkfs.ext4", "-q", "-E", "nodiscard", one)
    return [_found(part, one) for part, one in zip(rows, nodes, strict=True)]


def _sum(node: Path, part: FoundPartition) -> str:
    with node.open("rb") as stream:
        stream.seek(part.start)
        return hashlib.sha256(stream.read(part.size)).hexdigest()


@BOTH_SECTORS
def test_what_is_kept_stays_and_what_goes_is_wiped(loop_disk: Path) -> None:
    sector = int(run("blockdev", "--getss", loop_disk))
    one, two, three = _written(loop_disk, sector)
    with loop_disk.open("r+b") as stream:
        stream.write(b"a boot loader")
    windows = _sum(loop_disk, two)
    before = _table(loop_disk)
    added = (
        row(loop_disk, 1, 501, 100, "nixos", attributes=(59,)),
        row(loop_disk, 5, 1, 90, "first"),
    )
    step = edited(loop_disk, kept=[two], removed=[one, three], added=added, sector=sector)
    disk.examine(step)
    disk.edit_table(step, Runner())

    after = _table(loop_disk)
    assert {name: after[name] for name in ("id", "firstlba", "lastlba")} == {
        name: before[name] for name in ("id", "firstlba", "lastlba")
    }
    rows = {r["node"][-1]: r for r in after["partitions"]}
    assert rows.keys() == {"1", "2", "5"}
    assert rows["2"] == before["partitions"][1]
    for part in added:
        made = rows[str(part.ref.number)]
        assert made["start"] * sector == part.ref.start
        assert made["size"] * sector == part.ref.size
        assert made["uuid"].lower() == part.ref.partuuid
        assert made["name"] == part.name
        assert signatures(node_of(part.ref)) == []
    assert rows["1"]["attrs"] == "GUID:59"
    assert _sum(loop_disk, two) == windows
    with loop_disk.open("rb") as stream:
        assert stream.read(13) == b"a boot loader"
        stream.seek(three.start)
        assert stream.read(MIB) == bytes(MIB)
    assert run("sfdisk", "--verify", loop_disk).startswith(f"{loop_disk}:\nNo errors detected.")


def test_an_mbr_with_logical_partitions_is_kept(loop_disk: Path) -> None:
    run(
        *("sfdisk", "--quiet", loop_disk),
        stdin="label: dos\nlabel-id: 0x1234abcd\n"
        "1: start=2048, size=204800, type=7, bootable\n"
        "2: start=206848, size=819200, type=f\n"
        "3: start=1026048, size=204800, type=83\n"
        "5: start=208896, size=204800, type=83\n",
    )
    run("partx", "--delete", loop_disk) if partition_nodes(loop_disk) else None
    run("partx", "--add", loop_disk)
    before = {r["node"]: r for r in _table(loop_disk)["partitions"]}
    one, two, three, five = (
        FoundPartition(
            str(node),
            number,
            size,
            start * 512,
            f"1234abcd-{number:02x}",
        )
        for node, (number, start, size) in zip(
            partition_nodes(loop_disk),
            # what the kernel shows of an extended partition: two sectors
            [
                (1, 2048, 204800 * 512),
                (2, 206848, 1024),
                (3, 1026048, 204800 * 512),
                (5, 208896, 204800 * 512),
            ],
            strict=True,
        )
    )
    run("mkfs.ext4", "-q", five.node)
    added = row(loop_disk, 4, 601, 100, type_id="83")
    step = edited(loop_disk, kept=[one, two, five], removed=[three], added=[added], label="mbr")
    disk.edit_table(step, Runner())
    after = _table(loop_disk)
    rows = {r["node"]: r for r in after["partitions"]}
    assert after["id"] == "0x1234abcd"
    for part in (one, two, five):
        assert rows[part.node] == before[part.node]
    assert three.node not in rows
    assert node_of(added.ref).is_block_device()
    run("fsck.ext4", "-fn", five.node)


def _changed(node: Path, found: list[FoundPartition], how: str) -> tuple[list[FoundPartition], str]:
    one, two, three = found
    match how:
        case "moved":
            return [one, replace(two, start=two.start + MIB), three], "partition 2 is another one"
        case "shorter":
            return [one, replace(two, size=MIB), three], "partition 2 is another one"
        case "another":
            return [one, replace(two, partuuid=GUID), three], "partition 2 is another one"
        case "gone":
            run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--delete", node, "3")
            return found, "partition 3 is gone"
        case "new":
            return [one, two], "partition 3 is new"
        case _:
            run("wipefs", "--all", "--force", "--quiet", node)
            return found, (
                "its table is gone, partition 1 is gone, partition 2 is gone, partition 3 is gone"
            )


@pytest.mark.parametrize("how", ["moved", "shorter", "another", "gone", "new", "wiped"])
def test_another_table_than_was_seen_is_refused(loop_disk: Path, how: str) -> None:
    found, difference = _changed(loop_disk, _written(loop_disk), how)
    keep = next(part for part in found if part.number == 2)
    step = edited(loop_disk, kept=[keep], removed=[p for p in found if p is not keep])
    before = disk_sum(loop_disk)
    for refuse in (disk.examine, lambda one: disk.edit_table(one, Runner())):
        with pytest.raises(InstallError) as caught:
            refuse(step)
        assert str(caught.value) == (
            f"error[disk.changed]: {loop_disk} is not as it was when the plan was made: "
            f"{difference}\n"
            f"  where: {loop_disk}\n"
            "  try:   plan again; nothing was written to it"
        )
    assert disk_sum(loop_disk) == before


def disk_sum(node: Path) -> str:
    """A hash of the ends of a disk."""
    with node.open("rb") as stream:
        begin = stream.read(600 * MIB)
        stream.seek(-MIB, os.SEEK_END)
        return hashlib.sha256(begin + stream.read()).hexdigest()


@pytest.mark.parametrize("damage", ["corrupt", "misplaced"])
def test_a_damaged_table_is_refused(loop_disk: Path, tmp_path: Path, damage: str) -> None:
    found = _written(loop_disk)
    if damage == "corrupt":
        with loop_disk.open("r+b") as stream:
            stream.seek(-512, os.SEEK_END)
            stream.write(bytes(512))
        text = "The backup GPT table is corrupt, but the primary appears OK, so that will be used."
    else:
        run("partx", "--delete", loop_disk)
        os.truncate(tmp_path / "disk.img", 2 * GIB + 100 * MIB)
        run("losetup", "--set-capacity", loop_disk)
        run("partx", "--add", loop_disk)
        text = "The backup GPT table is not on the end of the device."
    step = edited(loop_disk, kept=[found[1]], removed=[found[0], found[2]])
    with pytest.raises(InstallError) as caught:
        disk.edit_table(step, Runner())
    assert str(caught.value).startswith(
        f"error[disk.table]: the partition table of {loop_disk} is damaged: "
    )
    assert text in str(caught.value)
    assert str(caught.value).endswith(
        f"  where: {loop_disk}\n"
        "  try:   mend it with `sgdisk --move-second-header` or `sfdisk --relocate gpt-bak-std`, "
        "or keep nothing of it; nothing was written to it"
    )
    assert signatures(partition_nodes(loop_disk)[0]) == ["ext4"]


def test_nothing_new_lies_on_what_is_kept(loop_disk: Path) -> None:
    one, two, three = _written(loop_disk)
    added = row(loop_disk, 4, 400, 10)
    step = edited(loop_disk, kept=[one, two, three], added=[added])
    with pytest.raises(ValueError, match="would lie on partition 2, which is kept"):
        disk.edit_table(step, Runner())
