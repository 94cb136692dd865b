"""What is stacked on the partitions: arrays, encryption, volumes, file systems, and the mounts."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from installer.decide.identifiers import chosen_uuid, chosen_volume_id
from installer.decide.tables import Row, Table, Use
from installer.model.answers import AnswerFile
from installer.model.errors import Problem
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.steps import Device, PartitionRef, StackedRef
from installer.model.storage import (
    Btrfs,
    Holder,
    LogicalVolume,
    Luks,
    Partition,
    Raid,
    Storage,
    Subvolume,
    VolumeGroup,
    Zpool,
)
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    EnableSwap,
    FormatLuks,
    MakeFilesystem,
    MountFilesystem,
    VolumeType,
)
from installer.model.units import MIB, Absolute, Percent, Rest, format_bytes

EXTENT = 4 * MIB
"""Bytes; what vgcreate(8) takes by default."""

_LUKS_HEADER = 16 * MIB
"""Bytes before the data of LUKS2 (cryptsetup-luksFormat(8), --offset)."""

RECOVERY_FOLDER = "/var/lib/netinstall"

Made = CreateArray | FormatLuks | CreateVolumeGroup | CreateVolume | MakeFilesystem | CreatePool


@dataclass(frozen=True)
class Block:
    """A device and the least that it can hold, in bytes.

    `above` names the layers that the running system needs to reach it: luks, raid, lvm, thin.
    """

    device: Device
    size: int
    above: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mounted:
    """A file system that the installed system mounts; `room` in bytes, 0 for what shares it with
    another mount of the same file system. `inodes` None: no limit, or it is not known."""

    step: MountFilesystem
    room: int
    above: frozenset[str]
    esp: bool = False
    inodes: int | None = None


@dataclass(frozen=True)
class OpenedLuks:
    """An encrypted device that the installed system has to open."""

    luks: Luks
    uuid: str
    on: Device


@dataclass
class Stack:
    """Everything above the tables, in the order in which it is made."""

    made: list[Made] = field(default_factory=list)
    mounts: list[Mounted] = field(default_factory=list)
    swaps: list[EnableSwap] = field(default_factory=list)
    random_swaps: list[PartitionRef] = field(default_factory=list)
    opened: list[OpenedLuks] = field(default_factory=list)
    arrays: list[CreateArray] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)
    thin: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def in_order(self) -> list[Mounted]:
        """The mounts, each after what it lies in."""
        return sorted(self.mounts, key=lambda one: _depth(one.step.where))


def _depth(mount: str) -> tuple[int, str]:
    return (0 if mount == "/" else mount.count("/"), mount)


def members_used_by(storage: Storage) -> dict[str, Use]:
    """Say of each member what it is a member of."""
    found: dict[str, Use] = {}
    for _, group in storage.groups():
        use: Use
        match group:
            case Raid():
                use = "raid"
            case VolumeGroup():
                use = "lvm"
            case Btrfs():
                use = "btrfs"
            case Zpool():
                use = "zfs"
        found.update(dict.fromkeys(group.members, use))
    return found


def build(answers: AnswerFile, tables: Iterable[Table], entropy: str) -> Stack:
    """Stack everything that the answer file describes on partitions that have their places."""
    return _Builder(answers, entropy).build(tables)


class _Builder:
    def __init__(self, answers: AnswerFile, entropy: str) -> None:
        self.answers = answers
        self.entropy = entropy
        self.stack = Stack()
        self.available: dict[str, list[Block]] = {}

    def build(self, tables: Iterable[Table]) -> Stack:
        for table in tables:
            for row in table.rows:
                self._partition(table, row)
        waiting = list(self.answers.groups())
        while waiting:
            ready = [one for one in waiting if all(m in self.available for m in one[1].members)]
            if not ready:
                # only where a disk is missing, which is said already
                break
            for place, group in ready:
                self._group(place, group, [b for m in group.members for b in self.available[m]])
            waiting = [one for one in waiting if one not in ready]
        for tmpfs in self.answers.tmpfs:
            options = ("mode=755", *([f"size={tmpfs.size}"] if tmpfs.size else []))
            self._mount(MountFilesystem("tmpfs", "tmpfs", tmpfs.mount, options), None)
        return self.stack

    def _partition(self, table: Table, row: Row) -> None:
        part = row.wanted
        block = Block(row.ref, row.ref.size)
        begun = len(self.stack.made)
        self._use(table, part, block)
        if row.found is not None:
            # what is formatted although it is kept dies here, and nowhere else
            held = f"{row.found.node} ({row.found.filesystem or 'nothing recognised'})"
            for number, step in enumerate(self.stack.made[begun:], begun):
                if isinstance(step, MakeFilesystem):
                    self.stack.made[number] = replace(step, replaces=held)

    def _use(self, table: Table, part: Partition, block: Block) -> None:
        if part.type == "bios-boot":
            return
        if part.type == "esp":
            where = part.mount_point or "/boot"
            # a mirrored ESP: the others get what the boot loader puts onto the first
            where = where if table.copy == 0 else f"{where.rstrip('/')}-{table.copy + 1}"
            self._filesystem(part, block, where, make=part.formats)
            return
        self._holder(part, block, make=part.formats)

    def _holder(self, holder: Holder, block: Block, *, make: bool = True) -> None:
        """Encrypt a device if wanted, then format, mount or offer it."""
        if holder.random_key:
            if isinstance(block.device, PartitionRef):
                self.stack.random_swaps.append(block.device)
            return
        if holder.luks is not None:
            block = self._luks(holder.luks, block)
        if holder.filesystem_name == "swap":
            self._swap(holder, block, make=make)
        elif holder.filesystem_name is not None:
            self._filesystem(holder, block, holder.mount_point, make=make)
        elif holder.name is not None:
            self.available.setdefault(holder.name, []).append(block)

    def _luks(self, luks: Luks, block: Block) -> Block:
        uuid = chosen_uuid(self.entropy, f"luks {luks.name}")
        opened = StackedRef(f"/dev/mapper/{luks.name}", uuid)
        argv = ["cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--uuid", uuid]
        self.stack.made.append(
            FormatLuks(
                on=block.device,
                opened=opened,
                name=luks.name,
                argv=(*argv, *luks.options),
                passphrase=luks.passphrase,
                tpm2=luks.tpm2,
                recovery_path=f"{RECOVERY_FOLDER}/recovery-{luks.name}" if luks.recovery else None,
                discard=luks.discard,
            )
        )
        self.stack.opened.append(OpenedLuks(luks, uuid, block.device))
        return Block(opened, block.size - _LUKS_HEADER, block.above | {"luks"})

    def _swap(self, holder: Holder, block: Block, *, make: bool) -> None:
        if make:
            uuid = chosen_uuid(self.entropy, f"swap {block.device}")
            argv = (*SWAP.make_argv(uuid, holder.label), *holder.mkfs_options)
            self.stack.made.append(MakeFilesystem((block.device,), "swap", uuid, argv))
        self.stack.swaps.append(EnableSwap(block.device))

    def _filesystem(
        self, holder: Holder, block: Block, where: str | None, *, make: bool = True
    ) -> None:
        name = holder.filesystem_name or "ext4"
        filesystem = FILESYSTEMS[name]
        if make:
            uuid = self._filesystem_uuid(name, str(block.device))
            argv = (*filesystem.make_argv(uuid, holder.label), *holder.mkfs_options)
            subvolumes = tuple(sub.path for sub in holder.subvolumes)
            self.stack.made.append(MakeFilesystem((block.device,), name, uuid, argv, subvolumes))
        options = (*filesystem.mount_options, *holder.mount_options)
        if isinstance(holder, Partition) and holder.type == "esp":
            if where is not None:
                self._mount(MountFilesystem(block.device, name, where, options), block, esp=True)
        else:
            inodes = filesystem.inodes(block.size, holder.mkfs_options) if make else None
            self._mounts(block, name, where, options, holder.subvolumes, inodes=inodes)

    def _mounts(
        self,
        block: Block,
        filesystem: str,
        where: str | None,
        options: tuple[str, ...],
        subvolumes: Iterable[Subvolume],
        *,
        inodes: int | None = None,
    ) -> None:
        """Mount a file system and its subvolumes; the first of them has all the room."""
        if where is not None:
            step = MountFilesystem(block.device, filesystem, where, options)
            self._mount(step, block, inodes=inodes)
            block = replace(block, size=0)
        for sub in subvolumes:
            if sub.mount is not None:
                all_options = (f"subvol={sub.path}", *options, *sub.mount_options)
                self._mount(
                    MountFilesystem(block.device, filesystem, sub.mount, all_options), block
                )
                block = replace(block, size=0)

    def _mount(
        self,
        step: MountFilesystem,
        block: Block | None,
        *,
        esp: bool = False,
        inodes: int | None = None,
    ) -> None:
        room = 0
        if block is not None:
            # a dataset of ZFS is none of those
            room = FILESYSTEMS.get(step.filesystem, FILESYSTEMS["ext4"]).capacity(block.size)
        above = block.above if block is not None else frozenset[str]()
        self.stack.mounts.append(Mounted(step, room, above, esp, inodes))

    def _filesystem_uuid(self, name: str, device: str) -> str:
        purpose = f"file system {device}"
        if name == "vfat":
            return chosen_volume_id(self.entropy, purpose)
        return chosen_uuid(self.entropy, purpose)

    def _group(
        self, place: str, group: Raid | VolumeGroup | Btrfs | Zpool, members: list[Block]
    ) -> None:
        match group:
            case Raid():
                self._raid(place, group, members)
            case VolumeGroup():
                self._volume_group(place, group, members)
            case Btrfs():
                self._btrfs(place, group, members)
            case Zpool():
                self._zpool(place, group, members)

    def _raid(self, place: str, raid: Raid, members: list[Block]) -> None:
        least = _RAID_LEAST[raid.level]
        if len(members) < least:
            self._problem(
                f"RAID {raid.level} needs at least {least} members, {raid.name} has {len(members)}",
                place,
                "raise count of the disks, or take another level",
            )
            return
        smallest = min(block.size for block in members)
        # super-intro of md(4): the data begins after headroom for reshaping, at most 128 MiB
        smallest -= 2 * MIB + min(128 * MIB, smallest // 512)
        array = StackedRef(f"/dev/md/{raid.name}", chosen_uuid(self.entropy, f"md {raid.name}"))
        argv = [
            *("mdadm", "--create", array.path, "--run", f"--level={raid.level}"),
            *(f"--raid-devices={len(members)}", f"--metadata={raid.metadata}"),
            *(f"--uuid={array.uuid}", f"--name={raid.name}", "--homehost=any"),
        ]
        if raid.level != 0:
            # without a write-intent bitmap a crash costs a whole resync
            argv.append("--bitmap=internal")
        if raid.chunk is not None and raid.level != 1:
            argv.append(f"--chunk={raid.chunk // 1024}")
        step = CreateArray(array, raid.level, tuple(b.device for b in members), tuple(argv))
        self.stack.made.append(step)
        self.stack.arrays.append(step)
        above = frozenset({"raid"}).union(*(block.above for block in members))
        self._holder(raid, Block(array, smallest * _data_members(raid.level, len(members)), above))

    def _volume_group(self, place: str, group: VolumeGroup, members: list[Block]) -> None:
        self.stack.made.append(
            CreateVolumeGroup(group.name, tuple(block.device for block in members))
        )
        # each physical volume keeps its metadata in the first MiB
        total = sum((block.size - MIB) // EXTENT * EXTENT for block in members)
        above = frozenset({"lvm"}).union(*(block.above for block in members))
        sizes = self._volume_sizes(place, group, total)
        for volume in sorted(group.volumes, key=_turn):
            size = sizes.get(volume.name, 0)
            if volume.pool is not None or volume.thin_pool:
                self.stack.thin = True
            ref = StackedRef(f"/dev/{group.name}/{volume.name}")
            self.stack.made.append(
                CreateVolume(
                    volume=ref,
                    group=group.name,
                    name=volume.name,
                    size=size,
                    fill=isinstance(volume.size, Rest),
                    type=_volume_type(volume),
                    pool=volume.pool,
                )
            )
            if not volume.thin_pool:
                thin = {"thin"} if volume.pool is not None else set()
                self._holder(volume, Block(ref, size, above | thin))

    def _volume_sizes(self, place: str, group: VolumeGroup, total: int) -> dict[str, int]:
        sizes: dict[str, int] = {}
        rest: LogicalVolume | None = None
        used = 0
        for volume in group.volumes:
            match volume.size:
                case Absolute(count):
                    sizes[volume.name] = -(-count // EXTENT) * EXTENT
                case Percent(value):
                    sizes[volume.name] = int(total * value / 100) // EXTENT * EXTENT
                case Rest():
                    rest = volume
            if volume.pool is None:
                used += sizes.get(volume.name, 0)
                if volume.thin_pool and volume.name in sizes:
                    # its metadata, twice: the second is a spare (lvmthin(7))
                    used += 2 * _thin_metadata(sizes[volume.name])
        if rest is not None:
            left = max(0, total - used)
            # lvcreate takes both out of what a pool is given by --extents
            left -= 2 * _thin_metadata(left) if rest.thin_pool else 0
            sizes[rest.name] = max(0, left)
        if used > total or (rest is not None and sizes[rest.name] < EXTENT):
            self._problem(
                f"the volumes of {group.name} need {format_bytes(used)}"
                + (" and something for the rest" if rest else "")
                + f", it has {format_bytes(total)}",
                f"{place}.volumes",
                "make a volume smaller, or match larger disks",
                code="disk.too-small",
            )
        return sizes

    def _btrfs(self, place: str, wanted: Btrfs, members: list[Block]) -> None:
        for what, profile in (("data", wanted.data), ("metadata", wanted.metadata)):
            least, _ = _BTRFS_PROFILES[profile]
            if len(members) < least:
                self._problem(
                    f"btrfs profile {profile} needs at least {least} members, there "
                    f"{'is 1' if len(members) == 1 else f'are {len(members)}'}",
                    f"{place}.{what}",
                    "raise count of the disks, or take another profile",
                )
        filesystem = FILESYSTEMS["btrfs"]
        uuid = chosen_uuid(self.entropy, f"btrfs {wanted.members}")
        profiles = ("--data", wanted.data, "--metadata", wanted.metadata)
        devices = tuple(block.device for block in members)
        subvolumes = tuple(sub.path for sub in wanted.subvolumes)
        argv = (*filesystem.make_argv(uuid, wanted.label), *profiles)
        self.stack.made.append(MakeFilesystem(devices, "btrfs", uuid, argv, subvolumes))
        _, copies = _BTRFS_PROFILES[wanted.data]
        total = sum(block.size for block in members) // copies
        above = frozenset[str]().union(*(block.above for block in members))
        options = tuple(wanted.mount_options)
        block = Block(devices[0], total, above)
        self._mounts(block, "btrfs", wanted.mount, options, wanted.subvolumes)

    def _zpool(self, place: str, pool: Zpool, members: list[Block]) -> None:
        least = {"stripe": 1, "mirror": 2, "raidz": 2, "raidz2": 3, "raidz3": 4}[pool.topology]
        if len(members) < least:
            self._problem(
                f"{pool.topology} needs at least {least} members, {pool.name} has {len(members)}",
                place,
                "raise count of the disks, or take another topology",
            )
            return
        options = {"ashift": "12"}
        if "/boot" in pool.mounts:
            options["compatibility"] = "grub2"
        properties = {"mountpoint": "none", "acltype": "posixacl", "xattr": "sa"}
        argv = ["zpool", "create", "-f", "-R", "/run/netinstall/zfs"]
        for name, value in {**options, **pool.options}.items():
            argv += ["-o", f"{name}={value}"]
        for name, value in {**properties, **pool.properties}.items():
            argv += ["-O", f"{name}={value}"]
        datasets = {
            one.path: {"mountpoint": "legacy" if one.mount else "none", **one.properties}
            for one in pool.datasets
        }
        topology = "" if pool.topology == "stripe" else pool.topology
        devices = tuple(block.device for block in members)
        self.stack.made.append(
            CreatePool(pool.name, devices, topology, (*argv, pool.name), datasets)
        )
        self.stack.pools.append(pool.name)
        copies = len(members) if pool.topology == "mirror" else 1
        room = sum(block.size for block in members) // copies
        above = frozenset({"zfs"}).union(*(block.above for block in members))
        for one in pool.datasets:
            if one.mount is not None:
                block = Block(devices[0], room, above)
                self._mount(MountFilesystem(f"{pool.name}/{one.path}", "zfs", one.mount, ()), block)
                room = 0

    def _problem(self, what: str, where: str, hint: str, code: str = "storage.members") -> None:
        self.stack.problems.append(Problem(code, what, where, hint))


_RAID_LEAST = {0: 2, 1: 2, 4: 3, 5: 3, 6: 4, 10: 2}
"""Members that a level needs (md(4))."""

_BTRFS_PROFILES = {
    "single": (1, 1),
    "dup": (1, 2),
    "raid0": (1, 1),
    "raid1": (2, 2),
    "raid1c3": (3, 3),
    "raid1c4": (4, 4),
    "raid10": (2, 2),
}
"""Members that a profile needs, and copies that it makes (mkfs.btrfs(8), PROFILES)."""


def _data_members(level: int, count: int) -> int:
    """How many members' worth of data an array holds."""
    match level:
        case 0:
            return count
        case 1:
            return 1
        case 4 | 5:
            return count - 1
        case 6:
            return count - 2
    return count // 2


def _turn(volume: LogicalVolume) -> int:
    """What takes the rest comes after what has a size, and pools before what lies in them."""
    if volume.pool is not None:
        return 2
    return 1 if isinstance(volume.size, Rest) else 0


def _thin_metadata(size: int) -> int:
    """What lvcreate(8) takes for a pool's metadata: 64 bytes a chunk of at least 64 KiB."""
    return max(EXTENT, -(-(size // 1024) // EXTENT) * EXTENT)


def _volume_type(volume: LogicalVolume) -> VolumeType:
    if volume.thin_pool:
        return "thin-pool"
    return "thin" if volume.pool is not None else "linear"
