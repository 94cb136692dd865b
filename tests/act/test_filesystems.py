"""File systems for real: mkfs, subvolumes, swap files, copies of an ESP."""

import os
from pathlib import Path
from uuid import uuid4

import pytest
from lab.steps import gpt, row, run, signatures, wiped

from installer.act import disk, filesystems
from installer.act.devices import node_of
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError
from installer.model.filesystems import FILESYSTEMS
from installer.model.steps import PartitionRef
from installer.model.storage_steps import (
    EnableSwap,
    MakeFilesystem,
    MakeSwapFile,
    MirrorEsp,
    MountFilesystem,
)
from installer.model.units import MIB

HERE = ("ext4", "xfs", "btrfs", "vfat", "f2fs")
"""bcachefs has no tools in Debian 12."""


def _partition(node: Path, *sizes: int) -> list[PartitionRef]:
    disk.wipe(wiped(node), Runner())
    start = 1
    rows = []
    for number, size in enumerate(sizes or (1500,), start=1):
        rows.append(row(node, number, start, size))
        start += size
    disk.write_table(gpt(node, *rows), Runner())
    return [part.ref for part in rows]


@pytest.mark.loop
def test_file_systems_get_the_planned_uuid_and_label(loop_disk: Path) -> None:
    (root,) = _partition(loop_disk)
    for name in HERE:
        # mkfs.btrfs refuses a UUID that it has seen on another file system
        uuid = "1A2B-3C4D" if name == "vfat" else str(uuid4())
        argv = FILESYSTEMS[name].make_argv(uuid, "nixos")
        # a second time: what looks formatted is made anew
        for _ in range(2 if name != "btrfs" else 1):
            filesystems.make(MakeFilesystem((root,), name, uuid, argv), Runner())
        seen = run("blkid", "--probe", "--output", "export", node_of(root))
        assert f"\nUUID={uuid}\n" in f"\n{seen}"
        assert f"\nTYPE={name}\n" in f"\n{seen}"
        assert "LABEL=nixos" in seen
        assert set(signatures(node_of(root))) == {name}


@pytest.mark.loop
@pytest.mark.parametrize(
    "loop_disk", [(size * MIB, 512) for size in (100, 300, 512, 1024, 4096, 16384)], indirect=True
)
@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs"])
def test_a_file_system_takes_what_it_is_said_to_take(
    loop_disk: Path, tmp_path: Path, name: str
) -> None:
    size = int(run("blockdev", "--getsize64", loop_disk))
    if size < FILESYSTEMS[name].minimum_bytes:
        return
    run(*FILESYSTEMS[name].make_argv(str(uuid4()), None), loop_disk)
    root = tmp_path / "mnt"
    root.mkdir()
    run("mount", loop_disk, root)
    try:
        promised = FILESYSTEMS[name].capacity(size)
        assert promised > size // 2
        # the blocks of many files, without their bytes
        for number in range(256):
            with (root / str(number)).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, promised // 256)
        if (inodes := FILESYSTEMS[name].inodes(size)) is not None:
            assert 0.9 * os.statvfs(root).f_files < inodes <= os.statvfs(root).f_ffree + 256
    finally:
        run("umount", root)


@pytest.mark.loop
def test_subvolumes_are_made_with_their_parents(loop_disk: Path, tmp_path: Path) -> None:
    (root,) = _partition(loop_disk)
    step = MakeFilesystem(
        (root,),
        "btrfs",
        "u",
        ("mkfs.btrfs", "-q", "-f"),
        ("@home/me", "@", "nested/@log", "@home"),
    )
    filesystems.make(step, Runner())
    target = Target(tmp_path / "mnt", Runner())
    target.mount(MountFilesystem(root, "btrfs", "/", ()))
    try:
        listed = run("btrfs", "subvolume", "list", target.root)
    finally:
        target.abandon()
    assert sorted(line.split()[-1] for line in listed.splitlines()) == [
        *("@", "@home", "@home/me", "nested/@log")
    ]


@pytest.mark.loop
def test_a_file_system_on_several_devices_is_mounted_by_one(
    loop_disk: Path, tmp_path: Path
) -> None:
    refs = _partition(loop_disk, 400, 400)
    profiles = ("mkfs.btrfs", "-q", "-f", "--data", "raid1", "--metadata", "raid1")
    filesystems.make(MakeFilesystem(tuple(refs), "btrfs", "u", profiles, ("@",)), Runner())
    target = Target(tmp_path / "mnt", Runner())
    target.mount(MountFilesystem(refs[0], "btrfs", "/", ("subvol=@",)))
    try:
        assert "Data, RAID1" in run("btrfs", "filesystem", "df", target.root)
    finally:
        target.abandon()


