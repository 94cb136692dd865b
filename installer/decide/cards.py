"""Which network card is meant, and how the installed system knows it again."""

import re
from collections.abc import Mapping

from installer.model.errors import Problem
from installer.model.facts import Facts, Nic

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_PATH = re.compile(r"[A-Za-z0-9:._-]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_BY_MAC = re.compile(r"[a-z]{2}x[0-9a-f]{12}")
_BY_ORDER = re.compile(r"(?:eth|wlan)[0-9]+")


def find(wanted: str, facts: Facts, where: str) -> Nic | Problem:
    """Find a card by `boot`, a name (the kernel's or udev's) or a MAC address."""
    if wanted == "boot":
        return facts.boot_nic or Problem(
            "network.no-interface",
            f"it is not known which interface booted; seen: {_seen(facts)}",
            where,
            "name it, or boot with BOOTIF=01-<mac> on the kernel command line",
        )
    mac = wanted.lower().replace("-", ":")
    found = [
        nic
        for nic in facts.nics
        if wanted in (nic.name, *nic.names) or mac in (nic.mac, nic.permanent_mac)
    ]
    if not found:
        return Problem(
            "network.no-interface",
            f"there is no interface {wanted}; seen: {_seen(facts)}",
            where,
            "use one of these names or MAC addresses",
        )
    if len(found) > 1:
        names = ", ".join(f"{nic.name} ({nic.mac})" for nic in found)
        return Problem(
            "network.ambiguous",
            f"{wanted} is more than one interface: {names}",
            where,
            "use a name or MAC address that only one of them has",
        )
    return found[0]


def _seen(facts: Facts) -> str:
    return ", ".join(f"{nic.name} ({nic.mac})" for nic in facts.nics) or "none"


def installed_name(nic: Nic, facts: Facts) -> str:
    """What the card is called in the installed system.

    The first of udev's names, as systemd's 99-default.link chooses (which leaves out the one by
    MAC address); a name like eth0 only says in which order drivers were loaded.
    """
    others = {name for other in facts.nics if other is not nic for name in other.names}
    for name in (*nic.names, nic.name):
        by_order = _BY_MAC.fullmatch(name) or _BY_ORDER.fullmatch(name)
        if _NAME.fullmatch(name) and not by_order and name not in others:
            return name
    mac = nic.permanent_mac or nic.mac
    return f"enx{mac.replace(':', '')}" if _MAC.fullmatch(mac) else nic.name


def match(nic: Nic, facts: Facts, where: str) -> Mapping[str, str] | Problem:
    """How systemd.network(5) and systemd.link(5) find the card, whatever it is called.

    A card without a permanent address has another one after each boot: its place counts then.
    """
    mac = nic.permanent_mac or nic.mac
    if not _MAC.fullmatch(mac):
        return _unknowable(nic, f"the hardware address {mac!r} of {nic.name!r} is none that", where)
    place = {"Path": nic.path} if nic.path and _PATH.fullmatch(nic.path) else {}
    if nic.permanent_mac is None:
        # without Kind, what has taken over the address (a bond, a bridge) would match, too
        return place or {"MACAddress": mac, "Type": "ether", "Kind": "!*"}
    twins = [
        other
        for other in facts.nics
        if other is not nic and mac in (other.mac, other.permanent_mac)
    ]
    if twins and (not place or any(other.path == nic.path for other in twins)):
        names = ", ".join(other.name for other in twins)
        return _unknowable(nic, f"{nic.name} has the same hardware address as {names}: none", where)
    return {"PermanentMACAddress": mac, **(place if twins else {})}


def _unknowable(nic: Nic, what: str, where: str) -> Problem:
    del nic
    return Problem(
        "network.value",
        f"{what} networking.nix can hold",
        where,
        'use another interface, or say mode = "dhcp"',
    )
