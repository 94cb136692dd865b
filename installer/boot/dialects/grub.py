"""GRUB over TFTP: grub.cfg, and a load-kernel-….cfg for each host. Written for GRUB 2.06.

grub.cfg goes into the image (grub-mkstandalone … /boot/grub/grub.cfg=grub.cfg) or beside it; the
others go into tftp.root.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site
from installer.model.site import Host


def render(site: Site) -> Mapping[str, str]:
    """Write grub.cfg, load-kernel.cfg and one file for each MAC, address and name of the hosts.

    Raises InstallError.
    """
    by_http = site.file.grub.fetch == "http"
    words = Encoder(site, "GRUB", encoding.grub)
    paths = Encoder(site, "GRUB", encoding.grub_http if by_http else encoding.grub)
    if by_http:
        _check_url(site, paths)
    files = {"grub.cfg": _main(site)}
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
    for key in (host.mac, host.ip, host.hostname):
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


def _main(site: Site) -> str:
    lines = ["# Written by netinstall boot render."]
    if serial := site.file.serial:
        parity = {"none": "no"}.get(serial.parity, serial.parity)
        port = f"--unit={serial.unit} --speed={serial.speed} --word=8 --parity={parity} --stop=1"
        lines += [
            f"serial {port}",
            "terminal_input serial console",
            "terminal_output serial console",
        ]
    if site.file.grub.server == "option-66":
        interface = site.file.grub.interface
        lines += [
            f"net_bootp {interface}",
            # GRUB calls what it configured itself CARD:dhcp
            f"set net_default_interface={interface}:dhcp",
            f"net_get_dhcp_option net_default_server {interface}:dhcp 66 string",
        ]
    elif site.file.dhcp.mode == "proxy":
        lines += [
            "# The server that GRUB knows is the one that gave the address, and it has no files.",
            f"set net_default_server={site.file.tftp.address}",
        ]
    lines += [
        # without a name the variable would keep what another interface said
        "set hostname=",
        "net_get_dhcp_option hostname $net_default_interface 12 string",
        'echo "netinstall: $net_default_interface $net_default_mac"',
        'echo "netinstall: address $net_default_ip, name $hostname"',
        'echo "netinstall: server $net_default_server, prefix $prefix"',
        "net_ls_addr",
        "net_ls_routes",
        'set base="(tftp,$net_default_server)"',
        # configfile gives the file that it reads exported variables only
        "export net_default_server",
        'for place in "$prefix" "$base"; do',
        '  for key in "-$net_default_mac" "-$net_default_ip" "-$hostname" ""; do',
        # without a name there is no file of that name to look for
        '    if [ "$key" != "-" ]; then',
        # -f is false for every file of a TFTP server, which tells no types
        '      if [ -s "$place/load-kernel$key.cfg" ]; then',
        '        echo "netinstall: $place/load-kernel$key.cfg"',
        '        configfile "$place/load-kernel$key.cfg"',
        "      fi",
        "    fi",
        "  done",
        "done",
        'echo "netinstall: no load-kernel.cfg on $base; starting again in 30 s"',
        "sleep 30",
        "reboot",
    ]
    return "\n".join([*lines, ""])


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
    arguments = [*words.arguments(number)]
    lines = [
        "# Written by netinstall boot render.",
        " ".join(
            [
                f"linux {device}{kernel}",
                # GRUB writes it with colons and without a hardware type
                '"BOOTIF=$net_default_mac"',
                *arguments,
            ]
        ),
    ]
    if image.root != "kernel-nfs":
        initrd = paths(f"{folder}/{image.initrd}", *place, "initrd")
        lines.append(f"initrd {device}{initrd}")
    return "\n".join([*lines, "boot", ""])
