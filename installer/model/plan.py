"""The plan: an ordered list of steps, each a piece of data.

A step says what it will do (`title`), to which device (`device`), what it destroys (`destroys`)
and how it is undone or repeated (`again`). `installer.act` has one function for each kind; a dry
run prints the same steps.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from installer.model.facts import Disk, Firmware
from installer.model.payload_steps import (
    CheckClosure,
    CheckPayload,
    CheckSquashfs,
    CopyClosure,
    UnpackFrames,
    UnpackPayload,
    UnpackSquashfs,
)
from installer.model.steps import BaseStep
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    EditTable,
    EnableSwap,
    EraseDisk,
    FormatLuks,
    MakeFilesystem,
    MakeSwapFile,
    MarkComplete,
    MirrorEsp,
    MountFilesystem,
    TearDown,
    WipeDisk,
    WriteTable,
)

PAYLOAD_REGISTRATION = "nix-path-registration"
SYSTEM_PROFILE = "/nix/var/nix/profiles/system"


@dataclass(frozen=True)
class EnterTarget(BaseStep):
    """Mount /proc, /sys, /dev and /run in the target (efivarfs too) for programs run there."""

    efivars: bool
    kind: Literal["enter-target"] = "enter-target"
    again: ClassVar[str] = "unmounted at the end, also after a failure"

    @property
    def title(self) -> str:
        return "mount /proc, /sys, /dev and /run in the target"


@dataclass(frozen=True)
class RegisterStore(BaseStep):
    """Load nix-path-registration into the target's Nix database."""

    kind: Literal["register-store"] = "register-store"

    @property
    def title(self) -> str:
        return "register the store paths in the Nix database"


@dataclass(frozen=True)
class GenerateConfig(BaseStep):
    """Run the target's nixos-generate-config."""

    kind: Literal["generate-config"] = "generate-config"

    @property
    def title(self) -> str:
        return "run nixos-generate-config"


@dataclass(frozen=True)
class WriteFile(BaseStep):
    """Write a file of the installed system; `path` is absolute there, `mode` octal bits.

    `add_import`: if configuration.nix beside it does not import it, let it.
    """

    path: str
    content: str
    mode: int = 0o644
    add_import: bool = False
    kind: Literal["write-file"] = "write-file"

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.path}"

    @property
    def title(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class SetProfile(BaseStep):
    """Make the payload's toplevel the system profile; None stands for the only one it holds."""

    toplevel: str | None
    kind: Literal["set-profile"] = "set-profile"

    @property
    def title(self) -> str:
        return f"make {self.toplevel or 'the system of the payload'} the system profile"


@dataclass(frozen=True)
class RebuildSystem(BaseStep):
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
class Flush(BaseStep):
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
class InstallBootLoader(BaseStep):
    """Run switch-to-configuration boot: what makes the machine bootable, last."""

    firmware: Firmware
    timeout_seconds: int = 600
    kind: Literal["boot-loader"] = "boot-loader"

    @property
    def title(self) -> str:
        return "install the boot loader"


@dataclass(frozen=True)
class LeaveTarget(BaseStep):
    """Copy the log into the target, then unmount everything and flush the disks."""

    log_path: str
    kind: Literal["leave-target"] = "leave-target"

    @property
    def title(self) -> str:
        return f"keep the log as {self.log_path} and unmount"


Step = (
    CheckPayload
    | TearDown
    | WipeDisk
    | EraseDisk
    | WriteTable
    | EditTable
    | CreateArray
    | FormatLuks
    | CreateVolumeGroup
    | CreateVolume
    | MakeFilesystem
    | CreatePool
    | MountFilesystem
    | EnableSwap
    | UnpackPayload
    | UnpackFrames
    | CheckSquashfs
    | CheckClosure
    | UnpackSquashfs
    | CopyClosure
    | MakeSwapFile
    | EnterTarget
    | RegisterStore
    | GenerateConfig
    | WriteFile
    | SetProfile
    | RebuildSystem
    | Flush
    | InstallBootLoader
    | MirrorEsp
    | MarkComplete
    | LeaveTarget
)


@dataclass(frozen=True)
class RejectedDisk:
    """A disk that was not chosen for anything, and why not, in words."""

    disk: Disk
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PlannedLink:
    """An interface of the installed system in words, for people: what it is, what it gets."""

    name: str
    what: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedNetwork:
    """What networking.nix makes of the machine, for people.

    `backend` is None where the payload's own stays. `names_from` says where host name and domain
    come from; `others` is whether the interfaces that are not in `links` ask a DHCP server.
    """

    hostname: str | None
    domain: str | None
    names_from: str
    backend: Literal["networkd", "scripted"] | None
    links: tuple[PlannedLink, ...]
    others: bool


@dataclass(frozen=True)
class Plan:
    """What will be done to this machine, in order.

    `chosen` are the disks that will be destroyed, in the order of the answer file. `system` says
    what will boot, and what has to be built or fetched for it; it and `warnings` are
    for people; nothing depends on them.
    """

    version: Literal[1]
    firmware: Firmware
    chosen: tuple[Disk, ...]
    rejected: tuple[RejectedDisk, ...]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    network: PlannedNetwork | None = None
    system: tuple[str, ...] = ()

    @property
    def destroyed(self) -> tuple[str, ...]:
        """What the plan destroys, one line each."""
        return tuple(step.destroys for step in self.steps if step.destroys is not None)
