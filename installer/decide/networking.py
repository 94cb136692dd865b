"""networking.nix: DHCP, or what the lease said, for the interface that booted or is named."""

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from installer.decide.nix import NixValue, nix_module
from installer.model.answers import Network
from installer.model.errors import Problem
from installer.model.facts import Facts, Lease, Nic

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(
    # RFC 1123, 2.1, and the underscore that Active Directory's domains have
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


def networking_module(network: Network, facts: Facts) -> tuple[str, list[str], list[Problem]]:
    """Write the module; return its text, warnings and problems.

    A lease is whatever somebody on the network said: names and name servers that cannot be are
    left out with a warning, but an address or a gateway that cannot be is a problem.
    """
    nic = _interface(network, facts)
    if nic is None and (network.interface != "boot" or network.mode != "dhcp"):
        return "", [], [_no_interface(network, facts)]
    lease = facts.lease_of(nic) if nic is not None else None
    settings: dict[str, NixValue] = {}
    warnings: list[str] = []
    if lease is not None:
        lease, warnings = _believable(lease)
    hostname, domain, found = _names(network, lease)
    warnings += found
    if hostname is not None:
        settings["hostName"] = hostname
    if domain is not None:
        settings["domain"] = domain
    settings["useNetworkd"] = network.backend == "networkd"
    if network.mode == "dhcp":
        settings["useDHCP"] = True
        return (
            nix_module(
                {"networking": settings},
                "Written by netinstall: all interfaces ask a DHCP server.",
            ),
            warnings,
            [],
        )
    assert nic is not None  # noqa: S101 - for the type checker: no interface was a problem above
    if lease is None:
        return (
            "",
            warnings,
            [
                Problem(
                    "network.no-lease",
                    f"{nic.name} ({nic.mac}) has no DHCP lease to make static",
                    "network.mode",
                    'boot from the interface that is meant, or say mode = "dhcp"',
                )
            ],
        )
    if problems := [*_impossible(lease), *_unnamable(network, nic)]:
        return "", warnings, problems
    settings["useDHCP"] = False
    comment = (
        f"Written by netinstall: the DHCP lease of {nic.name} ({nic.mac}), made static.\n"
        f"Taken from {lease.source or 'the boot environment'}"
        + (f", given by {lease.server}." if lease.server else ".")
    )
    if network.backend == "scripted":
        _scripted(settings, nic, lease)
        return nix_module({"networking": settings}, comment), warnings, []
    return (
        nix_module({"networking": settings, "systemd": _networkd(nic, lease)}, comment),
        warnings,
        [],
    )


def _interface(network: Network, facts: Facts) -> Nic | None:
    if network.interface == "boot":
        return facts.boot_nic
    wanted = network.interface.lower()
    for nic in facts.nics:
        if network.interface == nic.name or wanted in (nic.mac, nic.permanent_mac):
            return nic
    return None


def _no_interface(network: Network, facts: Facts) -> Problem:
    seen = ", ".join(f"{nic.name} ({nic.mac})" for nic in facts.nics) or "none"
    if network.interface == "boot":
        return Problem(
            "network.no-interface",
            f"it is not known which interface booted; seen: {seen}",
            "network.interface",
            "name it, or boot with BOOTIF=01-<mac> on the kernel command line",
        )
    return Problem(
        "network.no-interface",
        f"there is no interface {network.interface}; seen: {seen}",
        "network.interface",
        "use one of these names or MAC addresses",
    )


def _believable(lease: Lease) -> tuple[Lease, list[str]]:
    """Leave out of a lease what no NixOS could take; say what."""
    names = dict.fromkeys((*lease.search, *([lease.domain] if lease.domain else [])))
    wrong = [name for name in names if not _DOMAIN.fullmatch(name)]
    warnings = [f"the lease's domain {name!r} is none: it is left out" for name in wrong]
    servers = [server for server in lease.nameservers if not _can_be_a_host(server)]
    warnings += [
        f"the lease's name server {server} cannot be one: it is left out" for server in servers
    ]
    return (
        replace(
            lease,
            search=tuple(name for name in lease.search if name not in wrong),
            domain=None if lease.domain in wrong else lease.domain,
            nameservers=tuple(server for server in lease.nameservers if server not in servers),
        ),
        warnings,
    )


def _can_be_a_host(address: IPv4Address) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_reserved)


