"""What lies behind a failure: a disk that fails, a file system without room or turned read-only.

A program that writes to a broken disk knows the file and "Input/output error" or "Read-only file
system"; which disk it was, and that it was the disk, is known to the kernel.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from installer.act.holders import mounted_from
from installer.model.errors import InstallError, Problem
from installer.model.facts import Disk
from installer.model.units import MIB, format_bytes
from installer.observe.kernel_log import KernelLog

_FULL = "No space left on device"
_LOST = re.compile("Read-only file system|Input/output error|Structure needs cleaning")
_NEARLY_FULL = 4 * MIB
_NOT_OF_DISKS = ("interrupted", "internal")
_MOST_LINES = 6


def full(words: Iterable[str]) -> bool:
    """Say whether a program's words are about a file system without room."""
    return any(_FULL in word for word in words)


def hopeless(words: Iterable[str]) -> bool:
    """Say whether a program would say the same of each further file: no room, or no disk."""
    return any(_FULL in word or _LOST.search(word) for word in words)


def no_room(root: Path, mounts: Iterable[str], words: Sequence[str], *, where: str) -> InstallError:
    """Make the error for a program that found no room; it says which file systems are full.

    Args:
        root: of the new system.
        mounts: mount points in it.
        words: what the program said.
        where: how far it was.
    """
    said = next((word for word in words if _FULL in word), _FULL)
    return InstallError([_no_room(_full_ones(root, mounts), said, where)])


def explained(
    error: InstallError,
    *,
    disks: Iterable[Disk],
    root: Path,
    mounts: Iterable[str],
    log: KernelLog,
) -> InstallError:
    """Put before an error what caused it, as far as the disks did. Never raises.

    Args:
        error: what stopped the work.
        disks: those that the plan works on.
        root: of the new system.
        mounts: the mount points in it of the plan's own file systems, still mounted.
        log: the kernel's words since the work began.
    """
    first = error.problems[0]
    if first.code in _NOT_OF_DISKS:
        return error
    causes = [*_failing(disks, log)]
    if not causes:
        mounts = list(mounts)
        causes = [*_read_only(root, mounts)]
        if not causes and first.code != "payload.too-large" and full([str(first)]):
            causes = [_no_room(_full_ones(root, mounts), _FULL, first.where)]
    return InstallError([*causes, *error.problems]) if causes else error


def _failing(disks: Iterable[Disk], log: KernelLog) -> Iterator[Problem]:
    by_name = {disk.node.removeprefix("/dev/"): disk for disk in disks}
    for name, lines in log.errors(by_name.keys()).items():
        disk = by_name[name]
        shown = f"{disk.node} (serial {disk.serial})" if disk.serial else disk.node
        yield Problem(
            "device.io",
            f"the disk {shown} fails: reading or writing it gave errors",
            disk.stable_path,
            "another disk, cable or controller; of a virtual disk, look at what it lies on. "
            "The kernel's words:\n" + "\n".join(lines[:_MOST_LINES]),
        )


def _read_only(root: Path, mounts: Iterable[str]) -> Iterator[Problem]:
    for mount in mounts:
        where = root / mount.lstrip("/")
        with contextlib.suppress(OSError):
            source = mounted_from(where)
            if source is not None and os.statvfs(where).f_flag & os.ST_RDONLY:
                yield Problem(
                    "device.io",
                    f"the file system of {mount} became read-only while it was written to",
                    source,
                    "a file system does so when its disk fails, or when somebody remounts it; "
                    "look at the kernel's log (dmesg)",
                )


def _no_room(which: str, said: str, where: str) -> Problem:
    return Problem(
        "payload.too-large",
        f"no space left {which}: {said}",
        where,
        "make the file system larger, or the payload smaller",
    )


def _full_ones(root: Path, mounts: Iterable[str]) -> str:
    """Say which of the target's file systems are full."""
    found = []
    for mount in mounts:
        try:
            state = os.statvfs(root / mount.lstrip("/"))
        except OSError:
            continue
        size = format_bytes(state.f_blocks * state.f_frsize)
        if state.f_bavail * state.f_frsize < _NEARLY_FULL:
            found.append(f"on {mount} ({size} on {_source(root, mount)})")
        elif state.f_files and not state.f_favail:
            found.append(
                f"for one more file on {mount} ({state.f_files} inodes on {_source(root, mount)})"
            )
    return " and ".join(found) or "on one of the file systems"


def _source(root: Path, mount: str) -> str:
    return mounted_from(root / mount.lstrip("/")) or mount
