"""What lies behind a failure: a disk that fails, a file system without room or turned read-only.

A program that writes to a broken disk knows the file and "Input/output error" or "Read-only file
system"; which disk it was, and that it was the disk, is known to the kernel.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from installer.act.holders import mounted_from
from installer.model.errors import InstallError, Problem
from installer.model.facts import Disk
from installer.model.units import MIB, format_bytes
from installer.observe.kernel_log import KernelLog

_FULL = "No space left on device"
_READ_ONLY = "Read-only file system"
_LOST = re.compile(f"{_READ_ONLY}|Input/output error|Structure needs cleaning")
_BROKEN_OFF = re.compile(
    "Unexpected EOF in archive|Error is not recoverable|due to previous errors"
)
"""What tar says when it is given no more, because it failed: it sounds like a broken archive."""

_ATTRIBUTE = "extended attribute"
"""In tar's words when it could not set one (lib/xattr-at.c)."""

_POOL_FULL = "space allocation error"
"""Said of a thin volume and of NVMe's "Capacity Exceeded" (block/blk-core.c: BLK_STS_NOSPC)."""

_NEARLY_FULL = 4 * MIB
_NOT_OF_DISKS = ("interrupted", "internal")
_OF_DISKS = (
    *("command.failed", "command.timeout", "device.io", "device.timeout"),
    *("nix.registration", "payload.too-large"),
)
"""What comes of a disk; a server may be gone at the same time for a reason of its own."""

_MOST_LINES = 6
_FEW = 5


def full(words: Iterable[str]) -> bool:
    """Say whether a program's words are about a file system without room."""
    return any(_FULL in word for word in words)


def hopeless(words: Iterable[str]) -> bool:
    """Say whether a program would say the same of each further file: no room, or no disk."""
    return any(_FULL in word or _LOST.search(word) for word in words)


def few(on_line: Callable[[str], None]) -> Callable[[str], None]:
    """Pass lines on, but of those about one full or lost disk only the first of each kind.

    Before it ends, tar says the same of each file that it was given already: of hundreds.
    """
    told: Counter[str] = Counter()

    def tell(line: str) -> None:
        kind = _kind(line)
        if kind:
            told[kind] += 1
            if told[kind] > _FEW:
                return
            if told[kind] == _FEW:
                line += " (more lines like this are left out)"
        on_line(line)

    return tell


def no_room(root: Path, mounts: Iterable[str], words: Sequence[str], *, where: str) -> InstallError:
    """Make the error for a program that found no room; it says which file systems are full.

    Args:
        root: of the new system.
        mounts: mount points in it.
        words: what the program said.
        where: how far it was.
    """
    said = next((word for word in words if _FULL in word), _FULL)
    return InstallError([_no_room(root, [*mounts], said, where)])


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
        causes = [*_read_only(root, mounts, said=_READ_ONLY in str(error))]
        if not causes and first.code != "payload.too-large" and full([str(first)]):
            causes = [_no_room(root, mounts, _FULL, first.where, words=str(first))]
    if not causes:
        return error
    after = [_following(one) if one.code in _OF_DISKS else one for one in error.problems]
    return InstallError([*causes, *after])


def survived(disks: Iterable[Disk], log: KernelLog) -> Iterator[str]:
    """Say which disks gave errors although the work went on to its end: a warning for each."""
    for shown, lines in _with_errors(disks, log).values():
        yield (
            f"{shown} gave errors while it was written to; the system is complete as far as could "
            "be checked, but disk, cable or controller may be failing. The kernel's words:\n"
            + "\n".join(lines[:_MOST_LINES])
        )


def _following(problem: Problem) -> Problem:
    """Say of what somebody noticed that it is no second cause, and each kind of words once."""
    words = problem.hint.splitlines()
    kinds: dict[str, list[str]] = {}
    others = []
    for word in words:
        kind = _kind(word)
        if kind:
            kinds.setdefault(kind, []).append(word)
        elif not _BROKEN_OFF.search(word):
            others.append(word)
    if kinds:
        words = [*others]
        for alike in kinds.values():
            words += [alike[0], *([f"(and {len(alike) - 1} more like it)"] if alike[1:] else [])]
    where = problem.where
    if problem.code == "command.failed":
        # what it was for is enough: nobody has to run the command again
        where = where.partition(": ")[0]
    what = f"because of that: {problem.what}"
    return replace(problem, what=what, where=where, hint="\n".join(words))


def _kind(word: str) -> str:
    """What a program's word says of a disk: in the kernel's words, "" for nothing."""
    lost = _LOST.search(word)
    return _FULL if _FULL in word else lost[0] if lost else ""


