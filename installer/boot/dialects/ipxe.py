"""iPXE scripts, for BIOS and EFI, as old as the iPXE of 2019 (no HTTPS, no `params`, no `ntp`).

Publish the output as http.root: DHCP hands out ipxe/boot.ipxe, which chains to the script of the
host. A script never ends in a prompt: it waits a little longer each time, and tries again.
"""

from collections.abc import Iterable, Mapping

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site

MAIN = "ipxe/boot.ipxe"

_FIRST, _LONGEST = 2, 32
"""Seconds of the first and the longest pause."""


def render(site: Site) -> Mapping[str, str]:
    """Write ipxe/boot.ipxe, ipxe/default.ipxe and one script a host. Raises InstallError."""
    encode = Encoder(site, "iPXE", encoding.ipxe)
    files = {MAIN: _main(site)}
    for number, _ in site.machines():
        files[script(site, number)] = _boot(site, number, encode)
    encode.done()
    return files


def script(site: Site, number: int | None) -> str:
    """Return the path of a host's script (None: of any other machine)."""
    if number is None:
        return "ipxe/default.ipxe"
    host = site.file.hosts[number]
    if host.mac is not None:
        return f"ipxe/mac-{host.mac.replace(':', '-')}.ipxe"
    return f"ipxe/uuid-{host.uuid}.ipxe"


def _main(site: Site) -> str:
    choice = []
    for number, host in site.machines():
        for setting, value in (("netX/mac", host and host.mac), ("uuid", host and host.uuid)):
            if value is not None:
                name = script(site, number)
                choice.append(f"iseq ${{{setting}}} {value} && set script {name} ||")
    url = site.file.http.url
    return _lines(
        "#!ipxe",
        "# Written by netinstall boot render. Each script named here exists: when it does not",
        "# come, the network fails, and another host's script would be the wrong one.",
        f"set pause {_FIRST}",
        ":network",
        "isset ${ip} || dhcp || goto no_network",
        "set script ipxe/default.ipxe",
        *choice,
        f"set pause {_FIRST}",
        ":fetch",
        f"chain --replace {url}/${{script}} ||",
        # iPXE has just said the URL and why; this fits on a line
        "echo netinstall: ${script} did not come; trying again in ${pause} s",
        *_pause("fetch"),
        ":no_network",
        "echo netinstall: no DHCP server answered; trying again in ${pause} s",
        *_pause("network"),
    )


def _boot(site: Site, number: int | None, encode: Encoder) -> str:
    host = None if number is None else site.file.hosts[number]
    image = site.file.image_of(host)
    initrd = site.url(image.folder, image.initrd)
    name = (host and host.hostname) or "a machine that is not named in the site file"
    return boot_script(
        f"Written by netinstall boot render for {name}.",
        image.name,
        site.url(image.folder, image.kernel),
        None if image.root == "kernel-nfs" else initrd,
        ["BOOTIF=01-${netX/mac:hexhyp}", *encode.arguments(number)],
    )


def boot_script(
    comment: str, what: str, kernel: str, initrd: str | None, arguments: Iterable[str]
) -> str:
    """Write a script that boots a kernel, and tries again for as long as that fails.

    Args:
        comment: its first line, for people.
        what: what is booted, for people.
        kernel: its URL, absolute or as seen from the script; so is `initrd`, if there is one.
        arguments: of the kernel, encoded; `${cmdline}` of a script that chained here is added.
    """
    return _lines(
        "#!ipxe",
        f"# {comment}",
        f"set pause {_FIRST}",
        ":again",
        "imgfree ||",
        " ".join(
            [
                f"kernel {kernel}",
                # EFI stub kernels find the initrd by this name
                *(["initrd=initrd"] if initrd else []),
                *arguments,
                # what a script that chained to this one wants to add
                "${cmdline} || goto failed",
            ]
        ),
        *([f"initrd --name initrd {initrd} || goto failed"] if initrd else []),
        "boot || goto failed",
        ":failed",
        f"echo netinstall: {what} did not start; trying again in ${{pause}} s",
        *_pause("again"),
    )


def _pause(label: str) -> Iterable[str]:
    """Wait, double the pause, and go to the label. Longest first: only one of them may hold."""
    yield "sleep ${pause}"
    seconds = _LONGEST // 2
    while seconds >= _FIRST:
        yield f"iseq ${{pause}} {seconds} && set pause {seconds * 2} ||"
        seconds //= 2
    yield f"goto {label}"


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
