"""Disks for real: loop devices, libparted, mkfs."""

import json
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from installer.act import disk
from installer.act.run import Runner
from installer.decide.layout import lay_out
from installer.model.answers import Partition
from installer.model.errors import InstallError
from installer.model.facts import Disk
from installer.model.filesystems import FILESYSTEMS
from installer.model.plan import MakeFilesystem, WipeDisk, WriteTable
from installer.model.units import GIB

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
