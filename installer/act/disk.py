"""Disks: wipe, partition, edit, disarm. Only what the plan names is opened for writing."""

import gc
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from installer.act.devices import (
    WAIT_SECONDS,
    device_size,
    disk_node,
    exclusive,
    in_use,
    locked,
    partition_nodes,
    settle,
)
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.facts import Disk, FoundPartition
from installer.model.partition_types import MBR_ACTIVE
from installer.model.storage_steps import (
    EditTable,
    EraseDisk,
    PlannedPartition,
    WipeDisk,
    WriteTable,
)
from installer.model.units import MIB, format_bytes
from installer.observe import disks

OnDisk = WipeDisk | EraseDisk | EditTable

HEAD = 8 * MIB
TAIL = 2 * MIB
"""How much of the two ends of a disk or partition can hold a signature.

The farthest from the beginning is LUKS2's second header (up to 4 MiB, LUKS2 on-disk format 2.1),
from the end that of Promise's RAID (1.5 MiB, libblkid's promise_raid.c); ZFS has two labels of
256 KiB at each end, md 0.90 lies up to 128 KiB before the end, md 1.0 up to 12 KiB, and a GPT's
second table in the last 34 sectors.
"""

_SAMPLES = 64
"""MiB that are looked at between the ends of a disk that must be blank."""

_QUIET = ("sfdisk", "--quiet", "--lock=no", "--no-reread", "--no-tell-kernel")
_EXTENDED = ("5", "f", "85")

_NOTHING_TO_BOOT = bytes.fromhex("cd18 f4 ebfd")
"""int 18h; hlt; jmp to the hlt: "boot the next device" (BIOS Boot Specification 1.01, 6.7)."""


def examine(step: OnDisk, released: Collection[str] = ()) -> None:
    """Make sure that a step could be done now; change nothing.

    Args:
        step: what will be done.
        released: nodes that other steps let go of before: a disk below one of them is in use yet.

    Raises:
        InstallError: `disk.changed` when it is not the planned disk, `disk.in-use` when something
            holds it; `disk.carries-data`, `disk.table`.
    """
    node = disk_node(step.disk)
    held = {str(node), *map(str, partition_nodes(node))} & set(released)
    with _identified(step, node) if held else planned(step) as (_, descriptor):
        match step:
            case WipeDisk(blank=True):
                _require_blank(step, descriptor)
            case WipeDisk(unmarked=True):
                _require_unmarked(step, node)
            case EditTable():
                _require_table(step, node)
            case _:
                pass


def wipe(step: WipeDisk, runner: Runner) -> None:
    """Destroy signatures and tables, on each partition that was there and on the disk.

    Raises:
        InstallError: see `examine`; or a command's error.
    """
    with planned(step) as (node, descriptor):
        if step.blank:
            _require_blank(step, descriptor)
        areas = _areas(node)
        for partition in partition_nodes(node):
            _wipefs(partition, runner)
        _wipefs(node, runner)
        # wipefs erases what libblkid knows, not what a firmware would execute, and not what lies
        # in partitions that the kernel was never told of
        for start, size in (*areas, (0, step.disk_size)):
            blank_ends(descriptor, start, size)
        os.fsync(descriptor)
        _forget_partitions(node, runner)
    settle(runner)


@contextmanager
def planned(step: OnDisk) -> Iterator[tuple[Path, int]]:
    """Hold the disk that was planned: its node, and a descriptor that nobody else can have."""
    node = disk_node(step.disk)
    with exclusive(node) as descriptor:
        # only now can nobody else take it, or put another in its place under this name
        _require_same(step, node)
        yield node, descriptor


