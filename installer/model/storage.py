"""The storage of a machine as its owner wants it: disks, what lies on them, what is stacked.

Everything that can hold something else has a `name`, and what is stacked on it lists that name
under `members`: partitions, arrays, logical volumes. A partition of `count` disks stands for as
many members. Everything is used exactly once: mounted, as swap, or as a member.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from installer.model.fields import (
    AbsolutePath,
    Bytes,
    Glob,
    MountPoint,
    NonEmpty,
    PartitionSize,
    Strict,
)
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.units import Percent, Rest


def _uuid(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
        raise ValueError("write a UUID such as 0fc63daf-8483-4772-8e79-3d69d8477de4")
    return str(UUID(value))


def _option(value: str) -> str:
    # mount(8) splits at commas; NixOS joins with them
    if not re.fullmatch(r"[A-Za-z0-9_.:=/@+%-]+", value):
        raise ValueError("write one mount option, without commas and spaces")
    return value


def _inside(value: str) -> str:
    parts = value.split("/")
    if any(part in ("", ".", "..") for part in parts) or not re.fullmatch(
        r"[A-Za-z0-9/._@+-]+", value
    ):
        raise ValueError("write a path without a slash at its ends, of letters, digits, . _ @ + -")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(r"(?:https?://[^\s/?#]+|file:|/)\S*", value):
        raise ValueError("write where the secret is: http(s)://… or a path in the boot environment")
    return value


Guid = Annotated[str, AfterValidator(_uuid)]
MountOption = Annotated[str, AfterValidator(_option)]
Inside = Annotated[str, AfterValidator(_inside)]
SecretPlace = Annotated[str, AfterValidator(_secret)]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]
Word = Annotated[str, StringConstraints(pattern=r"^[ -~]+$")]
# a name becomes a node: /dev/md/NAME, /dev/mapper/NAME, /dev/NAME (device-mapper has 127 bytes)
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+]{0,31}$")]

Transport = Literal["nvme", "sata", "sas", "scsi", "usb", "virtio", "mmc", "iscsi", "fc"]


class SizeRange(Strict):
    """Bounds, both inclusive."""

    min: Bytes | None = None
    max: Bytes | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is larger than max")
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class Match(Strict):
    """What a disk must be to be chosen. All given fields must hold; at least one is needed."""

    by_id: Glob | None = Field(None, description="a name under /dev/disk/by-id")
    by_path: Glob | None = Field(None, description="a name under /dev/disk/by-path")
    serial: Glob | None = None
    wwn: Glob | None = None
    model: Glob | None = None
    vendor: Glob | None = None
    slot: Glob | None = Field(None, description="the slot in its enclosure or on the board")
    transport: Transport | None = None
    rotational: bool | None = None
    size: SizeRange | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        # in JSON, a field can be given as null, and says nothing then
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("say at least one thing about the disk: no disk is a default")
        return self


class Tpm2(Strict):
    """Unlock by the machine's own TPM, as systemd-cryptenroll(1) has it."""

    pcrs: list[Annotated[int, Field(ge=0, le=23)]] = Field(
        default_factory=lambda: [7], description="registers that must not change; 7 is Secure Boot"
    )


class Luks(Strict):
    """LUKS2 between a device and what it holds."""

    name: Name = Field(description="/dev/mapper/NAME in the installed system, too")
    passphrase: SecretPlace | None = Field(
        None, description="where the passphrase is; asked for at each boot unless there is a TPM"
    )
    tpm2: Tpm2 | None = None
    recovery: bool = Field(
        False,
        description="make a recovery key, kept in /var/lib/netinstall/recovery-NAME of the target",
    )
    discard: bool = Field(False, description="let the disk know which blocks are free")
    options: list[Word] = Field(
        default_factory=list, description="further arguments of cryptsetup luksFormat"
    )

    @model_validator(mode="after")
    def _unlockable(self) -> Self:
        if self.passphrase is None and self.tpm2 is None:
            raise ValueError("say how it is unlocked: passphrase, tpm2 or both")
        if self.passphrase is None and not self.recovery:
            raise ValueError(
                "with a TPM alone, a broken board loses the data: add passphrase or recovery"
            )
        return self


