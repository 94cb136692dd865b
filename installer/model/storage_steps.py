"""Steps that take storage apart and make it anew, in the order in which a plan has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from installer.model.facts import FoundPartition, Layer
from installer.model.steps import BaseStep, Device, PartitionRef, StackedRef
from installer.model.storage import Erase, SecretPlace, Tpm2
from installer.model.units import format_bytes, format_seconds

_CANNOT_BE_UNDONE = "cannot be undone"
_CLOSED_AT_THE_END = "closed at the end, also after a failure"


@dataclass(frozen=True)
class _OnDisk(BaseStep):
    """`disk` is a stable path; `node`, `disk_size`, `serial` and `wwn` are what was seen of it when
    the plan was made: the step refuses a disk that differs."""

    disk: str
    node: str
    disk_size: int
    serial: str | None
    wwn: str | None

    @property
    def id(self) -> str:
        return f"{getattr(self, 'kind')}:{self.disk}"  # noqa: B009 - a literal of each step

    @property
    def device(self) -> str | None:
        return self.disk


@dataclass(frozen=True)
class TearDown(BaseStep):
    """Unmount what lies on a layer, wipe its signatures, and stop it; the layers above are gone.

    `layer` None stands for a disk or partition itself that is mounted or swapped to (`node`).
    """

    node: str
    mounts: tuple[str, ...]
    swap: bool
    layer: Layer | None
    kind: Literal["tear-down"] = "tear-down"
    again: ClassVar[str] = _CANNOT_BE_UNDONE

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.node}"

    @property
    def title(self) -> str:
        does = [f"unmount {where}" for where in self.mounts]
        if self.swap:
            does.append(f"stop swapping to {self.node}")
        if self.layer is not None:
            does.append(f"wipe and stop {self.layer.kind} {self.layer.name} ({self.node})")
        return ", ".join(does)

    @property
    def destroys(self) -> str | None:
        if self.layer is None:
            return None
        held = f": {self.layer.filesystem}" if self.layer.filesystem else ""
        on = ", ".join(self.layer.on)
        return f"{self.layer.kind} {self.layer.name} ({self.node} on {on}){held}"


@dataclass(frozen=True)
class WipeDisk(_OnDisk):
    """Destroy a disk's tables and signatures.

    `blank` says that there must be zeros only, `unmarked` that there must be no signature: none was
    seen, and the answer file gives up nothing else.
    """

    carries: str
    blank: bool = False
    unmarked: bool = False
    kind: Literal["wipe-disk"] = "wipe-disk"
    again: ClassVar[str] = _CANNOT_BE_UNDONE

    @property
    def title(self) -> str:
        return f"wipe {self.disk}"

    @property
    def destroys(self) -> str | None:
        return f"everything on {self.disk} ({format_bytes(self.disk_size)}): {self.carries}"


@dataclass(frozen=True)
class EraseDisk(_OnDisk):
    """Erase every block of a disk; `seconds` is how long it probably takes."""

    method: Erase
    seconds: int
    kind: Literal["erase-disk"] = "erase-disk"
    again: ClassVar[str] = _CANNOT_BE_UNDONE

    @property
    def title(self) -> str:
        return f"erase {self.disk} by {self.method} (about {format_seconds(self.seconds)})"


@dataclass(frozen=True)
class PlannedPartition:
    """A row of a partition table.

    `type_id` is a type GUID (UEFI 2.10, Discoverable Partitions Specification), on an MBR two
    hexadecimal digits. `attributes` are bit numbers of the GPT entry, or of an MBR's status byte.
    """

    ref: PartitionRef
    name: str
    type_id: str
    attributes: tuple[int, ...] = ()


@dataclass(frozen=True)
class WriteTable(BaseStep):
    """Write a partition table. `disk_id` (a GUID; 32 bits in hexadecimal digits on an MBR) and all
    PARTUUIDs are chosen by the plan."""

    disk: str
    label: Literal["gpt", "mbr"]
    disk_id: str
    logical_sector: int
    partitions: tuple[PlannedPartition, ...]
    kind: Literal["write-table"] = "write-table"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.disk}"

    @property
    def title(self) -> str:
        parts = ", ".join(f"{p.name} {format_bytes(p.ref.size)}" for p in self.partitions)
        return f"write {'a GPT' if self.label == 'gpt' else 'an MBR'} to {self.disk}: {parts}"

    @property
    def device(self) -> str | None:
        return self.disk


@dataclass(frozen=True)
class EditTable(_OnDisk):
    """Change the table of a disk of which something is kept.

    The table must still be the one that was seen: `kept` and `removed` are all that it holds.
    Removed partitions are wiped before.
    """

    label: Literal["gpt", "mbr"]
    logical_sector: int
    kept: tuple[FoundPartition, ...]
    removed: tuple[FoundPartition, ...]
    added: tuple[PlannedPartition, ...]
    kind: Literal["edit-table"] = "edit-table"
    again: ClassVar[str] = _CANNOT_BE_UNDONE

    @property
    def title(self) -> str:
        added = ", ".join(f"{p.name} {format_bytes(p.ref.size)}" for p in self.added)
        kept = ", ".join(str(part.number) for part in self.kept)
        return f"keep partition {kept} of {self.disk}, add {added or 'nothing'}"

    @property
    def destroys(self) -> str | None:
        if not self.removed:
            return None
        gone = ", ".join(
            f"{part.node} {format_bytes(part.size)} {part.filesystem or ''}".rstrip()
            for part in self.removed
        )
        return f"of {self.disk}: {gone}"


@dataclass(frozen=True)
class CreateArray(BaseStep):
    """Make a software RAID; `argv` is mdadm's up to the members."""

    array: StackedRef
    level: int
    members: tuple[Device, ...]
    argv: tuple[str, ...]
    kind: Literal["create-array"] = "create-array"
    again: ClassVar[str] = _CLOSED_AT_THE_END

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.array}"

    @property
    def title(self) -> str:
        members = ", ".join(map(str, self.members))
        return f"make RAID {self.level} {self.array} of {members}"


