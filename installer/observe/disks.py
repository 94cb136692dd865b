"""The disks of this machine, from sysfs and udev's database.

sysfs says what is there and what holds it; udev adds stable names and what blkid found. Without
udev the machine is still described, with fewer names.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from installer.model.facts import Disk, FoundPartition
from installer.observe import boot_medium, claims
from installer.observe.blocks import Blocks, UdevProperties, decoded_property, node
from installer.observe.sysfs import clean, content, decoded, entries, number, text

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
    return of(Blocks(root, udev), include)


def of(blocks: Blocks, include: Iterable[str] = ()) -> tuple[Disk, ...]:
    """Describe all disks; see `look`."""
    wanted = {Path(path).name for path in include}
    media = boot_medium.of(blocks)
    slots = _pci_slots(blocks.root)
    names = [name for name in blocks.disks if name in wanted or _is_disk(blocks, name)]
    disks = [_disk(blocks, name, media, slots) for name in names]
    return tuple(_without_shared_names(disks))


def _is_disk(blocks: Blocks, name: str) -> bool:
    if blocks.is_multipath(name):
        return True
    path = blocks.paths[name]
    # one path of a multipath NVMe disk is hidden: it cannot be opened (block/genhd.c)
    is_hardware = (path / "device").exists() and text(path / "hidden") != "1"
    return is_hardware and not _NEVER.fullmatch(name) and not blocks.is_path(name)


def _disk(blocks: Blocks, name: str, media: Mapping[str, str], slots: Mapping[str, str]) -> Disk:
    path = blocks.paths[name]
    properties = blocks.properties(name)
    paths = sorted(blocks.below.get(name, ())) if blocks.is_multipath(name) else []
    # a multipath device is known by what its paths say of themselves
    hardware = blocks.paths[paths[0]] if paths else path
    told = blocks.properties(hardware.name)
    serial = _serial(hardware, told)
    partitions = tuple(_partition(blocks, part) for part in blocks.partitions(name))
    return Disk(
        node=node(name),
        size=number(path / "size", 0) * _SECTOR,
        logical_sector=number(path / "queue/logical_block_size", 512),
        physical_sector=number(path / "queue/physical_block_size", 512),
        optimal_io=number(path / "queue/optimal_io_size", 0),
        by_id=_links(properties, "by-id", serial),
        by_path=_links(properties, "by-path", None),
        serial=serial,
        wwn=_wwn(hardware, told),
        model=_model(hardware, told),
        vendor=_vendor(hardware, told),
        slot=_slot(hardware, slots),
        transport=_transport(hardware),
        rotational=text(path / "queue/rotational") == "1",
        removable=text(path / "removable") == "1",
        read_only=text(path / "ro") == "1",
        boot_medium=media.get(name),
        in_use=claims.of(blocks, name),
        table=_table(blocks, name),
        table_uuid=blocks.property(name, "ID_PART_TABLE_UUID"),
        filesystem=blocks.property(name, "ID_FS_TYPE"),
        uuid=blocks.property(name, "ID_FS_UUID"),
        label=blocks.label(name),
        mounts=blocks.own_mounts(name),
        swap=name in blocks.swaps,
        partitions=partitions,
        paths=tuple(node(one) for one in paths),
    )


def _table(blocks: Blocks, name: str) -> str | None:
    kind = blocks.property(name, "ID_PART_TABLE_TYPE")
    # libblkid's word for what answer files, plans and the UEFI specification call an MBR
    return "mbr" if kind == "dos" else kind


def _partition(blocks: Blocks, name: str) -> FoundPartition:
    properties = blocks.properties(name)
    path = blocks.paths[name]
    kind = (blocks.property(name, "ID_PART_ENTRY_TYPE") or "").lower() or None
    if kind is not None and kind.startswith("0x"):
        kind = kind.removeprefix("0x").zfill(2)
    return FoundPartition(
        node=node(name),
        number=blocks.partition_number(name),
        size=number(path / "size", 0) * _SECTOR,
        start=_start(blocks, name) * _SECTOR,
        partuuid=blocks.property(name, "ID_PART_ENTRY_UUID"),
        type_guid=kind,
        name=decoded(properties.get("ID_PART_ENTRY_NAME")),
        filesystem=blocks.property(name, "ID_FS_TYPE"),
        uuid=blocks.property(name, "ID_FS_UUID"),
        label=blocks.label(name),
        mounts=blocks.own_mounts(name),
        swap=name in blocks.swaps,
    )


def _start(blocks: Blocks, name: str) -> int:
    """Where a partition begins, in sectors of 512 bytes."""
    told = text(blocks.paths[name] / "start")
    if told is None:
        # a partition of a multipath device is a device of its own to the kernel
        told = blocks.property(name, "ID_PART_ENTRY_OFFSET")
    return int(told) if told is not None and re.fullmatch(r"[0-9]{1,20}", told) else 0


def _serial(path: Path, properties: Mapping[str, str]) -> str | None:
    """The serial number on the sticker, in the order in which lsblk(8) looks for it."""
    for key in ("ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"):
        if properties.get(key):
            return properties[key].strip()
    return text(path / "serial") or text(path / "device/serial") or _unit_serial(path)


def _unit_serial(path: Path) -> str | None:
    """The unit serial number page (SPC-4, 7.8.15), which the kernel keeps for SCSI and SATA."""
    return clean(content(path / "device/vpd_pg80")[4:])


def _wwn(path: Path, properties: Mapping[str, str]) -> str | None:
    for key in ("ID_WWN_WITH_EXTENSION", "ID_WWN"):
        if properties.get(key):
            return properties[key]
    wwid = text(path / "wwid") or text(path / "device/wwid") or ""
    if wwid.startswith("naa."):
        return "0x" + wwid.removeprefix("naa.")
    return wwid if wwid.startswith(("eui.", "nvme.", "uuid.")) else None


def _model(path: Path, properties: Mapping[str, str]) -> str | None:
    return (
        decoded_property(properties, "ID_MODEL")
        or text(path / "device/model")
        or text(path / "device/name")
    )


_PCI = re.compile(r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2})\.[0-7](?=/)")


def _vendor(path: Path, properties: Mapping[str, str]) -> str | None:
    """The vendor as a SCSI disk names it; "ATA" is none, and other buses have but a number."""
    found = decoded_property(properties, "ID_VENDOR") or text(path / "device/vendor")
    return None if found is None or found == "ATA" or found.startswith("0x") else found


def _pci_slots(root: Path) -> dict[str, str]:
    """The names of the board's slots by PCI address without the function (PCI/pci-hotplug.rst)."""
    return {
        address: slot
        for folder in entries(root / "sys/bus/pci/slots")
        if (address := text(folder / "address")) and (slot := clean(folder.name.encode()))
    }


def _slot(path: Path, pci_slots: Mapping[str, str]) -> str | None:
    """The slot in an enclosure (SES), or of a disk that is a PCI device on the board.

    A controller in a slot has several disks: its slot is not theirs.
    """
    for component in entries(path / "device"):
        if component.name.startswith("enclosure_device:"):
            label = clean(component.name.partition(":")[2].encode())
            return text(component / "slot") or label
    if path.name.startswith(("nvme", "vd")):
        found = re.findall(
            r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2})\.[0-7](?=/)", str(path.resolve())
        )
        return pci_slots.get(found[-1]) if found else None
    return None


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
            behind_sas = transport == "sas" and text(path / "device/vendor") == "ATA"
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

    def order(name: str) -> tuple[bool, bool, bool, int, str]:
        return (
            # mpatha is what this boot calls it, and may be another disk in the next
            name.startswith("dm-name-"),
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
