"""Where each partition lies: sizes made absolute, aligned, and what the firmware needs added."""

from dataclasses import dataclass

from installer.decide.identifiers import chosen_uuid
from installer.model.answers import Disk as WantedDisk
from installer.model.answers import Partition
from installer.model.errors import Problem
from installer.model.facts import Disk, Firmware
from installer.model.filesystems import (
    BIOS_BOOT_BYTES,
    DEFAULT_ESP_BYTES,
    FAT32_MINIMUM_4K,
    FILESYSTEMS,
    SWAP,
)
from installer.model.plan import PartitionRef, PlannedPartition
from installer.model.units import MIB, Absolute, Percent, Rest, format_bytes

ALIGNMENT = MIB
"""1 MiB suits every sector, page and RAID stripe size in use (parted's "optimal" as well)."""

TYPE_GUIDS = {
    # UEFI 2.10, table 5.7
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    # GRUB manual, "BIOS installation"
    "bios-boot": "21686148-6449-6e6f-744e-656564454649",
    # UAPI group, Discoverable Partitions Specification
    "swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "linux": "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "/": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "/home": "933ac7e1-2eb4-4f13-b844-0e14e2aef915",
    "/srv": "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",
    "/var": "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
}
"""Partition types, by our type or by mount point. "/" is root for x86-64."""


@dataclass(frozen=True)
class LaidOut:
    """A partition with its place; `wanted` is the answer file's, or what was added for it."""

    wanted: Partition
    planned: PlannedPartition


def with_boot_partitions(
    wanted: list[WantedDisk], firmware: Firmware
) -> tuple[list[list[Partition]], list[Problem]]:
    """Add what the firmware needs to the disk that holds the root, unless the file has its own.

    An ESP for UEFI (1 GiB at /boot); a BIOS boot partition for GRUB on a GPT otherwise.
    """
    given = {part.type for disk in wanted for part in disk.partitions}
    needed = "esp" if firmware == "uefi" else "bios-boot"
    problems = []
    add = needed not in given
    if add and given & {"esp", "bios-boot"}:
        other = "an ESP" if needed == "bios-boot" else "a BIOS boot partition"
        machine = "BIOS" if firmware == "bios" else "UEFI"
        lacking = "a BIOS boot partition" if needed == "bios-boot" else "an ESP"
        problems.append(
            Problem(
                "firmware.mismatch",
                f"this machine booted in {machine} mode, but the layout has {other} and "
                f"no {lacking.removeprefix('an ').removeprefix('a ')}",
                "disks",
                f"leave boot partitions out (what the firmware needs is added), add {lacking}, "
                f"or switch the firmware to {'UEFI' if firmware == 'bios' else 'BIOS (CSM)'} boot",
            )
        )
        add = False
    if add and needed == "esp":
        for index, disk in enumerate(wanted):
            for number, part in enumerate(disk.partitions):
                if part.mount_point == "/boot":
                    problems.append(_boot_is_taken(f"disks[{index}].partitions[{number}].mount"))
                    add = False
    extra = (
        {"type": "esp", "size": f"{DEFAULT_ESP_BYTES} B", "label": "ESP"}
        if needed == "esp"
        else {"type": "bios-boot", "size": f"{BIOS_BOOT_BYTES} B"}
    )
    partitions = []
    for disk in wanted:
        has_root = any(part.mount_point == "/" for part in disk.partitions)
        added = [Partition.model_validate(extra)] if add and has_root else []
        partitions.append([*added, *disk.partitions])
    return partitions, problems


def _boot_is_taken(where: str) -> Problem:
    return Problem(
        "firmware.mismatch",
        "this machine boots through UEFI, and the ESP that is added for it is mounted at /boot, "
        "where the layout has another file system",
        where,
        'leave this partition out, make it the ESP (type = "esp"), or add an ESP with another '
        'mount, for example "/efi"',
    )


def lay_out(
    disk: Disk, partitions: list[Partition], entropy: str, where: str
) -> tuple[list[LaidOut], list[Problem]]:
    """Give every partition its place on a GPT; problems are `disk.too-small`.

    Shares are of the usable space. All boundaries are multiples of `ALIGNMENT`; absolute sizes
    are rounded up, shares and the rest down.
    """
    # UEFI 2.10, 5.3: the backup header and its 16 KiB of entries take the last sectors
    usable_end = (disk.size - 16384 - disk.logical_sector) // ALIGNMENT * ALIGNMENT
    usable = usable_end - ALIGNMENT
    sizes: list[int | None] = []
    for part in partitions:
        match part.size:
            case Absolute(count):
                sizes.append(-(-count // ALIGNMENT) * ALIGNMENT)
            case Percent(value):
                sizes.append(int(usable * value / 100) // ALIGNMENT * ALIGNMENT)
            case Rest():
                sizes.append(None)
    rest = usable - sum(size for size in sizes if size is not None)
    if rest < 0:
        return [], [
            Problem(
                "disk.too-small",
                f"the partitions need {format_bytes(usable - rest)}, "
                f"{disk.node} has room for {format_bytes(max(usable, 0))}",
                where,
                'make a partition smaller (or "rest"), or match a larger disk',
            )
        ]
    laid: list[LaidOut] = []
    problems: list[Problem] = []
    start = ALIGNMENT
    for number, (part, fixed) in enumerate(zip(partitions, sizes, strict=True), start=1):
        size = rest if fixed is None else fixed
        least = minimum_bytes(part, disk.logical_sector)
        if size < least:
            problems.append(
                Problem(
                    "disk.too-small",
                    f"{_name(part)} would get {format_bytes(size)} on {disk.node}, "
                    f"it needs at least {format_bytes(least)}",
                    f"{where}.partitions",
                    "give it more, or match a larger disk",
                )
            )
        ref = PartitionRef(
            disk=disk.stable_path,
            number=number,
            partuuid=chosen_uuid(entropy, f"partition {disk.stable_path} {number}"),
            start=start,
            size=size,
        )
        laid.append(LaidOut(part, PlannedPartition(ref, _name(part), _type_guid(part))))
        start += size
    return laid, problems


def minimum_bytes(part: Partition, logical_sector: int) -> int:
    """The smallest size at which a partition can be what it is for, in bytes."""
    if part.type == "bios-boot":
        return BIOS_BOOT_BYTES
    if part.type == "swap":
        return SWAP.minimum_bytes
    if part.filesystem_name == "vfat" and logical_sector == 4096:
        return FAT32_MINIMUM_4K
    return FILESYSTEMS[part.filesystem_name].minimum_bytes


def capacity_bytes(size: int) -> int:
    """What a file system of `size` bytes can surely take: less its own structures.

    ext4 has the largest: 1.6 % inode tables, a journal of up to 128 MiB on disks like ours, and
    reserved blocks, which root may use.
    """
    return max(0, int(size * 0.96) - min(128 * MIB, size // 16))


def _name(part: Partition) -> str:
    match part.type:
        case "esp":
            return "ESP"
        case "bios-boot":
            return "bios-boot"
        case "swap":
            return "swap"
    return "root" if part.mount_point == "/" else (part.mount_point or "").strip("/")[:36]


def _type_guid(part: Partition) -> str:
    if part.type != "linux":
        return TYPE_GUIDS[part.type]
    return TYPE_GUIDS.get(part.mount_point or "", TYPE_GUIDS["linux"])
