"""Which disks: explicit matches only, ambiguity is an error, and every other disk has a reason."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from installer.model.answers import Disk as WantedDisk
from installer.model.answers import Match
from installer.model.errors import Problem
from installer.model.facts import Disk
from installer.model.plan import RejectedDisk
from installer.model.units import format_bytes


def describe(disk: Disk) -> str:
    """One line that a person can find the disk by: node, size, model, serial, transport."""
    words = [disk.node, format_bytes(disk.size)]
    words += [word for word in (disk.model, disk.transport) if word]
    if disk.serial:
        words.append(f"serial {disk.serial}")
    return " ".join(words)


def carries(disk: Disk) -> str:
    """What is on a disk, as far as it was seen, in words."""
    parts = [
        f"{part.node} {format_bytes(part.size)}"
        + (f" {part.filesystem}" if part.filesystem else "")
        + (f' "{part.label}"' if part.label else "")
        for part in disk.partitions
    ]
    if parts:
        return f"{disk.table or 'partitions'}: " + ", ".join(parts)
    return disk.filesystem or disk.table or "nothing recognised"


def mismatches(match: Match, disk: Disk) -> list[str]:
    """Why a disk is not what a match asks for; empty when it is."""
    reasons = []
    for field, pattern, values in (
        ("by-id", match.by_id, disk.by_id),
        ("by-path", match.by_path, disk.by_path),
        ("serial", match.serial, (disk.serial,) if disk.serial else ()),
        ("wwn", match.wwn, (disk.wwn,) if disk.wwn else ()),
        ("model", match.model, (disk.model,) if disk.model else ()),
    ):
        if pattern is None:
            continue
        if not any(fnmatchcase(value, pattern) for value in values):
            seen = ", ".join(values) if values else "unknown"
            reasons.append(f"{field} is {seen}, not {pattern}")
    if match.transport is not None and disk.transport != match.transport:
        reasons.append(f"transport is {disk.transport or 'unknown'}, not {match.transport}")
    if match.rotational is not None and disk.rotational != match.rotational:
        reasons.append("it is rotational" if disk.rotational else "it is not rotational")
    if match.size is not None:
        if match.size.min is not None and disk.size < match.size.min:
            reasons.append(
                f"{format_bytes(disk.size)} is smaller than {format_bytes(match.size.min)}"
            )
        if match.size.max is not None and disk.size > match.size.max:
            reasons.append(
                f"{format_bytes(disk.size)} is larger than {format_bytes(match.size.max)}"
            )
    return reasons


def never(disk: Disk, match: Match) -> list[str]:
    """Why a disk may not be taken although it is what a match asks for."""
    reasons = []
    if disk.size == 0:
        reasons.append("it has no medium (size 0)")
    if disk.read_only:
        reasons.append("it is read-only")
    if disk.removable and match.transport != "usb":
        reasons.append('it is removable (say transport = "usb" to take it)')
    reasons += [f"it is in use: {reason}" for reason in disk.in_use]
    return reasons


def choose(
    wanted: Sequence[WantedDisk], disks: Sequence[Disk]
) -> tuple[list[Disk | None], list[RejectedDisk], list[Problem]]:
    """Find the disk for each wanted one, in order; a disk is taken once.

    Returns:
        the chosen disks (None where there is a problem), every other disk with its reasons, and
        all problems.
    """
    chosen: list[Disk | None] = []
    problems: list[Problem] = []
    reasons: dict[str, list[str]] = {disk.node: [] for disk in disks}
    for index, want in enumerate(wanted):
        where = f"disks[{index}].match"
        prefix = f"disks[{index}]: " if len(wanted) > 1 else ""
        fitting: list[Disk] = []
        barred: list[tuple[Disk, list[str]]] = []
        for disk in disks:
            if any(disk is taken for taken in chosen):
                continue
            unlike = mismatches(want.match, disk)
            bars = [] if unlike else never(disk, want.match)
            reasons[disk.node] += [prefix + reason for reason in unlike + bars]
            if bars:
                barred.append((disk, bars))
            elif not unlike:
                fitting.append(disk)
        picked, problem = _pick(want, where, fitting, barred, disks)
        for disk in fitting:
            if disk is not picked:
                reasons[disk.node].append(prefix + _not_picked(want, picked))
        chosen.append(picked)
        if problem is not None:
            problems.append(problem)
    rejected = [
        RejectedDisk(disk, tuple(reasons[disk.node]))
        for disk in disks
        if not any(disk is taken for taken in chosen)
    ]
    return chosen, rejected, problems


def _not_picked(want: WantedDisk, picked: Disk | None) -> str:
    if picked is None:
        return "it is not the only one that matches"
    return f"{picked.node} is the {want.choose} that matches"


def _pick(
    want: WantedDisk,
    where: str,
    fitting: list[Disk],
    barred: list[tuple[Disk, list[str]]],
    disks: Sequence[Disk],
) -> tuple[Disk | None, Problem | None]:
    if want.choose is not None and fitting:
        extreme = (min if want.choose == "smallest" else max)(disk.size for disk in fitting)
        fitting = [disk for disk in fitting if disk.size == extreme]
    if len(fitting) == 1:
        return fitting[0], None
    if fitting:
        listing = "; ".join(describe(disk) for disk in fitting)
        return None, Problem(
            "disk.ambiguous",
            f"{len(fitting)} disks match, one is wanted: {listing}",
            where,
            "name one of them, for example by serial or by-id"
            + ("" if want.choose else ', or say choose = "smallest" or "largest"'),
        )
    if barred:
        listing = "; ".join(f"{describe(disk)} ({', '.join(reasons)})" for disk, reasons in barred)
        in_use = any(disk.in_use for disk, _ in barred)
        return None, Problem(
            "disk.in-use" if in_use else "disk.none",
            f"what matches cannot be taken: {listing}",
            where,
            "free the disk (unmount it, swapoff, stop what holds it) or match another one"
            if in_use
            else "match another disk",
        )
    why = "; ".join(
        f"{describe(disk)} ({', '.join(mismatches(want.match, disk)) or 'taken already'})"
        for disk in disks
    )
    return None, Problem(
        "disk.none",
        f"no disk matches: {why or 'this machine shows none at all'}",
        where,
        "compare with `netinstall probe`"
        if disks
        else "check the cabling, the controller's mode, and whether the boot environment's "
        "kernel has its driver",
    )