class Subvolume(Strict):
    """A subvolume of a btrfs."""

    path: Inside = Field(description="path below the top of the file system, such as @home")
    mount: MountPoint | None = None
    mount_options: list[MountOption] = Field(default_factory=list)


FilesystemName = Literal["ext4", "xfs", "btrfs", "vfat", "f2fs", "bcachefs", "swap"]


class Holder(Strict):
    """What a partition, an array or a logical volume is for: a file system, swap, or a member."""

    name: Name | None = Field(None, description="what members call it")
    filesystem: FilesystemName | None = Field(None, description="ext4 where it is only mounted")
    label: Label | None = Field(None, description="label of the file system or swap area")
    mount: MountPoint | None = Field(None, description="where the installed system mounts it")
    mount_options: list[MountOption] = Field(default_factory=list)
    mkfs_options: list[Word] = Field(
        default_factory=list, description="further arguments of mkfs, one each"
    )
    subvolumes: list[Subvolume] = Field(default_factory=list, description="btrfs only")
    luks: Luks | None = Field(None, description="encrypt what it holds")
    random_key: bool = Field(
        False, description="swap only: encrypted with a new key at each boot, which forgets all"
    )

    @property
    def filesystem_name(self) -> str | None:
        """The file system with its default filled in; None for a member or an empty holder."""
        if self.filesystem is not None:
            return self.filesystem
        if self.subvolumes:
            return "btrfs"
        return "ext4" if self.mount is not None else None

    @property
    def mount_point(self) -> str | None:
        """The mount point with its default filled in."""
        return self.mount

    @property
    def mounts(self) -> tuple[str, ...]:
        """Every place where it is mounted, its subvolumes included."""
        own = (self.mount_point,) if self.mount_point is not None else ()
        return (*own, *(sub.mount for sub in self.subvolumes if sub.mount is not None))

    @model_validator(mode="after")
    def _holds_one_thing(self) -> Self:
        name = self.filesystem_name
        if self.subvolumes and name != "btrfs":
            raise ValueError(f"{name} has no subvolumes")
        if name == "swap" and self.mount is not None:
            raise ValueError("swap is not mounted")
        if name is None and (self.label or self.mount_options or self.mkfs_options):
            raise ValueError("label and options need a file system: say where it is mounted")
        if name == "vfat" and "/" in self.mounts:
            raise ValueError("vfat cannot hold a NixOS root (no owners, no links)")
        if self.random_key and (name != "swap" or self.luks is not None):
            raise ValueError("random-key is for swap without luks")
        if self.label is not None and name is not None:
            limit = (SWAP if name == "swap" else FILESYSTEMS[name]).label_bytes
            if len(self.label) > limit:
                raise ValueError(f"a label here has at most {limit} characters")
        return self


class Keep(Strict):
    """A partition that is there already and stays: by one of these."""

    number: Annotated[int, Field(ge=1, le=128)] | None = None
    uuid: Guid | None = Field(None, description="its PARTUUID")
    label: NonEmpty | None = Field(None, description="its partition name or file-system label")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.number, self.uuid, self.label].count(None) != 2:
            raise ValueError("name it by one thing: number, uuid or label")
        return self


PartitionType = Literal["linux", "esp", "bios-boot", "swap"]
Attribute = Literal["required", "legacy-boot", "grow-file-system", "read-only", "no-auto"]


