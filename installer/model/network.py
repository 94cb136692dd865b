"""The network of the installed system as its owner wants it: interfaces, and what is made of them.

A machine with one interface needs `mode` alone. Anything else is described by tables: one for each
interface that gets addresses, one for each bond, VLAN and bridge. What they are made of is named
by `interfaces` and `on`: another table's `name`, or a network card as `installer.decide.cards`
finds it.
"""

import re
from collections.abc import Iterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from installer.model.fields import NonEmpty, Strict

LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""A label of a host name (RFC 1123, 2.1)."""

DOMAIN = re.compile(
    # RFC 1123, 2.1, and the underscore that Active Directory's domains have
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)

_LINK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_KERNEL_NAME = re.compile(r"(?:eth|wlan)[0-9]+|lo|all|default|bonding_masters")
_NO_ADDRESS = "write an address such as 192.0.2.1 or 2001:db8::1"


def _address(value: Any) -> IPv4Address | IPv6Address:
    try:
        # an integer would be one, too
        address = None if isinstance(value, int | bytes) else ip_address(value)
    except ValueError:
        address = None
    if address is None or (isinstance(address, IPv6Address) and address.scope_id):
        raise ValueError(_NO_ADDRESS)
    if not can_be_a_host(address):
        raise ValueError(f"{address} is no address of a machine")
    return address


def _interface(value: object) -> IPv4Interface | IPv6Interface:
    if isinstance(value, IPv4Interface | IPv6Interface):
        return value
    try:
        found = ip_interface(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or not isinstance(value, str) or "/" not in value or "%" in value:
        raise ValueError(
            "write an address with its prefix length, such as 192.0.2.10/24 or 2001:db8::10/64"
        )
    if reason := why_not_mine(found):
        raise ValueError(f"{found} {reason}")
    return found


def _network(value: object) -> IPv4Network | IPv6Network | Literal["default"]:
    if value == "default" or isinstance(value, IPv4Network | IPv6Network):
        return value
    if isinstance(value, str):
        try:
            found = ip_network(value)
        except ValueError:
            pass
        else:
            return "default" if found.prefixlen == 0 else found
    raise ValueError('write "default", or a network such as 10.0.0.0/8 (no bits beyond its prefix)')


def can_be_a_host(address: IPv4Address | IPv6Address) -> bool:
    """Say whether a machine can have an address: it is not unspecified, multicast or reserved."""
    reserved = isinstance(address, IPv4Address) and address.is_reserved
    return not (address.is_unspecified or address.is_multicast or reserved)


def why_not_mine(found: IPv4Interface | IPv6Interface) -> str:
    """Say why an interface cannot be given an address, empty if it can."""
    address, network = found.ip, found.network
    if not can_be_a_host(address) or address.is_loopback:
        return "is no address of an interface"
    if isinstance(found, IPv4Interface) and network.prefixlen < 31:
        # /31 and /32 have no such addresses (RFC 3021)
        if address == network.network_address:
            return "is the network itself"
        if address == network.broadcast_address:
            return "is the broadcast address of its network"
    if found.network.prefixlen == 0:
        return "has a network that is all others, too"
    return ""


def _domain(value: str) -> str:
    if not DOMAIN.fullmatch(value):
        raise ValueError("write a domain such as example.net, without a dot at its ends")
    return value


def _host(value: str) -> str:
    first, _, rest = value.partition(".")
    if not LABEL.fullmatch(first) or (rest and not DOMAIN.fullmatch(rest)) or value.endswith("."):
        raise ValueError(
            "a host name is 1 to 63 letters, digits and hyphens (RFC 1123, 2.1); "
            "its domain may follow"
        )
    return value


def _time_server(value: str) -> str:
    try:
        found = ip_address(value)
    except ValueError:
        # nobody's name ends in a number: it is a mistyped address
        if not DOMAIN.fullmatch(value) or value.rpartition(".")[2].isdecimal():
            raise ValueError("a time server is a host name or an address") from None
        return value
    return str(_address(found))


def _link(value: str) -> str:
    if not _LINK_NAME.fullmatch(value):
        raise ValueError(
            "the name of an interface is a letter and up to 14 letters, digits and . _ -"
        )
    if _KERNEL_NAME.fullmatch(value):
        raise ValueError(f"{value} is a name that the kernel gives itself: choose another one")
    return value


_AS_TEXT = PlainSerializer(str, return_type=str)
Address = Annotated[
    IPv4Address | IPv6Address,
    BeforeValidator(_address),
    _AS_TEXT,
    WithJsonSchema({"type": "string", "examples": ["192.0.2.1", "2001:db8::1"]}),
]
InterfaceAddress = Annotated[
    IPv4Interface | IPv6Interface,
    BeforeValidator(_interface),
    _AS_TEXT,
    WithJsonSchema({"type": "string", "examples": ["192.0.2.10/24", "2001:db8::10/64"]}),
]
Destination = Annotated[
    IPv4Network | IPv6Network | Literal["default"],
    BeforeValidator(_network),
    _AS_TEXT,
    WithJsonSchema({"type": "string", "examples": ["default", "10.0.0.0/8", "2001:db8::/32"]}),
]
Domain = Annotated[str, AfterValidator(_domain)]
FullHostName = Annotated[str, AfterValidator(_host)]
TimeServer = Annotated[str, AfterValidator(_time_server)]
LinkName = Annotated[str, AfterValidator(_link)]

Mode = Literal["dhcp", "static-from-lease", "static", "off"]
Ipv6 = Literal["auto", "slaac", "dhcpv6", "static", "static-from-lease", "off"]
BondMode = Literal[
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
]
HashPolicy = Literal["layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"]

LEAST_MTU = 576
"""Bytes that every IPv4 machine must take (RFC 791, 3.1); less is somebody's mistake."""

