"""Which disks: explicit matches only, ambiguity is an error, and every other disk has a reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from installer.model.errors import Problem
from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.plan import RejectedDisk
from installer.model.storage import Disk as WantedDisk
from installer.model.storage import Match
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
        ("vendor", match.vendor, (disk.vendor,) if disk.vendor else ()),
        ("slot", match.slot, (disk.slot,) if disk.slot else ()),
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


def layers_on(disk: Disk, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that lie on a disk, directly or not, lowest first."""
    below = {disk.node, *disk.paths, *(part.node for part in disk.partitions)}
    found: list[Layer] = []
    waiting = list(layers)
    while ready := [layer for layer in waiting if below.intersection(layer.on)]:
        found += ready
        below.update(layer.node for layer in ready)
        waiting = [layer for layer in waiting if layer not in ready]
    return found


def uses(disk: Disk, layers: Sequence[Layer]) -> Iterator[str]:
    """Say what is mounted from a disk or swapped to it, through whatever lies on it."""
    holders: list[tuple[str, Disk | FoundPartition | Layer]] = [
        (disk.node, disk),
        *((part.node, part) for part in disk.partitions),
        *((f"{layer.node} ({layer.name})", layer) for layer in layers_on(disk, layers)),
    ]
    for what, holder in holders:
        yield from (f"{what} is mounted at {where}" for where in holder.mounts)
        if holder.swap:
            yield f"{what} is swapped to"


def never(disk: Disk, match: Match, want: WantedDisk, layers: Sequence[Layer]) -> list[str]:
    """Why a disk may not be taken although it is what a match asks for."""
    reasons = []
    if disk.size == 0:
        reasons.append("it has no medium (size 0)")
    if disk.read_only:
        reasons.append("it is read-only")
    if disk.removable and match.transport != "usb":
        reasons.append('it is removable (say transport = "usb" to take it)')
    if disk.boot_medium is not None:
        reasons.append(f"the running system needs it: {disk.boot_medium}")
    if disk.paths:
        reasons.append("it is a multipath device, whose partitions cannot be made yet")
    reasons += [f"it is in use: {reason}" for reason in disk.in_use]
    if want.wipe != "force":
        reasons += [f"it is in use: {reason}" for reason in uses(disk, layers)]
    return reasons


@dataclass(frozen=True)
class _Look:
    """What one alternative of a match finds; `barred` is what it may not have."""

    match: Match
    fitting: list[Disk]
    barred: list[tuple[Disk, list[str]]]
    against: dict[str, list[str]]


def choose(
    wanted: Sequence[WantedDisk], facts: Facts
) -> tuple[list[list[Disk]], list[RejectedDisk], list[Problem]]:
    """Find the disks for each wanted one, in order; a disk is taken once.

    Returns:
        the chosen disks (none where there is a problem), every other disk with its reasons, and
        all problems.
    """
    chosen: list[list[Disk]] = []
    problems: list[Problem] = []
    reasons: dict[str, list[str]] = {disk.node: [] for disk in facts.disks}
    taken: set[str] = set()
    for index, want in enumerate(wanted):
        prefix = f"disks[{index}]: " if len(wanted) > 1 else ""
        free = [disk for disk in facts.disks if disk.node not in taken]
        picked, looks, problem = _pick(want, f"disks[{index}].match", free, facts)
        taken.update(disk.node for disk in picked)
        chosen.append(picked)
        if problem is not None:
            problems.append(problem)
        last = looks[-1]
        for disk in free:
            if disk.node in last.against:
                reasons[disk.node] += [prefix + reason for reason in last.against[disk.node]]
            elif disk not in picked:
                reasons[disk.node].append(prefix + _not_picked(want, picked))
    rejected = [
        RejectedDisk(disk, tuple(reasons[disk.node]))
        for disk in facts.disks
        if disk.node not in taken
    ]
    return chosen, rejected, problems


def _pick(
    want: WantedDisk, where: str, disks: Sequence[Disk], facts: Facts
) -> tuple[list[Disk], list[_Look], Problem | None]:
    """Try the alternatives in order; the first that finds enough disks decides."""
    looks: list[_Look] = []
    for match in want.alternatives:
        look = _look(match, want, disks, facts.layers)
        looks.append(look)
        if len(look.fitting) < want.count:
            continue
        if len(look.fitting) == want.count:
            return look.fitting, looks, None
        picked = _extreme(want, look.fitting)
        if picked:
            return picked, looks, None
        return [], looks, _ambiguous(want, look, where, disks)
    return [], looks, _too_few(want, looks, where, facts.disks)