def _impossible(lease: Lease) -> Iterator[Problem]:
    """Say which addresses of a lease no machine can be given."""
    address, network = lease.address.ip, lease.address.network
    # /31 and /32 have no such addresses (RFC 3021)
    edges = (network.network_address, network.broadcast_address) if network.prefixlen < 31 else ()
    if not _can_be_a_host(address) or address.is_loopback or address in edges:
        yield _value(lease, f"the address {lease.address}, which no machine can have")
    gateway = lease.gateway
    if gateway is not None and (not _can_be_a_host(gateway) or gateway.is_loopback):
        yield _value(lease, f"the gateway {gateway}, which no machine can have")
    elif gateway is not None and gateway == address:
        yield _value(lease, f"the gateway {gateway}, which is this machine's own address")


def _value(lease: Lease, what: str) -> Problem:
    return Problem(
        "network.value",
        f"the lease of {lease.interface} holds {what}",
        "network.mode",
        'correct the DHCP server, or say mode = "dhcp"',
    )


def _unnamable(network: Network, nic: Nic) -> Iterator[Problem]:
    """Say why networking.nix could not name an interface (its name, or its MAC address)."""
    scripted = network.backend == "scripted"
    name = nic.name if scripted else nic.permanent_mac or nic.mac
    if not (_INTERFACE if scripted else _MAC).fullmatch(name):
        yield Problem(
            "network.value",
            f"the {'name' if scripted else 'hardware address'} {name!r} of {nic.name!r} is none "
            "that networking.nix can hold",
            "network.interface",
            'use another interface, or say mode = "dhcp"',
        )


def _names(network: Network, lease: Lease | None) -> tuple[str | None, str | None, list[str]]:
    """Host name and domain. NixOS wants them apart: networking.hostName has no dots."""
    domain = lease.domain if lease is not None else None
    if network.hostname is not None:
        return network.hostname, domain, []
    if lease is None or not lease.hostname:
        return None, domain, []
    first, _, rest = lease.hostname.partition(".")
    if not _LABEL.fullmatch(first):
        return (
            None,
            domain,
            [
                (
                    f"the lease's host name {lease.hostname!r} is none that NixOS takes; "
                    "the payload's stays (set network.hostname to choose one)"
                )
            ],
        )
    return first.lower(), rest if _DOMAIN.fullmatch(rest) else domain, []


def _search(lease: Lease) -> list[NixValue]:
    return list(lease.search) or ([lease.domain] if lease.domain else [])


def _scripted(settings: dict[str, NixValue], nic: Nic, lease: Lease) -> None:
    settings["interfaces"] = {
        nic.name: {
            "ipv4": {
                "addresses": [
                    {
                        "address": str(lease.address.ip),
                        "prefixLength": lease.address.network.prefixlen,
                    }
                ]
            }
        }
    }
    if lease.gateway is not None:
        # without an interface networkd-based systems warn, and two NICs are ambiguous
        settings["defaultGateway"] = {"address": str(lease.gateway), "interface": nic.name}
    if lease.nameservers:
        settings["nameservers"] = [str(server) for server in lease.nameservers]
    if search := _search(lease):
        settings["search"] = search


def _networkd(nic: Nic, lease: Lease) -> dict[str, NixValue]:
    mac = nic.permanent_mac or nic.mac
    match = "PermanentMACAddress" if nic.permanent_mac else "MACAddress"
    unit: dict[str, NixValue] = {
        "matchConfig": {match: mac},
        "address": [str(lease.address)],
    }
    if lease.gateway is not None:
        route: dict[str, NixValue] = {"Gateway": str(lease.gateway)}
        if lease.gateway not in lease.address.network:
            # a gateway beyond the prefix is reached on the link itself (systemd.network(5))
            route["GatewayOnLink"] = True
        unit["routes"] = [route]
    if lease.nameservers:
        unit["dns"] = [str(server) for server in lease.nameservers]
    if search := _search(lease):
        unit["domains"] = search
    unit["linkConfig"] = {"RequiredForOnline": "routable"}
    return {"network": {"networks": {"10-netinstall": unit}}}
