"""GRUB over TFTP: grub.cfg, and a load-kernel-….cfg for each host. Written for GRUB 2.06.

grub.cfg goes into the loader (`installer.boot.loader`), the others into tftp.root. Each of those
boots, or comes back: then grub.cfg waits, looks at everything anew, and at last starts the machine
again. What somebody mends on the server in the meantime counts.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site
from installer.model.site import Host

PAUSES = (5, 10, 20, 40)
"""Seconds between two attempts; after the last the machine starts again."""


def render(site: Site) -> Mapping[str, str]:
    """Write grub.cfg, load-kernel.cfg and one file for each MAC, address, name and UUID of a host.

    Raises InstallError.
    """
    by_http = site.file.grub.fetch == "http"
    words = Encoder(site, "GRUB", encoding.grub)
    paths = Encoder(site, "GRUB", encoding.grub_http if by_http else encoding.grub)
    if by_http:
        _check_url(site, paths)
    files = {"grub.cfg": main(site)}
    for number, host in site.machines():
        text = _boot(site, number, words, paths)
        for name in _names(host):
            files[name] = text
    words.problems |= paths.problems
    words.done()
    return files


def _names(host: Host | None) -> Iterator[str]:
    if host is None:
        yield "load-kernel.cfg"
        return
    for key in (host.mac, host.ip, host.hostname, host.uuid):
        if key is not None:
            yield f"load-kernel-{key}.cfg"


def _check_url(site: Site, paths: Encoder) -> None:
    url = urlsplit(site.file.http.url)
    if url.scheme != "http" or url.port not in (None, 80):
        paths.refuse(
            f"{site.file.http.url} has a scheme or port that GRUB 2.06 does not know",
            *("http", "url"),
            hint='serve on port 80 without TLS, or say fetch = "tftp"',
        )


def main(site: Site) -> str:
    """Return grub.cfg, which `installer.boot.loader` puts into the loader."""
    card = site.file.grub.interface
    lines = ["# Written by netinstall boot render."]
    if serial := site.file.serial:
        parity = {"none": "no"}.get(serial.parity, serial.parity)
        port = f"--unit={serial.unit} --speed={serial.speed} --word=8 --parity={parity} --stop=1"
        lines += [
            f"serial {port}",
            "terminal_input serial console",
            "terminal_output serial console",
        ]
    lines += [
        "smbios --type 1 --get-uuid 8 --set uuid",
        # configfile gives the file that it reads exported variables only
        "export net_default_server",
        # without it $net_default_mac is empty there
        "export net_default_interface",
        f"for pause in {' '.join(map(str, PAUSES))}; do",
        *(f"  {line}" for line in _ask(site, card)),
        # the interface is efinet0 or efinet0_dhcp, never a stranger's text
        '  eval "set hostname=\\$net_${net_default_interface}_hostname"',
        '  echo "netinstall: $net_default_interface $net_default_mac"',
        '  echo "netinstall: address $net_default_ip, name $hostname"',
        '  echo "netinstall: server $net_default_server, prefix $prefix"',
        "  net_ls_cards",
        "  net_ls_addr",
        "  net_ls_routes",
        '  set base="(tftp,$net_default_server)"',
        "  set file=",
        '  for key in "-$net_default_mac" "-$net_default_ip" "-$hostname" "-$uuid" ""; do',
        '    for place in "$prefix" "$base"; do',
        # without a name there is no file of that name to look for
        '      if [ -z "$file" -a "$key" != "-" ]; then',
        # -f is false for every file of a TFTP server, which tells no types
        '        if [ -s "$place/load-kernel$key.cfg" ]; then',
        '          set file="$place/load-kernel$key.cfg"',
        "        fi",
        "      fi",
        "    done",
        "  done",
        '  if [ -n "$file" ]; then',
        '    echo "netinstall: reading $file"',
        '    configfile "$file"',
        # another file would be for another machine: it is this one that must be mended
        '    echo "netinstall: $file did not boot"',
        "  else",
        '    echo "netinstall: no load-kernel.cfg on $base"',
        "  fi",
        '  echo "netinstall: waiting $pause s"',
        "  sleep $pause",
        "done",
        'echo "netinstall: giving up, this machine starts again"',
        "reboot",
    ]
    return "\n".join([*lines, ""])


def _ask(site: Site, card: str) -> list[str]:
    """The lines that find the network and the TFTP server."""
    # GRUB calls what net_bootp configures CARD:dhcp, and writes _ for : in its variables' names
    asked = f"{card}_dhcp"
    loader = site.file.grub.server == "loader"
    # started by HTTP or from a stick, there is no PXE that has left an address
    unknown = '-z "$net_default_ip"' if loader else f'"$net_default_interface" != "{asked}"'
    lines = [
        f"if [ {unknown} ]; then",
        f"  if net_bootp {card}; then",
        f"    set net_default_interface={asked}",
        f"    net_get_dhcp_option net_default_server {card}:dhcp 66 string",
        "  fi",
        "fi",
    ]
    if loader and site.file.dhcp.mode == "proxy":
        lines += [
            "# The server that GRUB knows is the one that gave the address, and it has no files.",
            f"set net_default_server={site.file.tftp.address}",
        ]
    else:
        lines += [
            'if [ -z "$net_default_server" ]; then',
            f"  set net_default_server={site.file.tftp.address}",
            "fi",
        ]
    return lines


def _boot(site: Site, number: int | None, words: Encoder, paths: Encoder) -> str:
    host = None if number is None else site.file.hosts[number]
    image = site.file.image_of(host)
    place = ("images", site.file.images.index(image))
    if site.file.grub.fetch == "http":
        url = urlsplit(site.file.http.url)
        device, folder = f"'(http,{url.hostname})'", f"{url.path}/{image.folder}"
    else:
        device, folder = '"(tftp,$net_default_server)"', f"/{image.folder}"
    kernel = paths(f"{folder}/{image.kernel}", *place, "kernel")
    # GRUB writes it with colons and without a hardware type
    arguments = ['"BOOTIF=$net_default_mac"', *words.arguments(number)]
    # what fails is said by GRUB, and grub.cfg tries again: a kernel without its initrd would panic
    commands = [" ".join([f"linux {device}{kernel}", *arguments])]
    if image.root != "kernel-nfs":
        initrd = paths(f"{folder}/{image.initrd}", *place, "initrd")
        commands.append(f"initrd {device}{initrd}")
    lines = ["boot"]
    for command in reversed(commands):
        lines = [f"if {command}; then", *(f"  {line}" for line in lines), "fi"]
    return "\n".join(["# Written by netinstall boot render.", *lines, ""])