LEAST_MTU_IPV6 = 1280
"""RFC 8200, 5: below it, the kernel has no IPv6 on an interface."""


class NetworkRoute(Strict):
    """A way to a network. Without a gateway, the network is on the link itself."""

    destination: Destination = Field(description="a network, or default for everything else")
    gateway: Address | None = None
    metric: int | None = Field(
        None, ge=0, le=2**32 - 1, description="of several ways, the one with the lowest is taken"
    )
    on_link: bool = Field(
        False, description="the gateway is reached directly, though no address' prefix holds it"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gateway is None and self.destination == "default":
            raise ValueError("a default route needs a gateway")
        if self.gateway is None and self.on_link:
            raise ValueError("on-link is about a gateway, and there is none")
        if (
            self.gateway is not None
            and self.destination != "default"
            and self.gateway.version != self.destination.version
        ):
            raise ValueError("destination and gateway are of different IP versions")
        return self


class Addressing(Strict):
    """What an interface is given; all kinds of interfaces share this."""

    mode: Mode = Field(
        description="dhcp: it asks; static-from-lease: what the boot environment was given, for "
        "good; static: what is written here; off: no address at all"
    )
    ipv4: bool = Field(True, description="false: no IPv4, whatever mode says")
    ipv6: Ipv6 | None = Field(
        None, description="where its IPv6 addresses come from, if not from where mode says"
    )
    lease: NonEmpty | None = Field(
        None, description="whose lease static-from-lease means, if not its own"
    )
    addresses: list[InterfaceAddress] = Field(default_factory=list)
    gateway: Address | None = Field(None, description="the default route of IPv4")
    gateway6: Address | None = Field(None, description="the default route of IPv6")
    routes: list[NetworkRoute] = Field(default_factory=list)
    nameservers: list[Address] = Field(default_factory=list)
    search: list[Domain] = Field(default_factory=list)
    ntp: list[TimeServer] = Field(default_factory=list, description="time servers")
    mtu: int | None = Field(None, ge=LEAST_MTU, le=65535, description="in bytes")

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        """Refuse what contradicts itself, whatever the machine."""
        for reason in self._contradictions():
            raise ValueError(reason)
        return self

    def _contradictions(self) -> Iterator[str]:
        mode, given = self.mode, self.addresses
        if mode == "static" and not given:
            yield 'mode = "static" needs addresses'
        if mode == "off" and (given or self.gateway or self.gateway6 or self.routes or self.ipv6):
            yield 'mode = "off" is without addresses, gateways, routes and ipv6'
        if self.lease is not None and "static-from-lease" not in (mode, self.ipv6):
            yield 'lease is for "static-from-lease" only'
        if self.gateway is not None and self.gateway.version != 4:
            yield "gateway is that of IPv4; write the other one as gateway6"
        if self.gateway6 is not None and self.gateway6.version != 6:
            yield "gateway6 is that of IPv6; write the other one as gateway"
        if not self.ipv4 and (
            self.gateway is not None or any(address.version == 4 for address in given)
        ):
            yield "ipv4 = false contradicts an IPv4 address or gateway"
        if self.ipv6 == "off" and (
            self.gateway6 is not None or any(address.version == 6 for address in given)
        ):
            yield 'ipv6 = "off" contradicts an IPv6 address or gateway6'
        if mode == "static" and not any(
            address.version == (6 if self.ipv6 == "static" else address.version)
            for address in given
        ):
            yield 'ipv6 = "static" needs an IPv6 address'
        if not self.ipv4 and self.ipv6 == "off":
            yield 'neither IPv4 nor IPv6 is left: say mode = "off"'
        if len(set(given)) < len(given):
            yield "addresses holds one twice"
        if (
            self.mtu is not None
            and self.mtu < LEAST_MTU_IPV6
            and self.ipv6 != "off"
            and mode != "off"
        ):
            yield f'IPv6 needs an mtu of {LEAST_MTU_IPV6} at least: say ipv6 = "off"'


class NetworkInterface(Addressing):
    """A network card that gets addresses of its own."""

    interface: NonEmpty = Field(
        "boot", description="boot, one of its names (the kernel's, udev's), or a MAC address"
    )


class Bond(Addressing):
    """Several cards as one, as the kernel's networking/bonding.rst has it."""

    name: LinkName
    interfaces: list[NonEmpty] = Field(min_length=1, description="its cards")
    bond_mode: BondMode
    miimon_ms: int = Field(
        100, ge=0, le=60000, description="how often carriers are looked at; 0: never"
    )
    up_delay_ms: int | None = Field(None, ge=0, le=600000)
    down_delay_ms: int | None = Field(None, ge=0, le=600000)
    lacp_rate: Literal["slow", "fast"] | None = Field(
        None, description="slow: every 30 seconds, fast: every second"
    )
    hash_policy: HashPolicy | None = Field(None, description="what spreads the traffic")
    ad_select: Literal["stable", "bandwidth", "count"] | None = Field(
        None, description="which of several aggregates is used"
    )
    min_links: int | None = Field(None, ge=0, le=1024)
    primary: NonEmpty | None = Field(None, description="the card that is used while it works")

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        modes: dict[str, tuple[str, ...]] = {
            "lacp_rate": ("802.3ad",),
            "ad_select": ("802.3ad",),
            "min_links": ("802.3ad",),
            "hash_policy": ("802.3ad", "balance-xor", "balance-tlb"),
            "primary": ("active-backup", "balance-tlb", "balance-alb"),
        }
        for name, known in modes.items():
            if getattr(self, name) is not None and self.bond_mode not in known:
                written = name.replace("_", "-")
                raise ValueError(f"{written} is for the bond mode {' or '.join(known)} only")
        for name in ("up_delay_ms", "down_delay_ms"):
            delay = getattr(self, name)
            # the kernel rounds down to a multiple, and says so in a log that nobody reads
            if delay and (self.miimon_ms == 0 or delay % self.miimon_ms):
                raise ValueError(f"{name.replace('_', '-')} must be a multiple of miimon-ms")
        if self.bond_mode == "802.3ad" and self.miimon_ms == 0:
            raise ValueError("802.3ad needs miimon-ms")
        if self.primary is not None and self.primary not in self.interfaces:
            raise ValueError("primary is none of its interfaces")
        return self


class Vlan(Addressing):
    """A VLAN of IEEE 802.1Q."""

    id: int = Field(ge=1, le=4094)
    on: NonEmpty = Field(description="the card, bond or bridge that carries it")
    name: LinkName | None = Field(None, description="without, vlan and the id")

    @property
    def link_name(self) -> str:
        """What the interface is called."""
        return self.name or f"vlan{self.id}"


class Bridge(Addressing):
    """A bridge (switch) in the kernel."""

    name: LinkName
    interfaces: list[NonEmpty] = Field(
        default_factory=list, description="its ports; none: for virtual machines"
    )
    stp: bool = Field(False, description="spanning tree")


class Network(Strict):
    """What the installed system's networking.nix says."""

    mode: Literal["dhcp", "static-from-lease"] = "dhcp"
    interface: NonEmpty = Field(
        "boot", description="which interface mode is about; as in interfaces"
    )
    backend: Literal["networkd", "scripted"] = "networkd"
    hostname: FullHostName | None = Field(
        None, description="host name; without, the lease's, and if it has none the payload's"
    )
    domain: Domain | None = Field(None, description="without, that of hostname or the lease")
    nameservers: list[Address] = Field(
        default_factory=list, description="for all interfaces, instead of the leases'"
    )
    search: list[Domain] = Field(
        default_factory=list, description="for all interfaces, instead of the leases'"
    )
    interfaces: list[NetworkInterface] = Field(default_factory=list)
    bonds: list[Bond] = Field(default_factory=list)
    vlans: list[Vlan] = Field(default_factory=list)
    bridges: list[Bridge] = Field(default_factory=list)
    others: Literal["off", "dhcp"] = Field(
        "off", description="what interfaces do that are not described, if any is"
    )
    use_dhcp: bool | None = Field(None, alias="useDHCP", description="mode, by its older name")
    static_interface_from_dhcp: NonEmpty | None = Field(
        None,
        alias="staticInterfaceFromDHCP",
        description='mode = "static-from-lease" and interface, by their older name',
    )

    @property
    def described(self) -> bool:
        """Whether interfaces are described by tables."""
        return bool(self.interfaces or self.bonds or self.vlans or self.bridges)

    @property
    def by_older_names(self) -> bool:
        """Whether it is written with the two options of older installers."""
        return self.use_dhcp is not None or self.static_interface_from_dhcp is not None

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, given: Any) -> Any:
        """Refuse to be told the same in two ways."""
        if not isinstance(given, dict):
            return given
        tables = [name for name in ("interfaces", "bonds", "vlans", "bridges") if given.get(name)]
        older = [name for name in ("useDHCP", "staticInterfaceFromDHCP") if name in given]
        plain = [name for name in ("mode", "interface") if name in given]
        if tables and plain:
            raise ValueError(
                f"{plain[0]} is for a machine without [[network.{tables[0]}]]: "
                "say it there, and others for all that is not described"
            )
        if older and (tables or plain or "backend" in given):
            found = [*tables, *plain, "backend"][0]
            raise ValueError(f"{older[0]} and {found} contradict each other: use one of the two")
        if given.get("useDHCP") is True and given.get("staticInterfaceFromDHCP"):
            raise ValueError("useDHCP = true and staticInterfaceFromDHCP contradict each other")
        if given.get("useDHCP") is False and not given.get("staticInterfaceFromDHCP"):
            raise ValueError("useDHCP = false needs staticInterfaceFromDHCP")
        if "others" in given and not tables:
            raise ValueError("others is for a machine whose interfaces are described by tables")
        return given

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [
            *(bond.name for bond in self.bonds),
            *(vlan.link_name for vlan in self.vlans),
            *(bridge.name for bridge in self.bridges),
        ]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two interfaces are called {name}")
        if self.hostname is not None and self.domain is not None and "." in self.hostname:
            own = self.hostname.partition(".")[2]
            if own != self.domain:
                raise ValueError(f"hostname says the domain {own}, and domain {self.domain}")
        return self
