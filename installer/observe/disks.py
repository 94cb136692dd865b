"""The disks of this machine, from sysfs and udev's database.

sysfs says what is there and what holds it; udev adds stable names and what blkid found. Without
udev the machine is still described, with fewer names.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from installer.model.facts import Disk, FoundPartition

UdevProperties = Mapping[str, Mapping[str, str]]
"""udev's properties of each device, by subsystem and name: `block/sda1`, `net/eth0`."""

_SECTOR = 512
"""sysfs counts in units of 512 bytes whatever the disk's sectors (block/stat.rst)."""

_NEVER = re.compile(
    r"(?:loop|ram|zram|dm-|md|sr|fd|nbd)[0-9]+|mmcblk[0-9]+(?:boot[0-9]+|rpmb|gp[0-9]+)"
)
"""Not disks to install on: parts of others, media, and the boot areas of eMMC."""

_MACHINE_NAMES = re.compile(r"wwn-|nvme-(?:eui\.|nvme\.|uuid\.)|scsi-[0-9]|dm-|lvm-|md-")
"""by-id names that hold a number only, not the model and serial on the disk's sticker."""


def udev_properties() -> UdevProperties:
    """Ask udev's database about all block devices and network interfaces; {} without libudev."""
    # libudev and its bindings take a second to load in an emulated machine
    import pyudev  # noqa: PLC0415

    try:
        context = pyudev.Context()
    except ImportError:  # this is how pyudev says that there is no libudev.so
        return {}
    found = {}
    for subsystem in ("block", "net"):
        for device in context.list_devices(subsystem=subsystem):
            found[f"{subsystem}/{device.sys_name}"] = dict(device.properties)
    return found


def look(
    root: Path = Path("/"), *, udev: UdevProperties, include: Iterable[str] = ()
) -> tuple[Disk, ...]:
    """Describe all disks, also those that cannot be installed on (empty, read-only, in use).

    Args:
        root: where proc and sys are.
        udev: what `udev_properties` returned.
        include: nodes to describe although they are no disks of a machine (/dev/loop0).
    """
    block = root / "sys/block"
    wanted = {Path(node).name for node in include}
    names = [path.name for path in sorted(block.iterdir(), key=_natural)] if block.is_dir() else []
    uses = _Uses(root)
    disks = [
        _disk(root, name, udev, uses)
        for name in names
        if name in wanted or (not _NEVER.fullmatch(name) and _is_hardware(block / name))
    ]
    return tuple(_without_shared_names(disks))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort nvme10n1 after nvme2n1."""
    return [
        (int(part), "") if part.isdigit() else (0, part)
        for part in re.split(r"([0-9]+)", path.name)
    ]


def _is_hardware(path: Path) -> bool:
    # one path of a multipath NVMe disk is hidden: it cannot be opened (block/genhd.c)
    return (path / "device").exists() and _text(path / "hidden") != "1"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _clean(raw: bytes) -> str | None:
    """One line that may be printed: names come from the device, which may be anybody's."""
    text = raw.replace(b"\0", b"").decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text) or None


def _text(path: Path) -> str | None:
    """The contents of a file in sysfs without white space around them, None without any."""
    return _clean(_content(path))


def _number(path: Path, default: int) -> int:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else default


def _node(name: str) -> str:
    return "/dev/" + name.replace("!", "/")


def _disk(root: Path, name: str, udev: UdevProperties, uses: "_Uses") -> Disk:
    path = root / "sys/block" / name
    properties = udev.get(f"block/{name}", {})
    serial = _serial(path, properties)
    reasons = uses.of(name)
    if not reasons and root == Path("/"):
        reasons = _claimed(_node(name))
    return Disk(
        node=_node(name),
        size=_number(path / "size", 0) * _SECTOR,
        logical_sector=_number(path / "queue/logical_block_size", 512),
        physical_sector=_number(path / "queue/physical_block_size", 512),
        by_id=_links(properties, "by-id", serial),
        by_path=_links(properties, "by-path", None),
        serial=serial,
        wwn=_wwn(path, properties),
        model=_model(path, properties),
        transport=_transport(path),
        rotational=_text(path / "queue/rotational") == "1",
        removable=_text(path / "removable") == "1",
        read_only=_text(path / "ro") == "1",
        in_use=reasons,
        table=properties.get("ID_PART_TABLE_TYPE"),
        filesystem=properties.get("ID_FS_TYPE"),
        partitions=tuple(
            FoundPartition(
                node=_node(part.name),
                number=_number(part / "partition", 0),
                size=_number(part / "size", 0) * _SECTOR,
                filesystem=udev.get(f"block/{part.name}", {}).get("ID_FS_TYPE"),
                label=_decoded(udev.get(f"block/{part.name}", {}).get("ID_FS_LABEL_ENC")),
            )
            for part in _partitions(path)
        ),
    )


