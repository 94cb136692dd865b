"""The network interfaces with hardware behind them, from sysfs, udev's database and ethtool's
ioctl."""

import array
import fcntl
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from installer.model.facts import Neighbour, Nic

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ETHERNET = "1"
"""ARPHRD_ETHER of linux/if_arp.h."""

_PERMANENT = "0"
"""NET_ADDR_PERM of linux/netdevice.h: the address is the one of the hardware."""

_NAMES = ("FROM_DATABASE", "ONBOARD", "SLOT", "PATH", "MAC")
"""What udev's net_id proposes, in the order of 99-default.link (systemd.link(5): NamePolicy)."""

_SIOCETHTOOL, _ETHTOOL_GPERMADDR = 0x8946, 0x20
"""linux/sockios.h, linux/ethtool.h."""


def look(
    root: Path = Path("/"),
    *,
    udev: Mapping[str, Mapping[str, str]],
    neighbours: Mapping[str, Neighbour] | None = None,
) -> tuple[Nic, ...]:
    """Describe all Ethernet interfaces (wireless ones too) that have a device, sorted by name.

    `udev` is what `installer.observe.disks.udev_properties` returned, `neighbours` what
    `installer.observe.lldp` read.
    """
    folder = root / "sys/class/net"
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        mac = (_text(path / "address") or "").lower()
        if not (path / "device").exists() or _text(path / "type") != _ETHERNET:
            continue
        if not _MAC.fullmatch(mac):
            continue
        properties = udev.get(f"net/{path.name}", {})
        names = [properties.get(f"ID_NET_NAME_{kind}") for kind in _NAMES]
        speed = _text(path / "speed") or ""
        found.append(
            Nic(
                name=path.name,
                mac=mac,
                permanent_mac=_permanent_mac(path, mac, live=root == Path("/")),
                driver=_driver(path),
                path=properties.get("ID_PATH") or _pci_path(path),
                carrier=_text(path / "carrier") == "1",
                speed=int(speed) if re.fullmatch(r"[1-9][0-9]{0,8}", speed) else None,
                names=tuple(dict.fromkeys(name for name in names if name)),
                neighbour=(neighbours or {}).get(path.name),
            )
        )
    return tuple(found)


def _permanent_mac(path: Path, mac: str, *, live: bool) -> str | None:
    """The address in the card; a bond, or an owner, may have given the interface another."""
    if _text(path / "addr_assign_type") == _PERMANENT:
        return mac
    return _asked_mac(path.name) if live else None


def _asked_mac(name: str) -> str | None:
    """Ask the driver (ethtool(8) -P). No file of sysfs has it."""
    room = 32
    request = array.array("B", struct.pack("=II32x", _ETHTOOL_GPERMADDR, room))
    pointer, _ = request.buffer_info()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, _SIOCETHTOOL, struct.pack("16sP", name.encode(), pointer))
    except OSError:
        return None
    (size,) = struct.unpack_from("=I", request, 4)
    found = request.tobytes()[8 : 8 + size]
    # drivers that know none leave zeros
    return found.hex(":") if size == 6 and any(found) else None


def _text(path: Path) -> str | None:
    # carrier and speed of an interface that is down cannot be read (EINVAL)
    try:
        return path.read_bytes().decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def _driver(path: Path) -> str | None:
    link = path / "device/driver"
    return link.resolve().name if link.exists() else None


def _pci_path(path: Path) -> str | None:
    """What udev's path_id would say of a PCI device: the last address in the path."""
    addresses = [part for part in (path / "device").resolve().parts if _PCI.fullmatch(part)]
    return f"pci-{addresses[-1]}" if addresses else None
