"""What dhcpcd was told by DHCP servers and routers, as its hook keeps it.

init starts dhcpcd (installer/init/lease.py) and lets it configure nothing: it asks, and renews for
as long as the machine is up. installer/init/dhcp-event keeps the environment of its last call for
each interface and protocol in /run/netinstall/dhcp: dhcp-eth0, dhcp6-eth0, ra-eth0, link-eth0. The
names in it are those of dhcpcd-run-hooks(8) and of dhcpcd's table of options.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal

from installer.model.facts import Lease, Lease6, Prefix, Router
from installer.observe.lease_values import Values, is_interface, moment, read

FOLDER = Path("run/netinstall/dhcp")
"""Below the root."""


@dataclass(frozen=True)
class State:
    """The last that dhcpcd said of an interface and protocol (dhcp, dhcp6, ra, link)."""

    interface: str
    protocol: str
    reason: str
    values: Mapping[str, str]
    path: Path

    @property
    def good(self) -> bool:
        """Whether the interface has now what this protocol gives."""
        return any(
            self.values.get(name) for name in ("new_ip_address", "new_dhcp6_server_id", "nd1_from")
        )


def states(root: Path = Path("/")) -> tuple[State, ...]:
    """Return what was kept, sorted by interface and protocol."""
    found = []
    for path in sorted((root / FOLDER).glob("*-*")):
        protocol, _, interface = path.name.partition("-")
        if protocol not in ("dhcp", "dhcp6", "ra", "link") or path.suffix == ".new":
            continue
        if not is_interface(interface):
            continue
        pairs = (pair.partition("=") for pair in read(path).split("\0"))
        values = {name: value for name, _, value in pairs if name}
        if values.get("interface") == interface:
            reason = values.get("reason", "")
            found.append(State(interface, protocol, reason, values, path))
    return tuple(sorted(found, key=lambda state: (state.interface, state.protocol)))


def lease(state: State, source: str, warnings: list[str]) -> Lease | None:
    """Return the lease of a state of the protocol dhcp, None if it has none now."""
    given = {
        name.removeprefix("new_"): value
        for name, value in state.values.items()
        if name.startswith("new_")
    }
    return from_names(state.interface, given, source, warnings, state.path)


def from_names(
    interface: str,
    given: Mapping[str, str],
    source: str,
    warnings: list[str],
    written: Path | None = None,
) -> Lease | None:
    """Make a lease of dhcpcd's names for options (`dhcpcd -V`); None without an address."""
    values = Values(given, source, warnings)
    ip = values.address("ip_address")
    if ip is None:
        return None
    bits = values.number("subnet_cidr", 1, 32, "prefix length")
    routers = values.address_list("routers")
    return Lease(
        interface=interface,
        # without option 1 dhcpcd says a prefix by the old classes
        address=IPv4Interface((ip, 32 if bits is None else bits)),
        gateway=routers[0] if routers else None,
        further_routers=routers[1:],
        routes=values.routes("classless_static_routes"),
        nameservers=values.address_list("domain_name_servers"),
        search=values.names("domain_search"),
        domain=values.name("domain_name"),
        hostname=values.hostname("host_name"),
        fqdn=values.name("fqdn"),
        ntp=values.address_list("ntp_servers"),
        mtu=values.mtu("interface_mtu"),
        server=values.address("dhcp_server_identifier"),
        root_path=values.printable("root_path"),
        seconds=values.seconds("dhcp_lease_time"),
        taken=None if written is None else moment(written),
        source=source,
    )


def from_dump(interface: str, text: str, source: str, warnings: list[str]) -> Lease | None:
    """Make a lease of what `dhcpcd -4 -U` prints: NAME=VALUE lines, an empty line between parts."""
    for part in text.split("\n\n"):
        pairs = (line.partition("=") for line in part.splitlines())
        given = {name: value for name, _, value in pairs}
        if given.get("ip_address"):
            return from_names(interface, given, source, warnings)
    return None


