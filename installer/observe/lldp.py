"""What switches say of themselves, as lldpd heard it: the output of `lldpctl -f json0`."""

import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from installer.model.facts import Neighbour

_LONGEST = 255
"""Octets of a string in a TLV (IEEE 802.1AB, 8.5)."""


def neighbours(text: str) -> dict[str, Neighbour]:
    """Return who is at the other end of each interface's cable; the first where there are several.

    json0 is the form in which every element is a list (lldpctl(8)). What does not have it is left
    out: a switch may say anything.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, Neighbour] = {}
    for one in _each(document, "lldp", "interface"):
        name = one.get("name")
        if isinstance(name, str):
            found.setdefault(name, _neighbour(one))
    return found


def _neighbour(one: Mapping[str, Any]) -> Neighbour:
    vlans = [
        int(vlan["vlan-id"])
        for vlan in _each(one, "vlan")
        if vlan.get("pvid") in (True, "yes") and str(vlan.get("vlan-id", "")).isdecimal()
    ]
    return Neighbour(
        system=_first(one, "chassis", "name"),
        chassis=_first(one, "chassis", "id"),
        port=_first(one, "port", "id"),
        port_description=_first(one, "port", "descr"),
        address=_address(one),
        vlan=next((vlan for vlan in vlans if 0 < vlan < 4095), None),
    )


def _address(one: Mapping[str, Any]) -> IPv4Address | IPv6Address | None:
    for element in _each(one, "chassis", "mgmt-ip"):
        try:
            return ip_address(str(element.get("value")))
        except ValueError:
            continue
    return None


def _first(one: Mapping[str, Any], *path: str) -> str | None:
    for element in _each(one, *path):
        value = element.get("value")
        if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST:
            return value
    return None


def _each(value: Any, *path: str) -> Iterator[Mapping[str, Any]]:
    """Walk down: each name leads to a list of objects."""
    if not isinstance(value, dict):
        return
    if not path:
        yield value
        return
    below = value.get(path[0])
    for one in below if isinstance(below, list) else ():
        yield from _each(one, *path[1:])
