"""Device nodes: found, awaited, locked, held. No name is ever made of parts of another."""

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from installer.act.holders import device_holders, holders
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.steps import Device, PartitionRef, StackedRef
from installer.model.units import format_seconds

SYSFS = Path("/sys/class/block")
_SYSFS_SECTOR = 512
"""sysfs counts in units of 512 bytes whatever the disk's sectors (block/stat.rst)."""

WAIT_SECONDS = 60
_KOBJECT_UEVENT = 15
_UDEV = Path("/run/udev/control")
_BY_PARTUUID = Path("/dev/disk/by-partuuid")


def node_of(device: Device, *, seconds: float = WAIT_SECONDS) -> Path:
    """Return the node of a device that a step made or kept, waiting for it.

    Raises:
        InstallError: `device.timeout` when it does not appear, or lies elsewhere than planned;
            `disk.changed` when its disk is gone.
    """
    match device:
        case PartitionRef():
            return _partition_node(device, seconds)
        case StackedRef():
            return _stacked_node(device, seconds)


def _partition_node(ref: PartitionRef, seconds: float) -> Path:
    """Find a partition by its number and place, through sysfs; udev must know its PARTUUID."""
    disk = disk_node(ref.disk)
    link = _BY_PARTUUID / ref.partuuid

    def found() -> Path | None:
        for partition in partition_nodes(disk):
            if _place(partition) == (ref.number, ref.start, ref.size) and partition.exists():
                # whose node the link leads to is not asked: a cloned disk has the same
                return partition if not _UDEV.exists() or link.exists() else None
        return None

    wait_for(lambda: found() is not None, seconds)
    partition = found()
    if partition is not None:
        return partition
    for other in partition_nodes(disk):
        number, start, size = _place(other)
        if number == ref.number and (start, size) != (ref.start, ref.size):
            raise fail(
                "device.timeout",
                f"{ref} lies at {start} with {size} bytes, planned were {ref.start} and {ref.size}",
                where=str(other),
                hint="something else changed the table meanwhile; install again",
            )
        if number == ref.number:
            raise fail(
                "device.timeout",
                f"udev did not make {link} within {format_seconds(seconds)}",
                where=str(other),
                hint="look at the kernel's log (dmesg) and `udevadm info`",
            )
    raise fail(
        "device.timeout",
        f"the kernel does not show {ref} after {format_seconds(seconds)}",
        where=str(disk),
        hint="look at the kernel's log (dmesg) and `lsblk`",
    )


