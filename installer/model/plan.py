"""The plan: an ordered list of steps, each a piece of data.

A step says what it will do (`title`), to which device (`device`), what it destroys (`destroys`)
and how it is undone or repeated (`again`). `installer.act` has one function for each kind; a dry
run prints the same steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import PlainSerializer

from installer.model.facts import Disk, Firmware
from installer.model.units import format_bytes
from installer.model.urls import redacted

Source = Annotated[str, PlainSerializer(redacted)]
"""A URL or path. It may hold a password, so it never leaves this process as it is."""

PAYLOAD_REGISTRATION = "nix-path-registration"
SYSTEM_PROFILE = "/nix/var/nix/profiles/system"


@dataclass(frozen=True)
class PartitionRef:
    """A partition that the plan makes: `disk` is a stable path, `start` and `size` in bytes.

    It is found again through sysfs by its number and position below the disk, and known to the
    world by its PARTUUID; never by gluing a number to a disk's name.
    """

    disk: str
    number: int
    partuuid: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"partition {self.number} of {self.disk}"


@dataclass(frozen=True)
class PlannedPartition:
    """A row of a partition table; `type_guid` after the UEFI and Discoverable Partitions specs."""

    ref: PartitionRef
    name: str
    type_guid: str


class _Step:
    again: ClassVar[str] = "run again: the same result"

    @property
    def id(self) -> str:
        """Short name, unique within a plan; used in events and logs."""
        return str(getattr(self, "kind"))  # noqa: B009 - each step narrows it to a literal

    @property
    def title(self) -> str:
        raise NotImplementedError

    @property
    def device(self) -> str | None:
        return None

    @property
    def destroys(self) -> str | None:
        return None


@dataclass(frozen=True)
class _PayloadStep(_Step):
    """Which payload is read; `capacity` maps each mount point to the bytes that fit there."""

    source: Source
    sha256: str | None
    capacity: Mapping[str, int]
    toplevel: str | None
    retry_seconds: int


@dataclass(frozen=True)
class CheckPayload(_PayloadStep):
    """Read the whole payload once and check it, before anything is destroyed."""

    kind: Literal["check-payload"] = "check-payload"

    @property
    def title(self) -> str:
        return f"check the payload {redacted(self.source)}"


@dataclass(frozen=True)
class WipeDisk(_Step):
    """Destroy a disk's tables and signatures.

    `node`, `disk_size`, `serial` and `wwn` are what was seen of the disk when the plan was made;
    the step refuses a disk that differs or is in use.
    """

    disk: str
    node: str
    disk_size: int
    serial: str | None
    wwn: str | None
    carries: str
    kind: Literal["wipe-disk"] = "wipe-disk"
    again: ClassVar[str] = "cannot be undone"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.disk}"

    @property
    def title(self) -> str:
        return f"wipe {self.disk}"

    @property
    def device(self) -> str | None:
        return self.disk

    @property
    def destroys(self) -> str | None:
        return f"everything on {self.disk} ({format_bytes(self.disk_size)}): {self.carries}"


@dataclass(frozen=True)
class WriteTable(_Step):
    """Write a GPT. `disk_guid` and all PARTUUIDs are chosen by the plan."""

    disk: str
    disk_guid: str
    logical_sector: int
    partitions: tuple[PlannedPartition, ...]
    kind: Literal["write-table"] = "write-table"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.disk}"

    @property
    def title(self) -> str:
        parts = ", ".join(f"{p.name} {format_bytes(p.ref.size)}" for p in self.partitions)
        return f"write a GPT to {self.disk}: {parts}"

    @property
    def device(self) -> str | None:
        return self.disk


@dataclass(frozen=True)
class MakeFilesystem(_Step):
    """Run mkfs or mkswap; `argv` ends before the device, which is appended when it is known."""

    partition: PartitionRef
    filesystem: str
    uuid: str
    argv: tuple[str, ...]
    kind: Literal["make-filesystem"] = "make-filesystem"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.partition.partuuid}"

    @property
    def title(self) -> str:
        return f"make {self.filesystem} on {self.partition}"

    @property
    def device(self) -> str | None:
        return self.partition.disk


@dataclass(frozen=True)
class MountFilesystem(_Step):
    """Mount a new file system below the target; `where` is its path in the installed system."""

    partition: PartitionRef
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
        return f"mount {self.partition} as {self.where}"


@dataclass(frozen=True)
class EnableSwap(_Step):
    """Use a new swap area while installing, so that generated configuration names it."""

    partition: PartitionRef
    kind: Literal["swap-on"] = "swap-on"
    again: ClassVar[str] = "switched off at the end, also after a failure"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.partition.partuuid}"

    @property
    def title(self) -> str:
        return f"swap on {self.partition}"


@dataclass(frozen=True)
class UnpackPayload(_PayloadStep):
    """Stream the payload into the target, checking hash, length and every member's path."""

    kind: Literal["unpack"] = "unpack"

    @property
    def title(self) -> str:
        return f"unpack {redacted(self.source)}"


