"""What one interface gets: its table of the answer file, put together with its leases."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Literal, TypeAlias

from installer.decide.leases import believable, believable6, impossible, impossible6
from installer.model.errors import Problem
from installer.model.facts import Lease, Lease6, Route
from installer.model.network import LEAST_MTU_IPV6, Addressing, Network, NetworkRoute

Address: TypeAlias = IPv4Address | IPv6Address
InterfaceAddress: TypeAlias = IPv4Interface | IPv6Interface

Ipv4 = Literal["dhcp", "static", "off"]
Ipv6 = Literal["auto", "slaac", "dhcpv6", "static", "frozen", "off"]
"""`frozen`: fixed addresses, and routes as the routers of the network say."""

_EVERYWHERE: Mapping[int, IPv4Network | IPv6Network] = {
    4: IPv4Network("0.0.0.0/0"),
    6: IPv6Network("::/0"),
}


@dataclass(frozen=True)
class Way:
    """A route as it will be; without a gateway, the network is on the link."""

    destination: IPv4Network | IPv6Network
    gateway: Address | None = None
    metric: int | None = None
    on_link: bool = False

    @property
    def is_default(self) -> bool:
        return self.destination.prefixlen == 0


@dataclass(frozen=True, kw_only=True)
class Addressed:
    """Addresses, routes and servers of an interface; `lease` and `lease6` are what became static.

    `mtu` in bytes.
    """

    ipv4: Ipv4 = "off"
    ipv6: Ipv6 = "off"
    addresses: tuple[InterfaceAddress, ...] = ()
    ways: tuple[Way, ...] = ()
    nameservers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    mtu: int | None = None
    lease: Lease | None = None
    lease6: Lease6 | None = None

    def of(self, version: int) -> tuple[InterfaceAddress, ...]:
        """The addresses of an IP version."""
        return tuple(address for address in self.addresses if address.version == version)

    @property
    def is_plain(self) -> bool:
        """Whether it has no addresses: it only carries others, or does nothing."""
        return self.ipv4 == "off" and self.ipv6 == "off"


@dataclass
class _Maker:
    """One interface under construction; `whose` is what people call it."""

    network: Network
    table: Addressing
    where: str
    whose: str
    lease: Lease | None = None
    lease6: Lease6 | None = None
    addresses: tuple[InterfaceAddress, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def make(self, lease: Lease | None, lease6: Lease6 | None) -> Addressed:
        table = self.table
        ipv4, ipv6 = _families(table, lease, lease6)
        if lease is not None and ipv4 == "static" and table.mode == "static-from-lease":
            self.lease, found = believable(lease)
            self.warnings += found
            self.problems += impossible(self.lease, self.where)
        wants6 = table.ipv6 == "static-from-lease" or not _has(table, 6)
        if lease6 is not None and ipv6 == "frozen" and wants6:
            self.lease6, found = believable6(lease6)
            self.warnings += found
            self.problems += impossible6(self.lease6, self.where)
        frozen = _frozen(self.lease6) if self.lease6 is not None else []
        if self._lacks_lease(frozen=bool(frozen)):
            self.problems.append(self._no_lease())
            return Addressed()
        own = [self.lease.address] if self.lease is not None else []
        self.addresses = tuple(dict.fromkeys((*own, *table.addresses, *frozen)))
        return Addressed(
            ipv4=ipv4,
            ipv6=ipv6,
            addresses=self.addresses,
            ways=self._ways(),
            nameservers=self._nameservers(),
            search=self._search(),
            ntp=tuple(table.ntp) or tuple(str(server) for server in self._leased("ntp")),
            mtu=self._mtu(ipv6),
            lease=self.lease,
            lease6=self.lease6,
        )

    def _lacks_lease(self, *, frozen: bool) -> bool:
        if self.table.ipv6 == "static-from-lease" and not frozen:
            return True
        return self.table.mode == "static-from-lease" and self.lease is None and not frozen

    def _no_lease(self) -> Problem:
        table = self.table
        only6 = table.mode != "static-from-lease"
        what = "no IPv6 address" if only6 or not table.ipv4 else "no DHCP lease"
        where = self.where
        if where != "network.mode":
            where += ".ipv6" if only6 else ".mode"
        return Problem(
            "network.no-lease",
            f"{table.lease or self.whose} has {what} to make static",
            where,
            'boot from the interface that is meant, or say mode = "dhcp"',
        )

    def _ways(self) -> tuple[Way, ...]:
        ways = list(self._said())
        replaced = {way.destination.version for way in ways if way.is_default}
        for route in self._leased_routes():
            network, gateway = route.destination, route.gateway
            if network.prefixlen > 0 or network.version not in replaced:
                beyond = gateway is not None and not self._reaches(gateway)
                ways.append(Way(network, gateway, on_link=beyond))
        # default routes first, as people write them
        return tuple(sorted(dict.fromkeys(ways), key=lambda way: not way.is_default))

    def _leased_routes(self) -> Iterator[Route]:
        if self.lease is not None:
            yield from self.lease.effective_routes
        if self.lease6 is not None:
            yield from self.lease6.routes

    def _said(self) -> Iterator[Way]:
        """The routes of the answer file, if their gateways can be reached."""
        table = self.table
        for name, gateway in (("gateway", table.gateway), ("gateway6", table.gateway6)):
            if gateway is not None:
                self._check_gateway(gateway, f"{self.where}.{name}", on_link=False)
                yield Way(_EVERYWHERE[gateway.version], gateway)
        for index, route in enumerate(table.routes):
            if route.gateway is not None:
                where = f"{self.where}.routes[{index}].gateway"
                self._check_gateway(route.gateway, where, on_link=route.on_link)
            yield Way(_destination(route), route.gateway, route.metric, route.on_link)

    def _check_gateway(self, gateway: Address, where: str, *, on_link: bool) -> None:
        if any(gateway == address.ip for address in self.addresses):
            self._wrong(
                f"the gateway {gateway} is this machine's own address",
                where,
                "write the router's address",
            )
            return
        own = [str(one.network) for one in self.addresses if one.version == gateway.version]
        # what a DHCP server or a router of IPv6 will give is not known
        if gateway.version == 4:
            asks = self.table.mode == "dhcp"
        else:
            asks = self.table.ipv6 not in ("static", "off")
        if on_link or self._reaches(gateway) or (asks and not own):
            return
        self._wrong(
            f"the gateway {gateway} is in none of the interface's networks"
            + (f" ({', '.join(own)})" if own else ""),
            where,
            "correct the address or its prefix length; for a gateway on the link, write a route "
            "with on-link = true",
        )

    def _wrong(self, what: str, where: str, hint: str) -> None:
        self.problems.append(Problem("network.described", what, where, hint))

    def _reaches(self, gateway: Address) -> bool:
        # a link-local address of IPv6 is on every link; 169.254.0.0/16 is a network like others
        if isinstance(gateway, IPv6Address) and gateway.is_link_local:
            return True
        return any(
            gateway in address.network
            for address in self.addresses
            if address.version == gateway.version
        )

    def _leased(self, name: Literal["nameservers", "ntp"]) -> tuple[Address, ...]:
        found: list[Address] = []
        for lease in (self.lease, self.lease6):
            if lease is not None:
                found += lease.nameservers if name == "nameservers" else lease.ntp
        return tuple(dict.fromkeys(found))

    def _nameservers(self) -> tuple[Address, ...]:
        if self.table.nameservers or self.network.nameservers:
            return tuple(dict.fromkeys(self.table.nameservers))
        return self._leased("nameservers")

    def _search(self) -> tuple[str, ...]:
        if self.table.search or self.network.search:
            return tuple(dict.fromkeys(self.table.search))
        found: list[str] = []
        if self.lease is not None:
            found += self.lease.search or ([self.lease.domain] if self.lease.domain else [])
        if self.lease6 is not None:
            found += self.lease6.search
        return tuple(dict.fromkeys(found))

    def _mtu(self, ipv6: Ipv6) -> int | None:
        if self.table.mtu is not None:
            return self.table.mtu
        mtu = self.lease.mtu if self.lease is not None else None
        if mtu is None and self.lease6 is not None:
            mtu = self.lease6.mtu
        if mtu is not None and mtu < LEAST_MTU_IPV6 and ipv6 != "off":
            self.warnings.append(
                f"the lease's MTU {mtu} is too small for IPv6: it is left out (to have it, say "
                'ipv6 = "off" in [[network.interfaces]])'
            )
            return None
        return mtu


def address(
    network: Network,
    table: Addressing,
    where: str,
    leases: tuple[Lease | None, Lease6 | None],
    whose: str,
) -> tuple[Addressed, list[str], list[Problem]]:
    """Put a table and leases together; return what comes of it, warnings and problems.

    Args:
        network: what is said for all interfaces.
        table: what is said for this one.
        where: the table's place in the answer file.
        leases: what the boot environment was given for it.
        whose: what people call the interface, for a problem.
    """
    maker = _Maker(network, table, where, whose)
    made = maker.make(*leases)
    return made, maker.warnings, maker.problems


def _families(table: Addressing, lease: Lease | None, lease6: Lease6 | None) -> tuple[Ipv4, Ipv6]:
    ipv4: Ipv4 = "dhcp" if table.mode == "dhcp" else "static"
    from_lease = table.mode == "static-from-lease"
    if not table.ipv4 or (from_lease and lease is None and not _has(table, 4)):
        ipv4 = "off"
    if table.ipv6 is not None:
        return ipv4, "frozen" if table.ipv6 == "static-from-lease" else table.ipv6
    if from_lease and lease6 is not None and not _has(table, 6):
        # a SLAAC address is no lease; it is kept only where it is all that the machine has
        kept = lease6.addresses or (ipv4 == "off" and lease6.slaac)
        return ipv4, "frozen" if kept else "auto"
    if _has(table, 6):
        gateways: Iterable[Address | None] = (
            table.gateway6,
            *(route.gateway for route in table.routes if route.destination == "default"),
        )
        routed = any(isinstance(gateway, IPv6Address) for gateway in gateways)
        return ipv4, "static" if routed else "frozen"
    return ipv4, "auto"


def _has(table: Addressing, version: int) -> bool:
    return any(address.version == version for address in table.addresses)


def _destination(route: NetworkRoute) -> IPv4Network | IPv6Network:
    if isinstance(route.destination, IPv4Network):
        return route.destination
    if isinstance(route.destination, IPv6Network):
        return route.destination
    return _EVERYWHERE[route.gateway.version if route.gateway is not None else 4]


def _frozen(lease: Lease6) -> Sequence[InterfaceAddress]:
    """Fixed addresses: those of DHCPv6 with their network's prefix length, else those of SLAAC."""
    found: list[InterfaceAddress] = []
    for one in lease.addresses:
        # RFC 8415 gives no prefix length; that of the link is what a router advertises as on-link
        lengths = [
            prefix.network.prefixlen
            for prefix in lease.prefixes
            if prefix.on_link and one in prefix.network
        ]
        found.append(IPv6Interface((one, max(lengths, default=128))))
    return found or [one for one in lease.slaac if not one.ip.is_link_local]
