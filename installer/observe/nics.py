"""The network interfaces with hardware behind them, from sysfs and udev's database."""

import re
from collections.abc import Mapping
from pathlib import Path

from installer.model.facts import Nic

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ETHERNET = "1"
"""ARPHRD_ETHER of linux/if_arp.h."""

_PERMANENT = "0"
"""NET_ADDR_PERM of linux/netdevice.h: the address is the one of the hardware."""


def look(root: Path = Path("/"), *, udev: Mapping[str, Mapping[str, str]]) -> tuple[Nic, ...]:
    """Describe all Ethernet interfaces (wireless ones too) that have a device, sorted by name.

    `udev` is what `installer.observe.disks.udev_properties` returned.
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
        names = [
            properties.get(f"ID_NET_NAME_{kind}") for kind in ("ONBOARD", "SLOT", "PATH", "MAC")
        ]
        speed = _text(path / "speed") or ""
        found.append(
            Nic(
                name=path.name,
                mac=mac,
                permanent_mac=mac if _text(path / "addr_assign_type") == _PERMANENT else None,
                driver=_driver(path),
                path=properties.get("ID_PATH") or _pci_path(path),
                carrier=_text(path / "carrier") == "1",
                speed=int(speed) if re.fullmatch(r"[1-9][0-9]{0,8}", speed) else None,
                names=tuple(name for name in names if name),
            )
        )
    return tuple(found)


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
