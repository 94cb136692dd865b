"""What the firmware needs on the disks that the system lies on, unless the file has its own."""

from collections.abc import Iterator, Sequence

from installer.model.answers import AnswerFile
from installer.model.errors import Problem
from installer.model.facts import Firmware
from installer.model.filesystems import BIOS_BOOT_BYTES, DEFAULT_ESP_BYTES
from installer.model.storage import Btrfs, Partition, Zpool

_NAMES = {"esp": "an ESP", "bios-boot": "a BIOS boot partition"}


def with_boot_partitions(
    answers: AnswerFile, firmware: Firmware
) -> tuple[list[list[Partition]], list[Problem]]:
    """Return each entry's partitions, with what the firmware needs added, and problems.

    An ESP for UEFI (1 GiB at /boot); a BIOS boot partition for GRUB on a GPT otherwise. They come
    first on every disk that the root lies on, so that each of them can start the machine.
    """
    disks = answers.disks
    given: set[str] = {part.type for disk in disks for part in disk.partitions}
    needed = "esp" if firmware == "uefi" else "bios-boot"
    found = list(_contradictions(answers, given, needed, firmware))
    system = entries_of_the_system(answers)
    partitions = []
    for index, disk in enumerate(disks):
        add = needed not in given and not found and index in system
        # GRUB's core lies behind an MBR, before the first partition
        if add and needed == "bios-boot" and disk.table == "mbr":
            add = False
        if add and disk.keeps:
            found.append(
                Problem(
                    "firmware.mismatch",
                    f"{_NAMES[needed]} is needed on a disk of which something is kept",
                    f"disks[{index}].partitions",
                    f'keep one (keep = {{ number = … }}, type = "{needed}"), or add one with a '
                    "size",
                )
            )
            add = False
        partitions.append([*([_extra(needed)] if add else []), *disk.partitions])
    return partitions, found


def _extra(needed: str) -> Partition:
    size = DEFAULT_ESP_BYTES if needed == "esp" else BIOS_BOOT_BYTES
    label = {"label": "ESP"} if needed == "esp" else {}
    return Partition.model_validate({"type": needed, "size": f"{size} B", **label})


def _contradictions(
    answers: AnswerFile, given: set[str], needed: str, firmware: Firmware
) -> Iterator[Problem]:
    if needed in given:
        return
    # an ESP does no harm on a machine whose GRUB lies behind an MBR
    if needed == "bios-boot" and all(disk.table == "mbr" for disk in answers.disks):
        return
    if other := given & {"esp", "bios-boot"}:
        lacking = _NAMES[needed]
        yield Problem(
            "firmware.mismatch",
            f"this machine booted in {firmware.upper()} mode, but the layout has "
            f"{_NAMES[other.pop()]} and no {lacking.removeprefix('an ').removeprefix('a ')}",
            "disks",
            f"leave boot partitions out (what the firmware needs is added), add {lacking}, "
            f"or switch the firmware to {'UEFI' if firmware == 'bios' else 'BIOS (CSM)'} boot",
        )
    elif needed == "esp":
        for place, holder in answers.holders():
            if "/boot" in holder.mounts:
                yield Problem(
                    "firmware.mismatch",
                    "this machine boots through UEFI, and the ESP that is added for it is mounted "
                    "at /boot, where the layout has another file system",
                    f"{place}.mount",
                    'leave this partition out, make it the ESP (type = "esp"), or add an ESP with '
                    'another mount, for example "/efi"',
                )


def entries_of_the_system(answers: AnswerFile) -> set[int]:
    """Say which entries of `disks` the system lies on: "/", or /nix where "/" is in memory."""
    for mount in ("/", "/nix", "/nix/store"):
        if found := set(_below_mount(answers, mount)):
            return found
    return {0}


def _below_mount(answers: AnswerFile, mount: str) -> Iterator[int]:
    for number, disk in enumerate(answers.disks):
        if any(mount in part.mounts for part in disk.partitions):
            yield number
    for array in answers.raid:
        if mount in array.mounts:
            yield from _below(answers, array.members)
    for group in answers.lvm:
        if any(mount in volume.mounts for volume in group.volumes):
            yield from _below(answers, group.members)
    pools: list[Btrfs | Zpool] = [*answers.btrfs, *answers.zfs]
    for pool in pools:
        if mount in pool.mounts:
            yield from _below(answers, pool.members)


def _below(answers: AnswerFile, members: Sequence[str]) -> Iterator[int]:
    """The entries of `disks` that members lie on, through whatever is between."""
    for number, disk in enumerate(answers.disks):
        if any(part.name in members for part in disk.partitions):
            yield number
    for array in answers.raid:
        if array.name in members:
            yield from _below(answers, array.members)
    for group in answers.lvm:
        if any(volume.name in members for volume in group.volumes):
            yield from _below(answers, group.members)
