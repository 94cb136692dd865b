"""Network cards, leases and the installed system's network as text for people."""

from collections.abc import Iterable, Iterator

from installer.model.facts import Facts, Lease, Lease6, Neighbour, Nic, Route
from installer.model.plan import PlannedLink, PlannedNetwork
from installer.model.units import format_seconds
from installer.report.lines import Line, labelled, table, wrap


def nics_text(facts: Facts) -> Iterator[Line]:
    """Every card: what it is, its names, what it was given, the switch at its other end."""
    if not facts.nics:
        yield Line("  none: check the kernel's drivers", "warning")
        return
    boot = facts.boot_nic
    rows = table(
        [
            (
                "  " + nic.name,
                nic.mac,
                "carrier" if nic.carrier else "no carrier",
                f"{nic.speed} Mbit/s" if nic.speed is not None else "",
                nic.driver or "",
                "booted from" if nic is boot else "",
            )
            for nic in facts.nics
        ]
    )
    for nic, row in zip(facts.nics, rows, strict=True):
        yield Line(row)
        for text in labelled(_nic_rows(facts, nic), indent="      "):
            yield Line(text)


def _nic_rows(facts: Facts, nic: Nic) -> Iterator[tuple[str, str]]:
    if nic.permanent_mac not in (None, nic.mac):
        yield "own mac", nic.permanent_mac or ""
    yield "names", ", ".join(nic.names)
    yield "switch", _switch(nic.neighbour)
    lease, lease6 = facts.lease_of(nic), facts.lease6_of(nic)
    yield "lease", "; ".join(_lease(lease)) if lease is not None else "none"
    if lease is not None:
        yield "told by", lease.source
    if lease6 is not None:
        yield "IPv6", "; ".join(_lease6(lease6))
        yield "told by", lease6.source


def _lease(lease: Lease) -> Iterator[str]:
    yield str(lease.address)
    if lease.gateway is not None:
        yield f"gateway {_list((lease.gateway, *lease.further_routers))}"
    yield from _routes(lease.routes)
    if lease.nameservers:
        yield f"DNS {_list(lease.nameservers)}"
    if lease.hostname:
        yield f"host name {lease.hostname}"
    if lease.fqdn:
        yield f"full name {lease.fqdn}"
    if lease.domain:
        yield f"domain {lease.domain}"
    yield from _options(lease)
    if lease.root_path:
        yield f"root path {lease.root_path}"
    if lease.server is not None:
        yield f"server {lease.server}"
    if lease.seconds is not None:
        yield f"for {format_seconds(lease.seconds)}"


def _lease6(lease: Lease6) -> Iterator[str]:
    if lease.addresses:
        yield f"DHCPv6 {_list(lease.addresses)}"
    if lease.slaac:
        yield f"SLAAC {_list(lease.slaac)}"
    if lease.prefixes:
        yield f"prefix {_list(prefix.network for prefix in lease.prefixes)}"
    if lease.routers:
        yield f"router {_list(router.address for router in lease.routers)}"
    yield from _routes(lease.routes)
    if lease.nameservers:
        yield f"DNS {_list(lease.nameservers)}"
    if lease.fqdn:
        yield f"full name {lease.fqdn}"
    yield from _options(lease)
    if lease.seconds is not None:
        yield f"for {format_seconds(lease.seconds)}"


def _options(lease: Lease | Lease6) -> Iterator[str]:
    if lease.search:
        yield f"search {' '.join(lease.search)}"
    if lease.ntp:
        yield f"NTP {_list(lease.ntp)}"
    if lease.mtu is not None:
        yield f"MTU {lease.mtu}"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _routes(routes: Iterable[Route]) -> Iterator[str]:
    for route in routes:
        way = f"via {route.gateway}" if route.gateway is not None else "on the link"
        where = "default" if route.destination.prefixlen == 0 else route.destination
        yield f"route {where} {way}"


def _switch(neighbour: Neighbour | None) -> str:
    if neighbour is None:
        return ""
    words = [neighbour.system or neighbour.chassis or "unnamed"]
    words += [f"port {neighbour.port}"] if neighbour.port else []
    words += [neighbour.port_description] if neighbour.port_description else []
    words += [f"VLAN {neighbour.vlan}"] if neighbour.vlan is not None else []
    words += [f"managed at {neighbour.address}"] if neighbour.address is not None else []
    return ", ".join(words)


def network_text(network: PlannedNetwork | None) -> list[Line]:
    """What the installed system does with its interfaces; empty where that is not known."""
    if network is None:
        return []
    name = ".".join(word for word in (network.hostname, network.domain) if word)
    if network.hostname is None:
        name = "the payload's" + (f", in {network.domain}" if network.domain else "")
    elif network.names_from:
        name += f", from {network.names_from}"
    backend = f" ({network.backend})" if network.backend is not None else ""
    lines = [Line(), Line(f"NETWORK{backend}", "title")]
    lines += [Line(text) for text in labelled([("host name", name)], indent="  ")]
    for link in network.links:
        lines += [Line(text) for text in _link(link)]
    if network.others:
        other = "every other interface" if network.links else "every interface"
        lines.append(Line(f"  {other} asks a DHCP server"))
    return lines


def _link(link: PlannedLink) -> Iterator[str]:
    yield from wrap(f"{link.name}: {link.what}", first="  ", rest="    ")
    for detail in link.details:
        yield from wrap(detail, first="      ", rest="        ")
