"""Names of what is made, which something on a disk that stays may have already.

The kernel and /dev have each name once: a second array named root would be assembled beside the
first, and /dev/md/root lead to whichever udev saw last.
"""

from collections.abc import Iterable, Iterator

from installer.decide.disks import describe, layers_on
from installer.decide.stack import Stack
from installer.model.answers import AnswerFile
from installer.model.errors import Problem
from installer.model.facts import Disk, Facts, FoundPartition, Layer, LayerKind
from installer.model.plan import RejectedDisk
from installer.model.storage import Raid, VolumeGroup, Zpool
from installer.model.storage_steps import TearDown


def problems(
    answers: AnswerFile,
    stack: Stack,
    torn_down: Iterable[TearDown],
    rejected: Iterable[RejectedDisk],
    facts: Facts,
) -> Iterator[Problem]:
    """Say which names are taken by what is assembled and not taken apart, and by pools."""
    others = [one.disk for one in rejected]
    gone = {step.layer.node for step in torn_down if step.layer is not None}
    staying = [layer for layer in facts.layers if layer.node not in gone]
    for place, group in answers.groups():
        match group:
            case Raid():
                yield from _taken(f"{place}.name", "md", group.name, staying, facts)
            case VolumeGroup():
                yield from _taken(f"{place}.name", "lvm", group.name, staying, facts)
            case Zpool():
                yield from _taken(f"{place}.name", "zfs", group.name, staying, facts)
                yield from _exported(f"{place}.name", group.name, staying, others)
            case _:
                pass
    for one in stack.opened:
        yield from _taken("luks.name", "crypt", one.luks.name, staying, facts)


def _taken(
    where: str, kind: LayerKind, name: str, staying: Iterable[Layer], facts: Facts
) -> Iterator[Problem]:
    for layer in staying:
        if not _has(layer, kind, name):
            continue
        disks = [describe(one) for one in facts.disks if layer in layers_on(one, facts.layers)]
        yield Problem(
            "storage.name-taken",
            f"{layer.kind} {layer.name} ({layer.node}) has the name {name} already"
            + (f"; it lies on {', '.join(disks)}, which stays" if disks else ""),
            where,
            "take another name, or match that disk, too",
        )


def _exported(
    where: str, name: str, staying: Iterable[Layer], others: Iterable[Disk]
) -> Iterator[Problem]:
    """Pools that nobody imported: the installed system, which imports by name, would find two."""
    imported = {node for layer in staying if layer.kind == "zfs" for node in layer.on}
    for disk in others:
        places: tuple[Disk | FoundPartition, ...] = (disk, *disk.partitions)
        for part in places:
            if (part.filesystem, part.label) == ("zfs_member", name) and part.node not in imported:
                yield Problem(
                    "storage.name-taken",
                    f"{part.node} belongs to a ZFS pool named {name} already; it lies on "
                    f"{describe(disk)}, which stays",
                    where,
                    "take another name, or match that disk, too",
                )


def _has(layer: Layer, kind: LayerKind, name: str) -> bool:
    if kind == "lvm":
        # device-mapper's name of a volume: GROUP-VOLUME, with the hyphens in either doubled; the
        # names of answer files have none
        group, _, volume = layer.name.partition("-")
        return (layer.kind, group) == ("lvm", name) and not volume.startswith("-")
    if kind == "crypt":
        # all of device-mapper's share /dev/mapper
        return layer.kind in ("crypt", "lvm", "other") and layer.name == name
    return layer.kind == kind and layer.name == name
