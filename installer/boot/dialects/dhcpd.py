"""ISC dhcpd 4.x: dhcpd.conf(5), dhcp-options(5), dhcp-eval(5). The TFTP server is another program.

GRUB's net_bootp speaks DHCP since 2.04 and BOOTP before: then it takes options only in RFC 1048's
form, and no more than 60 bytes of them.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from installer.boot.dialects import encoding, ipxe
from installer.boot.site import Encoder, Site


def render(site: Site) -> Mapping[str, str]:
    """Write dhcpd.conf. Raises InstallError."""
    quote = Encoder(site, "ISC dhcpd", encoding.dhcpd)
    name = Encoder(site, "ISC dhcpd", lambda value: encoding.dhcpd(encoding.boot_file(value)))
    if site.file.dhcp.mode == "proxy":
        quote.refuse(
            "it cannot answer beside another DHCP server",
            *("dhcp", "mode"),
            hint="use dnsmasq for a proxy",
        )
        quote.done()
    lines = [
        "# Written by netinstall boot render.",
        "always-reply-rfc1048 on;",
        "option client-architecture code 93 = unsigned integer 16;",
        "option ipxe-features code 175 = string;",
        *_subnet(site, quote, name),
        *_hosts(site),
    ]
    quote.problems |= name.problems
    quote.done()
    return {"dhcpd.conf": "\n".join([*lines, ""])}


def _subnet(site: Site, quote: Encoder, name: Encoder) -> Iterator[str]:
    dhcp, tftp = site.file.dhcp, site.file.tftp
    network = IPv4Network(dhcp.subnet)
    assert dhcp.range is not None  # noqa: S101 - for the type checker: the model sees to it
    yield f"subnet {network.network_address} netmask {network.netmask} {{"
    yield f"  range dynamic-bootp {dhcp.range.first} {dhcp.range.last};"
    for setting in ("default-lease-time", "max-lease-time", "dynamic-bootp-lease-length"):
        yield f"  {setting} {dhcp.lease_seconds};"
    if dhcp.router:
        yield f"  option routers {dhcp.router};"
    if dhcp.dns:
        yield f"  option domain-name-servers {', '.join(dhcp.dns)};"
    if dhcp.ntp:
        yield f"  option ntp-servers {', '.join(dhcp.ntp)};"
    if dhcp.domain:
        yield f"  option domain-name {quote(dhcp.domain, 'dhcp', 'domain')};"
    if root := site.root_path():
        yield f"  option root-path {quote(root, 'nfs', 'path')};"
    yield f"  option tftp-server-name {quote(tftp.address, 'tftp', 'address')};"
    yield f"  next-server {tftp.address};"
    # GRUB's net_bootp needs the TFTP server's name and does not ask for it (42 is 66 in
    # hexadecimal); one that speaks BOOTP asks for nothing
    requested = "option dhcp-parameter-request-list"
    yield "  if exists dhcp-parameter-request-list {"
    yield f"    {requested} = concat({requested}, 42);"
    yield "  } else {"
    yield f"    {requested} 1,3,6,12,15,17,66;"
    yield "  }"
    yield "  if exists ipxe-features {"
    yield f"    filename {name(site.url(ipxe.MAIN), 'http', 'url')};"
    uefi = name(tftp.uefi, "tftp", "uefi")
    yield "  } elsif option client-architecture = 00:07 or option client-architecture = 00:09 {"
    yield f"    filename {uefi};"
    yield "  } elsif option client-architecture = 00:10 {"
    # UEFI 2.10, 24.7.2.2: the answer must have the client's class, or it is no answer
    yield '    option vendor-class-identifier "HTTPClient";'
    yield f"    filename {name(site.url(tftp.uefi), 'tftp', 'uefi')};"
    yield "  } else {"
    yield f"    filename {name(tftp.bios, 'tftp', 'bios')};"
    yield "  }"
    yield "}"


def _hosts(site: Site) -> Iterator[str]:
    named = [host for host in site.file.hosts if host.hostname]
    if named:
        yield "group {"
        yield "  use-host-decl-names on;"
        for host in named:
            fixed = f" fixed-address {host.ip};" if host.ip else ""
            yield f"  host {host.hostname} {{ hardware ethernet {host.mac};{fixed} }}"
        yield "}"
    for host in site.file.hosts:
        # outside of the group: a declaration needs a name, but it is not the host's
        if host.mac and host.ip and not host.hostname:
            label = "mac-" + host.mac.replace(":", "-")
            yield f"host {label} {{ hardware ethernet {host.mac}; fixed-address {host.ip}; }}"