_ADDRESS = re.compile(r"new_dhcp6_ia_na[0-9]+_ia_addr[0-9]+")
_NTP = re.compile(r"new_dhcp6_ntp_server[0-9]*_addr[0-9]*")
_LONGEST_LIST = 64
"""More routers or prefixes than this on one link are somebody's attack."""


def lease6(
    router: State | None, server: State | None, source: str, warnings: list[str]
) -> Lease6 | None:
    """Put together what routers advertised and what a DHCPv6 server said of one interface."""
    router = router if router is not None and router.good else None
    server = server if server is not None and server.good else None
    first = router or server
    if first is None:
        return None
    said = Values({} if server is None else server.values, source, warnings)
    told = Values({} if router is None else router.values, source, warnings)
    names = sorted(said.values)
    addresses = [name for name in names if _ADDRESS.fullmatch(name)]
    ntp = [a for name in names if _NTP.fullmatch(name) for a in said.address6_list(name)]
    ntp += said.address6_list("new_dhcp6_sntp_servers")
    routers = [
        f"nd{number}" for number in range(1, _LONGEST_LIST) if f"nd{number}_from" in told.values
    ]
    flags = "".join(told.text(f"{one}_flags") for one in routers)
    servers = list(said.address6_list("new_dhcp6_name_servers"))
    search = list(said.names("new_dhcp6_domain_search"))
    for one in routers:
        for number in range(1, _LONGEST_LIST):
            servers += told.address6_list(f"{one}_rdnss{number}_servers")
            search += told.names(f"{one}_dnssl{number}_search")
    mtus = [mtu for one in routers if (mtu := told.number(f"{one}_mtu", 1280, 65535, "MTU"))]
    return Lease6(
        interface=first.interface,
        addresses=tuple(address for name in addresses for address in said.address6_list(name)),
        prefixes=tuple(dict.fromkeys(prefix for one in routers for prefix in _prefixes(told, one))),
        routers=tuple(made for one in routers if (made := _router(told, one)) is not None),
        managed="M" in flags,
        other="O" in flags,
        nameservers=tuple(dict.fromkeys(servers)),
        search=tuple(dict.fromkeys(search)),
        fqdn=said.name("new_dhcp6_fqdn"),
        ntp=tuple(dict.fromkeys(ntp)),
        mtu=min(mtus, default=None),
        server=_hexadecimal(said, "new_dhcp6_server_id"),
        seconds=said.lifetime(f"{addresses[0]}_vltime") if addresses else None,
        taken=moment(first.path),
        source=source,
    )


def _router(told: Values, one: str) -> Router | None:
    address = told.address6(f"{one}_from")
    seconds = told.number(f"{one}_lifetime", 1, 65535, "lifetime of a router")
    # a lifetime of 0 is a router, but no default router (RFC 4861, 4.2)
    if address is None or seconds is None:
        return None
    flags = told.text(f"{one}_flags")
    preference: Literal["low", "medium", "high"] = (
        "high" if "h" in flags else "low" if "l" in flags else "medium"
    )
    return Router(address, preference, seconds)


def _prefixes(told: Values, one: str) -> list[Prefix]:
    found = []
    for number in range(1, _LONGEST_LIST):
        name = f"{one}_prefix_information{number}"
        address: IPv6Address | None = told.address6(f"{name}_prefix")
        if address is None:
            continue
        bits = told.number(f"{name}_length", 1, 128, "prefix length")
        flags = told.text(f"{name}_flags")
        if bits is not None:
            found.append(
                Prefix(
                    IPv6Network((address, bits), strict=False),
                    on_link="L" in flags,
                    autonomous="A" in flags,
                    valid=told.lifetime(f"{name}_vltime"),
                    preferred=told.lifetime(f"{name}_pltime"),
                )
            )
    return found


def _hexadecimal(values: Values, name: str) -> str | None:
    text = values.text(name).lower()
    if re.fullmatch(r"(?:[0-9a-f]{2}){1,130}", text):
        return text
    if text:
        values.drop(name, text, "it is no DUID in hexadecimal digits")
    return None