def _partitions(path: Path) -> list[Path]:
    found = [entry for entry in path.iterdir() if (entry / "partition").is_file()]
    return sorted(found, key=lambda entry: _number(entry / "partition", 0))


def _decoded(text: str | None) -> str | None:
    r"""Undo udev's encoding of what would break its database: `\x20` for a space."""
    if text is None:
        return None
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), text.encode())
    return _clean(raw)


def _serial(path: Path, properties: Mapping[str, str]) -> str | None:
    """The serial number on the sticker, in the order in which lsblk(8) looks for it."""
    for key in ("ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"):
        if properties.get(key):
            return properties[key].strip()
    return _text(path / "serial") or _text(path / "device/serial") or _unit_serial(path)


def _unit_serial(path: Path) -> str | None:
    """The unit serial number page (SPC-4, 7.8.15), which the kernel keeps for SCSI and SATA."""
    return _clean(_content(path / "device/vpd_pg80")[4:])


def _wwn(path: Path, properties: Mapping[str, str]) -> str | None:
    for key in ("ID_WWN_WITH_EXTENSION", "ID_WWN"):
        if properties.get(key):
            return properties[key]
    text = _text(path / "wwid") or _text(path / "device/wwid") or ""
    if text.startswith("naa."):
        return "0x" + text.removeprefix("naa.")
    return text if text.startswith(("eui.", "nvme.", "uuid.")) else None


def _model(path: Path, properties: Mapping[str, str]) -> str | None:
    encoded = _decoded(properties.get("ID_MODEL_ENC"))
    return (
        encoded
        or properties.get("ID_MODEL")
        or _text(path / "device/model")
        or _text(path / "device/name")
    )


_TRANSPORTS = (
    ("usb", r"/usb[0-9]+/"),
    ("iscsi", r"/session[0-9]+/"),
    ("fc", r"/rport-[0-9]"),
    ("sata", r"/ata[0-9]+/"),
    ("sas", r"/end_device-[0-9]"),
    ("scsi", r"/target[0-9]+:"),
)
"""How a SCSI disk is attached, by what stands in its path in sysfs; the first that fits."""


def _transport(path: Path) -> str | None:
    name = path.name
    for prefix, transport in (("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc")):
        if name.startswith(prefix):
            return transport
    place = str(path.resolve())
    for transport, pattern in _TRANSPORTS:
        if re.search(pattern, place):
            # behind a SAS controller the kernel names the vendor of a SATA disk so (SAT-4, 10.3)
            behind_sas = transport == "sas" and _text(path / "device/vendor") == "ATA"
            return "sata" if behind_sas else transport
    return None


def _links(properties: Mapping[str, str], folder: str, serial: str | None) -> tuple[str, ...]:
    """The names under /dev/disk/FOLDER, those that a person can compare with the sticker first."""
    prefix = f"/dev/disk/{folder}/"
    names = [
        link.removeprefix(prefix)
        for link in properties.get("DEVLINKS", "").split()
        if link.startswith(prefix)
    ]

    def order(name: str) -> tuple[bool, bool, int, str]:
        return (
            _MACHINE_NAMES.match(name) is not None,
            serial is not None and serial not in name,
            len(name),
            name,
        )

    return tuple(sorted(names, key=order))


def _without_shared_names(disks: list[Disk]) -> Iterator[Disk]:
    """Leave out names that two disks claim: the link leads to only one, and it may change."""
    seen: dict[str, int] = {}
    for disk in disks:
        for name in disk.by_id + disk.by_path:
            seen[name] = seen.get(name, 0) + 1
    for disk in disks:
        by_id = tuple(name for name in disk.by_id if seen[name] == 1)
        by_path = tuple(name for name in disk.by_path if seen[name] == 1)
        yield (
            disk
            if (by_id, by_path) == (disk.by_id, disk.by_path)
            else replace(disk, by_id=by_id, by_path=by_path)
        )


