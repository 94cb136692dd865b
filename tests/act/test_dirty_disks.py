"""Disks that held something before: nothing of it is left, or shines through a new table.

Arrays cannot be made on a kernel without md: their superblocks are made by hand here, and really
in vm-tests/test_storage_steps.py.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from lab.steps import gpt, row, run, signatures, wiped

from installer.act import disk
from installer.act.devices import device_size, node_of, partition_nodes
from installer.act.run import Runner
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.loop

KIB = 1024

Old = Callable[[Path], None]


def _md(version: str) -> Old:
    """An md superblock where this version has it (md(4); linux/raid/md_p.h)."""

    def make(node: Path) -> None:
        size = device_size(node)
        if version == "0.90":
            # 64 KiB-aligned, at least 64 KiB before the end; generic words, then its checksum
            words = [0xA92B4EFC, 0, 90, 0, 0, 0x11, 0, 1, 1024, 2, 2, 0, 0, 0x22, 0x33, 0x44]
            block = struct.pack("<1024I", *words, *[0] * 1008)
            start = size // (64 * KIB) * 64 * KIB - 64 * KIB
            total = sum(struct.unpack("<1024I", block))
            checksum = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
            block = block[:152] + struct.pack("<I", checksum) + block[156:]
        else:
            start = {"1.0": (size - 8 * KIB) // (4 * KIB) * 4 * KIB, "1.1": 0, "1.2": 4 * KIB}[
                version
            ]
            head = struct.pack("<IIII", 0xA92B4EFC, 1, 0, 0) + uuid4().bytes + b"host:old".ljust(32)
            block = (head + struct.pack("<QIIQIIi", 0, 1, 0, 2048, 0, 2, 0)).ljust(144, b"\0")
            block += struct.pack("<Q", start // 512)
            block = block.ljust(256, b"\0")
            total = sum(struct.unpack("<64I", block))
            checksum = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
            block = block[:216] + struct.pack("<I", checksum) + block[220:]
        with node.open("r+b", buffering=0) as stream:
            stream.seek(start)
            stream.write(block)

    return make


def _zfs(node: Path) -> None:
    """The four labels of a ZFS member: uberblocks in each (on-disk format, 1.2.1)."""
    size = device_size(node) // (256 * KIB) * 256 * KIB
    uberblock = struct.pack("<QQQQQ", 0x00BAB10C, 5000, 7, 0, 0).ljust(KIB, b"\0")
    with node.open("r+b", buffering=0) as stream:
        for label in (0, 256 * KIB, size - 512 * KIB, size - 256 * KIB):
            stream.seek(label + 128 * KIB)
            stream.write(uberblock * 128)


def _bcache(node: Path) -> None:
    run("make-bcache", "--bdev", node)


def _luks(node: Path) -> None:
    argv = ["cryptsetup", "luksFormat", "--type=luks2", "--batch-mode", "--key-file=-"]
    argv += ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--luks2-metadata-size=4m"]
    run(*argv, "--luks2-keyslots-size=16m", node, stdin="secret")


def _second_luks_header(node: Path) -> None:
    _luks(node)
    with node.open("r+b", buffering=0) as stream:
        stream.write(bytes(4096))


def _lvm(node: Path) -> None:
    run("pvcreate", "--yes", "--devices", node, "--config", "backup{backup=0}", node)


def _mkfs(name: str, *options: str) -> Old:
    def make(node: Path) -> None:
        run(f"mkfs.{name}", *options, node)

    return make


def _swap(node: Path) -> None:
    run("mkswap", node)


OLD: dict[str, Old] = {
    **{f"md {version}": _md(version) for version in ("0.90", "1.0", "1.1", "1.2")},
    "zfs": _zfs,
    "bcache": _bcache,
    "luks2": _luks,
    "luks2, second header": _second_luks_header,
    "lvm": _lvm,
    "ext4": _mkfs("ext4", "-q", "-F", "-F"),
    "xfs": _mkfs("xfs", "-q", "-f"),
    "btrfs": _mkfs("btrfs", "-q", "-f"),
    "vfat": _mkfs("vfat", "-F", "32"),
    "f2fs": _mkfs("f2fs", "-q", "-f"),
    "swap": _swap,
}
BOTH_SECTORS = pytest.mark.parametrize(
    "loop_disk", [(2 * GIB, 512), (2 * GIB, 4096)], indirect=True, ids=["512", "4096"]
)


@BOTH_SECTORS
@pytest.mark.parametrize("old", OLD.values(), ids=OLD.keys())
def test_nothing_is_left_of_what_lay_on_the_whole_disk(loop_disk: Path, old: Old) -> None:
    old(loop_disk)
    assert signatures(loop_disk) != [], "this test would see nothing"
    disk.wipe(wiped(loop_disk), Runner())
    assert signatures(loop_disk) == []
    assert run("blkid", "--probe", "--usages", "filesystem,raid,crypto", loop_disk, ok=(0, 2)) == ""


@BOTH_SECTORS
@pytest.mark.parametrize("old", OLD.values(), ids=OLD.keys())
def test_nothing_is_left_of_what_lay_in_a_partition(loop_disk: Path, old: Old) -> None:
    """Nor where the kernel was never told of it, and only the backup GPT says where it is."""
    sector = int(run("blockdev", "--getss", loop_disk))
    step = gpt(loop_disk, row(loop_disk, 1, 64, 300), row(loop_disk, 2, 500, 700), sector=sector)
    disk.write_table(step, Runner())
    old(node_of(step.partitions[1].ref))
    run("partx", "--delete", loop_disk)
    with loop_disk.open("r+b", buffering=0) as stream:
        stream.seek(sector)
        stream.write(bytes(64 * KIB - sector))
    disk.wipe(wiped(loop_disk), Runner())
    # the same places again: what is left would be seen
    run("sfdisk", "--quiet", loop_disk, stdin=_same(step.partitions[1].ref.start, sector))
    if not partition_nodes(loop_disk):
        run("partx", "--add", loop_disk)
    (node,) = partition_nodes(loop_disk)
    assert signatures(node) == []


def _same(start: int, sector: int) -> str:
    return f"label: gpt\nstart={start // sector}, size={700 * MIB // sector}\n"


@BOTH_SECTORS
@pytest.mark.parametrize("old", OLD.values(), ids=OLD.keys())
def test_nothing_shines_through_a_new_table(loop_disk: Path, old: Old) -> None:
    """Not even where a table that is gone had its partitions."""
    sector = int(run("blockdev", "--getss", loop_disk))
    step = gpt(loop_disk, row(loop_disk, 1, 64, 300), row(loop_disk, 2, 500, 700), sector=sector)
    disk.write_table(step, Runner())
    old(node_of(step.partitions[1].ref))
    run("partx", "--delete", loop_disk)
    for end in (0, device_size(loop_disk) - MIB):
        with loop_disk.open("r+b", buffering=0) as stream:
            stream.seek(end)
            stream.write(bytes(MIB))
    disk.wipe(wiped(loop_disk), Runner())
    disk.write_table(step, Runner())
    assert signatures(node_of(step.partitions[1].ref)) == []


def test_a_partition_table_inside_a_partition_goes_too(loop_disk: Path) -> None:
    step = gpt(loop_disk, row(loop_disk, 1, 64, 600))
    disk.write_table(step, Runner())
    inner = node_of(step.partitions[0].ref)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", inner, stdin="label: gpt\n,\n")
    assert "gpt" in signatures(inner)
    disk.wipe(wiped(loop_disk), Runner())
    disk.write_table(step, Runner())
    assert signatures(node_of(step.partitions[0].ref)) == []


@pytest.mark.parametrize("end", ["both", "backup"])
def test_no_gpt_is_left(loop_disk: Path, end: str) -> None:
    disk.write_table(gpt(loop_disk, row(loop_disk, 1, 1, 100)), Runner())
    if end == "backup":
        run("partx", "--delete", loop_disk)
        with loop_disk.open("r+b", buffering=0) as stream:
            stream.write(bytes(MIB))
        assert "gpt" in signatures(loop_disk)
    disk.wipe(wiped(loop_disk), Runner())
    with loop_disk.open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)
        stream.seek(-MIB, os.SEEK_END)
        assert stream.read() == bytes(MIB)
