"""networking.nix: what the answer file says, and what the leases say where it asks for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from installer.decide import cards
from installer.decide.hostnames import Names, names
from installer.decide.leases import believable
from installer.decide.links import Link, link_up, static_from_lease
from installer.decide.networkd import networkd
from installer.decide.nix import NixValue, nix_module
from installer.decide.scripted import cannot, scripted
from installer.model.errors import Problem
from installer.model.facts import Facts, Lease, Lease6, Nic
from installer.model.network import Bond, Bridge, Network, Vlan
from installer.model.plan import PlannedLink, PlannedNetwork
from installer.model.units import format_moment

_COMMENT = 90
"""Columns of a comment's text."""


@dataclass(frozen=True)
class Networking:
    """networking.nix and, for people, what it makes of the machine."""

    text: str
    network: PlannedNetwork


def networking_module(
    network: Network, facts: Facts
) -> tuple[Networking | None, list[str], list[Problem]]:
    """Write the module; return it (None after a problem), warnings and problems."""
    links, all_ask, warnings, problems = _links(network, facts)
    lease, lease6 = _naming(network, facts, links)
    found: list[str] = []
    if lease is not None:
        # only the names are taken from it here, so nothing else of it is worth a warning
        lease, found = believable(
            Lease(
                lease.interface,
                lease.address,
                domain=lease.domain,
                hostname=lease.hostname,
                fqdn=lease.fqdn,
            )
        )
    given, more = names(network, lease, lease6)
    warnings = list(dict.fromkeys((*warnings, *found, *more)))
    if network.backend == "scripted":
        problems += cannot(links)
    if problems:
        return None, warnings, problems
    others = all_ask or (network.described and network.others == "dhcp")
    settings = _settings(network, links, given, others=others)
    text = nix_module(settings, "\n".join(_head(facts, links, others=others)))
    planned = PlannedNetwork(
        given.host,
        given.domain,
        given.source,
        None if network.by_older_names else network.backend,
        tuple(_planned(link, facts) for link in links),
        others,
    )
    return Networking(text, planned), warnings, []


def _links(
    network: Network, facts: Facts
) -> tuple[tuple[Link, ...], bool, list[str], list[Problem]]:
    """The links, whether all other interfaces ask a server anyway, warnings and problems."""
    if network.described:
        links, warnings, problems = link_up(network, facts)
        return links, False, warnings, problems
    if network.static_interface_from_dhcp is not None:
        links, warnings, problems = static_from_lease(
            network.static_interface_from_dhcp, network, facts
        )
        return links, False, warnings, problems
    if network.mode == "static-from-lease":
        links, warnings, problems = static_from_lease(network.interface, network, facts)
        return links, False, warnings, problems
    nic = cards.find(network.interface, facts, "network.interface")
    wrong = [nic] if isinstance(nic, Problem) and network.interface != "boot" else []
    return (), True, [], wrong


def _naming(
    network: Network, facts: Facts, links: Sequence[Link]
) -> tuple[Lease | None, Lease6 | None]:
    """The leases that may name the machine: of the interface that is meant, or that booted."""
    if not network.described:
        wanted = network.static_interface_from_dhcp or network.interface
        nic = cards.find(wanted, facts, "")
        if isinstance(nic, Problem):
            return None, None
        return facts.lease_of(nic), facts.lease6_of(nic)
    found: list[Nic] = [facts.boot_nic] if facts.boot_nic is not None else []
    found += [link.card for link in links if link.card is not None]
    lease = next((one for nic in found if (one := facts.lease_of(nic))), None)
    lease6 = next((six for nic in found if (six := facts.lease6_of(nic))), None)
    return lease, lease6


def _settings(
    network: Network, links: Sequence[Link], given: Names, *, others: bool
) -> dict[str, NixValue]:
    networking: dict[str, NixValue] = {}
    if given.host is not None:
        networking["hostName"] = given.host
    older = network.by_older_names
    if given.domain is not None:
        networking["domain"] = given.domain
    if not older:
        networking["useNetworkd"] = network.backend == "networkd"
    networking["useDHCP"] = others
    if network.nameservers:
        networking["nameservers"] = [str(server) for server in network.nameservers]
    if network.search:
        networking["search"] = list(network.search)
    if not links:
        return {"networking": networking}
    if network.backend == "networkd" and not older:
        return {"networking": networking, "systemd": {"network": networkd(links)}}
    # whoever wrote the older option knows what the installed system calls the interface
    known = older and all(link.name == network.static_interface_from_dhcp for link in links)
    settings = scripted(links, names=not known)
    inner = settings["networking"]
    assert isinstance(inner, dict)  # noqa: S101 - for the type checker
    for name, value in inner.items():
        before = networking.get(name)
        networking[name] = [*before, *value] if isinstance(before, list) else value
    return {**settings, "networking": networking}


