"""How a string is written in each dialect, so that it means itself and nothing else.

Each function takes printable ASCII (the site file allows nothing else) and returns what stands in
the file. It raises ValueError, with the reason, for what the dialect has no way to write.
"""

import json
import re
import shlex


def ipxe(value: str) -> str:
    """Write one word of an iPXE command (iPXE's core/exec.c: no quoting, `${}` expands)."""
    if "${" in value:
        raise ValueError("iPXE replaces ${…} by a setting, and nothing keeps it from that")
    if " " in value:
        raise ValueError("iPXE splits at spaces, and has no quotes")
    if value in ("||", "&&", ";", "#"):
        raise ValueError(f"{value} ends a command of iPXE")
    return value


def grub(value: str) -> str:
    """Write one word of a GRUB command (GRUB manual, 6.1: single quotes keep everything).

    Quotes and backslashes are refused: the `linux` command puts a backslash before each when it
    hands them to the kernel.
    """
    if found := re.search(r"""['"\\]""", value):
        raise ValueError(f"GRUB hands {found[0]} on with a backslash before it")
    return f"'{value}'"


def grub_http(value: str) -> str:
    """Write one path that GRUB asks an HTTP server for: it sends the path as it is."""
    if not re.fullmatch(r"[A-Za-z0-9/._~-]+", value):
        raise ValueError("GRUB does not encode what is special in a URL: rename it, or use TFTP")
    return grub(value)


def dnsmasq(value: str) -> str:
    """Write a value in dnsmasq's configuration (dnsmasq(8): quotes also keep commas, and keep an
    address from being sent as four bytes where text is meant)."""
    _no_longer_than(value, 255)
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def dhcpd(value: str) -> str:
    """Write text in dhcpd.conf(5); its lexer (common/conflex.c) knows \\\\ and \\"."""
    _no_longer_than(value, 255)
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def kea(value: str) -> str:
    """Check text that Kea's JSON holds; json.dumps writes it."""
    _no_longer_than(value, 255)
    return value


def kea_option(value: str) -> dict[str, object]:
    """Write the value of a Kea text option: in hexadecimal where Kea would split it at a comma."""
    if re.fullmatch(r"[A-Za-z0-9/._:@+=-]+", kea(value)):
        return {"data": value}
    return {"csv-format": False, "data": value.encode("ascii").hex()}


def boot_file(value: str) -> str:
    """Check a boot file name: it lies in 128 bytes with a zero at the end (RFC 951, 3)."""
    _no_longer_than(value, 127)
    return value


def pixiecore(value: str) -> str:
    """Check a kernel argument for Pixiecore; JSON or the shell write it.

    Its API makes a template of the command line (README.api.md: `{{ URL "…" }}`).
    """
    if "{{" in value:
        raise ValueError("Pixiecore takes {{ as the beginning of a template")
    if "${" in value:
        raise ValueError("Pixiecore hands it to iPXE, which replaces ${…} by a setting")
    return value


def shell(value: str) -> str:
    """Write one word for a POSIX shell."""
    return shlex.quote(value)


def comment(value: str) -> str:
    """Write text in a `#` comment: JSON's escapes keep it on its line."""
    return json.dumps(value)


def _no_longer_than(value: str, limit: int) -> None:
    if len(value) > limit:
        raise ValueError(f"it has {len(value)} bytes, and DHCP has room for {limit}")
