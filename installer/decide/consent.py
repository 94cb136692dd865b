"""What may be destroyed on a disk, and in which order what lies on it is taken apart."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from installer.decide.disks import carries, describe, layers_on
from installer.decide.identifiers import installed_by_us
from installer.decide.tables import names
from installer.model.errors import Problem
from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.storage import Disk as WantedDisk
from installer.model.storage_steps import TearDown


def problems(chosen: Iterable[tuple[int, WantedDisk, Disk]], facts: Facts) -> Iterator[Problem]:
    """Say what the answer file does not allow to be destroyed, or cannot destroy alone."""
    rows = list(chosen)
    ours = {disk.node for _, _, disk in rows}
    for index, want, disk in rows:
        yield from _refused(index, want, disk)
        yield from _shared(index, want, disk, ours, facts)


def _refused(index: int, want: WantedDisk, disk: Disk) -> Iterator[Problem]:
    if want.wipe == "force" or _is_blank(want, disk):
        return
    ours = installed_by_us(disk.table_uuid)
    if want.wipe == "known" and ours is not None:
        return
    what = carries(replace(disk, partitions=tuple(_unnamed(want, disk))))
    yield Problem(
        "disk.carries-data",
        f"{describe(disk)} carries {what}, and the answer file does not say that it may be "
        "destroyed",
        f"disks[{index}].wipe",
        'say wipe = "force" if it may'
        + (
            ', or wipe = "known" for what netinstall itself installed'
            if ours is not None
            else ", or keep what must stay"
        ),
    )


def _is_blank(want: WantedDisk, disk: Disk) -> bool:
    if want.keeps:
        return not _unnamed(want, disk)
    return not marked(disk)


def marked(disk: Disk) -> bool:
    """Whether anything was recognised on a disk."""
    return bool(disk.table or disk.filesystem or disk.partitions)


def _unnamed(want: WantedDisk, disk: Disk) -> list[FoundPartition]:
    """The partitions that no `keep` names."""
    kept = [part.keep for part in want.partitions if part.keep is not None]
    return [part for part in disk.partitions if not any(names(keep, part) for keep in kept)]


def _shared(
    index: int, want: WantedDisk, disk: Disk, ours: set[str], facts: Facts
) -> Iterator[Problem]:
    """Something that lies on this disk and on one that is not named cannot be taken apart."""
    for layer in _layers_to_stop(want, disk, facts.layers):
        others = [
            other
            for other in facts.disks
            if other.node not in ours and layer in layers_on(other, facts.layers)
        ]
        if others:
            yield Problem(
                "disk.shared",
                f"{layer.kind} {layer.name} ({layer.node}) lies on {disk.node} and on "
                f"{', '.join(describe(other) for other in others)}, which the answer file does not "
                "name: it cannot be stopped without writing there",
                f"disks[{index}].match",
                "match these disks, too, or take the disk out of it by hand",
            )


def _layers_to_stop(want: WantedDisk, disk: Disk, layers: Sequence[Layer]) -> list[Layer]:
    """What lies on the disk, lowest first; not what lies on partitions that are kept alone."""
    found = layers_on(disk, layers)
    if not want.keeps:
        return found
    gone = {part.node for part in _unnamed(want, disk)}
    stopped: list[Layer] = []
    for layer in found:
        if gone.intersection(layer.on):
            stopped.append(layer)
            gone.add(layer.node)
    return stopped


def tear_down(chosen: Iterable[tuple[WantedDisk, Disk]], facts: Facts) -> Iterator[TearDown]:
    """Take apart what lies on the disks, from the top; each layer once."""
    rows = list(chosen)
    stopped: dict[str, Layer] = {}
    for want, disk in rows:
        for layer in _layers_to_stop(want, disk, facts.layers):
            stopped[layer.node] = layer
    # a layer of several disks may be found in another order on each of them
    order = {layer.node: number for number, layer in enumerate(facts.layers)}
    for layer in sorted(stopped.values(), key=lambda one: order[one.node], reverse=True):
        yield TearDown(layer.node, layer.mounts, layer.swap, layer)
    for want, disk in rows:
        gone = {part.node for part in _unnamed(want, disk)} if want.keeps else None
        for part in disk.partitions:
            if (part.mounts or part.swap) and (gone is None or part.node in gone):
                yield TearDown(part.node, part.mounts, part.swap, None)
        if (disk.mounts or disk.swap) and gone is None:
            yield TearDown(disk.node, disk.mounts, disk.swap, None)
