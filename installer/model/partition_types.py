"""Partition types: what we call them, their identifiers, and what people call them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionType:
    """`name` is our own: a type or a use of the answer file, or the mount point that implies it.

    `guid` is from the UEFI specification (2.10, table 5.7), the GRUB manual ("BIOS installation")
    or the UAPI group's Discoverable Partitions Specification; `mbr` are two hexadecimal digits
    (fdisk(8), `sfdisk --list-types`), None where an MBR has none.
    """

    name: str
    guid: str
    mbr: str | None
    people: str


PARTITION_TYPES: tuple[PartitionType, ...] = (
    PartitionType("esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef", "EFI system"),
    PartitionType("bios-boot", "21686148-6449-6e6f-744e-656564454649", None, "BIOS boot"),
    PartitionType("xbootldr", "bc13c2ff-59e6-4262-a352-b275fd6f7172", "ea", "extended boot loader"),
    PartitionType("linux", "0fc63daf-8483-4772-8e79-3d69d8477de4", "83", "Linux data"),
    PartitionType("swap", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "82", "swap"),
    PartitionType("raid", "a19d880f-05fc-4d3b-a006-743f0f84911e", "fd", "Linux RAID"),
    PartitionType("lvm", "e6d6d379-f507-44c2-a23c-238f2a3df928", "8e", "LVM"),
    PartitionType("luks", "ca7d7ccb-63ed-4c53-861c-1742536059cc", "e8", "LUKS"),
    PartitionType("zfs", "6a898cc3-1dd2-11b2-99a6-080020736631", "bf", "ZFS"),
    # root for x86-64
    PartitionType("/", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", None, "root (x86-64)"),
    PartitionType("/home", "933ac7e1-2eb4-4f13-b844-0e14e2aef915", None, "home"),
    PartitionType("/srv", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8", None, "srv"),
    PartitionType("/var", "4d21b016-b534-45c2-a9fb-5c16e091fd2d", None, "var"),
    PartitionType("/tmp", "7ec6f557-3bc5-4aca-b293-16ef5df639d1", None, "tmp"),  # noqa: S108
    # never made by us
    PartitionType("msr", "e3c9e316-0b5c-4db8-817d-f92df00215ae", None, "Microsoft reserved"),
    PartitionType("ntfs", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "07", "Microsoft basic data"),
    PartitionType("winre", "de94bba4-06d1-4d40-a16a-bfd50179d6ac", "27", "Windows recovery"),
)

GPT_TYPES = {kind.name: kind.guid for kind in PARTITION_TYPES}
MBR_TYPES = {kind.name: kind.mbr for kind in PARTITION_TYPES if kind.mbr is not None}
PEOPLE = {kind.guid: kind.people for kind in PARTITION_TYPES}
"""What people call a GPT type, by its GUID in lower case."""

GPT_ATTRIBUTES = {
    # UEFI 2.10, table 5.8
    "required": 0,
    "legacy-boot": 2,
    # Discoverable Partitions Specification, "Partition Flags"
    "grow-file-system": 59,
    "read-only": 60,
    "no-auto": 63,
}
"""Bit numbers of a GPT entry's attributes."""

MBR_ACTIVE = 7
"""The bit of an MBR entry's status byte that marks what is booted (UEFI 2.10, table 5.2)."""
