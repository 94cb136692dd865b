"""What was seen of a machine: one JSON document, so that a strange machine becomes a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Literal

Firmware = Literal["uefi", "bios"]


@dataclass(frozen=True)
class FoundPartition:
    """A partition that a disk carried when it was looked at; `start` and `size` in bytes.

    `uuid` and `label` are those of what libblkid found in it, `name` and `type_guid` the table's.
    """

    node: str
    number: int
    size: int
    start: int = 0
    partuuid: str | None = None
    type_guid: str | None = None
    name: str | None = None
    filesystem: str | None = None
    uuid: str | None = None
    label: str | None = None
    mounts: tuple[str, ...] = ()
    swap: bool = False


LayerKind = Literal["md", "crypt", "lvm", "bcache", "zfs", "btrfs", "other"]


@dataclass(frozen=True)
class Layer:
    """A device that the running kernel stacked on others: an array, an opened LUKS, a volume.

    `node` is its own device (the name of the pool for ZFS), `name` what people call it (md0,
    crypt-root, vg0-home), `on` the nodes directly below: disks, partitions, other layers.
    """

    node: str
    kind: LayerKind
    name: str
    on: tuple[str, ...]
    filesystem: str | None = None
    mounts: tuple[str, ...] = ()
    swap: bool = False


@dataclass(frozen=True)
class Disk:
    """A whole disk. The paths of a multipath device are one disk.

    `node` is the kernel's name (/dev/sda), good for this boot only; `by_id` and `by_path` are
    names under /dev/disk/, without the folder, in udev's order; `slot` is the place in an
    enclosure or on the board. Sizes are in bytes; `optimal_io` is what the device says of its
    stripes, 0 for nothing. `table`, `table_uuid`, `filesystem`, `uuid` and `label` are what
    libblkid found on the whole disk. `boot_medium` says why the running system would not survive
    without the disk; `in_use` why the kernel would not let go of it, where neither mounts, swap
    nor layers explain that.
    """

    node: str
    size: int
    logical_sector: int = 512
    physical_sector: int = 512
    optimal_io: int = 0
    by_id: tuple[str, ...] = ()
    by_path: tuple[str, ...] = ()
    serial: str | None = None
    wwn: str | None = None
    model: str | None = None
    vendor: str | None = None
    slot: str | None = None
    transport: str | None = None
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    boot_medium: str | None = None
    in_use: tuple[str, ...] = ()
    table: str | None = None
    table_uuid: str | None = None
    filesystem: str | None = None
    uuid: str | None = None
    label: str | None = None
    mounts: tuple[str, ...] = ()
    swap: bool = False
    partitions: tuple[FoundPartition, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def stable_path(self) -> str:
        """The best name that survives a reboot: by-id, else by-path, else the node."""
        for folder, names in (("by-id", self.by_id), ("by-path", self.by_path)):
            if names:
                return f"/dev/disk/{folder}/{names[0]}"
        return self.node


@dataclass(frozen=True)
class Nic:
    """A network interface with hardware behind it; `speed` in Mbit/s, None when not known.

    `mac` and `permanent_mac` are lower case with colons. `names` are udev's proposals
    (ID_NET_NAME_ONBOARD, _SLOT, _PATH, _MAC), best first.
    """

    name: str
    mac: str
    permanent_mac: str | None = None
    driver: str | None = None
    path: str | None = None
    carrier: bool = False
    speed: int | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lease:
    """What a DHCP server (or the kernel's ip= argument) gave an interface. RFC 2132's options.

    `seconds` is the lease time (option 51), `source` the file or program it was read from.
    """

    interface: str
    address: IPv4Interface
    gateway: IPv4Address | None = None
    nameservers: tuple[IPv4Address, ...] = ()
    search: tuple[str, ...] = ()
    domain: str | None = None
    hostname: str | None = None
    server: IPv4Address | None = None
    root_path: str | None = None
    seconds: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Dmi:
    """Identity of the machine from SMBIOS, as /sys/class/dmi/id shows it."""

    vendor: str | None = None
    product: str | None = None
    serial: str | None = None
    uuid: str | None = None


@dataclass(frozen=True)
class RebuildFacts:
    """What a manifest says of building the system again: see `model.manifest.Rebuild`."""

    channel: str | None
    configuration: bool
    stdenv: bool


@dataclass(frozen=True)
class ManifestFacts:
    """What a manifest says, after its signature was verified; sizes in bytes.

    `sha256` is the manifest's own; `signed_by` the number of the key as minisign prints it, None
    where no signature was asked for. `size` is the archive's, `usage` what it takes in blocks of
    4 KiB. `judged` is the time that it is valid or expired at: the clock's, or if that is
    obviously wrong the build date of the boot image. All times are UTC, as in a manifest.
    `programs` are those of `model.manifest.PROGRAMS` that are there, None if it is not known.
    """

    name: str
    sha256: str
    built: str
    judged: str
    size: int
    usage: int
    frames: int
    entries: int
    expires: str | None = None
    signed_by: str | None = None
    toplevel: str | None = None
    nixos_version: str | None = None
    platform: str | None = None
    kernel: str | None = None
    boot_modes: tuple[Firmware, ...] = ()
    filesystems: tuple[str, ...] = ()
    folders: Mapping[str, int] = field(default_factory=dict)
    programs: tuple[str, ...] | None = None
    rebuild: RebuildFacts | None = None


@dataclass(frozen=True)
class PayloadFacts:
    """What a first look at the payload's source said; `size` in bytes, None when it did not say."""

    source: str
    size: int | None
    ranges: bool = False
    manifest: ManifestFacts | None = None


@dataclass(frozen=True)
class ImageFacts:
    """What the boot image itself says. `built` is its date, in UTC as in a manifest.

    With `trusted_keys` (lines of minisign.pub), nothing is installed but what one of them signed.
    """

    trusted_keys: tuple[str, ...] = ()
    built: str | None = None


@dataclass(frozen=True)
class Facts:
    """Everything that decisions are made from.

    `tools` maps the name of a program to its path, for those that were found. `entropy` is the
    seed of all identifiers that a plan chooses: 32 hex digits, new for each observation, so that
    two installations never share a UUID and a saved document always gives the same plan.
    `kernel_arguments` holds only those that concern us (`netinstall.*`, `ip`, `BOOTIF`).
    """

    version: Literal[1]
    firmware: Firmware
    architecture: str
    kernel: str
    memory: int
    entropy: str
    dmi: Dmi = field(default_factory=Dmi)
    disks: tuple[Disk, ...] = ()
    layers: tuple[Layer, ...] = ()
    nics: tuple[Nic, ...] = ()
    leases: tuple[Lease, ...] = ()
    boot_mac: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    kernel_arguments: Mapping[str, str] = field(default_factory=dict)
    payload: PayloadFacts | None = None
    image: ImageFacts = field(default_factory=ImageFacts)

    @property
    def boot_nic(self) -> Nic | None:
        """The interface that booted: by BOOTIF, else the only one with a lease, else None."""
        if self.boot_mac is not None:
            for nic in self.nics:
                if self.boot_mac in (nic.mac, nic.permanent_mac):
                    return nic
        leased = [n for n in self.nics if any(lease.interface == n.name for lease in self.leases)]
        return leased[0] if len(leased) == 1 else None

    def lease_of(self, nic: Nic) -> Lease | None:
        """The lease of an interface, None when it has none."""
        return next((lease for lease in self.leases if lease.interface == nic.name), None)
