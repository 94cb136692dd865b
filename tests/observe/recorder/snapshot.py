"""Write what sysfs, /proc and udev's database say of some disks and of all that lies on them.

    snapshot.py sda sdb > tree.json

One byte of a file is one character in the JSON, as tests/observe/saved_machines.py reads it.
"""

import json
import sys
from pathlib import Path

import pyudev

BLOCK = Path("/sys/block")
DISK_FILES = (
    *("dev", "size", "start", "partition", "ro", "removable", "hidden", "serial", "wwid"),
    *("queue/logical_block_size", "queue/physical_block_size", "queue/optimal_io_size"),
    *("queue/rotational", "dm/name", "dm/uuid", "md/level", "md/metadata_version"),
    *("md/array_state", "loop/backing_file", "device/vendor", "device/model", "device/serial"),
    *("device/wwid", "device/name", "device/vpd_pg80", "device/address"),
)
OTHER_FILES = (
    *("proc/cmdline", "proc/self/mountinfo", "proc/swaps", "proc/sys/kernel/arch"),
    *("proc/sys/kernel/osrelease", "sys/class/dmi/id/sys_vendor"),
    *("sys/class/dmi/id/product_name", "sys/class/dmi/id/product_uuid"),
)
NIC_FILES = ("address", "addr_assign_type", "carrier", "type", "speed")
NOISE = {"USEC_INITIALIZED", "TAGS", "CURRENT_TAGS", "MAJOR", "MINOR", "SUBSYSTEM", "DEVPATH"}

files: dict[str, str] = {}
links: dict[str, str] = {}


def keep(path: Path) -> None:
    """Keep a file or a link, by the path that it has in /sys after links are followed."""
    if path.is_symlink():
        where = path.parent.resolve() / path.name
        links[str(where)[1:]] = str(path.readlink())
        return
    try:
        content = path.read_bytes()
    except OSError:
        return
    files[str(path.parent.resolve() / path.name)[1:]] = content.decode("latin-1")


def keep_device(path: Path) -> None:
    """Keep a disk or partition."""
    for name in DISK_FILES:
        keep(path / name)
    if (path / "device").is_symlink():
        keep(path / "device")
    for folder in ("holders", "slaves"):
        for link in sorted((path / folder).glob("*")):
            keep(link)


def place(name: str) -> Path:
    """Where a device is in sysfs, partition or not."""
    return (Path("/sys/class/block") / name).resolve()


def disk_of(name: str) -> str:
    """The disk of a partition."""
    path = place(name)
    return path.parent.name if (path / "partition").exists() else name


def stack(waiting: list[str]) -> list[str]:
    """The disks and all that lies on them, and the loop devices of this moment."""
    found: list[str] = []
    while waiting:
        disk = disk_of(waiting.pop(0))
        if disk in found:
            continue
        found.append(disk)
        path = place(disk)
        for device in (path, *(part.parent for part in sorted(path.glob("*/partition")))):
            waiting += sorted(entry.name for entry in (device / "holders").glob("*"))
    loops = sorted(BLOCK.glob("loop*/loop/backing_file"))
    return found + [file.parent.parent.name for file in loops]


def keep_file_systems(names: list[str]) -> None:
    """Keep what sysfs says of btrfs and bcache on these devices."""
    for link in Path("/sys/fs/btrfs").glob("*/devices/*"):
        if link.resolve().name in names:
            keep(link)
            keep(link.parent.parent / "label")
    for link in Path("/sys/fs/bcache").glob("*-*-*/*"):
        if link.is_symlink() and link.resolve().parent.name in names:
            keep(link)


def keep_machine() -> None:
    """Keep what is no storage."""
    for address in Path("/sys/bus/pci/slots").glob("*/address"):
        keep(address)
    for nic in Path("/sys/class/net").glob("*/device"):
        keep(nic.parent)
        keep(nic)
        keep(nic.resolve() / "driver")
        for name in NIC_FILES:
            keep(nic.parent / name)
    for name in (name for name in OTHER_FILES if Path("/" + name).exists()):
        files[name] = Path("/" + name).read_bytes().decode("latin-1")
    (memory, *_) = Path("/proc/meminfo").read_text().splitlines()
    files["proc/meminfo"] = memory + "\n"


def main() -> None:
    """Write the tree of the named disks."""
    names = []
    for disk in stack(sys.argv[1:]):
        keep(BLOCK / disk)
        for path in (place(disk), *(part.parent for part in place(disk).glob("*/partition"))):
            keep_device(path)
            names.append(path.name)
    keep_file_systems(names)
    keep_machine()
    udev = {}
    context = pyudev.Context()
    for name in names:
        device = pyudev.Devices.from_name(context, "block", name)
        udev[f"block/{name}"] = {
            key: value for key, value in sorted(device.properties.items()) if key not in NOISE
        }
    tree = {"files": dict(sorted(files.items())), "links": dict(sorted(links.items()))}
    sys.stdout.write(json.dumps({**tree, "udev": udev}, indent=1) + "\n")


main()
