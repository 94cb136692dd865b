"""Partition tables: where each partition lies, in a new table or beside what is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Literal

from installer.decide.identifiers import chosen_disk_id, chosen_uuid
from installer.model.errors import Problem
from installer.model.facts import Disk, FoundPartition
from installer.model.filesystems import (
    BIOS_BOOT_BYTES,
    FAT32_MINIMUM_4K,
    FILESYSTEMS,
    SWAP,
)
from installer.model.partition_types import GPT_ATTRIBUTES, GPT_TYPES, MBR_ACTIVE, MBR_TYPES
from installer.model.steps import PartitionRef
from installer.model.storage import Disk as WantedDisk
from installer.model.storage import Keep, Partition
from installer.model.storage_steps import PlannedPartition
from installer.model.units import MIB, Absolute, Percent, Rest, format_bytes

_LARGEST_ALIGNMENT = 64 * MIB
"""Bytes. USB bridges and RAID controllers report nonsense as optimal size; stripes are smaller."""

_MBR_SECTORS = 2**32
"""An MBR counts sectors with 32 bits."""

Use = Literal["raid", "lvm", "btrfs", "zfs"]


@dataclass(frozen=True)
class Row:
    """A partition with its place: new (`planned`), or one that is there already (`found`)."""

    wanted: Partition
    number: int
    ref: PartitionRef
    planned: PlannedPartition | None = None
    found: FoundPartition | None = None


@dataclass(frozen=True)
class Table:
    """What becomes of one disk. `index` is its entry in the answer file, `copy` counts from 0
    within the entry's `count`; `keeps` says that the old table is changed, not replaced."""

    disk: Disk
    want: WantedDisk
    index: int
    copy: int
    keeps: bool
    disk_id: str
    rows: tuple[Row, ...]
    removed: tuple[FoundPartition, ...] = ()
    stays: tuple[FoundPartition, ...] = ()