@contextmanager
def _identified(step: OnDisk, node: Path) -> Iterator[tuple[Path, int]]:
    """Open a disk that is still in use for reading."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _require_same(step, node)
        yield node, descriptor
    finally:
        os.close(descriptor)


def _require_same(step: OnDisk, node: Path) -> None:
    if difference := _difference(node, device_size(node), step):
        raise fail(
            "disk.changed",
            f"{step.disk} {difference}",
            where=str(node),
            hint="plan again; nothing was written to it",
        )


def _difference(node: Path, size: int, step: OnDisk) -> str:
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
    for name, wanted, now in (
        ("serial", step.serial, seen.serial),
        ("wwn", step.wwn, seen.wwn),
    ):
        if wanted is not None and wanted != now:
            return f"has the {name} {now or 'unknown'}, the plan was made for {wanted}"
    return ""


def _require_blank(step: WipeDisk, descriptor: int) -> None:
    """Refuse a disk that holds anything at its ends, or at evenly spread places between them."""
    size = step.disk_size
    starts = {*range(0, HEAD, MIB), *range(max(0, size - TAIL), size, MIB)}
    starts |= {size * number // _SAMPLES // MIB * MIB for number in range(_SAMPLES)}
    nothing = bytes(MIB)
    for start in sorted(starts):
        seen = os.pread(descriptor, min(MIB, max(0, size - start)), start)
        if seen != nothing[: len(seen)]:
            raise fail(
                "disk.carries-data",
                f"{step.disk} is not blank: there is something in the MiB at {start} bytes",
                where=step.node,
                hint='look what it is; wipe = "force" destroys it; nothing was written to it',
            )


def _require_unmarked(step: WipeDisk, node: Path) -> None:
    """Refuse a disk on which libblkid finds what nobody gave up.

    The facts come from udev's database, which misses what was written while udev looked at the
    disk.
    """
    argv = ["wipefs", "--noheadings", "--output=TYPE", str(node)]
    seen = Runner().run(argv, timeout=60, capture=True).split()
    if seen:
        raise fail(
            "disk.carries-data",
            f"{step.disk} carries {', '.join(dict.fromkeys(seen))}, and had nothing on it that was "
            "recognised when the plan was made",
            where=step.node,
            hint="let udev look again (`udevadm trigger`), and plan again; nothing was written to "
            "it",
        )


def _areas(node: Path) -> list[tuple[int, int]]:
    """Return start and size of the partitions of a disk's table as libblkid reads it, in bytes.

    A backup GPT counts, and partitions in others too; the kernel need not know any of them.
    """
    argv = ["partx", "--raw", "--noheadings", "--output=START,SECTORS", str(node)]
    try:
        said = Runner().run(argv, timeout=60, capture=True)
    except InstallError as error:
        # it has no table, or none that anybody can read
        if error.problems[0].code != "command.failed":
            raise
        return []
    rows = [line.split() for line in said.splitlines()]
    # libblkid counts in units of 512 bytes whatever the disk's sectors
    return [(int(row[0]) * 512, int(row[1]) * 512) for row in rows if len(row) == 2]


def _wipefs(node: Path, runner: Runner) -> None:
    runner.run(
        ["wipefs", "--all", "--force", "--quiet", "--lock=no", str(node)],
        timeout=60,
        purpose=f"wiping {node}",
    )


def blank_ends(descriptor: int, start: int, size: int, *, head: int = HEAD) -> None:
    """Overwrite both ends of an area; the caller flushes."""
    end = min(start + size, os.lseek(descriptor, 0, os.SEEK_END))
    for first, count in ((start, min(head, size)), (max(start, end - TAIL), TAIL)):
        nothing = bytes(max(0, min(count, end - first)))
        if nothing:
            os.pwrite(descriptor, nothing, first)


def _forget_partitions(node: Path, runner: Runner) -> None:
    """Take the partitions out of the kernel, trying again while a program looks at one.

    Raises:
        InstallError: `disk.in-use`, naming the holder.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while partition_nodes(node):
        try:
            Runner().run(["partx", "--delete", str(node)], timeout=60)
        except InstallError as error:
            if error.problems[0].code != "command.failed":
                raise
            if time.monotonic() > deadline:
                raise in_use(node, "its old table may be gone already") from None
            runner.on_line(f"waiting for {node}: {error.problems[0].hint}")
            time.sleep(0.5)


def _tell_partitions(node: Path, runner: Runner) -> None:
    runner.run(["partx", "--add", str(node)], timeout=60, purpose="telling the kernel the table")


