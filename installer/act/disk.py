"""Disks: wipe, partition, format. Only what the plan names is opened for writing."""

import errno
import fcntl
import gc
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from installer.act.holders import holders
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.facts import Disk
from installer.model.plan import MakeFilesystem, PartitionRef, WipeDisk, WriteTable
from installer.model.units import MIB, format_bytes, format_seconds
from installer.observe import disks

_SYSFS_SECTOR = 512
"""sysfs counts in units of 512 bytes whatever the disk's sectors (block/stat.rst)."""

_SETTLE_SECONDS = 60

_NOTHING_TO_BOOT = bytes.fromhex("cd18 f4 ebfd")
"""int 18h; hlt; jmp to the hlt: "boot the next device" (BIOS Boot Specification 1.01, 6.7)."""


def examine(step: WipeDisk) -> None:
    """Make sure that a disk could be wiped now; change nothing.

    Raises:
        InstallError: `disk.changed` when it is not the planned disk, `disk.in-use` when something
            holds it.
    """
    with _planned(step):
        pass


def wipe(step: WipeDisk, runner: Runner) -> None:
    """Destroy signatures and tables, on each partition the kernel knows and on the disk.

    Raises:
        InstallError: see `examine`; or a command's error.
    """
    with _planned(step) as (node, descriptor):
        for partition in _partition_nodes(node):
            runner.run(
                ["wipefs", "--all", "--force", "--quiet", str(partition)],
                timeout=60,
                purpose=f"wiping {partition}",
            )
        runner.run(
            ["wipefs", "--all", "--force", "--quiet", "--lock=no", str(node)],
            timeout=60,
            purpose=f"wiping {node}",
        )
        # wipefs erases what libblkid knows, not what a firmware would execute
        _blank_ends(descriptor, step.disk_size)
    _settle(runner)


@contextmanager
def _planned(step: WipeDisk) -> Iterator[tuple[Path, int]]:
    """Hold the disk that was planned: its node, and a descriptor that nobody else can have."""
    node = _node_of(step.disk)
    size = _disk_size(node)
    with _exclusive(node) as descriptor:
        # only now can nobody else take it, or put another in its place under this name
        if difference := _difference(node, size, step):
            raise fail(
                "disk.changed",
                f"{step.disk} {difference}",
                where=str(node),
                hint="plan again; nothing was written",
            )
        yield node, descriptor


def _difference(node: Path, size: int, step: WipeDisk) -> str:
    """Say how a disk is not the planned one; "" when it is."""
    if str(node) != step.node:
        return f"is {node} now, the plan was made for {step.node}"
    if size != step.disk_size:
        return f"has {format_bytes(size)}, the plan was made for {format_bytes(step.disk_size)}"
    if step.serial is None and step.wwn is None:
        return ""
    found = [
        disk
        for disk in disks.look(udev=disks.udev_properties(), include=[step.node])
        if disk.node == step.node
    ]
    seen = found[0] if found else Disk(step.node, size)
    for name, planned, now in (
        ("serial", step.serial, seen.serial),
        ("wwn", step.wwn, seen.wwn),
    ):
        if planned is not None and planned != now:
            return f"has the {name} {now or 'unknown'}, the plan was made for {planned}"
    return ""


def write_table(step: WriteTable, runner: Runner) -> None:
    """Write the GPT with libparted, give it the planned GUIDs, tell the kernel.

    Raises:
        InstallError: `device.io`, or a command's error.
    """
    # half a second under emulation, needed only here
    import _ped  # noqa: PLC0415
    import parted  # noqa: PLC0415

    # pyparted's exceptions have no base class of their own
    errors = tuple(
        kind
        for kind in vars(_ped).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )
    node = _node_of(step.disk)
    try:
        with _locked(node):
            _write_gpt(parted, node, step)
            # libparted chooses random GUIDs and (before 3.6) knows no types but its flags: the
            # plan's are set in place, while the kernel does not look yet
            quiet = ["sfdisk", "--quiet", "--lock=no", "--no-reread", "--no-tell-kernel"]
            runner.run([*quiet, "--disk-id", str(node), step.disk_guid.upper()], timeout=60)
            for row in step.partitions:
                number = str(row.ref.number)
                for option, value in (
                    ("--part-uuid", row.ref.partuuid),
                    ("--part-type", row.type_guid),
                ):
                    runner.run([*quiet, option, str(node), number, value.upper()], timeout=60)
            # A BIOS that finds the signature of the protective MBR executes what stands before it.
            # libparted leaves zeros there, in which the machine hangs: one whose installation
            # failed would never come back to the network.
            with node.open("r+b", buffering=0) as stream:
                stream.write(_NOTHING_TO_BOOT)
                os.fsync(stream.fileno())
        # Debian's libparted waits for udev here, and udev would wait for our lock
        parted.newDisk(parted.getDevice(str(node))).commitToOS()
    except errors as error:
        raise fail(
            "device.io",
            f"libparted could not write the table, or the kernel did not take it: {error}",
            where=str(node),
            hint="look at the kernel's log (dmesg) for I/O errors, and at `lsblk` for what "
            "opened a partition meanwhile",
        ) from None
    # A cached PedDevice remembers another table and sector size. Tables that still point to it
    # abort the program when they are collected later, so they go first.
    gc.collect()
    parted.freeAllDevices()
    _settle(runner)


def _write_gpt(parted: ModuleType, node: Path, step: WriteTable) -> None:
    device = parted.getDevice(str(node))
    table = parted.freshDisk(device, "gpt")
    for row in step.partitions:
        geometry = parted.Geometry(
            device=device,
            start=row.ref.start // device.sectorSize,
            length=row.ref.size // device.sectorSize,
        )
        partition = parted.Partition(disk=table, type=parted.PARTITION_NORMAL, geometry=geometry)
        table.addPartition(partition, constraint=parted.Constraint(exactGeom=geometry))
        partition.set_name(row.name)
    table.commitToDevice()