@pytest.mark.loop
@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs"])
def test_a_swap_file_is_used(loop_disk: Path, tmp_path: Path, name: str) -> None:
    (root,) = _partition(loop_disk)
    argv = FILESYSTEMS[name].make_argv(str(uuid4()), None)
    filesystems.make(MakeFilesystem((root,), name, "u", argv), Runner())
    target = Target(tmp_path / "mnt", Runner())
    swaps = Path("/proc/swaps").read_text()
    target.mount(MountFilesystem(root, name, "/", ()))
    try:
        filesystems.make_swap_file(MakeSwapFile("/swap/file", 64 * MIB), target, Runner())
        target.swap_on(EnableSwap("/swap/file"))
        path = target.root / "swap/file"
        assert path.stat().st_mode & 0o777 == 0o600
        assert str(path) in Path("/proc/swaps").read_text()
    finally:
        target.abandon()
    assert Path("/proc/swaps").read_text() == swaps


@pytest.mark.root
def test_a_swap_file_cannot_lie_in_memory(tmp_path: Path) -> None:
    target = Target(tmp_path, Runner())
    target.mount(MountFilesystem("tmpfs", "tmpfs", "/", ("size=10M", "mode=755")))
    try:
        with pytest.raises(InstallError) as caught:
            filesystems.make_swap_file(MakeSwapFile("/swap/file", MIB), target, Runner())
    finally:
        target.abandon()
    assert str(caught.value) == (
        "error[storage.swap-file]: /swap/file would lie on tmpfs, which has no swap files\n"
        f"  where: {tmp_path}/swap/file\n"
        "  try:   put it on ext4, xfs, f2fs or btrfs, or make a swap partition"
    )


@pytest.mark.root
def test_a_read_only_mount_is_not_one_that_became_so(tmp_path: Path) -> None:
    target = Target(tmp_path, Runner())
    try:
        target.mount(MountFilesystem("tmpfs", "tmpfs", "/", ("size=10M", "mode=755")))
        target.mount(MountFilesystem("tmpfs", "tmpfs", "/kept", ("ro",)))
        target.flush()
        assert target.filesystems == ["/"]
    finally:
        target.abandon()


def _esp(folder: Path) -> None:
    for name, content in (
        ("EFI/BOOT/BOOTX64.EFI", b"loader" * 9999),
        ("EFI/nixos/kernel", os.urandom(3 * MIB)),
        ("loader/entries/nixos-1.conf", b"title NixOS"),
        ("loader/loader.conf", b""),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_other_esps_become_equal_to_the_first(tmp_path: Path) -> None:
    target = Target(tmp_path, Runner())
    _esp(tmp_path / "boot")
    for name in ("boot-2/EFI/old/deep", "boot-2/loader/loader.conf", "boot-3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "boot-2/EFI/old/deep/file").touch()
    (tmp_path / "boot-2/EFI/BOOT").write_bytes(b"a file where a folder shall be")
    step = MirrorEsp("/boot", ("/boot-2", "/boot-3"))
    for _ in range(2):
        filesystems.mirror_esp(step, target)
        for name in ("boot-2", "boot-3"):
            assert _tree(tmp_path / name) == _tree(tmp_path / "boot")


@pytest.mark.loop
def test_a_copy_that_reads_back_otherwise_is_told(loop_disk: Path, tmp_path: Path) -> None:
    """A link to a device, which does not end where the file does, stands for a broken disk."""
    target = Target(tmp_path, Runner())
    _esp(tmp_path / "boot")
    folder = tmp_path / "boot-2/EFI/nixos"
    folder.mkdir(parents=True)
    (folder / "kernel").symlink_to(loop_disk)
    with pytest.raises(InstallError) as caught:
        filesystems.mirror_esp(MirrorEsp("/boot", ("/boot-2",)), target)
    assert str(caught.value) == (
        "error[device.io]: EFI/nixos/kernel reads back otherwise than it was written\n"
        "  where: /boot-2/EFI/nixos/kernel\n"
        "  try:   look at the kernel's log (dmesg); the disk may be broken"
    )
