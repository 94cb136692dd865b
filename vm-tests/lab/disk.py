"""Disk images: making them, and looking into them after a machine has used them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab import process

_MIB = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_CANARY = (b"netinstall canary: nobody may overwrite this. " * 32)[:512] * 2048


@dataclass(frozen=True)
class Partition:
    """One row of a GPT; `start` and `size` are in bytes, names as sfdisk gives them."""

    number: int
    start: int
    size: int
    type: str
    uuid: str
    name: str


@dataclass(frozen=True)
class PartitionTable:
    """A partition table as sfdisk reads it; `label` is "gpt" or "dos"."""

    label: str
    uuid: str
    sector: int
    partitions: tuple[Partition, ...]


def size_bytes(text: str) -> int:
    """ "512M", "4G" in powers of 1024, or bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not found:
        raise ValueError(f"{text!r} is no size (a number and K, M, G or T)")
    return int(found[1]) * _UNITS[found[2]]


def create(image: Path, size: str, *, canary: bool = False) -> Path:
    """A sparse raw image of `size` ("4G"). Raises FileExistsError.

    `canary` fills the first and the last MiB and one MiB in 64 with a pattern, so that a write
    to a disk that was not to be touched shows, and zeros that were written show as well.
    """
    total = size_bytes(size)
    with image.open("xb") as file:
        file.truncate(total)
        if canary:
            for offset in (*range(0, total - _MIB, 64 * _MIB), total - _MIB):
                file.seek(offset)
                file.write(_CANARY)
    return image


def fingerprint(image: Path, partition: Partition | None = None) -> str:
    """A hash of the content: equal exactly for images of equal bytes, however sparse they are.

    With `partition`, which begins at a whole MiB, of that part only.

    It is a sha256 over the size and over the offset and bytes of each MiB that is not all zeros,
    which spares reading the holes.
    """
    total = hashlib.sha256()
    zeros = bytes(_MIB)
    with image.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, end = (partition.start, partition.start + partition.size) if partition else (0, size)
        total.update(f"{end - start}\n".encode())
        offset = start
        while (offset := _next_data(file.fileno(), offset, size)) < end:
            offset -= offset % _MIB
            block = os.pread(file.fileno(), min(_MIB, end - offset), offset)
            if block != zeros[: len(block)]:
                total.update(f"{offset - start} {len(block)}\n".encode() + block)
            offset += len(block)
    return total.hexdigest()


def is_blank(image: Path) -> bool:
    """Whether every byte is zero."""
    empty = hashlib.sha256(f"{image.stat().st_size}\n".encode()).hexdigest()
    return fingerprint(image) == empty


def table(image: Path, sector: int = 512) -> PartitionTable:
    """The partition table of an image whose machine saw it with `sector`-byte sectors.

    Needs root and loop devices for 4096-byte sectors. Raises ProcessError if there is none.
    """
    if sector == 512:
        said = process.run(["sfdisk", "--json", str(image)])
    else:
        with loop_device(image, sector) as device:
            said = process.run(["sfdisk", "--json", str(device)])
    found = json.loads(said)["partitiontable"]
    return PartitionTable(
        label=found["label"],
        uuid=found["id"],
        sector=found.get("sectorsize", sector),
        partitions=tuple(
            Partition(
                # sfdisk makes a node's name: a "p" only after a digit.
                number=int(re.search(r"\d+\Z", row["node"])[0]),  # type: ignore[index]
                start=row["start"] * sector,
                size=row["size"] * sector,
                type=row["type"],
                uuid=row.get("uuid", ""),
                name=row.get("name", ""),
            )
            for row in found.get("partitions", [])
        ),
    )


def read_fat(image: Path, partition: Partition, path: str) -> bytes:
    """A file of an ESP, by mtools: no mount, no root. Raises ProcessError."""
    return process.run(["mtype", "-i", f"{image}@@{partition.start}", f"::{path}"])