def write_table(step: WriteTable, runner: Runner) -> None:
    """Write the table with libparted, give it the planned identifiers, tell the kernel.

    Whatever lay where a partition begins or ends is overwritten before anybody can see it there.

    Raises:
        InstallError: `device.io`, `disk.in-use`, or a command's error.
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
    node = disk_node(step.disk)
    with locked(node):
        _forget_partitions(node, runner)
        refusal = None
        try:
            _write_fresh(parted, node, step)
        except errors as error:
            # its traceback holds the table, and lives no longer than this clause
            refusal = str(error)
        # A cached PedDevice remembers another table and sector size. Tables that still point to it
        # abort the program when they are collected later, so they go first.
        gc.collect()
        parted.freeAllDevices()
        if refusal is not None:
            raise fail(
                "device.io",
                f"libparted could not write the table: {refusal}",
                where=str(node),
                hint="look at the kernel's log (dmesg) for I/O errors, and at `lsblk` for what "
                "opened the disk meanwhile",
            )
        # libparted chooses random identifiers and (before 3.6) knows no types but its flags: the
        # plan's are set in place, while the kernel does not look yet
        identifier = step.disk_id.upper() if step.label == "gpt" else f"0x{step.disk_id}"
        runner.run([*_QUIET, "--disk-id", str(node), identifier], timeout=60)
        for row in step.partitions:
            for option, value in _identity(step, row):
                argv = [*_QUIET, option, str(node), str(row.ref.number), value]
                runner.run(argv, timeout=60)
            if step.label == "mbr" and MBR_ACTIVE in row.attributes:
                runner.run([*_QUIET, "--activate", str(node), str(row.ref.number)], timeout=60)
        with node.open("r+b", buffering=0) as stream:
            # A BIOS that finds the signature of an MBR executes what stands before it. libparted
            # leaves zeros there, in which the machine hangs: one whose installation failed would
            # never come back to the network.
            stream.write(_NOTHING_TO_BOOT)
            for row in step.partitions:
                blank_ends(stream.fileno(), row.ref.start, row.ref.size)
            os.fsync(stream.fileno())
        _tell_partitions(node, runner)
    settle(runner)


def _write_fresh(parted: ModuleType, node: Path, step: WriteTable) -> None:
    device = parted.getDevice(str(node))
    table = parted.freshDisk(device, {"gpt": "gpt", "mbr": "msdos"}[step.label])
    for row in step.partitions:
        geometry = parted.Geometry(
            device=device,
            start=row.ref.start // device.sectorSize,
            length=row.ref.size // device.sectorSize,
        )
        partition = parted.Partition(disk=table, type=parted.PARTITION_NORMAL, geometry=geometry)
        table.addPartition(partition, constraint=parted.Constraint(exactGeom=geometry))
        if step.label == "gpt":
            partition.set_name(row.name)
    table.commitToDevice()


def _identity(step: WriteTable, row: PlannedPartition) -> Iterator[tuple[str, str]]:
    yield "--part-type", row.type_id.upper()
    if step.label == "gpt":
        yield "--part-uuid", row.ref.partuuid.upper()
        if row.attributes:
            yield "--part-attrs", _attributes(row.attributes)


def _attributes(bits: Iterable[int]) -> str:
    """Name attribute bits as sfdisk(8) does."""
    names = {0: "RequiredPartition", 1: "NoBlockIOProtocol", 2: "LegacyBIOSBootable"}
    return " ".join(names.get(bit, f"GUID:{bit}") for bit in sorted(bits))


def edit_table(step: EditTable, runner: Runner) -> None:
    """Remove and add partitions, and leave the rows of the others exactly as they were.

    sfdisk writes its own dump again, with some lines less and some more: identifiers of the disk
    and of what is kept, attributes, boot code and the table's length stay (sfdisk(8), "Backing up
    the partition table").

    Raises:
        InstallError: see `examine`; `disk.in-use`; `device.io` when the table read back differs.
    """
    _refuse_overlap(step)
    with planned(step) as (node, descriptor):
        before = _require_table(step, node)
        for part in step.removed:
            if Path(part.node) in partition_nodes(node):
                _wipefs(Path(part.node), runner)
            if not _is_extended(before, part.number):
                blank_ends(descriptor, part.start, part.size)
        os.fsync(descriptor)
        _forget_partitions(node, runner)
        runner.run(
            [*_QUIET, "--wipe=never", "--wipe-partitions=never", str(node)],
            timeout=60,
            stdin_text=_script(step, node),
            purpose=f"changing the table of {node}",
        )
        after = _rows(_read_table(node)[0])
        for part in step.kept:
            if after.get(part.number) != before[part.number]:
                raise fail(
                    "device.io",
                    f"partition {part.number} of {step.disk} is not as before: "
                    f"{after.get(part.number)}, not {before[part.number]}",
                    where=str(node),
                    hint="do not write to it; its table can be made again with these numbers",
                )
        for row in step.added:
            blank_ends(descriptor, row.ref.start, row.ref.size)
        os.fsync(descriptor)
        _tell_partitions(node, runner)
    settle(runner)


def _refuse_overlap(step: EditTable) -> None:
    for row in step.added:
        for part in step.kept:
            if row.ref.start < part.start + part.size and part.start < row.ref.start + row.ref.size:
                raise ValueError(f"{row.ref} would lie on partition {part.number}, which is kept")


def _script(step: EditTable, node: Path) -> str:
    """Return sfdisk's dump without the removed partitions and with the added ones."""
    argv = ["sfdisk", "--lock=no", "--dump", str(node)]
    header, _, rows = Runner().run(argv, timeout=60, capture=True).partition("\n\n")
    removed = {part.number for part in step.removed}
    kept = [line for line in rows.splitlines() if line and _number(line.split()[0]) not in removed]
    added = []
    for row in step.added:
        start = row.ref.start // step.logical_sector
        size = row.ref.size // step.logical_sector
        line = f"{row.ref.number} : start={start}, size={size}, type={row.type_id}"
        if step.label == "gpt":
            line += f', uuid={row.ref.partuuid}, name="{row.name}"'
            if row.attributes:
                line += f', attrs="{_attributes(row.attributes)}"'
        added.append(line)
    return "\n".join([header, "", *kept, *added]) + "\n"