@dataclass
class _Gap:
    """Free space between partitions, in bytes; both ends are aligned."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass
class _Work:
    disk: Disk
    want: WantedDisk
    partitions: Sequence[Partition]
    where: str
    problems: list[Problem] = field(default_factory=list)

    def problem(self, code: str, what: str, hint: str, place: str = "") -> None:
        self.problems.append(Problem(code, what, self.where + place, hint))


def alignment(disk: Disk) -> int:
    """Return the multiple on which partitions begin and end, in bytes.

    1 MiB suits every sector, page and RAID stripe size in use; a device whose own stripes do not
    divide it says so (block/queue/optimal_io_size of sysfs-block).
    """
    stripe = lcm(MIB, disk.optimal_io) if disk.optimal_io else MIB
    unit = lcm(stripe, disk.physical_sector)
    return unit if unit <= _LARGEST_ALIGNMENT else MIB


def lay_out(
    disk: Disk,
    want: WantedDisk,
    partitions: Sequence[Partition],
    *,
    index: int,
    copy: int,
    entropy: str,
    used_by: Mapping[str, Use],
) -> tuple[Table | None, list[Problem]]:
    """Give every partition of a disk its place.

    Shares are of the space that is free for new partitions. Absolute sizes are rounded up to the
    alignment, shares and the rest down.

    Args:
        disk: the disk that was chosen.
        want: its entry in the answer file.
        partitions: those of the entry, with what the firmware needs added.
        index: number of the entry.
        copy: which of the entry's disks, from 0.
        entropy: seed of the identifiers.
        used_by: what the members of groups are for, by name.

    Returns:
        the table (None where there are problems), and the problems: `disk.too-small`, `disk.keep`,
        `disk.carries-data`.
    """
    work = _Work(disk, want, partitions, f"disks[{index}]")
    kept: dict[int, FoundPartition] = {}
    if want.keeps:
        kept = _kept(work)
    removed, stays = _others(work, kept)
    places = _places(work, stays) if not work.problems else {}
    if work.problems:
        return None, work.problems
    disk_id = _disk_id(disk, want, entropy)
    attributes = _attributes(want, partitions)
    rows = []
    free_numbers = iter(
        number for number in range(1, 129) if number not in {part.number for part in stays}
    )
    for position, part in enumerate(partitions):
        found = kept.get(position)
        if found is not None:
            ref = PartitionRef(
                disk.stable_path, found.number, found.partuuid or "", found.start, found.size
            )
            rows.append(Row(part, found.number, ref, found=found))
            continue
        start, size = places[position]
        number = next(free_numbers)
        partuuid = (
            chosen_uuid(entropy, f"partition {disk.stable_path} {number}")
            if want.table == "gpt"
            # the kernel's own form for an MBR (block/partitions/msdos.c)
            else f"{disk_id}-{number:02x}"
        )
        ref = PartitionRef(disk.stable_path, number, partuuid, start, size)
        use = used_by.get(part.name or "")
        rows.append(
            Row(
                part,
                number,
                ref,
                PlannedPartition(
                    ref, _name(part), _type_id(part, use, want.table), attributes[position]
                ),
            )
        )
    table = Table(
        disk, want, index, copy, want.keeps, disk_id, tuple(rows), tuple(removed), tuple(stays)
    )
    return table, []


def _kept(work: _Work) -> dict[int, FoundPartition]:
    """Find what is to be kept, by position in the answer file."""
    found: dict[int, FoundPartition] = {}
    disk = work.disk
    if disk.table != work.want.table:
        work.problem(
            "disk.keep",
            f"{disk.node} has {f'a table of type {disk.table}' if disk.table else 'no table'}, "
            f"and something of one of type {work.want.table} is to be kept",
            "compare with `netinstall probe`",
        )
        return found
    for position, part in enumerate(work.partitions):
        if part.keep is None:
            continue
        place = f".partitions[{position}].keep"
        fitting = [one for one in disk.partitions if names(part.keep, one)]
        listing = ", ".join(_described(one) for one in disk.partitions) or "none"
        if len(fitting) != 1:
            work.problem(
                "disk.keep",
                f"{len(fitting) or 'no'} partition{'s' if fitting else ''} of "
                f"{disk.node} fit{'' if fitting else 's'} {_keep_text(part.keep)}: "
                f"it has {listing}",
                "name one that is there, by number, PARTUUID or label",
                place,
            )
            continue
        (one,) = fitting
        if one in found.values():
            work.problem("disk.keep", f"{one.node} is kept twice", "name it once", place)
        wanted = part.filesystem_name
        if wanted is not None and not part.formats and one.filesystem != wanted:
            work.problem(
                "disk.keep",
                f"{one.node} holds {one.filesystem or 'nothing that is recognised'}, and is to be "
                f"used as {wanted} without being formatted",
                f'say filesystem = "{one.filesystem or wanted}", or format = true',
                place.removesuffix(".keep"),
            )
        found[position] = one
    return found


def names(keep: Keep, part: FoundPartition) -> bool:
    """Whether it is this partition that is to be kept."""
    if keep.number is not None:
        return part.number == keep.number
    if keep.uuid is not None:
        return (part.partuuid or "").lower() == keep.uuid
    return keep.label in (part.name, part.label)


def _keep_text(keep: Keep) -> str:
    given = {"number": keep.number, "uuid": keep.uuid, "label": keep.label}
    return " ".join(f"{key} {value}" for key, value in given.items() if value is not None)


def _described(part: FoundPartition) -> str:
    words = [f"{part.number}", format_bytes(part.size), part.filesystem or "unknown"]
    words += [f'"{text}"' for text in (part.name, part.label) if text]
    return " ".join(words)


def _others(
    work: _Work, kept: Mapping[int, FoundPartition]
) -> tuple[list[FoundPartition], list[FoundPartition]]:
    """What goes, and what stays: in a table that is kept, what the file does not name goes."""
    if not work.want.keeps:
        return [], []
    stays = [part for part in work.disk.partitions if part in kept.values()]
    return [part for part in work.disk.partitions if part not in stays], stays


def _gaps(work: _Work, stays: Sequence[FoundPartition]) -> list[_Gap]:
    disk, unit = work.disk, alignment(work.disk)
    if work.want.table == "gpt":
        # UEFI 2.10, 5.3: the backup header and its 16 KiB of entries take the last sectors
        end = disk.size - 16384 - disk.logical_sector
    else:
        end = min(disk.size, _MBR_SECTORS * disk.logical_sector)
    gaps = [_Gap(unit, end // unit * unit)]
    for part in sorted(stays, key=lambda part: part.start):
        last = gaps.pop()
        before, after = part.start // unit * unit, -(-(part.start + part.size) // unit) * unit
        if before > last.start:
            gaps.append(_Gap(last.start, before))
        gaps.append(_Gap(max(after, last.start), last.end))
    return [gap for gap in gaps if gap.size > 0]


def _places(work: _Work, stays: Sequence[FoundPartition]) -> dict[int, tuple[int, int]]:
    """Start and size of each new partition, by position; in order, each in the first gap."""
    unit = alignment(work.disk)
    gaps = _gaps(work, stays)
    new = [(n, part) for n, part in enumerate(work.partitions) if part.keep is None]
    sizes = _sizes(work, new, gaps, unit)
    if work.problems:
        return {}
    if len(gaps) > 1:
        # "rest" is the largest piece that the others leave, so they choose first
        new.sort(key=lambda row: isinstance(row[1].size, Rest))
    places = {}
    for position, part in new:
        size = sizes[position]
        gap = next((gap for gap in gaps if gap.size >= size), None)
        if gap is None:
            largest = max((gap.size for gap in gaps), default=0)
            work.problem(
                "disk.too-small",
                f"{_name(part)} needs {format_bytes(size)} in one piece; between what is kept on "
                f"{work.disk.node} the largest piece has {format_bytes(largest)}",
                "make it smaller, or keep less",
                f".partitions[{position}].size",
            )
            return {}
        places[position] = (gap.start, size)
        gap.start += size
    for position, part in new:
        least = max(minimum_bytes(part, work.disk.logical_sector), part.min_size or 0)
        if sizes[position] < least:
            work.problem(
                "disk.too-small",
                f"{_name(part)} would get {format_bytes(sizes[position])} on {work.disk.node}, "
                f"it needs at least {format_bytes(least)}",
                "give it more, or match a larger disk",
                ".partitions",
            )
    return places


def _sizes(
    work: _Work, new: Sequence[tuple[int, Partition]], gaps: Sequence[_Gap], unit: int
) -> dict[int, int]:
    usable = sum(gap.size for gap in gaps)
    sizes: dict[int, int] = {}
    rest: int | None = None
    for position, part in new:
        match part.size:
            case Absolute(count):
                sizes[position] = -(-count // unit) * unit
            case Percent(value):
                share = _bounded(int(usable * value / 100), part)
                sizes[position] = share // unit * unit
            case Rest():
                rest = position
    left = usable - sum(sizes.values())
    if left < 0:
        work.problem(
            "disk.too-small",
            f"the partitions need {format_bytes(usable - left)}, "
            f"{work.disk.node} has room for {format_bytes(max(usable, 0))}",
            'make a partition smaller (or "rest"), or match a larger disk',
        )
    elif rest is not None:
        part = work.partitions[rest]
        # what is kept may leave several pieces
        if len(gaps) > 1:
            left = _largest_left(gaps, [sizes[position] for position, _ in new if position != rest])
        sizes[rest] = _bounded(left, part) // unit * unit
    return sizes


def _largest_left(gaps: Sequence[_Gap], sizes: Sequence[int]) -> int:
    """The largest piece that is left once the others have their places."""
    left = [gap.size for gap in gaps]
    for size in sizes:
        fitting = next((n for n, room in enumerate(left) if room >= size), None)
        if fitting is not None:
            left[fitting] -= size
    return max(left, default=0)


def _bounded(size: int, part: Partition) -> int:
    """Never more than max-size, nor than there is; less than min-size is told later."""
    return size if part.max_size is None else min(size, part.max_size)


def minimum_bytes(part: Partition, logical_sector: int) -> int:
    """The smallest size at which a partition can be what it is for, in bytes."""
    if part.type == "bios-boot":
        return BIOS_BOOT_BYTES
    match part.filesystem_name:
        case None:
            return MIB
        case "swap":
            return SWAP.minimum_bytes
        case "vfat" if logical_sector == 4096:
            return FAT32_MINIMUM_4K
        case name:
            return FILESYSTEMS[name].minimum_bytes


def _disk_id(disk: Disk, want: WantedDisk, entropy: str) -> str:
    if want.keeps:
        return disk.table_uuid or ""
    if want.table == "gpt":
        return chosen_disk_id(entropy, disk.stable_path)
    return chosen_uuid(entropy, f"mbr {disk.stable_path}")[:8]


def _name(part: Partition) -> str:
    match part.type:
        case "esp":
            return "ESP"
        case "bios-boot":
            return "bios-boot"
    if part.name is not None:
        return part.name
    if part.filesystem_name == "swap":
        return "swap"
    mount = next(iter(part.mounts), "")
    # GPT names have 36 UTF-16 units (UEFI 2.10, table 5.6)
    return "root" if mount == "/" else mount.strip("/")[:36] or "data"


def _type_id(part: Partition, use: Use | None, table: str) -> str:
    if part.type_guid is not None:
        return part.type_guid
    kind = _kind(part, use)
    if table == "mbr":
        return MBR_TYPES.get(kind, MBR_TYPES["linux"])
    return GPT_TYPES.get(kind, GPT_TYPES["linux"])


def _kind(part: Partition, use: Use | None) -> str:
    """A key of the type tables: our type, what the members are for, or the mount point."""
    if part.type != "linux":
        return part.type
    if part.luks is not None:
        return "luks"
    if part.filesystem_name == "swap":
        return "swap"
    return use or next(iter(part.mounts), "linux")


def _attributes(want: WantedDisk, partitions: Sequence[Partition]) -> list[tuple[int, ...]]:
    """Attribute bits of each partition; on an MBR, what the kernel is read from is active.

    Boot code that is older than GRUB's, and some BIOSes, boot only a disk with an active partition.
    """
    if want.table == "gpt":
        return [tuple(sorted(GPT_ATTRIBUTES[name] for name in p.attributes)) for p in partitions]
    for mount in ("/boot", "/"):
        for active, part in enumerate(partitions):
            if mount in part.mounts:
                return [(MBR_ACTIVE,) if n == active else () for n in range(len(partitions))]
    return [() for _ in partitions]