def _claimed(node: str) -> tuple[str, ...]:
    """Ask the kernel whether anything holds the disk, seen or not: another mount namespace, say.

    Opening a block device with O_EXCL and without O_CREAT fails then (open(2)); for reading it
    changes nothing.
    """
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return (f"the kernel or a program holds {node}",)
    return ()


class _Uses:
    """What is mounted and swapped to, and which devices lie on which."""

    def __init__(self, root: Path) -> None:
        self.block = root / "sys/block"
        self.numbers = self._device_numbers()
        self.names = set(self.numbers.values())
        self.mapped = {
            text: name for name in self.names if (text := _text(self.block / name / "dm/name"))
        }
        self.mounts = self._mounts(root)
        self.swaps = self._swaps(root)
        self.btrfs = {device.name for device in (root / "sys/fs/btrfs").glob("*/devices/*")}

    def of(self, disk: str) -> tuple[str, ...]:
        """Why the disk is in use, directly or through what lies on it; () when it is free."""
        path = self.block / disk
        reasons: list[str] = []
        for device in (path, *_partitions(path)):
            reasons += self._of_device(device, "", {device.name})
        return tuple(dict.fromkeys(reasons))

    def _of_device(self, path: Path, below: str, seen: set[str]) -> Iterator[str]:
        name = path.name
        shown = self._shown(name) + below
        direct = [f"{shown} is mounted at {where}" for where in self.mounts.get(name, ())]
        if name in self.swaps:
            direct.append(f"{shown} is swapped to")
        if name in self.btrfs and not direct:
            direct.append(f"{shown} belongs to a mounted btrfs")
        yield from direct
        holders = path / "holders"
        for holder in sorted(holders.iterdir()) if holders.is_dir() else ():
            if holder.name in seen:
                continue
            found = list(
                self._of_device(
                    self.block / holder.name, f" on {self._shown(name)}", seen | {holder.name}
                )
            )
            yield from found or [f"{self._shown(name)} is held by {self._shown(holder.name)}"]

    def _shown(self, name: str) -> str:
        mapped = _text(self.block / name / "dm/name")
        return f"{_node(name)} ({mapped})" if mapped else _node(name)

    def _device_numbers(self) -> dict[str, str]:
        found = {}
        for path in self.block.iterdir() if self.block.is_dir() else ():
            for device in (path, *_partitions(path)):
                number = _text(device / "dev")
                if number is not None:
                    found[number] = device.name
        return found

    def _name_of(self, source: str) -> str | None:
        """The kernel's name for a path such as /dev/sda1 or /dev/mapper/vg-root."""
        name = source.removeprefix("/dev/")
        if name.startswith("mapper/"):
            return self.mapped.get(name.removeprefix("mapper/"))
        name = name.replace("/", "!")
        return name if name in self.names else None

    def _mounts(self, root: Path) -> dict[str, list[str]]:
        """Mount points by device, from proc_pid_mountinfo(5); read-only mounts count too."""
        found: dict[str, list[str]] = {}
        for line in _lines(root / "proc/self/mountinfo"):
            fields, _, rest = line.partition(" - ")
            words, tail = fields.split(" "), rest.split(" ")
            if len(words) < 5 or len(tail) < 2:
                continue
            # btrfs and others mount under an anonymous number; their source names the device
            name = self.numbers.get(words[2]) or self._name_of(_unescaped(tail[1]))
            if name is not None:
                where = _clean(_unescaped(words[4]).encode())
                found.setdefault(name, []).append(where or "a place without a name")
        return found

    def _swaps(self, root: Path) -> set[str]:
        lines = _lines(root / "proc/swaps")[1:]
        sources = [_unescaped(line.split()[0]) for line in lines if line.split()]
        return {name for source in sources if (name := self._name_of(source)) is not None}


def _lines(path: Path) -> list[str]:
    return _content(path).decode("utf-8", "replace").split("\n")


def _unescaped(text: str) -> str:
    r"""Undo the kernel's octal escapes in /proc: `\040` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
