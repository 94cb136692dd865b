"""Links as NixOS's scripted networking: networking.interfaces, bonds, vlans, bridges.

That back end knows interfaces by name. A .link file (systemd.link(5)), which udev reads without
networkd, too, gives each card the name that is written, whatever systemd's version would call it.
"""

from collections.abc import Iterator, Sequence

from installer.decide.addressing import Way
from installer.decide.links import Link
from installer.decide.networkd import PREFIX
from installer.decide.nix import NixValue
from installer.model.errors import Problem
from installer.model.network import Bond, Bridge, Vlan


def cannot(links: Sequence[Link]) -> Iterator[Problem]:
    """Say what of these links the scripted back end has no words for."""
    for link in links:
        for what in _unspeakable(link):
            yield Problem(
                "network.described",
                f"{link.name}: the scripted back end cannot {what}",
                link.where,
                'say backend = "networkd"',
            )


def _unspeakable(link: Link) -> Iterator[str]:
    if link.ipv6 == "dhcpv6" or (
        link.ipv4 == "off"
        and link.ipv6 == "auto"
        and link.table is not None
        and link.table.mode == "dhcp"
    ):
        yield "ask for IPv6 addresses without asking for IPv4 ones"
    if link.ipv4 == "dhcp" and link.ipv6 in ("slaac", "frozen"):
        yield "ask for IPv4 alone while it listens to routers of IPv6"
    if isinstance(link.table, Bridge) and link.table.stp:
        yield "run the spanning tree of a bridge"


def scripted(links: Sequence[Link], *, names: bool = True) -> dict[str, NixValue]:
    """Return the settings, from the top: networking, and what it needs beside.

    Args:
        links: what is to be set up.
        names: whether the names of cards are made sure of.
    """
    # only one gateway of each IP version is the system's: the others are routes
    gateways: dict[int, tuple[Link, Way]] = {}
    for link in links:
        for way in link.ways:
            if way.is_default and way.gateway is not None:
                gateways.setdefault(way.destination.version, (link, way))
    chosen = [way for _, way in gateways.values()]
    servers = [str(server) for link in links for server in link.nameservers]
    networking: dict[str, NixValue] = {
        "interfaces": {
            link.name: _interface(link, chosen) for link in links if link.master is None
        },
        "bonds": {
            link.name: _bond(link, link.table) for link in links if isinstance(link.table, Bond)
        },
        "bridges": {
            link.name: {"interfaces": list(link.members)}
            for link in links
            if isinstance(link.table, Bridge)
        },
        "vlans": {
            link.name: {"id": link.table.id, "interface": link.members[0]}
            for link in links
            if isinstance(link.table, Vlan)
        },
        **{_GATEWAYS[version]: _gateway(*found) for version, found in sorted(gateways.items())},
        "nameservers": list(dict.fromkeys(servers)),
        "search": list(dict.fromkeys(name for link in links for name in link.search)),
        "timeServers": list(dict.fromkeys(server for link in links for server in link.ntp)),
    }
    settings: dict[str, NixValue] = {
        "networking": {name: value for name, value in networking.items() if value}
    }
    if sysctl := {key: value for link in links for key, value in _sysctl(link)}:
        settings["boot"] = {"kernel": {"sysctl": sysctl}}
    cards = {f"{PREFIX}{link.name}": _name(link) for link in links if link.card is not None}
    if names and cards:
        settings["systemd"] = {"network": {"links": cards}}
    return settings


_GATEWAYS = {4: "defaultGateway", 6: "defaultGateway6"}


def _gateway(link: Link, way: Way) -> dict[str, NixValue]:
    return {
        "address": str(way.gateway),
        # without an interface networkd-based systems warn, and two NICs are ambiguous
        "interface": link.name,
        **({"metric": way.metric} if way.metric is not None else {}),
    }


def _interface(link: Link, gateways: Sequence[Way]) -> dict[str, NixValue]:
    found: dict[str, NixValue] = {}
    if link.is_plain:
        found["useDHCP"] = False
    elif link.ipv4 == "dhcp":
        found["useDHCP"] = True
    elif not link.of(4):
        # with networking.useDHCP, an interface without an IPv4 address would ask for one
        found["useDHCP"] = False
    if link.mac is not None:
        found["macAddress"] = link.mac
    if link.mtu is not None:
        found["mtu"] = link.mtu
    for version in (4, 6):
        family: dict[str, NixValue] = {}
        if addresses := link.of(version):
            family["addresses"] = [
                {"address": str(one.ip), "prefixLength": one.network.prefixlen} for one in addresses
            ]
        routes = [
            _route(way)
            for way in link.ways
            if way.destination.version == version and all(way is not one for one in gateways)
        ]
        if routes:
            family["routes"] = routes
        if family:
            found[f"ipv{version}"] = family
    return found


def _route(way: Way) -> dict[str, NixValue]:
    route: dict[str, NixValue] = {
        "address": str(way.destination.network_address),
        "prefixLength": way.destination.prefixlen,
    }
    if way.gateway is not None:
        route["via"] = str(way.gateway)
    options: dict[str, NixValue] = {}
    if way.metric is not None:
        options["metric"] = str(way.metric)
    if way.on_link:
        # a word without a value (ip-route(8))
        options["onlink"] = ""
    if options:
        route["options"] = options
    return route


def _bond(link: Link, bond: Bond) -> dict[str, NixValue]:
    """The options are the driver's own (the kernel's networking/bonding.rst)."""
    primary = None
    if bond.primary is not None:
        primary = link.members[bond.interfaces.index(bond.primary)]
    given = {
        "mode": bond.bond_mode,
        "miimon": bond.miimon_ms,
        "updelay": bond.up_delay_ms,
        "downdelay": bond.down_delay_ms,
        "lacp_rate": bond.lacp_rate,
        "xmit_hash_policy": bond.hash_policy,
        "ad_select": bond.ad_select,
        "min_links": bond.min_links,
        "primary": primary,
    }
    options = {name: str(value) for name, value in given.items() if value is not None}
    return {"interfaces": list(link.members), "driverOptions": options}


def _sysctl(link: Link) -> Iterator[tuple[str, NixValue]]:
    """What the kernel's own IPv6 is to do: nobody else sets up addresses here.

    A dot in a name is written as a slash (sysctl.d(5)).
    """
    key = f"net.ipv6.conf.{link.name.replace('.', '/')}"
    if link.master is not None or (link.is_plain and link.table is None):
        return
    match link.ipv6:
        case "off":
            yield f"{key}.disable_ipv6", 1
        case "static":
            yield f"{key}.accept_ra", 0
        case "frozen":
            yield f"{key}.autoconf", 0
        case _:
            pass


def _name(link: Link) -> dict[str, NixValue]:
    return {
        "matchConfig": dict(link.match),
        "linkConfig": {
            "Name": link.name,
            # as in systemd's own 99-default.link, which is not read for this card any more
            "AlternativeNamesPolicy": "database onboard slot path mac",
            # what networking.interfaces.<name>.mtu writes is not read, either
            **({"MTUBytes": str(link.mtu)} if link.mtu is not None else {}),
        },
    }
