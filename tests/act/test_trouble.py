"""What is said of a disk that fails: real file systems on loop devices whose disk gives out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from lab.steps import run

from installer.act import trouble
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError, Problem, fail
from installer.model.facts import Disk
from installer.model.units import GIB, MIB
from installer.observe.kernel_log import KernelLog

TAR = fail(
    "command.failed",
    "tar ended with exit code 2",
    where="unpacking into /mnt: tar --extract --file=- --directory=/mnt",
    hint="its last words:\n"
    "tar: nix: Cannot mkdir: Read-only file system\n"
    "tar: Unexpected EOF in archive\n"
    "tar: etc: Cannot mkdir: Read-only file system\n"
    "tar: nix/store: Cannot mkdir: Read-only file system\n"
    "tar: Error is not recoverable: exiting now",
)
TAR_FOLLOWED = Problem(
    "command.failed",
    "because of that: tar ended with exit code 2",
    "unpacking into /mnt",
    "its last words:\ntar: nix: Cannot mkdir: Read-only file system\n(and 2 more like it)",
)


@contextmanager
def _mounted(disk: Path, where: Path, *options: str) -> Iterator[Path]:
    where.mkdir()
    run("mount", *options, disk, where)
    try:
        yield where
    finally:
        run("umount", where)


@pytest.fixture
def dying() -> Iterator[Path]:
    """A loop device of 512 MiB with an ext4, of which only the first 32 MiB can be written."""
    memory = os.memfd_create("disk", os.MFD_ALLOW_SEALING)
    with os.fdopen(memory, "r+b") as image:
        image.truncate(512 * MIB)
        node = run("losetup", "--find", "--show", f"/proc/{os.getpid()}/fd/{memory}").strip()
        try:
            options = ["-E", "nodiscard,lazy_itable_init=1", "-J", "size=4,location=16M"]
            run("mkfs.ext4", "-q", "-b", "4096", *options, node)
            image.truncate(32 * MIB)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
            yield Path(node)
        finally:
            run("losetup", "--detach", node)


def _disk(node: Path) -> Disk:
    return Disk(str(node), 512 * MIB, serial="S1", by_id=("virtio-S1",))


def _explained(error: InstallError, node: Path, root: Path, log: KernelLog) -> tuple[Problem, ...]:
    return trouble.explained(error, disks=[_disk(node)], root=root, mounts=["/"], log=log).problems


@pytest.mark.loop
def test_what_was_lost_on_the_way_is_heard(dying: Path, tmp_path: Path) -> None:
    with _mounted(dying, tmp_path / "mnt") as root, KernelLog() as log:
        target = Target(root, Runner(), filesystems=["/"])
        target.flush()
        assert log.errors([dying.name]) == {}
        # as tar does: it takes what the page cache took for written
        (root / "noise").write_bytes(os.urandom(64 * MIB))
        with pytest.raises(InstallError) as caught:
            target.flush()
        (lost,) = caught.value.problems
        assert lost == Problem(
            "device.io",
            "what was written to the new system did not all reach the disk",
            str(root),
            f"its last words:\nsync: error syncing '{root}': Input/output error",
        )
        disk, rest = _explained(caught.value, dying, root, log)
        assert rest == replace(lost, what=f"because of that: {lost.what}")
        assert (disk.code, disk.what, disk.where) == (
            "device.io",
            f"the disk {dying} (serial S1) fails: reading or writing it gave errors",
            "/dev/disk/by-id/virtio-S1",
        )
        advice, *words = disk.hint.splitlines()
        assert advice.startswith("another disk, cable or controller; of a virtual disk, ")
        assert advice.endswith("The kernel's words:")
        assert any(f" error, dev {dying.name}, sector " in line for line in words)
        assert len(words) <= 6


@pytest.mark.loop
def test_a_file_system_that_became_read_only_is_named(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    other = fail("command.failed", "tar ended with exit code 2", hint="it printed nothing")
    with KernelLog() as log, _mounted(loop_disk, tmp_path / "mnt") as root:
        assert _explained(other, loop_disk, root, log) == other.problems
        run("mount", "-o", "remount,ro", root)
        assert _explained(TAR, loop_disk, root, log) == (
            Problem(
                "device.io",
                "the file system of / became read-only while it was written to",
                str(loop_disk),
                "a file system does so when its disk fails, or when somebody remounts it; look at "
                "the kernel's log (dmesg)",
            ),
            TAR_FOLLOWED,
        )


@pytest.mark.loop
def test_a_file_system_that_is_becoming_read_only_is_one_of_those(
    loop_disk: Path, tmp_path: Path
) -> None:
    """As XFS does: it refuses to be written to, and is not yet shown as read-only."""
    run("mkfs.xfs", "-q", loop_disk)
    with KernelLog() as log, _mounted(loop_disk, tmp_path / "mnt") as root:
        (root / "boot").mkdir()
        disks = [_disk(loop_disk)]
        run("mount", "--bind", root, root / "boot")
        try:
            mounts = ["/", "/boot", "/not-mounted"]
            found = trouble.explained(TAR, disks=disks, root=root, mounts=mounts, log=log)
        finally:
            run("umount", root / "boot")
    cause, rest = found.problems
    assert cause.what == "the file system of / or /boot became read-only while it was written to"
    assert cause.where == str(loop_disk)
    assert rest == TAR_FOLLOWED


@pytest.mark.loop
def test_what_is_said_of_each_file_is_told_of_a_few(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / str(number)).touch()
    archive = tmp_path / "archive.tar"
    run("tar", "-C", source, "-cf", archive, ".")
    words: list[str] = []
    with _mounted(loop_disk, tmp_path / "mnt", "-o", "ro") as root:
        tell = trouble.few(words.append)
        for _ in range(2):
            with pytest.raises(InstallError) as caught:
                Runner(tell).run(["tar", "-C", str(root), "-xf", str(archive)], timeout=60)
    about = [word for word in words if "Read-only file system" in word]
    assert len(about) == 5
    assert about[-1].endswith(": Read-only file system (more lines like this are left out)")
    assert words[-1] == "tar: Exiting with failure status due to previous errors"
    assert trouble.hopeless(caught.value.problems[0].hint.splitlines())


@pytest.mark.loop
def test_all_file_systems_of_a_disk_are_one_cause(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.btrfs", "-q", loop_disk)
    with KernelLog() as log, _mounted(loop_disk, tmp_path / "mnt") as root:
        run("btrfs", "-q", "subvolume", "create", root / "nix")
        run("btrfs", "-q", "subvolume", "create", root / "home")
        mounts = ["/", "/nix", "/home"]
        for mount in mounts[1:]:
            run("mount", "-o", f"subvol={mount}", loop_disk, root / mount[1:])
        try:
            run("mount", "-o", "remount,ro", root)
            run("mount", "-o", "remount,ro", root / "nix")
            run("mount", "-o", "remount,ro", root / "home")
            disks = [_disk(loop_disk)]
            found = trouble.explained(TAR, disks=disks, root=root, mounts=mounts, log=log)
        finally:
            run("umount", root / "nix", root / "home")
    cause, rest = found.problems
    assert cause.what == (
        "the file systems of /, /nix and /home became read-only while they were written to"
    )
    assert cause.where == str(loop_disk)
    assert rest == TAR_FOLLOWED


@pytest.mark.loop
@pytest.mark.parametrize("loop_disk", [(32 * MIB, 512)], indirect=True)
def test_a_program_without_room_is_told_as_such(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    with KernelLog() as log, _mounted(loop_disk, tmp_path / "mnt") as root:
        with pytest.raises(OSError, match="No space left"):
            (root / "noise").write_bytes(bytes(GIB // 8))
        with pytest.raises(InstallError) as caught:
            Runner().run(["cp", "/bin/bash", str(root)], timeout=60, purpose="copying")
        full, rest = _explained(caught.value, loop_disk, root, log)
        assert rest.code == "command.failed"
        assert rest.what == "because of that: cp ended with exit code 1"
        assert full.code == "payload.too-large"
        assert full.what.startswith("no space left on / (")
        assert full.what.endswith(f" MiB on {loop_disk}): No space left on device")
        assert full.where == f"copying: cp /bin/bash {root}"


@pytest.mark.loop
@pytest.mark.parametrize("loop_disk", [(64 * MIB, 512)], indirect=True)
def test_attributes_that_are_too_large_are_told_as_such(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", "-b", "1024", loop_disk)
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, "user.noise", bytes(1500))
    archive = tmp_path / "archive.tar"
    run("tar", "--xattrs", "-C", tmp_path, "-cf", archive, "./file")
    words: list[str] = []
    with _mounted(loop_disk, tmp_path / "mnt") as root:
        argv = ["tar", "--xattrs", "--xattrs-include=*", "-C", str(root), "-xf", str(archive)]
        # for tar it is a warning
        Runner(words.append).run(argv, timeout=60)
        assert trouble.hopeless(words)
        (found,) = trouble.no_room(root, ["/", "/boot"], words, where="here").problems
    assert found.code == "payload.too-large"
    assert found.what.startswith("no space left for the attributes of a file on / (")
    assert f" MiB on {loop_disk}): tar: " in found.what
    assert "'user.noise'" in found.what
    assert found.hint.startswith("ext4 keeps those of a file in one block, which has 4 KiB, or 1 ")


@pytest.mark.loop
def test_a_full_file_system_that_does_not_show_it_is_found_by_the_file(
    loop_disk: Path, tmp_path: Path
) -> None:
    """As btrfs does, when it has no room for metadata."""
    run("mkfs.btrfs", "-q", loop_disk)
    with _mounted(loop_disk, tmp_path / "mnt") as root:
        (root / "srv").mkdir()
        for words, which in (
            ("tar: ./srv/a: Cannot open: No space left on device", f"/ (2.00 GiB on {loop_disk})"),
            (f"cp: {root}/a: No space left on device", f"/ (2.00 GiB on {loop_disk})"),
            ("No space left on device", "one of the file systems"),
        ):
            (found,) = trouble.no_room(root, ["/", "/nix"], [words], where="").problems
            assert found.what == f"no space left on {which}: {words}"


def test_what_no_disk_can_do_is_not_blamed_on_it(tmp_path: Path) -> None:
    # a file in the place of /dev/kmsg, because nothing but the kernel can speak as the kernel
    path = tmp_path / "kmsg"
    path.touch()
    lost = fail("network.lost", "http://192.0.2.1/a: Connection refused", where="payload.manifest")
    with KernelLog(path) as log:
        path.write_text("3,1,2,-;I/O error, dev sda, sector 8 op 0x1:(WRITE)\n SUBSYSTEM=block\n")
        cause, rest = _explained(lost, Path("/dev/sda"), tmp_path, log)
    assert cause.code == "device.io"
    assert rest == lost.problems[0]


@pytest.mark.root
def test_others_disks_and_others_words_are_not_taken(tmp_path: Path) -> None:
    with KernelLog() as log:
        # what programs write there is no word of the kernel, whatever they say of themselves
        Path("/dev/kmsg").write_text("<3>I/O error, dev vdz, sector 1 op 0x1:(WRITE)\n")
        assert log.errors(["vdz"]) == {}
    stopped = fail("interrupted", "interrupted by a person")
    with KernelLog() as log:
        assert _explained(stopped, Path("/dev/vdz"), tmp_path, log) == stopped.problems


@pytest.mark.loop
def test_errors_that_nothing_failed_of_are_told(dying: Path) -> None:
    with KernelLog() as log:
        assert list(trouble.survived([_disk(dying)], log)) == []
        with dying.open("r+b", buffering=0) as disk:
            disk.seek(256 * MIB)
            disk.write(bytes(MIB))
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(disk.fileno())
        (warning,) = trouble.survived([_disk(dying)], log)
        first, *words = warning.splitlines()
        assert first.startswith(
            f"the disk {dying} (serial S1) gave errors while it was written to;"
        )
        assert first.endswith("may be failing. The kernel's words:")
        assert any(f"error on dev {dying.name}, logical block " in line for line in words)
        assert list(trouble.survived([_disk(dying)], log)) == []


@pytest.mark.parametrize(
    ("line", "disks", "counts"),
    [
        ("I/O error, dev vda, sector 8 op 0x1:(WRITE) flags 0x800", ["vda"], True),
        ("EXT4-fs error (device vda2): ext4_journal_check_start:83: aborted", ["vda"], True),
        ("EXT4-fs (nvme0n1p2): Remounting filesystem read-only", ["nvme0n1"], True),
        ("nvme nvme0: I/O 12 QID 1 timeout, aborting", ["nvme0n1"], True),
        ("Aborting journal on device vda2-8.", ["vda"], True),
        ("critical target error, dev sda, sector 0 op 0x3:(DISCARD) flags 0x800", ["sda"], False),
        ("operation not supported error, dev sda, sector 0 op 0x9:(WRITE_ZEROES)", ["sda"], False),
        ("I/O error, dev vdaa, sector 8 op 0x1:(WRITE) flags 0x800", ["vda"], False),
        ("I/O error, dev vda, sector 8 op 0x1:(WRITE) flags 0x800", [], False),
        ("EXT4-fs (vda2): VFS: Can't find ext4 filesystem", ["vda"], False),
    ],
)
def test_which_words_are_about_a_disk(
    tmp_path: Path, line: str, disks: list[str], *, counts: bool
) -> None:
    # a file in the place of /dev/kmsg, because nothing but the kernel can speak as the kernel
    path = tmp_path / "kmsg"
    path.touch()
    with KernelLog(path) as log:
        path.write_text(f"3,1,2,-;{line}\n SUBSYSTEM=block\n")
        assert log.errors(disks) == ({disks[0]: [line]} if counts else {})


def test_a_disk_whose_pool_is_full_is_told_as_such(tmp_path: Path) -> None:
    # a file in the place of /dev/kmsg, because nothing but the kernel can speak as the kernel
    path = tmp_path / "kmsg"
    path.touch()
    said = "critical space allocation error, dev sda, sector 2175936 op 0x1:(WRITE) flags 0x101000"
    with KernelLog(path) as log:
        path.write_text(f"3,1,2,-;{said}\n SUBSYSTEM=block\n")
        cause, rest = _explained(TAR, Path("/dev/sda"), tmp_path, log)
    assert cause == Problem(
        "device.io",
        "the disk /dev/sda (serial S1) takes no more: the storage that it lies on has no space "
        "left",
        "/dev/disk/by-id/virtio-S1",
        "make room there: in the thin pool, on the SAN or on the virtual machine's host. The "
        f"kernel's words:\n{said}",
    )
    assert rest == TAR_FOLLOWED


def test_no_kernel_log_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert KernelLog(tmp_path / "none").errors(["vda"]) == {}
