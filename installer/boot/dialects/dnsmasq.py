"""dnsmasq: DHCP (full, or proxy beside a server that cannot be changed) and TFTP.

Made for dnsmasq 2.80 and newer; see dnsmasq(8). `port=0`: it answers no DNS queries.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from installer.boot.dialects import encoding, ipxe
from installer.boot.site import Encoder, Site
from installer.model.site import Host

_LONGEST_LINE = 1000
"""Bytes; dnsmasq reads 1024 at a time and takes the rest for another line (src/option.c)."""


def render(site: Site) -> Mapping[str, str]:
    """Write dnsmasq.conf. Raises InstallError."""
    quote = Encoder(site, "dnsmasq", encoding.dnsmasq)
    name = Encoder(site, "dnsmasq", lambda value: encoding.dnsmasq(encoding.boot_file(value)))
    dhcp, tftp = site.file.dhcp, site.file.tftp
    lines = [
        "# Written by netinstall boot render.",
        "port=0",
        f"interface={dhcp.interface}",
        "bind-dynamic",
        "enable-tftp",
        f"tftp-root={quote(tftp.root, 'tftp', 'root')}",
        "tftp-secure",
        f"user={tftp.user}",
        # iPXE says so itself; another loader of the same machine does not
        "dhcp-match=set:ipxe,175",
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-match=set:uefi,option:client-arch,7",
        "dhcp-match=set:uefi,option:client-arch,9",
        "dhcp-match=set:http,option:client-arch,16",
        *(_proxy if dhcp.mode == "proxy" else _full)(site, quote, name),
    ]
    quote.problems |= name.problems
    for line in lines:
        if len(line) > _LONGEST_LINE:
            quote.refuse(f"a line has {len(line)} bytes: {line[:40]}…", "dhcp")
    quote.done()
    return {"dnsmasq.conf": "\n".join([*lines, ""])}


def _loaders(site: Site, name: Encoder) -> tuple[str, str, str, str]:
    tftp = site.file.tftp
    return (
        name(tftp.bios, "tftp", "bios"),
        name(tftp.uefi, "tftp", "uefi"),
        name(site.url(tftp.uefi), "tftp", "uefi"),
        name(site.url(ipxe.MAIN), "http", "url"),
    )


def _full(site: Site, quote: Encoder, name: Encoder) -> Iterator[str]:
    dhcp, server = site.file.dhcp, site.file.tftp.address
    netmask = IPv4Network(dhcp.subnet).netmask
    assert dhcp.range is not None  # noqa: S101 - for the type checker: the model sees to it
    yield (f"dhcp-range={dhcp.range.first},{dhcp.range.last},{netmask},{dhcp.lease_seconds}")
    if dhcp.router:
        yield f"dhcp-option=option:router,{dhcp.router}"
    else:
        # otherwise dnsmasq names itself
        yield "dhcp-option=option:router"
    yield "dhcp-option=" + ",".join(["option:dns-server", *dhcp.dns])
    if dhcp.ntp:
        yield "dhcp-option=" + ",".join(["option:ntp-server", *dhcp.ntp])
    if dhcp.domain:
        yield f"dhcp-option=option:domain-name,{dhcp.domain}"
    if root := site.root_path():
        yield f"dhcp-option=option:root-path,{quote(root, 'nfs', 'path')}"
    # GRUB's net_bootp needs it, as text, and does not ask for it
    yield f"dhcp-option-force=option:tftp-server,{quote(server, 'tftp', 'address')}"
    bios, uefi, by_http, script = _loaders(site, name)
    yield f"dhcp-boot=tag:ipxe,{script},,{server}"
    yield f"dhcp-boot=tag:!ipxe,tag:bios,{bios},,{server}"
    yield f"dhcp-boot=tag:!ipxe,tag:uefi,{uefi},,{server}"
    yield from _http_boot(by_http, server)
    for host in site.file.hosts:
        if entry := _host(host):
            yield entry


def _http_boot(by_http: str, server: str) -> Iterator[str]:
    yield "dhcp-vendorclass=set:httpclient,HTTPClient"
    # UEFI 2.10, 24.7.2.2: the answer must have the client's class, or it is no answer
    yield "dhcp-option-force=tag:!ipxe,tag:http,tag:httpclient,60,HTTPClient"
    yield f"dhcp-boot=tag:!ipxe,tag:http,{by_http},,{server}"


def _host(host: Host) -> str:
    if host.mac is None or not (host.ip or host.hostname):
        return ""
    return "dhcp-host=" + ",".join(filter(None, (host.mac, host.ip, host.hostname)))


def _proxy(site: Site, _quote: Encoder, name: Encoder) -> Iterator[str]:
    network, server = IPv4Network(site.file.dhcp.subnet), site.file.tftp.address
    yield f"dhcp-range={network.network_address},proxy,{network.netmask}"
    bios, uefi, _by_http, script = _loaders(site, name)
    yield f"dhcp-boot=tag:ipxe,{script},,{server}"
    for kind, file in (("X86PC", bios), ("X86-64_EFI", uefi), ("BC_EFI", uefi)):
        yield f'pxe-service=tag:!ipxe,{kind},"Netinstall",{file},{server}'
    # a menu with one entry that needs no key
    yield 'pxe-prompt=tag:!ipxe,"Netinstall",0'