class Partition(Holder):
    """One partition, in the order in which they lie on the disk."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["size"]}, {"required": ["keep"]}]}
    )

    type: PartitionType = "linux"
    size: PartitionSize | None = None
    min_size: Bytes | None = Field(None, description='the least that a share or "rest" may come to')
    max_size: Bytes | None = Field(None, description='the most that a share or "rest" may come to')
    type_guid: Guid | None = Field(None, description="in place of what its use implies")
    attributes: list[Attribute] = Field(default_factory=list)
    keep: Keep | None = Field(None, description="a partition that is there already, and stays")
    format: bool | None = Field(
        None, description="make a new file system; false for what is kept unless said"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.size is None) == (self.keep is None):
            raise ValueError("say its size, or which partition to keep")
        if self.keep is not None:
            for name in ("min_size", "max_size", "type_guid"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name.replace('_', '-')} is for new partitions")
        elif self.format is not None:
            raise ValueError("format is for a partition that is kept")
        self._fits_type()
        return self

    def _fits_type(self) -> None:
        if self.type in ("swap", "bios-boot"):
            for name in ("mount", "subvolumes"):
                if getattr(self, name):
                    raise ValueError(f"a {self.type} partition has no {name}")
            if self.filesystem not in (None, "swap" if self.type == "swap" else None):
                raise ValueError(f"a {self.type} partition has no filesystem")
        if self.type == "bios-boot" and (self.label or self.luks or self.name):
            raise ValueError("a bios-boot partition has no label, luks or name")
        if self.type == "esp":
            if self.filesystem not in (None, "vfat"):
                raise ValueError("an ESP is vfat (UEFI 2.10, 13.3)")
            if self.luks is not None:
                raise ValueError("firmware cannot read an encrypted ESP")

    @property
    def filesystem_name(self) -> str | None:
        match self.type:
            case "esp":
                return "vfat"
            case "swap":
                return "swap"
            case "bios-boot":
                return None
        return super().filesystem_name

    @property
    def mount_point(self) -> str | None:
        return self.mount or ("/boot" if self.type == "esp" else None)

    @property
    def formats(self) -> bool:
        """Whether a file system is made."""
        return self.keep is None if self.format is None else self.format


Wipe = Literal["refuse", "blank-only", "known", "force"]
Erase = Literal["discard", "nvme-format", "nvme-sanitize", "ata-secure-erase", "overwrite"]


class Disk(Strict):
    """Disks that are wanted, and what each becomes."""

    match: Match
    otherwise: list[Match] = Field(
        default_factory=list,
        description="further matches, tried in this order when one finds too few disks",
    )
    exclude: list[Match] = Field(default_factory=list, description="what it must not be")
    choose: Literal["smallest", "largest"] | None = Field(
        None, description="which, if more match than are wanted; without, that is an error"
    )
    count: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="how many; each gets the same partitions"
    )
    wipe: Wipe = Field(
        "refuse",
        description="what may be destroyed. refuse: nothing that is recognised; blank-only: the "
        "disk must hold zeros where signatures would be; known: what an installation by netinstall "
        "left; force: anything, also what is assembled, mounted or swapped to",
    )
    erase: Erase | None = Field(None, description="erase the whole disk before, and how")
    table: Literal["gpt", "mbr"] = "gpt"
    partitions: Annotated[list[Partition], Field(min_length=1, max_length=120)]

    @property
    def alternatives(self) -> list[Match]:
        """The matches, in the order in which they are tried."""
        return [self.match, *self.otherwise]

    @property
    def keeps(self) -> bool:
        """Whether its table stays."""
        return any(part.keep is not None for part in self.partitions)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sizes = [part.size for part in self.partitions]
        if sum(isinstance(size, Rest) for size in sizes) > 1:
            raise ValueError('only one partition of a disk can have size = "rest"')
        shares = sum(size.value for size in sizes if isinstance(size, Percent))
        if shares > 100:
            raise ValueError(f"the shares add up to {shares:g} %")
        if self.keeps and self.erase is not None:
            raise ValueError("erase would destroy what is kept")
        if self.keeps and self.count > 1:
            raise ValueError("keep names partitions of one disk: leave count out")
        if self.table == "mbr":
            self._fits_mbr()
        if self.count > 1:
            self._fits_several()
        return self

    def _fits_mbr(self) -> None:
        if len(self.partitions) > 4:
            raise ValueError("an MBR has room for 4 partitions here: use gpt")
        for part in self.partitions:
            if part.type == "bios-boot":
                raise ValueError("GRUB needs no bios-boot partition on an MBR")
            if part.type_guid or part.attributes:
                raise ValueError("an MBR has no type GUIDs and attributes")

    def _fits_several(self) -> None:
        for part in self.partitions:
            if part.type != "esp" and part.mounts:
                raise ValueError(
                    f"{self.count} disks cannot all be mounted at {part.mounts[0]}: give the "
                    "partition a name, and make it a member of raid, btrfs or zfs"
                )
            if part.luks is not None:
                raise ValueError("luks on several disks: encrypt the array instead")


Members = Annotated[list[Name], Field(min_length=1, description="names of what it is made of")]


class Raid(Holder):
    """A Linux software RAID (md(4))."""

    name: Name = Field(description="/dev/md/NAME")
    level: Literal[0, 1, 4, 5, 6, 10]
    members: Members
    metadata: Literal["1.2", "1.0"] = Field(
        "1.2", description="1.0 lies at the end: firmware and old loaders see a plain file system"
    )
    chunk: Bytes | None = Field(None, description="chunk size, for levels other than 1")


class LogicalVolume(Holder):
    """A logical volume; `size` is a share of the group, or of nothing for a thin one."""

    name: Name = Field(description="/dev/GROUP/NAME")
    size: PartitionSize
    thin_pool: bool = Field(False, description="a pool that thin volumes take their blocks from")
    pool: Name | None = Field(None, description="the thin pool of the same group that it lies in")

    @model_validator(mode="after")
    def _thin(self) -> Self:
        if self.thin_pool and (self.filesystem_name or self.luks or self.pool):
            raise ValueError("a thin pool holds thin volumes only")
        if self.pool is not None and not hasattr(self.size, "bytes"):
            raise ValueError("a thin volume has a size of its own, such as 20 GiB")
        return self


class VolumeGroup(Strict):
    """An LVM volume group (lvm(8))."""

    name: Name
    members: Members
    volumes: Annotated[list[LogicalVolume], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sizes = [volume.size for volume in self.volumes if volume.pool is None]
        if sum(isinstance(size, Rest) for size in sizes) > 1:
            raise ValueError('only one volume of a group can have size = "rest"')
        shares = sum(size.value for size in sizes if isinstance(size, Percent))
        if shares > 100:
            raise ValueError(f"the shares add up to {shares:g} %")
        pools = {volume.name for volume in self.volumes if volume.thin_pool}
        for volume in self.volumes:
            if volume.pool is not None and volume.pool not in pools:
                raise ValueError(f"{volume.name}: the group has no thin pool named {volume.pool}")
        return self


Profile = Literal["single", "dup", "raid0", "raid1", "raid1c3", "raid1c4", "raid10"]


class Btrfs(Strict):
    """A btrfs on several devices."""

    members: Members
    data: Profile = "raid1"
    metadata: Profile = "raid1"
    label: Label | None = None
    mount: MountPoint | None = None
    mount_options: list[MountOption] = Field(default_factory=list)
    subvolumes: list[Subvolume] = Field(default_factory=list)

    @property
    def mounts(self) -> tuple[str, ...]:
        """Every place where it is mounted, its subvolumes included."""
        own = (self.mount,) if self.mount is not None else ()
        return (*own, *(sub.mount for sub in self.subvolumes if sub.mount is not None))


class Dataset(Strict):
    """A file system of a ZFS pool, mounted by fstab (mountpoint=legacy)."""

    path: Inside = Field(description="path below the pool")
    mount: MountPoint | None = None
    properties: dict[NonEmpty, Word] = Field(default_factory=dict)


class Zpool(Strict):
    """A ZFS pool (zpool-create(8))."""

    name: Name
    members: Members
    topology: Literal["stripe", "mirror", "raidz", "raidz2", "raidz3"] = "stripe"
    options: dict[NonEmpty, Word] = Field(default_factory=dict, description="pool properties (-o)")
    properties: dict[NonEmpty, Word] = Field(
        default_factory=dict, description="properties of its top data set (-O)"
    )
    datasets: Annotated[list[Dataset], Field(min_length=1)]

    @property
    def mounts(self) -> tuple[str, ...]:
        """Every place where a data set is mounted."""
        return tuple(one.mount for one in self.datasets if one.mount is not None)


class Tmpfs(Strict):
    """A file system in memory, empty at each boot."""

    mount: MountPoint
    size: Bytes | None = Field(None, description="at most; half the memory where nothing is said")

    @property
    def mounts(self) -> tuple[str, ...]:
        """Where it is mounted."""
        return (self.mount,)


class SwapFile(Strict):
    """A swap file on one of the file systems."""

    path: AbsolutePath
    size: Bytes


class Storage(Strict):
    """All of it; the answer file has these tables at its top level."""

    disks: Annotated[list[Disk], Field(min_length=1)]
    raid: list[Raid] = Field(default_factory=list)
    lvm: list[VolumeGroup] = Field(default_factory=list)
    btrfs: list[Btrfs] = Field(default_factory=list)
    zfs: list[Zpool] = Field(default_factory=list)
    tmpfs: list[Tmpfs] = Field(default_factory=list)
    swap_files: list[SwapFile] = Field(default_factory=list)

    def holders(self) -> Iterator[tuple[str, Holder]]:
        """Every partition, array and logical volume, with its place in the file."""
        for number, disk in enumerate(self.disks):
            for index, part in enumerate(disk.partitions):
                yield f"disks[{number}].partitions[{index}]", part
        for number, array in enumerate(self.raid):
            yield f"raid[{number}]", array
        for number, group in enumerate(self.lvm):
            for index, volume in enumerate(group.volumes):
                yield f"lvm[{number}].volumes[{index}]", volume

    def groups(self) -> Iterator[tuple[str, "Raid | VolumeGroup | Btrfs | Zpool"]]:
        """Everything that is made of members, with its place in the file."""
        groups: tuple[tuple[str, Sequence[Raid | VolumeGroup | Btrfs | Zpool]], ...] = (
            ("raid", self.raid),
            ("lvm", self.lvm),
            ("btrfs", self.btrfs),
            ("zfs", self.zfs),
        )
        for table, rows in groups:
            for number, row in enumerate(rows):
                yield f"{table}[{number}]", row

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._names()
        self._members()
        mounts = [mount for _, holder in self.holders() for mount in holder.mounts]
        others: tuple[Btrfs | Zpool | Tmpfs, ...] = (*self.btrfs, *self.zfs, *self.tmpfs)
        mounts += [mount for row in others for mount in row.mounts]
        if mounts.count("/") != 1:
            raise ValueError('exactly one file system must have mount = "/"')
        for mount in sorted(set(mounts)):
            if mounts.count(mount) > 1:
                raise ValueError(f"two file systems are mounted at {mount}")
        return self

    def _names(self) -> None:
        holders = [holder for _, holder in self.holders()]
        groups = [*(group.name for group in self.lvm), *(pool.name for pool in self.zfs)]
        for names in (
            [holder.name for holder in holders if holder.name is not None],
            groups,
            [holder.luks.name for holder in holders if holder.luks is not None],
        ):
            for name in sorted(set(names)):
                if names.count(name) > 1:
                    raise ValueError(f"two things have the name {name}")

    def _members(self) -> None:
        holders = {h.name: (place, h) for place, h in self.holders() if h.name is not None}
        used: dict[str, str] = {}
        for place, group in self.groups():
            for member in group.members:
                if member not in holders:
                    raise ValueError(f"{place}: nothing to be a member has the name {member}")
                if member in used:
                    raise ValueError(f"{member} is a member of {used[member]} and of {place}")
                used[member] = place
                if holders[member][1].filesystem_name is not None:
                    raise ValueError(f"{member} is a member of {place}, and mounted or swap, too")
        self._no_circle()
        for place, holder in self.holders():
            idle = holder.filesystem_name is None and holder.name not in used
            if idle and _must_be_used(holder):
                raise ValueError(
                    f"{place}: say where it is mounted (mount), or make it a member of something"
                )

    def _no_circle(self) -> None:
        """An array may lie on a volume whose group lies on another array, but on itself not."""
        below: dict[str, list[str]] = {array.name: array.members for array in self.raid}
        for group in self.lvm:
            for volume in group.volumes:
                below[volume.name] = group.members
        for start, members in below.items():
            seen: set[str] = set()
            waiting = [*members]
            while waiting:
                name = waiting.pop()
                if name == start:
                    raise ValueError(f"{start} is stacked on itself")
                if name not in seen:
                    seen.add(name)
                    waiting += below.get(name, [])


def _must_be_used(holder: Holder) -> bool:
    match holder:
        case Partition(type="bios-boot"):
            return False
        case Partition(keep=Keep(), format=None | False):
            return False
        case LogicalVolume(thin_pool=True):
            return False
    return True