def _with_errors(disks: Iterable[Disk], log: KernelLog) -> dict[Disk, tuple[str, list[str]]]:
    """Of each disk that gave errors, what to call it and what the kernel said."""
    by_name = {disk.node.removeprefix("/dev/"): disk for disk in disks}
    found = {}
    for name, lines in log.errors(by_name.keys()).items():
        disk = by_name[name]
        shown = f"{disk.node} (serial {disk.serial})" if disk.serial else disk.node
        found[disk] = (f"the disk {shown}", lines)
    return found


def _failing(disks: Iterable[Disk], log: KernelLog) -> Iterator[Problem]:
    for disk, (shown, lines) in _with_errors(disks, log).items():
        what = "fails: reading or writing it gave errors"
        hint = "another disk, cable or controller; of a virtual disk, look at what it lies on"
        if any(_POOL_FULL in line for line in lines):
            what = "takes no more: the storage that it lies on has no space left"
            hint = "make room there: in the thin pool, on the SAN or on the virtual machine's host"
        yield Problem(
            "device.io",
            f"{shown} {what}",
            disk.stable_path,
            f"{hint}. The kernel's words:\n" + "\n".join(lines[:_MOST_LINES]),
        )


def _read_only(root: Path, mounts: Iterable[str], *, said: bool) -> Iterator[Problem]:
    """Say which file systems are read-only; with `said`, a program met one that was."""
    sources: dict[str, str] = {}
    found: list[str] = []
    for mount in mounts:
        where = root / mount.lstrip("/")
        with contextlib.suppress(OSError):
            source = mounted_from(where)
            if source is not None:
                sources[mount] = source
                if os.statvfs(where).f_flag & os.ST_RDONLY:
                    found.append(mount)
    # XFS refuses to be written to long before statvfs(3) says so, and asking in another way might
    # wait for ever
    which, among = (found, " and ") if found else (list(sources) if said else [], " or ")
    if which:
        # one cause, however many of them a disk carries
        one = len(found) < 2
        yield Problem(
            "device.io",
            f"the file system{'' if one else 's'} of {_listed(which, among)} became read-only "
            f"while {'it was' if one else 'they were'} written to",
            ", ".join(dict.fromkeys(sources[mount] for mount in which)),
            "a file system does so when its disk fails, or when somebody remounts it; "
            "look at the kernel's log (dmesg)",
        )


def _no_room(
    root: Path, mounts: Sequence[str], said: str, where: str, *, words: str = ""
) -> Problem:
    hint = "make the file system larger, or the payload smaller"
    which = _full_ones(root, mounts)
    if not which:
        which = _meant(root, mounts, words or said)
        if _ATTRIBUTE in said:
            which = f"for the attributes of a file {which}"
            hint = (
                "ext4 keeps those of a file in one block, which has 4 KiB, or 1 KiB on a file "
                "system below 512 MiB: make it larger, take xfs, or leave them out of the payload"
            )
    return Problem("payload.too-large", f"no space left {which}: {said}", where, hint)


def _full_ones(root: Path, mounts: Iterable[str]) -> str:
    """Say which of the target's file systems are full, "" if none shows it."""
    # subvolumes are full together
    found: dict[str, list[str]] = {}
    for mount in mounts:
        try:
            state = os.statvfs(root / mount.lstrip("/"))
        except OSError:
            continue
        if state.f_bavail * state.f_frsize < _NEARLY_FULL:
            found.setdefault(f"on {{}} ({_shown(root, mount)})", []).append(mount)
        elif state.f_files and not state.f_favail:
            inodes = f"{state.f_files} inodes on {_source(root, mount)}"
            found.setdefault(f"for one more file on {{}} ({inodes})", []).append(mount)
    told = [which.replace("{}", _listed(full)) for which, full in found.items()]
    return " and ".join(told)


def _meant(root: Path, mounts: Sequence[str], said: str) -> str:
    """Say which file system holds the file that a program names.

    btrfs without room for metadata still shows free bytes (fs/btrfs/super.c: btrfs_statfs).
    """
    named = re.search(rf"(?:{re.escape(str(root))}|(?<!\S)'?\.)(/[^:']*)", said)
    if named is not None:
        name = named[1]
        above = [mount for mount in mounts if mount in ("/", name) or name.startswith(f"{mount}/")]
        with contextlib.suppress(OSError, ValueError):
            mount = max(above, key=len)
            return f"on {mount} ({_shown(root, mount)})"
    return "on one of the file systems"


def _shown(root: Path, mount: str) -> str:
    state = os.statvfs(root / mount.lstrip("/"))
    return f"{format_bytes(state.f_blocks * state.f_frsize)} on {_source(root, mount)}"


def _source(root: Path, mount: str) -> str:
    return mounted_from(root / mount.lstrip("/")) or mount


def _listed(names: Sequence[str], last: str = " and ") -> str:
    return last.join(filter(None, (", ".join(names[:-1]), names[-1])))