def _look(match: Match, want: WantedDisk, disks: Sequence[Disk], layers: Sequence[Layer]) -> _Look:
    look = _Look(match, [], [], {})
    for disk in disks:
        unlike = mismatches(match, disk)
        if not unlike:
            unlike = [
                f"exclude[{number}] fits it"
                for number, excluded in enumerate(want.exclude)
                if not mismatches(excluded, disk)
            ]
        bars = [] if unlike else never(disk, match, want, layers)
        if bars:
            look.barred.append((disk, bars))
        if unlike or bars:
            look.against[disk.node] = unlike + bars
        else:
            look.fitting.append(disk)
    return look


def _extreme(want: WantedDisk, fitting: list[Disk]) -> list[Disk]:
    """The smallest or largest `count`; none where the next one is of the same size."""
    if want.choose is None:
        return []
    ordered = sorted(fitting, key=lambda disk: disk.size, reverse=want.choose == "largest")
    if ordered[want.count - 1].size == ordered[want.count].size:
        return []
    picked = ordered[: want.count]
    return [disk for disk in fitting if disk in picked]


def _not_picked(want: WantedDisk, picked: list[Disk]) -> str:
    if not picked:
        return "it is not the only one that matches"
    if len(picked) == 1:
        return f"{picked[0].node} is the {want.choose} that matches"
    return f"{', '.join(disk.node for disk in picked)} are the {want.choose} that match"


def _for(disk: Disk, look: _Look) -> str:
    return "it matches" if disk in look.fitting else "taken already"


def _wanted(count: int) -> str:
    return "one is wanted" if count == 1 else f"{count} are wanted"


def _ambiguous(want: WantedDisk, look: _Look, where: str, disks: Sequence[Disk]) -> Problem:
    fitting = look.fitting
    if want.choose is not None:
        # only those of the size at which the choice would have to be made
        ordered = sorted((disk.size for disk in fitting), reverse=want.choose == "largest")
        fitting = [disk for disk in fitting if disk.size == ordered[want.count - 1]]
    listing = "; ".join(describe(disk) for disk in fitting)
    others = "; ".join(
        f"{describe(disk)} ({', '.join(look.against[disk.node])})"
        for disk in disks
        if disk.node in look.against
    )
    return Problem(
        "disk.ambiguous",
        f"{len(fitting)} disks match, {_wanted(want.count)}: {listing}"
        + (f". Not: {others}" if others else ""),
        where,
        "name one of them, for example by serial or by-id"
        if want.choose
        else 'name one of them, for example by serial or by-id, or say choose = "smallest" or '
        '"largest"',
    )


def _too_few(
    want: WantedDisk, looks: Sequence[_Look], where: str, disks: Sequence[Disk]
) -> Problem:
    look = looks[-1]
    barred = [pair for one in looks for pair in one.barred]
    if barred and not look.fitting:
        listing = "; ".join(f"{describe(disk)} ({', '.join(reasons)})" for disk, reasons in barred)
        in_use = any("in use" in reason for _, reasons in barred for reason in reasons)
        return Problem(
            "disk.in-use" if in_use else "disk.none",
            f"what matches cannot be taken: {listing}",
            where,
            "free the disk (unmount it, swapoff, stop what holds it), or match another one; in a "
            'boot environment of its own, wipe = "force" does that'
            if in_use
            else "match another disk",
        )
    why = "; ".join(
        f"{describe(disk)} ({', '.join(look.against.get(disk.node) or [_for(disk, look)])})"
        for disk in disks
    )
    if not look.fitting:
        what = "no disk matches"
    else:
        what = f"{len(look.fitting)} of the disks match, {_wanted(want.count)}"
    return Problem(
        "disk.none",
        f"{what}: {why or 'this machine shows none at all'}",
        where,
        "compare with `netinstall probe`"
        if disks
        else "check the cabling, the controller's mode, and whether the boot environment's "
        "kernel has its driver",
    )
