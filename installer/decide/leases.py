"""What of a lease can be believed: it is whatever somebody on the network said.

Names, name servers and routes that cannot be are left out with a warning, for the machine is well
without them; an address or a default gateway that cannot be is a problem.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from installer.model.errors import Problem
from installer.model.facts import Lease, Lease6, Route
from installer.model.network import (
    DOMAIN,
    LEAST_MTU,
    LEAST_MTU_IPV6,
    can_be_a_host,
    why_not_mine,
)

T = TypeVar("T")


def believable(lease: Lease) -> tuple[Lease, list[str]]:
    """Leave out of a lease what no NixOS could take; say what."""
    warnings: list[str] = []
    kept = _Kept(warnings, "the lease's")
    wanted = (*lease.search, *([lease.domain] if lease.domain else []))
    domains = kept.of("domain", wanted, _is_domain, "is none")
    if lease.routes:
        # without any that can be, option 121 still forbids the routers of option 3
        lease = replace(lease, gateway=None, further_routers=())
    return (
        replace(
            lease,
            search=tuple(name for name in lease.search if name in domains),
            domain=lease.domain if lease.domain in domains else None,
            nameservers=kept.of("name server", lease.nameservers, can_be_a_host, "cannot be one"),
            ntp=kept.of("time server", lease.ntp, can_be_a_host, "cannot be one"),
            routes=kept.routes(lease.routes),
            further_routers=kept.of("router", lease.further_routers, _is_gateway, "cannot be one"),
            mtu=kept.mtu(lease.mtu, LEAST_MTU),
        ),
        warnings,
    )


def believable6(lease: Lease6) -> tuple[Lease6, list[str]]:
    """Leave out what no NixOS could take of what IPv6 gave; say what."""
    warnings: list[str] = []
    kept = _Kept(warnings, "IPv6's")
    domains = kept.of("domain", lease.search, _is_domain, "is none")
    return (
        replace(
            lease,
            search=domains,
            nameservers=kept.of("name server", lease.nameservers, can_be_a_host, "cannot be one"),
            ntp=kept.of("time server", lease.ntp, can_be_a_host, "cannot be one"),
            routes=kept.routes(lease.routes),
            mtu=kept.mtu(lease.mtu, LEAST_MTU_IPV6),
        ),
        warnings,
    )


class _Kept:
    """Takes out what can be, and warns of the rest, once for each."""

    def __init__(self, warnings: list[str], whose: str) -> None:
        self._warnings = warnings
        self._whose = whose

    def of(
        self, what: str, values: Iterable[T], can_be: Callable[[T], bool], why: str
    ) -> tuple[T, ...]:
        kept = []
        for value in dict.fromkeys(values):
            if can_be(value):
                kept.append(value)
                continue
            shown = repr(value) if isinstance(value, str) else value
            self._warnings.append(f"{self._whose} {what} {shown} {why}: it is left out")
        return tuple(kept)

    def routes(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        kept = []
        for route in dict.fromkeys(routes):
            # a default gateway that cannot be is a problem, not something to do without
            default = route.destination.prefixlen == 0 and route.gateway is not None
            if default or _can_be_a_route(route):
                kept.append(route)
                continue
            way = f"by {route.gateway}" if route.gateway is not None else "on the link"
            self._warnings.append(
                f"{self._whose} route to {route.destination} {way} cannot be: it is left out"
            )
        return tuple(kept)

    def mtu(self, mtu: int | None, least: int) -> int | None:
        if mtu is None or least <= mtu <= 65535:
            return mtu
        self._warnings.append(f"{self._whose} MTU {mtu} cannot be: it is left out")
        return None


def _is_domain(name: str) -> bool:
    return DOMAIN.fullmatch(name) is not None


def _is_gateway(address: IPv4Address | IPv6Address) -> bool:
    return can_be_a_host(address) and not address.is_loopback


def _can_be_a_route(route: Route) -> bool:
    network, gateway = route.destination, route.gateway
    if network.is_multicast or network.is_loopback:
        return False
    if gateway is None:
        return True
    return gateway.version == network.version and _is_gateway(gateway)


def impossible(lease: Lease, where: str) -> Iterator[Problem]:
    """Say which addresses of a lease no machine can be given."""
    address = lease.address.ip
    if why_not_mine(lease.address):
        yield _value(lease, f"the address {lease.address}, which no machine can have", where)
    for route in lease.effective_routes:
        gateway = route.gateway
        if gateway is None or route.destination.prefixlen > 0:
            continue
        if gateway.version != 4 or not _is_gateway(gateway):
            yield _value(lease, f"the gateway {gateway}, which no machine can have", where)
        elif gateway == address:
            what = f"the gateway {gateway}, which is this machine's own address"
            yield _value(lease, what, where)


def impossible6(lease: Lease6, where: str) -> Iterator[Problem]:
    """Say which addresses of IPv6 no machine can be given."""
    for address in (*lease.addresses, *(one.ip for one in lease.slaac)):
        if not _is_gateway(address):
            yield _value(lease, f"the address {address}, which no machine can have", where)


def _value(lease: Lease | Lease6, what: str, where: str) -> Problem:
    return Problem(
        "network.value",
        f"the lease of {lease.interface} holds {what}",
        where,
        'correct the DHCP server, or say mode = "dhcp"',
    )
