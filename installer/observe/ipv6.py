"""What the kernel itself made of router advertisements: /proc/net/if_inet6 and ipv6_route.

Both are tables of hexadecimal words (net/ipv6/addrconf.c: if6_seq_show, net/ipv6/route.c:
ipv6_route_native_seq_show); the flags are those of linux/if_addr.h and linux/ipv6_route.h.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Literal

from installer.model.facts import Lease6, Prefix, Route, Router
from installer.observe.lease_values import is_interface, read

_GLOBAL = 0x00
_TEMPORARY, _TENTATIVE, _PERMANENT = 0x01, 0x40, 0x80
_GATEWAY, _ADVERTISED, _PREFIX, _INFORMATION = 0x2, 0x00040000, 0x00080000, 0x00800000
_PREFERENCE: dict[int, Literal["low", "medium", "high"]] = {0: "medium", 1: "high", 3: "low"}
"""RFC 4191, 2.1, in the two bits above RTF_PREF's shift of 27."""


@dataclass
class _Link:
    slaac: list[IPv6Interface] = field(default_factory=list)
    prefixes: list[IPv6Network] = field(default_factory=list)
    routers: list[Router] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)


def leases(root: Path = Path("/")) -> tuple[Lease6, ...]:
    """Return what each interface got from routers, sorted by name; nothing for one without."""
    links: dict[str, _Link] = {}
    for name, address, words in _rows(root / "proc/net/if_inet6", 6, 0):
        _, bits, scope, flags = (int(word, 16) for word in words[1:5])
        # what has no lifetime was given by hand; 128 bits are of a DHCPv6 client
        by_hand = flags & (_TEMPORARY | _TENTATIVE | _PERMANENT)
        if scope == _GLOBAL and not by_hand and bits < 128:
            links.setdefault(name, _Link()).slaac.append(IPv6Interface((address, bits)))
    for name, destination, words in _rows(root / "proc/net/ipv6_route", 10, 0):
        bits, flags = int(words[1], 16), int(words[8], 16)
        if not flags & _ADVERTISED or name == "lo" or bits > 128:
            continue
        link = links.setdefault(name, _Link())
        network = IPv6Network((destination, bits), strict=False)
        gateway = IPv6Address(int(words[4], 16))
        if flags & _PREFIX:
            link.prefixes.append(network)
        elif flags & _INFORMATION:
            link.routes.append(Route(network, gateway if flags & _GATEWAY else None))
        elif bits == 0 and flags & _GATEWAY:
            link.routers.append(Router(gateway, _PREFERENCE.get(flags >> 27 & 3, "medium")))
    return tuple(_lease(name, link) for name, link in sorted(links.items()))


def _lease(name: str, link: _Link) -> Lease6:
    return Lease6(
        interface=name,
        slaac=tuple(link.slaac),
        prefixes=tuple(
            Prefix(network, autonomous=any(own.ip in network for own in link.slaac))
            for network in dict.fromkeys(link.prefixes)
        ),
        routers=tuple(dict.fromkeys(link.routers)),
        routes=tuple(dict.fromkeys(link.routes)),
        source="the kernel",
    )


def _rows(path: Path, columns: int, at: int) -> list[tuple[str, IPv6Address, list[str]]]:
    """Rows of a table whose last word is the interface; what is no such row is passed over."""
    found = []
    for line in read(path).splitlines():
        words = line.split()
        try:
            numbers = [int(word, 16) for word in words[:-1]]
        except ValueError:
            continue
        shaped = len(words) == columns and is_interface(words[-1])
        if shaped and all(0 <= number < 1 << 128 for number in numbers):
            found.append((words[-1], IPv6Address(numbers[at]), words))
    return found
