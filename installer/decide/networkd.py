"""Links as NixOS's systemd.network: systemd.network(5), systemd.netdev(5).

Cards are matched by what they are, so that nothing depends on their names.
"""

from collections.abc import Mapping, Sequence

from installer.decide.addressing import Way
from installer.decide.links import Link
from installer.decide.nix import NixValue
from installer.model.network import Bond, Bridge, Vlan

PREFIX = "10-netinstall-"
"""Before NixOS's own units (40-, 99-) in systemd's order."""

_ONLINE = "routable"


_ADVERTISEMENTS: Mapping[str, NixValue] = {
    "slaac": {"DHCPv6Client": False},
    "frozen": {"DHCPv6Client": False, "UseAutonomousPrefix": False},
    "dhcpv6": {"DHCPv6Client": "always", "UseAutonomousPrefix": False},
}
"""What is taken of routers' advertisements, where they are listened to."""


def networkd(links: Sequence[Link]) -> dict[str, NixValue]:
    """Return the value of systemd.network."""
    by_name = {link.name: link for link in links}
    netdevs: dict[str, NixValue] = {
        f"{PREFIX}{link.name}": _netdev(link) for link in links if link.card is None
    }
    networks: dict[str, NixValue] = {
        f"{PREFIX}{link.name}": _network(link, by_name) for link in links
    }
    return {**({"netdevs": netdevs} if netdevs else {}), "networks": networks}


def _netdev(link: Link) -> dict[str, NixValue]:
    device: dict[str, NixValue] = {"Name": link.name}
    settings: dict[str, NixValue] = {}
    match link.table:
        case Bond() as bond:
            device["Kind"] = "bond"
            settings = {"bondConfig": _bond(bond)}
        case Bridge() as bridge:
            device["Kind"] = "bridge"
            settings = {"bridgeConfig": {"STP": bridge.stp}}
        case Vlan() as vlan:
            device["Kind"] = "vlan"
            settings = {"vlanConfig": {"Id": vlan.id}}
    if link.mac is not None:
        device["MACAddress"] = link.mac
    if link.mtu is not None:
        device["MTUBytes"] = str(link.mtu)
    return {"netdevConfig": device, **settings}


def _bond(bond: Bond) -> dict[str, NixValue]:
    given: dict[str, NixValue] = {
        "Mode": bond.bond_mode,
        "MIIMonitorSec": f"{bond.miimon_ms}ms",
        "UpDelaySec": f"{bond.up_delay_ms}ms" if bond.up_delay_ms is not None else None,
        "DownDelaySec": f"{bond.down_delay_ms}ms" if bond.down_delay_ms is not None else None,
        "LACPTransmitRate": bond.lacp_rate,
        "TransmitHashPolicy": bond.hash_policy,
        "AdSelect": bond.ad_select,
        "MinLinks": bond.min_links,
    }
    return {name: value for name, value in given.items() if value is not None}


def _network(link: Link, links: dict[str, Link]) -> dict[str, NixValue]:
    unit: dict[str, NixValue] = {
        "matchConfig": dict(link.match) if link.card is not None else {"Name": link.name}
    }
    settings: dict[str, NixValue] = {}
    online: str = _ONLINE
    if link.master is not None:
        online = "enslaved"
        _member(link, links[link.master], settings)
    elif link.is_plain:
        # no address is to be waited for, but what VLANs lie on must have a carrier
        online = "carrier" if link.vlans else "no"
        settings["LinkLocalAddressing"] = "no"
        settings["IPv6AcceptRA"] = False
    else:
        _addressed(link, unit, settings)
        if isinstance(link.table, Bridge) and not link.members:
            # without ports it has no carrier, and nothing may wait for one
            settings["ConfigureWithoutCarrier"] = True
            online = "no"
    if link.vlans:
        unit["vlan"] = list(link.vlans)
    if settings:
        unit["networkConfig"] = settings
    unit["linkConfig"] = {
        **({"MTUBytes": str(link.mtu)} if link.mtu is not None else {}),
        "RequiredForOnline": online,
    }
    return unit


def _member(link: Link, master: Link, settings: dict[str, NixValue]) -> None:
    table = master.table
    if isinstance(table, Bond):
        settings["Bond"] = master.name
        # members stand in the order in which the answer file names them
        named = dict(zip(table.interfaces, master.members, strict=True))
        if table.primary is not None and named[table.primary] == link.name:
            settings["PrimarySlave"] = True
    else:
        settings["Bridge"] = master.name


def _addressed(link: Link, unit: dict[str, NixValue], settings: dict[str, NixValue]) -> None:
    asks6 = link.ipv6 in ("auto", "dhcpv6")
    if link.ipv4 == "dhcp":
        unit["DHCP"] = "yes" if asks6 else "ipv4"
        # the identity by which the boot environment asked: the server gives the same address
        unit["dhcpV4Config"] = {"ClientIdentifier": "mac"}
    elif link.ipv6 == "dhcpv6":
        unit["DHCP"] = "ipv6"
    if link.ipv6 == "off":
        settings["LinkLocalAddressing"] = "no"
    if link.ipv6 != "auto":
        # otherwise what networkd does where nothing is said
        settings["IPv6AcceptRA"] = link.ipv6 in _ADVERTISEMENTS
    if link.ipv6 in _ADVERTISEMENTS:
        unit["ipv6AcceptRAConfig"] = _ADVERTISEMENTS[link.ipv6]
    if link.addresses:
        unit["address"] = [str(address) for address in link.addresses]
    if link.ways:
        unit["routes"] = [_route(way) for way in link.ways]
    if link.nameservers:
        unit["dns"] = [str(server) for server in link.nameservers]
    if link.search:
        unit["domains"] = list(link.search)
    if link.ntp:
        unit["ntp"] = list(link.ntp)


def _route(way: Way) -> dict[str, NixValue]:
    route: dict[str, NixValue] = {}
    if not way.is_default or way.gateway is None:
        route["Destination"] = str(way.destination)
    if way.gateway is not None:
        route["Gateway"] = str(way.gateway)
    if way.metric is not None:
        route["Metric"] = way.metric
    if way.on_link:
        # a gateway beyond the prefix is reached on the link itself (systemd.network(5))
        route["GatewayOnLink"] = True
    return route
