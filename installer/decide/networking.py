"""networking.nix: DHCP, or what the lease said, for the interface that booted or is named."""

import re

from installer.decide.nix import NixValue, nix_module
from installer.model.answers import Network
from installer.model.errors import Problem
from installer.model.facts import Facts, Lease, Nic

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def networking_module(network: Network, facts: Facts) -> tuple[str, list[str], list[Problem]]:
    """Write the module; return its text, warnings and problems."""
    nic = _interface(network, facts)
    lease = facts.lease_of(nic) if nic is not None else None
    settings: dict[str, NixValue] = {}
    hostname, domain, warnings = _names(network, lease)
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
    if nic is None:
        return "", warnings, [_no_interface(network, facts)]
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
    return first.lower(), rest or domain, []


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