@dataclass(frozen=True)
class EnterTarget(_Step):
    """Mount /proc, /sys, /dev and /run in the target (efivarfs too) for programs run there."""

    efivars: bool
    kind: Literal["enter-target"] = "enter-target"
    again: ClassVar[str] = "unmounted at the end, also after a failure"

    @property
    def title(self) -> str:
        return "mount /proc, /sys, /dev and /run in the target"


@dataclass(frozen=True)
class RegisterStore(_Step):
    """Load nix-path-registration into the target's Nix database."""

    kind: Literal["register-store"] = "register-store"

    @property
    def title(self) -> str:
        return "register the store paths in the Nix database"


@dataclass(frozen=True)
class GenerateConfig(_Step):
    """Run the target's nixos-generate-config."""

    kind: Literal["generate-config"] = "generate-config"

    @property
    def title(self) -> str:
        return "run nixos-generate-config"


@dataclass(frozen=True)
class WriteFile(_Step):
    """Write a file of the installed system; `path` is absolute there, `mode` octal bits."""

    path: str
    content: str
    mode: int = 0o644
    kind: Literal["write-file"] = "write-file"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def title(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class SetProfile(_Step):
    """Make the payload's toplevel the system profile; None stands for the only one it holds."""

    toplevel: str | None
    kind: Literal["set-profile"] = "set-profile"

    @property
    def title(self) -> str:
        return f"make {self.toplevel or 'the system of the payload'} the system profile"


@dataclass(frozen=True)
class RebuildSystem(_Step):
    """Build the system in the target with the generated configuration, as its profile."""

    toplevel: str | None
    expression: str
    attribute: str
    substitute: bool
    timeout_seconds: int
    kind: Literal["rebuild"] = "rebuild"

    @property
    def title(self) -> str:
        return f"build {self.attribute} of {self.expression} with the generated configuration"


@dataclass(frozen=True)
class Flush(_Step):
    """Write all caches to the disks and read back: complete after this, but not bootable yet.

    Read back are the toplevel, its kernel and its initrd, or with `whole_store` every store path.
    """

    whole_store: bool
    kind: Literal["flush"] = "flush"

    @property
    def title(self) -> str:
        what = "the whole store" if self.whole_store else "system, kernel and initrd"
        return f"write everything to the disks, then verify {what}"


@dataclass(frozen=True)
class InstallBootLoader(_Step):
    """Run switch-to-configuration boot: what makes the machine bootable, last."""

    firmware: Firmware
    timeout_seconds: int = 600
    kind: Literal["boot-loader"] = "boot-loader"

    @property
    def title(self) -> str:
        return "install the boot loader"


@dataclass(frozen=True)
class LeaveTarget(_Step):
    """Copy the log into the target, then unmount everything and flush the disks."""

    log_path: str
    kind: Literal["leave-target"] = "leave-target"

    @property
    def title(self) -> str:
        return f"keep the log as {self.log_path} and unmount"


Step = (
    CheckPayload
    | WipeDisk
    | WriteTable
    | MakeFilesystem
    | MountFilesystem
    | EnableSwap
    | UnpackPayload
    | EnterTarget
    | RegisterStore
    | GenerateConfig
    | WriteFile
    | SetProfile
    | RebuildSystem
    | Flush
    | InstallBootLoader
    | LeaveTarget
)


@dataclass(frozen=True)
class RejectedDisk:
    """A disk that was not chosen for anything, and why not, in words."""

    disk: Disk
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What will be done to this machine, in order.

    `chosen` are the disks that will be destroyed, in the order of the answer file. `warnings` are
    for people; nothing depends on them.
    """

    version: Literal[1]
    firmware: Firmware
    chosen: tuple[Disk, ...]
    rejected: tuple[RejectedDisk, ...]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()

    @property
    def destroyed(self) -> tuple[str, ...]:
        """What the plan destroys, one line each."""
        return tuple(step.destroys for step in self.steps if step.destroys is not None)
