"""Leases of systemd-networkd: /run/systemd/netif/leases/INDEX.

The file says that it is private (sd-dhcp-lease.c: sd_dhcp_lease_save), yet NetworkManager and
resolvers have read it for ten years; keys have been added to it, none has changed.
"""

from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

from installer.model.facts import Lease
from installer.observe.lease_values import Values, interface_of, moment, read

_ROUTES = ("CLASSLESS_ROUTES", "ROUTES")
"""The second before systemd 250, which wrote options 33 and 121 there alike."""


def leases(root: Path, warnings: list[str]) -> Iterator[Lease]:
    """Read what networkd keeps."""
    names = _interfaces(root)
    for path in sorted((root / "run/systemd/netif/leases").glob("[0-9]*")):
        source = f"/{path.relative_to(root)}"
        pairs = (
            line.partition("=") for line in read(path).splitlines() if not line.startswith("#")
        )
        values = Values({name: value for name, _, value in pairs}, source, warnings)
        interface = names.get(path.name)
        ip = values.address("ADDRESS")
        if interface is None or ip is None:
            continue
        address: IPv4Interface | None = interface_of(ip, values.text("NETMASK"))
        if address is None:
            values.drop("NETMASK", values.text("NETMASK"), "it is no netmask")
            continue
        routers = values.address_list("ROUTER")
        routes = next((name for name in _ROUTES if values.text(name)), _ROUTES[0])
        yield Lease(
            interface=interface,
            address=address,
            gateway=routers[0] if routers else None,
            further_routers=routers[1:],
            routes=values.routes(routes, ","),
            nameservers=values.address_list("DNS"),
            search=values.names("DOMAIN_SEARCH_LIST"),
            domain=values.name("DOMAINNAME"),
            hostname=values.hostname("HOSTNAME"),
            ntp=values.address_list("NTP"),
            mtu=values.mtu("MTU"),
            server=values.address("SERVER_ADDRESS"),
            root_path=values.printable("ROOT_PATH"),
            seconds=values.seconds("LIFETIME"),
            taken=moment(path),
            source=source,
        )


def _interfaces(root: Path) -> dict[str, str]:
    folder = root / "sys/class/net"
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return {read(path / "ifindex").strip(): path.name for path in names}