@dataclass(frozen=True)
class FormatLuks(BaseStep):
    """Make a LUKS2 header, and open it.

    `argv` is cryptsetup's up to the device. `passphrase` says where it is read from; without, a
    random one is used until TPM and recovery key are enrolled, and forgotten. The recovery key is
    written to `recovery_path` of the installed system.
    """

    on: Device
    opened: StackedRef
    name: str
    argv: tuple[str, ...]
    passphrase: SecretPlace | None
    tpm2: Tpm2 | None
    recovery_path: str | None
    discard: bool
    kind: Literal["format-luks"] = "format-luks"
    again: ClassVar[str] = _CLOSED_AT_THE_END

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def title(self) -> str:
        keys = [
            *(["a passphrase"] if self.passphrase else []),
            *(["the TPM"] if self.tpm2 else []),
            *(["a recovery key"] if self.recovery_path else []),
        ]
        return f"encrypt {self.on} as {self.opened}, unlocked by {' or '.join(keys)}"


@dataclass(frozen=True)
class CreateVolumeGroup(BaseStep):
    """Make physical volumes and a volume group."""

    name: str
    members: tuple[Device, ...]
    kind: Literal["create-volume-group"] = "create-volume-group"
    again: ClassVar[str] = _CLOSED_AT_THE_END

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def title(self) -> str:
        return f"make the volume group {self.name} of {', '.join(map(str, self.members))}"


VolumeType = Literal["linear", "thin-pool", "thin"]


@dataclass(frozen=True)
class CreateVolume(BaseStep):
    """Make a logical volume, a thin pool, or a thin volume in `pool`.

    `size` in bytes, a multiple of LVM's extents; with `fill` the least that is left, of which all
    is taken.
    """

    volume: StackedRef
    group: str
    name: str
    size: int
    fill: bool
    type: VolumeType
    pool: str | None
    kind: Literal["create-volume"] = "create-volume"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.group}/{self.name}"

    @property
    def title(self) -> str:
        what = {"linear": "volume", "thin-pool": "thin pool", "thin": "thin volume"}[self.type]
        return f"make the {what} {self.group}/{self.name}, {format_bytes(self.size)}"


