"""The answer file: everything the owner of a machine can decide, and its defaults.

The field names are kebab-case in the file (`by-id`) and snake_case here. `netinstall schema`
prints the JSON Schema of `AnswerFile`.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.units import Absolute, Percent, Rest, Size, parse_bytes, parse_size


class Strict(BaseModel):
    """A table of the answer file: unknown fields are mistakes, values are never coerced."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        # Only the form of the file is accepted; code constructs through model_validate.
        validate_by_name=False,
        validate_by_alias=True,
    )


def _size(value: object) -> Size:
    if isinstance(value, Absolute | Percent | Rest):
        return value
    if not isinstance(value, str):
        raise ValueError('write a size as text, for example "512 MiB", "25 %" or "rest"')  # noqa: TRY004 - pydantic reports ValueError
    return parse_size(value)


def _write_size(size: Size) -> str:
    match size:
        case Absolute(count):
            return f"{count} B"
        case Percent(value):
            return f"{value:g} %"
        case Rest():
            return "rest"


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return parse_bytes(value)
    raise ValueError('write a size as text, for example "100 GB"')


def _mount_point(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a mount point is an absolute path")
    # two slashes at the beginning mean something else to POSIX, and PurePosixPath keeps them
    if value != "/" and (str(PurePosixPath(value)) != value or value.startswith("//")):
        raise ValueError("write the mount point without a trailing slash or doubled slashes")
    if ".." in value.split("/") or not re.fullmatch(r"[A-Za-z0-9/._@+-]+", value):
        raise ValueError("a mount point holds letters, digits and / . _ @ + - only, and no ..")
    if value == "/etc" or value.split("/")[1] in ("proc", "sys", "dev", "run"):
        raise ValueError(f"{value} cannot be a file system of its own")
    return value


def _hostname(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", value):
        raise ValueError(
            "a host name is 1 to 63 letters, digits and hyphens, without dots (RFC 1123, 2.1)"
        )
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(?:[/?#]\S*)?", value):
        raise ValueError("write a URL that starts with http:// or https://")
    return value


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("write an absolute path")
    return value


PartitionSize = Annotated[
    Size,
    BeforeValidator(_size),
    PlainSerializer(_write_size, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(rest|[0-9.]+ ?%|[0-9.]+ ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB))$",
            "examples": ["512 MiB", "25 %", "rest"],
        }
    ),
]
DiskBytes = Annotated[
    int,
    BeforeValidator(_bytes),
    PlainSerializer(lambda count: f"{count} B", return_type=str),
    WithJsonSchema({"type": "string", "examples": ["100 GB", "1.5 TB"]}),
]
MountPoint = Annotated[str, AfterValidator(_mount_point)]
HostName = Annotated[str, AfterValidator(_hostname)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]
# $ is the very end for pydantic's regex crate and for ECMA-262, which JSON Schema refers to; \z
# and \Z are unknown to one or the other.
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
StorePath = Annotated[
    str, StringConstraints(pattern=r"^/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]{1,207}$")
]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Glob = Annotated[NonEmpty, Field(description="exact, or with the wildcards * ? [] of fnmatch(3)")]


class Payload(Strict):
    """Where the system comes from, and how it is known to be the right one."""

    url: HttpUrl | None = Field(None, description="http(s) URL of a system tarball")
    path: AbsolutePath | None = Field(
        None, description="path of a system tarball in the boot environment (a mounted share)"
    )
    sha256: Sha256 | None = Field(None, description="SHA-256 of the tarball as it is served")
    unverified: bool = Field(
        False, description="install without a known SHA-256: anybody on the network can replace it"
    )
    verify: Literal["first", "stream"] = Field(
        "first",
        description="first: read the whole payload once and check it before any disk is touched; "
        "stream: check while unpacking (half the traffic, but the disk is erased by then)",
    )
    retry_seconds: int = Field(
        120,
        ge=0,
        le=86400,
        description="how long to keep trying after a download stopped making progress",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("give either url or path")
        if self.sha256 is None and not self.unverified:
            raise ValueError("give sha256 (or accept any content with unverified = true)")
        if self.sha256 is not None and self.unverified:
            raise ValueError("sha256 and unverified = true contradict each other")
        return self

    @property
    def source(self) -> str:
        """The URL or path."""
        return self.url or self.path or ""


class Rebuild(Strict):
    """How the system is built again in the target, with the generated configuration."""

    expression: NonEmpty = Field("<nixpkgs/nixos>", description="what nix-env -f evaluates")
    attribute: NonEmpty = Field("system", description="the attribute of it that is the system")
    substitute: bool = Field(
        False, description="allow binary caches; without, only what the payload holds is used"
    )
    timeout_seconds: int = Field(7200, ge=60, le=86400)


class System(Strict):
    """What is made of the payload."""

    install: Literal["prebuilt", "rebuild"] = Field(
        "prebuilt",
        description="prebuilt: boot the toplevel of the payload as it is; "
        "rebuild: build it again in the target from its channel with the generated configuration",
    )
    toplevel: StorePath | None = Field(
        None, description="which system of the payload, if it holds more than one"
    )
    rebuild: Rebuild = Field(default_factory=lambda: Rebuild.model_validate({}))
    verify_store: bool = Field(
        False, description="check the contents of every registered store path before it may boot"
    )


class SizeRange(Strict):
    """Bounds, both inclusive."""

    min: DiskBytes | None = None
    max: DiskBytes | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is larger than max")
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


Transport = Literal["nvme", "sata", "sas", "scsi", "usb", "virtio", "mmc", "iscsi", "fc"]


class Match(Strict):
    """What a disk must be to be chosen. All given fields must hold; at least one is needed."""

    by_id: Glob | None = Field(None, description="a name under /dev/disk/by-id")
    by_path: Glob | None = Field(None, description="a name under /dev/disk/by-path")
    serial: Glob | None = None
    wwn: Glob | None = None
    model: Glob | None = None
    transport: Transport | None = None
    rotational: bool | None = None
    size: SizeRange | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        # in JSON, a field can be given as null, and says nothing then
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("say at least one thing about the disk: no disk is a default")
        return self


class Partition(Strict):
    """One partition, in the order in which they lie on the disk."""

    type: Literal["linux", "esp", "bios-boot", "swap"] = "linux"
    size: PartitionSize
    filesystem: Literal["ext4", "xfs", "btrfs", "vfat"] | None = Field(
        None, description="ext4 where nothing is said; vfat on an ESP"
    )
    mount: MountPoint | None = Field(None, description="where the installed system mounts it")
    label: Label | None = Field(None, description="label of the file system or swap area")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.type in ("swap", "bios-boot"):
            for name in ("filesystem", "mount"):
                if getattr(self, name) is not None:
                    raise ValueError(f"a {self.type} partition has no {name}")
        if self.type == "bios-boot" and self.label is not None:
            raise ValueError("a bios-boot partition has no label")
        if self.type == "esp" and self.filesystem not in (None, "vfat"):
            raise ValueError("an ESP is vfat (UEFI 2.10, 13.3)")
        if self.type == "linux" and self.mount is None:
            raise ValueError("say where it is mounted (mount)")
        if self.filesystem_name == "vfat" and self.mount == "/":
            raise ValueError("vfat cannot hold a NixOS root (no owners, no links)")
        limit = (SWAP if self.type == "swap" else FILESYSTEMS[self.filesystem_name]).label_bytes
        if self.label is not None and len(self.label) > limit:
            raise ValueError(f"a label here has at most {limit} characters")
        return self

    @property
    def filesystem_name(self) -> str:
        """The file system, with the default for its type filled in."""
        return self.filesystem or ("vfat" if self.type == "esp" else "ext4")

    @property
    def mount_point(self) -> str | None:
        """The mount point, with the default for its type filled in."""
        return self.mount or ("/boot" if self.type == "esp" else None)


class Disk(Strict):
    """A disk that is wanted, and what it becomes. Everything on it is destroyed."""

    match: Match
    choose: Literal["smallest", "largest"] | None = Field(
        None, description="which one, if several match; without, several are an error"
    )
    partitions: Annotated[list[Partition], Field(min_length=1, max_length=120)]

    @model_validator(mode="after")
    def _one_rest(self) -> Self:
        if sum(isinstance(part.size, Rest) for part in self.partitions) > 1:
            raise ValueError('only one partition of a disk can have size = "rest"')
        shares = sum(part.size.value for part in self.partitions if isinstance(part.size, Percent))
        if shares > 100:
            raise ValueError(f"the shares add up to {shares:g} %")
        return self


class Network(Strict):
    """What the installed system's networking.nix says."""

    mode: Literal["dhcp", "static-from-lease"] = "dhcp"
    interface: NonEmpty = Field(
        "boot",
        description="boot: the one that booted; or a kernel name (eth0), or a MAC address",
    )
    backend: Literal["networkd", "scripted"] = "networkd"
    hostname: HostName | None = Field(
        None, description="host name; without, the lease's, and if it has none the payload's"
    )


class Boot(Strict):
    """What the firmware must be."""

    firmware: Literal["auto", "uefi", "bios"] = Field(
        "auto", description="auto: as this machine booted; otherwise anything else is an error"
    )


class Finish(Strict):
    """What happens at the end, when the agent runs as init."""

    on_success: Literal["reboot", "poweroff", "shell"] = "reboot"
    on_failure: Literal["shell", "reboot", "poweroff"] = "shell"
    failure_delay_seconds: int = Field(
        60, ge=0, le=86400, description="how long the error stays on the screen before a reboot"
    )


class Report(Strict):
    """Where the events go besides the consoles and the log."""

    url: HttpUrl | None = Field(None, description="events are POSTed there as JSON lines")


class AnswerFile(Strict):
    """Answers for an unattended installation."""

    model_config = ConfigDict(title="Netinstall answer file")

    version: Literal[1] = Field(description="version of this format: write version = 1")
    payload: Payload
    disks: Annotated[list[Disk], Field(min_length=1)]
    system: System = Field(default_factory=lambda: System.model_validate({}))
    network: Network = Field(default_factory=lambda: Network.model_validate({}))
    boot: Boot = Field(default_factory=lambda: Boot.model_validate({}))
    finish: Finish = Field(default_factory=lambda: Finish.model_validate({}))
    report: Report = Field(default_factory=lambda: Report.model_validate({}))

    @model_validator(mode="after")
    def _mounts(self) -> Self:
        mounts = [
            part.mount_point
            for disk in self.disks
            for part in disk.partitions
            if part.mount_point is not None
        ]
        if mounts.count("/") != 1:
            raise ValueError('exactly one partition must have mount = "/"')
        for mount in sorted(set(mounts)):
            if mounts.count(mount) > 1:
                raise ValueError(f"two partitions are mounted at {mount}")
        return self


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the answer file."""
    schema = AnswerFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
