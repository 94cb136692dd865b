"""What was seen of a machine: one JSON document, so that a strange machine becomes a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
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
class Neighbour:
    """What the switch port at the other end of the cable says of itself (LLDP, IEEE 802.1AB).

    `system` is the switch's name, `chassis` its identifier (mostly a MAC address), `port` the
    port's identifier and `port_description` what its owner wrote to it, `address` where it is
    managed, `vlan` the port's untagged VLAN.
    """

    system: str | None = None
    chassis: str | None = None
    port: str | None = None
    port_description: str | None = None
    address: IPv4Address | IPv6Address | None = None
    vlan: int | None = None


@dataclass(frozen=True)
class Nic:
    """A network interface with hardware behind it; `speed` in Mbit/s, None when not known.

    `name` is the kernel's, good for this boot only. `mac` and `permanent_mac` are lower case with
    colons; the permanent one is that of the hardware, whatever the interface uses at the moment.
    `path` is udev's ID_PATH. `names` are udev's proposals (ID_NET_NAME_FROM_DATABASE, _ONBOARD,
    _SLOT, _PATH, _MAC), best first. Which interface booted, `Facts.boot_nic` says.
    """

    name: str
    mac: str
    permanent_mac: str | None = None
    driver: str | None = None
    path: str | None = None
    carrier: bool = False
    speed: int | None = None
    names: tuple[str, ...] = ()
    neighbour: Neighbour | None = None


@dataclass(frozen=True)
class Route:
    """A way to a network; without a gateway, the network is on the link itself."""

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True)
class Lease:
    """What a DHCP server (or the kernel's ip= argument) gave an interface. RFC 2132's options.

    `gateway` is the first router of option 3, `further_routers` are its others, best first.
    `routes` are those of option 121 in its order (RFC 3442; a gateway of 0.0.0.0 there means on
    the link, None here); empty when the option is missing. `hostname` is option 12 and `fqdn`
    option 81 (RFC 4702), both as given, without a dot at the end; `search` option 119, `ntp`
    option 42, `mtu` option 26 in bytes. `seconds` is the lease time (option 51) and `taken` the
    moment of the server's answer, with its zone, by a clock that may not be set yet. `source` is
    the file or program it was read from.
    """

    interface: str
    address: IPv4Interface
    gateway: IPv4Address | None = None
    further_routers: tuple[IPv4Address, ...] = ()
    routes: tuple[Route, ...] = ()
    nameservers: tuple[IPv4Address, ...] = ()
    search: tuple[str, ...] = ()
    domain: str | None = None
    hostname: str | None = None
    fqdn: str | None = None
    ntp: tuple[IPv4Address, ...] = ()
    mtu: int | None = None
    server: IPv4Address | None = None
    root_path: str | None = None
    seconds: int | None = None
    taken: datetime | None = None
    source: str = ""

    @property
    def effective_routes(self) -> tuple[Route, ...]:
        """The routes that count: option 121 makes a client ignore option 3 (RFC 3442, page 5).

        A server that gives option 121 without a default route gives none at all.
        """
        if self.routes:
            return self.routes
        everywhere = IPv4Network("0.0.0.0/0")
        routers = ((self.gateway,) if self.gateway is not None else ()) + self.further_routers
        return tuple(Route(everywhere, router) for router in dict.fromkeys(routers))


@dataclass(frozen=True)
class Prefix:
    """A prefix of a router advertisement (RFC 4861, 4.6.2).

    `on_link` and `autonomous` are its flags L and A; `valid` and `preferred` its lifetimes in
    seconds, None for ever.
    """

    network: IPv6Network
    on_link: bool = True
    autonomous: bool = True
    valid: int | None = None
    preferred: int | None = None


@dataclass(frozen=True)
class Router:
    """A default router of IPv6: its link-local address, and its preference (RFC 4191, 2.2).

    `seconds` is the router lifetime of its advertisement.
    """

    address: IPv6Address
    preference: Literal["low", "medium", "high"] = "medium"
    seconds: int | None = None


@dataclass(frozen=True)
class Lease6:
    """What routers (RFC 4861) and DHCPv6 servers (RFC 8415) gave an interface.

    `addresses` are those of DHCPv6 (IA_NA), which come without a prefix length; `slaac` those that
    the kernel formed itself in autonomous prefixes (RFC 4862), temporary ones left out. `managed`
    and `other` are the advertisement's flags M and O; `routes` its route information (RFC 4191,
    2.3) without the default. `nameservers` and `search` are first DHCPv6's (options 23 and 24, RFC
    3646), then the advertisement's RDNSS and DNSSL (RFC 8106), each once. `fqdn` is option 39 (RFC
    4704), `ntp` options 56 and 31 (RFC 5908, 4075). `mtu` is the advertisement's, in bytes.
    `server` is the DHCPv6 server's DUID in hexadecimal digits, `seconds` the valid lifetime of the
    first address of DHCPv6. `taken` and `source` as with `Lease`.
    """

    interface: str
    addresses: tuple[IPv6Address, ...] = ()
    slaac: tuple[IPv6Interface, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    routers: tuple[Router, ...] = ()
    routes: tuple[Route, ...] = ()
    managed: bool = False
    other: bool = False
    nameservers: tuple[IPv6Address, ...] = ()
    search: tuple[str, ...] = ()
    fqdn: str | None = None
    ntp: tuple[IPv6Address, ...] = ()
    mtu: int | None = None
    server: str | None = None
    seconds: int | None = None
    taken: datetime | None = None
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
    `files` counts files, folders and symbolic links, each once; 0 if it is not known.
    """

    name: str
    sha256: str
    built: str
    judged: str
    size: int
    usage: int
    frames: int
    entries: int
    files: int = 0
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
    `observed` is when all this was seen, with its zone, by a clock that may not be set yet.
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
    leases6: tuple[Lease6, ...] = ()
    boot_mac: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    kernel_arguments: Mapping[str, str] = field(default_factory=dict)
    payload: PayloadFacts | None = None
    observed: datetime | None = None
    image: ImageFacts = field(default_factory=ImageFacts)

    @property
    def boot_nic(self) -> Nic | None:
        """The interface that booted: by BOOTIF, else the only one with a lease, else None.

        A lease of either family counts, but none of IPv6 where there is one of IPv4: every
        interface with a router in its network has that.
        """
        if self.boot_mac is not None:
            for nic in self.nics:
                if self.boot_mac in (nic.mac, nic.permanent_mac):
                    return nic
        leases = self.leases or self.leases6
        leased = [n for n in self.nics if any(lease.interface == n.name for lease in leases)]
        return leased[0] if len(leased) == 1 else None

    def lease_of(self, nic: Nic) -> Lease | None:
        """The lease of an interface, None when it has none."""
        return next((lease for lease in self.leases if lease.interface == nic.name), None)

    def lease6_of(self, nic: Nic) -> Lease6 | None:
        """What IPv6 gave an interface, None when that is nothing."""
        return next((lease for lease in self.leases6 if lease.interface == nic.name), None)