def _head(facts: Facts, links: Sequence[Link], *, others: bool) -> list[str]:
    """Say when and from what the file was made."""
    when = f" on {format_moment(facts.observed)}" if facts.observed is not None else ""
    lines = [f"Written by netinstall{when}."]
    lines += [f"{link.name}: {'; '.join(_origin(link))}." for link in links if not link.master]
    if others:
        lines.append(f"All {'other ' if links else ''}interfaces ask a DHCP server.")
    # lines that long are read by nobody
    return [part for line in lines for part in wrap(line, _COMMENT, subsequent_indent="  ")]


def _leased(link: Link) -> list[str]:
    """The leases that became static, in words."""
    words = []
    sources: tuple[tuple[Lease | Lease6 | None, str], ...] = (
        (link.lease, "the DHCP lease"),
        (link.lease6, "the IPv6 addresses"),
    )
    for lease, kind in sources:
        if lease is None:
            continue
        card = f" ({link.card.mac})" if link.card is not None else ""
        said = f"{kind} of {lease.interface}{card}, made static"
        by = f" by {lease.server}" if isinstance(lease, Lease) and lease.server else ""
        on = f" on {format_moment(lease.taken)}" if lease.taken is not None else ""
        if by or on:
            said += f", given{by}{on}"
        words.append(said + f", read from {lease.source or 'the boot environment'}")
    return words


def _origin(link: Link) -> list[str]:
    """Where the addresses of a link come from, in words."""
    words = _leased(link)
    leased = _addresses_of_leases(link)
    if any(address not in leased for address in link.addresses):
        words.append("addresses of the answer file")
    if link.ipv4 == "dhcp":
        words.append("asks a DHCP server")
    return words or ["no addresses" if link.is_plain else _SAYS6[link.ipv6]]


def _addresses_of_leases(link: Link) -> list[object]:
    found: list[object] = [link.lease.address] if link.lease is not None else []
    if link.lease6 is not None:
        ips = {*link.lease6.addresses, *(one.ip for one in link.lease6.slaac)}
        found += [address for address in link.addresses if address.ip in ips]
    return found


_SAYS6 = {
    "auto": "IPv6 as the routers say",
    "slaac": "IPv6 by SLAAC",
    "dhcpv6": "IPv6 by DHCPv6",
    "static": "IPv6 fixed, without routers' advertisements",
    "frozen": "IPv6 fixed, routes as the routers say",
    "off": "no IPv6",
}


def _planned(link: Link, facts: Facts) -> PlannedLink:
    """A link in words, for the plan."""
    details: list[str] = []
    if link.master is None:
        addresses = [str(address) for address in link.addresses]
        if link.ipv4 == "dhcp":
            addresses.insert(0, "IPv4 by DHCP")
        if link.is_plain:
            addresses.append("no addresses")
        else:
            addresses.append(_SAYS6[link.ipv6])
        details.append(", ".join(addresses))
        details += [f"from {one}" for one in _leased(link)]
    for way in link.ways:
        where = "default" if way.is_default else str(way.destination)
        by = f"via {way.gateway}" if way.gateway is not None else "on the link"
        beyond = ", which is on the link" if way.on_link else ""
        metric = f", metric {way.metric}" if way.metric is not None else ""
        details.append(f"route {where} {by}{beyond}{metric}")
    for name, values in (
        ("DNS", [*map(str, link.nameservers)]),
        ("search", [*link.search]),
        ("NTP", [*link.ntp]),
        ("MTU", [str(link.mtu)] if link.mtu is not None else []),
    ):
        if values:
            details.append(f"{name} {', '.join(values)}")
    return PlannedLink(link.name, _what(link, facts), tuple(details))


def _what(link: Link, facts: Facts) -> str:
    belongs = f", belongs to {link.master}" if link.master is not None else ""
    if link.card is not None:
        now = f", now {link.card.name}" if link.card.name != link.name else ""
        boots = ", which booted" if link.card is facts.boot_nic else ""
        return f"network card {link.card.mac}{now}{boots}{belongs}"
    match link.table:
        case Bond() as bond:
            return f"bond ({bond.bond_mode}) of {', '.join(link.members)}{belongs}"
        case Vlan() as vlan:
            return f"VLAN {vlan.id} on {link.members[0]}{belongs}"
        case Bridge():
            return f"bridge of {', '.join(link.members) or 'nothing yet'}{belongs}"
    return "interface"