@dataclass(frozen=True)
class MakeFilesystem(BaseStep):
    """Run mkfs or mkswap; `argv` ends before the devices, which are appended when they are known.

    `subvolumes` are then made in it (btrfs). `replaces` is what a partition that is kept held.
    """

    devices: tuple[Device, ...]
    filesystem: str
    uuid: str
    argv: tuple[str, ...]
    subvolumes: tuple[str, ...] = ()
    replaces: str | None = None
    kind: Literal["make-filesystem"] = "make-filesystem"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.uuid}"

    @property
    def title(self) -> str:
        on = ", ".join(map(str, self.devices))
        parts = f" with {', '.join(self.subvolumes)}" if self.subvolumes else ""
        return f"make {self.filesystem} on {on}{parts}"

    @property
    def device(self) -> str | None:
        (first, *_) = self.devices
        return first.disk if isinstance(first, PartitionRef) else None

    @property
    def destroys(self) -> str | None:
        return self.replaces


@dataclass(frozen=True)
class CreatePool(BaseStep):
    """Make a ZFS pool and its data sets; `argv` is zpool's up to the members, `topology` a word of
    zpoolconcepts(7) or "". `datasets` maps names to their properties."""

    name: str
    members: tuple[Device, ...]
    topology: str
    argv: tuple[str, ...]
    datasets: Mapping[str, Mapping[str, str]]
    kind: Literal["create-pool"] = "create-pool"
    again: ClassVar[str] = _CLOSED_AT_THE_END

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def title(self) -> str:
        members = ", ".join(map(str, self.members))
        return f"make the ZFS pool {self.name} of {' '.join([self.topology, members]).strip()}"


@dataclass(frozen=True)
class MountFilesystem(BaseStep):
    """Mount a file system below the target; `where` is its path in the installed system.

    `source` is a device, or a name that mount(8) takes for this kind (a ZFS data set, "tmpfs").
    """

    source: Device | str
    filesystem: str
    where: str
    options: tuple[str, ...]
    kind: Literal["mount"] = "mount"
    again: ClassVar[str] = "unmounted at the end, also after a failure"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.where}"

    @property
    def title(self) -> str:
        return f"mount {self.source} as {self.where}"


@dataclass(frozen=True)
class MakeSwapFile(BaseStep):
    """Make a swap file in the installed system; `size` in bytes."""

    path: str
    size: int
    kind: Literal["make-swap-file"] = "make-swap-file"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def title(self) -> str:
        return f"make the swap file {self.path}, {format_bytes(self.size)}"


@dataclass(frozen=True)
class EnableSwap(BaseStep):
    """Use a new swap area while installing, so that generated configuration names it.

    `area` is a device, or a swap file's path in the installed system.
    """

    area: Device | str
    kind: Literal["swap-on"] = "swap-on"
    again: ClassVar[str] = "switched off at the end, also after a failure"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.area}"

    @property
    def title(self) -> str:
        return f"swap on {self.area}"


@dataclass(frozen=True)
class MirrorEsp(BaseStep):
    """Copy what the boot loader put onto the first ESP to the others, so that each disk boots."""

    source: str
    targets: tuple[str, ...]
    kind: Literal["mirror-esp"] = "mirror-esp"

    @property
    def title(self) -> str:
        return f"copy {self.source} to {', '.join(self.targets)}"


@dataclass(frozen=True)
class MarkComplete(BaseStep):
    """Say in each new GPT that the installation got to its end.

    `disks` maps stable paths to the GUID that the disk has from then on. Until then the GUID says
    that an installation was begun: another run may do it again with wipe = "known".
    """

    disks: Mapping[str, str]
    kind: Literal["mark-complete"] = "mark-complete"

    @property
    def title(self) -> str:
        return f"mark {', '.join(self.disks)} as installed"