def _require_table(step: EditTable, node: Path) -> Mapping[int, Mapping[str, Any]]:
    """Return the rows of the table, which must be undamaged and the one that was seen.

    Raises:
        InstallError: `disk.table`, `disk.changed`.
    """
    table, complaints = _read_table(node)
    if complaints:
        raise fail(
            "disk.table",
            f"the partition table of {step.disk} is damaged: {'; '.join(complaints)}",
            where=str(node),
            hint="mend it with `sgdisk --move-second-header` or `sfdisk --relocate gpt-bak-std`, "
            "or keep nothing of it; nothing was written to it",
        )
    rows = _rows(table)
    planned_rows = {part.number: part for part in (*step.kept, *step.removed)}
    label = {"gpt": "gpt", "dos": "mbr"}.get(str(table.get("label")))
    differences = [] if label == step.label else [f"its table is {table.get('label') or 'gone'}"]
    for number in sorted(rows.keys() | planned_rows.keys()):
        part, row = planned_rows.get(number), rows.get(number)
        if part is None or row is None:
            differences.append(f"partition {number} is {'new' if part is None else 'gone'}")
        elif not _is_as_found(part, row, table, step.logical_sector):
            differences.append(f"partition {number} is another one")
    if differences:
        raise fail(
            "disk.changed",
            f"{step.disk} is not as it was when the plan was made: {', '.join(differences)}",
            where=str(node),
            hint="plan again; nothing was written to it",
        )
    return rows


def _is_as_found(
    part: FoundPartition, row: Mapping[str, Any], table: Mapping[str, Any], sector: int
) -> bool:
    if row["start"] * sector != part.start:
        return False
    # of an extended partition, the kernel shows the first sectors only
    if row["size"] * sector != part.size and str(row["type"]).lower() not in _EXTENDED:
        return False
    uuid = row.get("uuid") or f"{int(str(table.get('id')), 16):08x}-{part.number:02x}"
    return part.partuuid is None or part.partuuid.lower() == str(uuid).lower()


def _is_extended(rows: Mapping[int, Mapping[str, Any]], number: int) -> bool:
    return str(rows[number]["type"]).lower() in _EXTENDED


def _read_table(node: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Return sfdisk's view of a table ({} where there is none), and what it complains about."""
    complaints: list[str] = []
    argv = ["sfdisk", "--lock=no", "--json", str(node)]
    try:
        said = Runner(complaints.append).run(argv, timeout=60, capture=True)
    except InstallError as error:
        if error.problems[0].code != "command.failed":
            raise
        return {}, []
    table: Mapping[str, Any] = json.loads(said)["partitiontable"]
    return table, complaints


def _rows(table: Mapping[str, Any]) -> Mapping[int, Mapping[str, Any]]:
    return {_number(row["node"]): row for row in table.get("partitions", ())}


def _number(node: str) -> int:
    # sfdisk names rows after the disk, with a "p" where that ends in a digit
    match = re.search(r"[0-9]+\Z", node)
    return int(match[0]) if match else 0


def mark(disk: str, guid: str, runner: Runner) -> None:
    """Change the GUID of a GPT whose partitions are in use, and read it back.

    Raises:
        InstallError: `device.io`, or a command's error.
    """
    node = disk_node(disk)
    with locked(node):
        runner.run([*_QUIET, "--disk-id", str(node), guid.upper()], timeout=60)
        os.sync()
        argv = ["sfdisk", "--lock=no", "--disk-id", str(node)]
        said = runner.run(argv, timeout=60, capture=True).strip()
    if said.lower() != guid.lower():
        raise fail(
            "device.io",
            f"the table of {disk} has the GUID {said}, written was {guid}",
            where=str(node),
            hint="look at the kernel's log (dmesg); the disk may be broken",
        )


def disarm(chosen: Disk, warn: Callable[[str], None]) -> None:
    """Make sure that a disk which could be half bootable is not: erase its tables. Never raises.

    Args:
        chosen: the disk as it was seen when the plan was made.
        warn: is told what did not work.
    """
    try:
        node = disk_node(chosen.stable_path)
        if str(node) != chosen.node or device_size(node) != chosen.size:
            raise fail(
                "disk.changed",
                f"{chosen.stable_path} is not {chosen.node} of {format_bytes(chosen.size)} "
                "any more",
            )
        # not with O_EXCL: a file system that could not be unmounted may hold it
        with node.open("r+b", buffering=0) as stream:
            blank_ends(stream.fileno(), 0, chosen.size, head=MIB)
            os.fsync(stream.fileno())
    except (InstallError, OSError) as error:
        warn(
            f"{chosen.stable_path} could not be wiped after the failure, and may boot half a "
            f"system: {error}"
        )
