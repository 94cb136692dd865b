"""Whose network card has an address: the kernel's table of neighbours (proc(5): /proc/net/arp)."""

from pathlib import Path

from installer.boot.serve.published import mac_of

_TABLE = Path("/proc/net/arp")
_COMPLETE = 0x2


def mac_at(ip: str, table: Path = _TABLE) -> str:
    """Return the MAC address of an IPv4 address on a network of this machine, "" if unknown."""
    try:
        rows = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return ""
    for row in rows:
        match row.split():
            case [address, _, flags, mac, *_] if address == ip and int(flags, 16) & _COMPLETE:
                return mac_of(mac)
    return ""
