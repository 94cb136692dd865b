"""File systems and what is made in them: subvolumes, swap files, copies of an ESP."""

import os
import tempfile
from hashlib import file_digest
from pathlib import Path, PurePosixPath

from installer.act.devices import node_of, settle
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError, fail
from installer.model.storage_steps import MakeFilesystem, MakeSwapFile, MirrorEsp

_MAKE_SECONDS = 1800
_PIECE = 1 << 20
_NO_SWAP_FILES = ("tmpfs", "zfs", "ramfs", "overlay", "bcachefs")
"""File systems whose files the kernel does not swap to."""


def make(step: MakeFilesystem, runner: Runner) -> None:
    """Run mkfs or mkswap, and make its subvolumes.

    Raises:
        InstallError: `device.timeout`, or a command's error.
    """
    nodes = [str(node_of(device)) for device in step.devices]
    on = ", ".join(nodes)
    runner.run(
        [*step.argv, *nodes], timeout=_MAKE_SECONDS, purpose=f"making {step.filesystem} on {on}"
    )
    if step.filesystem == "btrfs" and len(nodes) > 1:
        _introduce(nodes, runner)
    if step.subvolumes:
        _make_subvolumes(step.subvolumes, nodes[0], runner)
    settle(runner)


def _introduce(nodes: list[str], runner: Runner) -> None:
    """Tell the kernel the members of a btrfs: mkfs cannot while its module is not loaded."""
    load_module("btrfs", runner)
    runner.run(["btrfs", "device", "scan", *nodes], timeout=60)


def load_module(name: str, runner: Runner) -> None:
    """Load a kernel module if there is one; whatever needs it says better what is wrong."""
    try:
        Runner().run(["modprobe", "--quiet", name], timeout=60)
    except InstallError as error:
        if error.problems[0].code == "command.timeout":
            runner.on_line(str(error))


def _make_subvolumes(paths: tuple[str, ...], node: str, runner: Runner) -> None:
    with tempfile.TemporaryDirectory(prefix="netinstall-btrfs-") as folder:
        runner.run(
            ["mount", "-t", "btrfs", "-o", "subvolid=5", node, folder],
            timeout=120,
            purpose=f"mounting {node} for its subvolumes",
        )
        try:
            # a parent that is a subvolume itself comes first
            for path in sorted(paths, key=lambda one: (one.count("/"), one)):
                where = Path(folder, path)
                where.parent.mkdir(parents=True, exist_ok=True)
                runner.run(["btrfs", "--quiet", "subvolume", "create", str(where)], timeout=60)
        finally:
            runner.run(["umount", folder], timeout=120)


def make_swap_file(step: MakeSwapFile, target: Target, runner: Runner) -> None:
    """Make a swap file, without holes and for root only (swapon(8), "Files with holes").

    Raises:
        InstallError: `storage.swap-file`, `payload.hostile`, or a command's error.
    """
    path = target.confined(step.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = runner.run(
        ["stat", "--file-system", "--format=%T", str(path.parent)], timeout=60, capture=True
    ).strip()
    if kind in _NO_SWAP_FILES:
        raise fail(
            "storage.swap-file",
            f"{step.path} would lie on {kind}, which has no swap files",
            where=str(path),
            hint="put it on ext4, xfs, f2fs or btrfs, or make a swap partition",
        )
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    if kind == "btrfs":
        # only while the file is empty (btrfs(5), "SWAPFILE SUPPORT")
        runner.run(["chattr", "+C", str(path)], timeout=60)
    runner.run(
        ["fallocate", "--length", str(step.size), str(path)],
        timeout=_MAKE_SECONDS,
        purpose=f"making the swap file {step.path}",
    )
    runner.run(["mkswap", str(path)], timeout=120)


def mirror_esp(step: MirrorEsp, target: Target) -> None:
    """Make the other ESPs equal to the first, and read them back.

    What firmware starts is written last: a copy that was cut short does not boot.

    Raises:
        InstallError: `device.io` when a copy differs.
    """
    source = target.confined(step.source)
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    # sorted() is stable: kernels and entries first, loaders after them
    files.sort(key=lambda path: path.parts[0].upper() == "EFI")
    for name in step.targets:
        folder = target.confined(name)
        _remove_others(source, folder)
        for path in files:
            _copy(source / path, folder / path)
        for path in files:
            if _digest(source / path) != _digest(folder / path):
                raise fail(
                    "device.io",
                    f"{path} reads back otherwise than it was written",
                    where=str(PurePosixPath(name) / path),
                    hint="look at the kernel's log (dmesg); the disk may be broken",
                )


def _remove_others(source: Path, folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        twin = source / path.relative_to(folder)
        if path.is_dir() and not twin.is_dir():
            path.rmdir()
        elif not path.is_dir() and not twin.is_file():
            path.unlink()


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, copy.open("wb") as written:
        while piece := read.read(_PIECE):
            written.write(piece)
        written.flush()
        os.fsync(written.fileno())
        # the comparison shall read the disk
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