def list_fat(image: Path, partition: Partition) -> list[str]:
    """Every file of an ESP as "/EFI/BOOT/BOOTX64.EFI". Raises ProcessError."""
    said = process.run(["mdir", "-b", "-/", "-i", f"{image}@@{partition.start}", "::/"])
    names = [line.removeprefix("::") for line in said.decode().splitlines()]
    return sorted(name for name in names if name and not name.endswith("/"))


def read_ext4(image: Path, partition: Partition, path: str) -> bytes:
    """A file of an ext4 file system, by debugfs: no mount, no root. Raises ProcessError.

    The journal is not replayed: a file system that was not unmounted may look older than it is.
    """
    with tempfile.TemporaryDirectory(prefix="lab-ext4-") as folder:
        target = Path(folder, "file")
        said = _debugfs(image, partition, f'dump "{path}" {target}')
        if not target.is_file():
            raise process.ProcessError(f"{image}, partition {partition.number}, {path}: {said}")
        return target.read_bytes()


def list_ext4(image: Path, partition: Partition, path: str) -> list[str]:
    """The names in one directory of an ext4 file system, sorted. Raises ProcessError."""
    said = _debugfs(image, partition, f'ls -p "{path}"')
    # debugfs(8), "ls -p": /inode/mode/uid/gid/name/size/
    names = [line.split("/")[5] for line in said.splitlines() if line.count("/") >= 6]
    if not names:
        raise process.ProcessError(f"{image}, partition {partition.number}, {path}: {said}")
    return sorted(name for name in names if name not in (".", ".."))


@contextmanager
def loop_device(
    image: Path, sector: int = 512, partition: Partition | None = None, *, writable: bool = False
) -> Iterator[Path]:
    """A loop device over an image or one of its partitions. Needs root."""
    window = (
        ["--offset", str(partition.start), "--sizelimit", str(partition.size)] if partition else []
    )
    mode = [] if writable else ["--read-only"]
    argv = ["losetup", "--find", "--show", *mode, "--sector-size", str(sector), *window]
    device = process.run([*argv, str(image)]).decode().strip()
    try:
        yield Path(device)
    finally:
        process.run(["losetup", "--detach", device])


@contextmanager
def mounted(
    image: Path, partition: Partition, filesystem: str, sector: int = 512
) -> Iterator[Path]:
    """A partition mounted read-only, for file systems that no tool reads from outside. Needs root.

    No journal is replayed: what a test sees is what the machine left on the disk.
    """
    as_is = {"ext4": "ro,noload", "xfs": "ro,norecovery", "btrfs": "ro,rescue=nologreplay"}
    with (
        loop_device(image, sector, partition) as device,
        tempfile.TemporaryDirectory(prefix="lab-mount-") as folder,
    ):
        argv = ["mount", "-t", filesystem, "-o", as_is[filesystem], str(device), folder]
        process.run(argv)
        try:
            yield Path(folder)
        finally:
            process.run(["umount", folder])


def inside(root: Path, path: str) -> Path:
    """Where `path` of a mounted system is, its absolute symbolic links followed inside `root`.

    NixOS is made of absolute links; the host's kernel would follow them to the host's files.
    Raises FileNotFoundError, and OSError for a loop of links.
    """
    pending = [part for part in PurePosixPath(path).parts if part != "/"][::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            done = done[:-1]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > 40:
                raise OSError(f"{path}: too many symbolic links")
            target = here.readlink()
            if target.is_absolute():
                done = []
            pending += [one for one in target.parts if one != "/"][::-1]
            continue
        here.lstat()
        done.append(part)
    return root.joinpath(*done)


def _debugfs(image: Path, partition: Partition, request: str) -> str:
    # libext2fs takes "?offset=" after a file's name (unix_io.c).
    source = f"{image}?offset={partition.start}"
    done = process.run_merged(["debugfs", "-R", request, source])
    return "\n".join(line for line in done.splitlines() if not line.startswith("debugfs 1."))


def _next_data(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: nothing but a hole up to the end
        return size