def _stacked_node(ref: StackedRef, seconds: float) -> Path:
    path = Path(ref.path)
    if not wait_for(path.is_block_device, seconds):
        raise fail(
            "device.timeout",
            f"{ref} did not appear within {format_seconds(seconds)}",
            where=ref.path,
            hint="look at the kernel's log (dmesg) and `lsblk`",
        )
    return path


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for what block devices bring about; look again at each event of udev or the kernel.

    Return what the condition said last.
    """
    with _events() as events:
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # not everything has an event: a link that another program makes
            select.select([events], [], [], min(left, 0.5))
            _drop(events)
    return True


def _events() -> socket.socket:
    """Listen for the end of udev's work, or for the kernel's events where no udev runs.

    Which device it is about is not read: whoever waits looks again. Another network namespace
    than the first one hears nothing (netlink(7), NETLINK_KOBJECT_UEVENT).
    """
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _KOBJECT_UEVENT)
    listener.bind((0, 2 if _UDEV.exists() else 1))
    listener.setblocking(False)
    return listener


def _drop(events: socket.socket) -> None:
    """Forget what was heard, also that more was said than there was room for (ENOBUFS)."""
    while select.select([events], [], [], 0)[0]:
        with contextlib.suppress(OSError):
            events.recv(65536)


def disk_node(disk: str) -> Path:
    """Return the node behind a stable path. Raises InstallError: `disk.changed`."""
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


def device_size(node: Path) -> int:
    """Return the bytes of a device, 0 when the kernel has none."""
    try:
        text = (SYSFS / node.resolve().name / "size").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text) * _SYSFS_SECTOR


def partition_nodes(disk: Path) -> list[Path]:
    """Return the nodes of the partitions that the kernel knows, by number."""
    children = [child.parent for child in (SYSFS / disk.name).glob("*/partition")]
    children.sort(key=lambda child: int((child / "partition").read_text(encoding="ascii")))
    return [Path("/dev") / child.name for child in children]


def _place(partition: Path) -> tuple[int, int, int]:
    """Number, start and size in bytes; zeros when it is going away."""
    values = []
    for name in ("partition", "start", "size"):
        try:
            values.append(int((SYSFS / partition.name / name).read_text(encoding="ascii")))
        except OSError:
            return 0, 0, 0
    number, start, size = values
    return number, start * _SYSFS_SECTOR, size * _SYSFS_SECTOR


@contextmanager
def exclusive(node: Path) -> Iterator[int]:
    """Open a whole disk for writing; O_EXCL makes the kernel refuse one that is held (open(2)).

    Raises:
        InstallError: `disk.in-use`, naming the holder; `device.io` for what fails inside, too.
    """
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise in_use(node, "nothing was written to it") from None
        raise fail(
            "device.io",
            f"{node} cannot be opened for writing: {error.strerror}",
            where=str(node),
            hint="is it write-protected?",
        ) from None
    try:
        lock(descriptor, node)
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


def in_use(node: Path, consequence: str) -> InstallError:
    """Make the error for a device that is held, with all that holds it."""
    held = ", ".join(device_holders(node)) or "mounted, swap, or held by another device"
    return fail(
        "disk.in-use",
        f"{node} is in use ({held})",
        where=str(node),
        hint=f"see `lsblk` for what holds it; {consequence}",
    )


@contextmanager
def locked(node: Path) -> Iterator[None]:
    """Keep udev from probing a half-written table (systemd, "Locking Block Device Access")."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(descriptor, node)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, node: Path, seconds: float = WAIT_SECONDS) -> None:
    """Take the lock of a whole disk; flock(2) itself would wait for ever.

    Raises:
        InstallError: `device.timeout`, naming who has it.
    """
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


def settle(runner: Runner) -> None:
    """Wait until udev has handled what we did: it re-reads the table when a writer closes."""
    if _UDEV.exists():
        runner.run(
            ["udevadm", "settle", f"--timeout={WAIT_SECONDS}"],
            timeout=WAIT_SECONDS + 10,
            purpose="waiting for udev",
        )


_ASSEMBLY_RULES = (
    *("64-md-raid-assembly.rules", "65-md-incremental.rules", "69-bcache.rules"),
    *("69-lvm.rules", "69-dm-lvm.rules"),
)
"""udev rules of mdadm, lvm2 and bcache-tools (Debian, Fedora) that start what they find."""


@contextmanager
def no_assembly(runner: Runner) -> Iterator[None]:
    """Keep udev from putting together again what is taken apart: empty rules hide the real ones.

    They are hidden from /run, which udev(7) reads after /etc: a NixOS that has them in /etc must
    leave them out itself.
    """
    if not _UDEV.exists():
        yield
        return
    folder = Path("/run/udev/rules.d")
    folder.mkdir(exist_ok=True)
    hidden = [folder / name for name in _ASSEMBLY_RULES if not (folder / name).exists()]
    reload = ["udevadm", "control", "--reload", "--timeout=30"]
    try:
        for path in hidden:
            path.touch()
        runner.run(reload, timeout=60, purpose="telling udev to assemble nothing")
        yield
    finally:
        for path in hidden:
            path.unlink(missing_ok=True)
        try:
            runner.run(reload, timeout=60)
        except InstallError as error:
            runner.on_line(str(error))