def make_filesystem(step: MakeFilesystem, runner: Runner) -> None:
    """Run mkfs or mkswap.

    Raises:
        InstallError: `device.timeout`, `command.failed`.
    """
    node = partition_node(step.partition)
    runner.run([*step.argv, str(node)], timeout=1800, purpose=f"making {step.filesystem} on {node}")
    _settle(runner)


def partition_node(ref: PartitionRef) -> Path:
    """Find the device node of a partition that was written, through sysfs.

    Raises:
        InstallError: `device.timeout` when the kernel does not show it where it was planned.
    """
    disk = _node_of(ref.disk)
    for partition in _partition_nodes(disk):
        sysfs = Path("/sys/class/block") / partition.name
        if int((sysfs / "partition").read_text()) != ref.number:
            continue
        start = int((sysfs / "start").read_text()) * _SYSFS_SECTOR
        size = int((sysfs / "size").read_text()) * _SYSFS_SECTOR
        if (start, size) == (ref.start, ref.size):
            if partition.exists():
                return partition
            break
        raise fail(
            "device.timeout",
            f"{ref} lies at {start} with {size} bytes, planned were {ref.start} and {ref.size}",
            where=str(partition),
            hint="something else changed the table meanwhile; install again",
        )
    raise fail(
        "device.timeout",
        f"the kernel does not show {ref}",
        where=str(disk),
        hint="look at the kernel's log (dmesg) and `lsblk`",
    )


def disarm(chosen: Disk, runner: Runner) -> None:
    """Make sure that a disk which could be half bootable is not: erase its tables. Never raises.

    Args:
        chosen: the disk as it was seen when the plan was made.
        runner: its `on_line` is told what did not work.
    """
    try:
        node = _node_of(chosen.stable_path)
        if str(node) != chosen.node or _disk_size(node) != chosen.size:
            raise fail(
                "disk.changed",
                f"{chosen.stable_path} is not {chosen.node} of {format_bytes(chosen.size)} "
                "any more",
            )
        # not with O_EXCL: a file system that could not be unmounted may hold it
        with node.open("r+b", buffering=0) as stream:
            _blank_ends(stream.fileno(), chosen.size)
    except (InstallError, OSError) as error:
        runner.on_line(f"could not wipe {chosen.stable_path} after the failure: {error}")


def _blank_ends(descriptor: int, size: int) -> None:
    """Overwrite the first and the last MiB: boot code, both tables, md's and ZFS's last labels."""
    blank = bytes(min(MIB, size))
    for offset in (0, size - len(blank)):
        os.pwrite(descriptor, blank, offset)
    os.fsync(descriptor)


def _node_of(disk: str) -> Path:
    try:
        node = Path(disk).resolve(strict=True)
    except OSError:
        raise fail(
            "disk.changed",
            f"{disk} is gone",
            where=disk,
            hint="was it unplugged? compare with `netinstall probe`",
        ) from None
    if not stat.S_ISBLK(node.stat().st_mode):
        raise fail("disk.changed", f"{node} is no block device", where=disk, hint="plan again")
    return node


def _disk_size(node: Path) -> int:
    return int((Path("/sys/class/block") / node.name / "size").read_text()) * _SYSFS_SECTOR


def _partition_nodes(disk: Path) -> list[Path]:
    children = (Path("/sys/class/block") / disk.name).glob("*/partition")
    return sorted(Path("/dev") / child.parent.name for child in children)


@contextmanager
def _exclusive(node: Path) -> Iterator[int]:
    """Open a whole disk for writing; O_EXCL makes the kernel refuse one that is held (open(2))."""
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            programs = ", ".join(holders(node))
            raise fail(
                "disk.in-use",
                f"{node} is in use "
                f"({f'by {programs}' if programs else 'mounted, swap, or held by another device'})",
                where=str(node),
                hint="see `lsblk` for what holds it; nothing was written",
            ) from None
        raise fail(
            "device.io",
            f"{node} cannot be opened for writing: {error.strerror}",
            where=str(node),
            hint="is it write-protected?",
        ) from None
    try:
        _lock(descriptor, node)
        yield descriptor
    except OSError as error:
        raise fail(
            "device.io",
            f"writing to {node} failed: {error.strerror}",
            where=str(node),
            hint="look at the kernel's log (dmesg); the disk may be broken",
        ) from None
    finally:
        os.close(descriptor)


@contextmanager
def _locked(node: Path) -> Iterator[None]:
    """Keep udev from probing a half-written table (systemd, "Locking Block Device Access")."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, node)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, node: Path, seconds: float = _SETTLE_SECONDS) -> None:
    """Take the lock of a whole disk; flock(2) itself would wait for ever."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise fail(
                    "device.timeout",
                    f"another program kept {node} locked for {format_seconds(seconds)}"
                    + (f": {', '.join(programs)}" if (programs := holders(node)) else ""),
                    where=str(node),
                    hint="end that program; udev only locks a disk while it looks at it",
                ) from None
            time.sleep(0.1)
        else:
            return


def _settle(runner: Runner) -> None:
    """Wait until udev has handled what we did: it re-reads the table when a writer closes."""
    if Path("/run/udev/control").exists():
        runner.run(
            ["udevadm", "settle", f"--timeout={_SETTLE_SECONDS}"],
            timeout=_SETTLE_SECONDS + 10,
            purpose="waiting for udev",
        )
