"""The lease as an initrd left it: this project's own hand-over, and klibc's ipconfig."""

import json
import re
from ipaddress import IPv4Interface
from pathlib import Path

from installer.model.facts import Lease, Route
from installer.observe.lease_values import SHOWN, Values, interface_of, moment, read


def from_json(path: Path, source: str, warnings: list[str]) -> Lease | None:
    """Read an object with the fields of `Lease`, by any initrd that cares to write one.

    Lists are lists of texts; a route is "NETWORK/BITS GATEWAY".
    """
    try:
        document = json.loads(read(path))
    except (ValueError, RecursionError):
        warnings.append(f"{source}: left out: it is not JSON")
        return None
    if not isinstance(document, dict):
        warnings.append(f"{source}: left out: it is no JSON object")
        return None
    flat: dict[str, str] = {}
    values = Values(flat, source, warnings)
    for name, value in document.items():
        match value:
            case None:
                continue
            case str():
                flat[name] = value
            case int() if not isinstance(value, bool):
                flat[name] = str(value)
            case list() if all(isinstance(part, str) for part in value):
                flat[name] = " ".join(value)
                flat |= {f"{name}[{index}]": part for index, part in enumerate(value)}
            case _:
                values.drop(name, value, "it is neither a text, a number nor a list of texts")
    interface = values.interface("interface")
    try:
        address = IPv4Interface(values.text("address"))
    except ValueError:
        values.drop("address", values.text("address"), "it is no IPv4 address with a prefix")
        return None
    if interface is None:
        return None
    return Lease(
        interface=interface,
        address=address,
        gateway=values.address("gateway"),
        further_routers=values.address_list("further_routers"),
        routes=values.routes("routes"),
        nameservers=values.addresses(name for name in flat if name.startswith("nameservers[")),
        search=values.names("search"),
        domain=values.name("domain"),
        hostname=values.hostname("hostname"),
        fqdn=values.name("fqdn"),
        ntp=values.address_list("ntp"),
        mtu=values.mtu("mtu"),
        server=values.address("server"),
        root_path=values.printable("root_path"),
        seconds=values.seconds("seconds"),
        taken=moment(path),
        source=values.printable("source") or source,
    )


_ASSIGNMENT = re.compile(
    r"""([A-Za-z_][A-Za-z0-9_]*)=      # a name and no blanks
        ((?: '[^']*'                   # single quotes hold everything, newlines too
           | \\[^\n]                   # ipconfig writes a quote as '\''
           | "[^"\\$`]*"
           | [A-Za-z0-9_.,:/@%+~-]
         )*)
        (?:[ \t\r]*(?:\n|\Z))""",
    re.VERBOSE,
)
_PIECE = re.compile(r"""'([^']*)'|\\(.)|"([^"]*)"|([^'"\\]+)""", re.DOTALL)


def assignments(text: str, source: str, warnings: list[str]) -> dict[str, str]:
    """Read `NAME='value'` lines, the part of a shell's language that DHCP clients write."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ASSIGNMENT.match(text, position)
        if match is not None:
            found[match[1]] = "".join("".join(piece) for piece in _PIECE.findall(match[2]))
            position = match.end()
            continue
        end = text.find("\n", position)
        line = text[position : len(text) if end < 0 else end]
        if line.strip() and not line.lstrip().startswith("#"):
            warnings.append(f"{source}: {line[:SHOWN]!r} is left out: it is no NAME='value'")
        position = len(text) if end < 0 else end + 1
    return found


_STATIC_ROUTE = re.compile(r"IPV4ROUTE([0-9]+)SUBNET")


def from_klibc(path: Path, source: str, warnings: list[str]) -> Lease | None:
    """Read a /run/net-DEVICE.conf (usr/kinit/ipconfig/main.c of klibc).

    Those of initrd-hooks/lib/netinstall.sh have further servers, IPV4NTP, IPV4MTU, FQDN and
    IPV4ROUTERS besides.
    """
    flat = assignments(read(path), source, warnings)
    values = Values(flat, source, warnings)
    interface = values.interface("DEVICE")
    ip = values.address("IPV4ADDR")
    if interface is None or ip is None:
        return None
    address = interface_of(ip, values.text("IPV4NETMASK"))
    if address is None:
        values.drop("IPV4NETMASK", values.text("IPV4NETMASK"), "it is no netmask")
        return None
    servers = (name for name in sorted(flat) if re.fullmatch(r"IPV4DNS[0-9]", name))
    gateway = values.address("IPV4GATEWAY")
    routers = values.address_list("IPV4ROUTERS")
    return Lease(
        interface=interface,
        address=address,
        gateway=gateway,
        further_routers=tuple(router for router in routers if router != gateway),
        routes=_routes(values),
        nameservers=values.addresses(servers),
        search=values.names("DOMAINSEARCH"),
        domain=values.name("DNSDOMAIN"),
        hostname=values.hostname("HOSTNAME"),
        fqdn=values.name("FQDN"),
        ntp=values.address_list("IPV4NTP"),
        mtu=values.mtu("IPV4MTU"),
        server=values.address("ROOTSERVER"),
        root_path=values.printable("ROOTPATH"),
        seconds=values.seconds("DHCPLEASETIME"),
        taken=moment(path),
        source=source,
    )


def _routes(values: Values) -> tuple[Route, ...]:
    """Classless routes (RFC 3442), numbered from 0 or 1."""
    numbers = sorted(
        int(match[1]) for name in values.values if (match := _STATIC_ROUTE.fullmatch(name))
    )
    found: list[Route] = []
    for number in numbers:
        subnet = values.text(f"IPV4ROUTE{number}SUBNET")
        gateway = values.text(f"IPV4ROUTE{number}GATEWAY") or "0.0.0.0"  # noqa: S104 - on the link
        pair = Values({"IPV4ROUTE": f"{subnet} {gateway}"}, values.source, values.warnings)
        found += pair.routes("IPV4ROUTE")
    return tuple(dict.fromkeys(found))
