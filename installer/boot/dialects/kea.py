"""Kea's DHCPv4 server (Kea ARM, 8: The DHCPv4 Server). The TFTP server is another program."""

import json
from collections.abc import Iterator, Mapping

from installer.boot.dialects import encoding, ipxe
from installer.boot.site import Encoder, Site

Json = dict[str, object]

_LOADERS = (
    ("netinstall-ipxe", "option[175].exists"),
    ("netinstall-bios", "not option[175].exists and option[93].hex == 0x0000"),
    (
        "netinstall-uefi",
        "not option[175].exists and (option[93].hex == 0x0007 or option[93].hex == 0x0009)",
    ),
    ("netinstall-http", "not option[175].exists and option[93].hex == 0x0010"),
)
"""Classes of clients; the files that they get are in the same order in `_classes`."""


def render(site: Site) -> Mapping[str, str]:
    """Write kea-dhcp4.conf. Raises InstallError."""
    text = Encoder(site, "Kea", encoding.kea)
    if site.file.dhcp.mode == "proxy":
        text.refuse(
            "it cannot answer beside another DHCP server",
            *("dhcp", "mode"),
            hint="use dnsmasq for a proxy",
        )
        text.done()
    dhcp = site.file.dhcp
    assert dhcp.range is not None  # noqa: S101 - for the type checker: the model sees to it
    settings: Json = {
        "interfaces-config": {"interfaces": [dhcp.interface]},
        "lease-database": {"type": "memfile"},
        "valid-lifetime": dhcp.lease_seconds,
        "client-classes": list(_classes(site)),
        "subnet4": [
            {
                "subnet": dhcp.subnet,
                "pools": [{"pool": f"{dhcp.range.first} - {dhcp.range.last}"}],
                "next-server": site.file.tftp.address,
                "option-data": list(_options(site, text)),
                "reservations": list(_reservations(site)),
            }
        ],
    }
    text.done()
    return {"kea-dhcp4.conf": json.dumps({"Dhcp4": settings}, indent=2) + "\n"}


def _classes(site: Site) -> Iterator[Json]:
    name = Encoder(site, "Kea", encoding.boot_file)
    tftp = site.file.tftp
    files = (
        name(site.url(ipxe.MAIN), "http", "url"),
        name(tftp.bios, "tftp", "bios"),
        name(tftp.uefi, "tftp", "uefi"),
        name(site.url(tftp.uefi), "tftp", "uefi"),
    )
    name.done()
    for (label, test), file in zip(_LOADERS, files, strict=True):
        entry: Json = {"name": label, "test": test, "boot-file-name": file}
        if label == "netinstall-http":
            # UEFI 2.10, 24.7.2.2: the answer must have the client's class, or it is no answer
            entry["option-data"] = [
                {"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}
            ]
        yield entry


def _options(site: Site, text: Encoder) -> Iterator[Json]:
    dhcp = site.file.dhcp
    if dhcp.router:
        yield {"name": "routers", "data": dhcp.router}
    if dhcp.dns:
        yield {"name": "domain-name-servers", "data": ", ".join(dhcp.dns)}
    if dhcp.ntp:
        yield {"name": "ntp-servers", "data": ", ".join(dhcp.ntp)}
    if dhcp.domain:
        yield {"name": "domain-name", "data": dhcp.domain}
    root = site.root_path()
    if root and text(root, "nfs", "path"):
        yield {"name": "root-path", **encoding.kea_option(root)}
    # GRUB's net_bootp needs it and does not ask for it
    address = site.file.tftp.address
    yield {"name": "tftp-server-name", "data": address, "always-send": True}


def _reservations(site: Site) -> Iterator[Json]:
    for host in site.file.hosts:
        if host.mac is None or not (host.ip or host.hostname):
            continue
        entry: Json = {"hw-address": host.mac}
        if host.ip:
            entry["ip-address"] = host.ip
        if host.hostname:
            entry["hostname"] = host.hostname
        yield entry
