"""Why the kernel would not let go of a disk, where neither mounts, swap nor layers say it."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from installer.observe.blocks import Blocks, node


def of(blocks: Blocks, disk: str) -> tuple[str, ...]:
    """What holds a disk out of sight, in words; the kernel is asked only about this machine."""
    return (*_swap_files(blocks, disk), *_held(blocks, disk))


def _swap_files(blocks: Blocks, disk: str) -> Iterator[str]:
    for file in blocks.swap_files:
        mount = blocks.holding(file)
        for device in blocks.devices_of(mount) if mount else ():
            if disk in blocks.down_to_disks(device):
                yield f"{file} on {blocks.shown(device)} is swapped to"


def _held(blocks: Blocks, disk: str) -> Iterator[str]:
    parts = blocks.partitions(disk)
    if _is_explained(blocks, disk, parts):
        return
    free = [name for name in parts if not _is_explained(blocks, name, ())]
    elsewhere = {name for btrfs in blocks.btrfs for name in btrfs.members}
    for name in (disk, *free):
        if name in elsewhere:
            yield f"{node(name)} belongs to a btrfs that is mounted out of sight"
    if blocks.root != Path("/"):
        return
    held = [name for name in free if name not in elsewhere and _is_held(node(name))]
    # while a partition is held, so is its disk
    if not held and free == parts and not elsewhere & {disk, *parts}:
        mapped = blocks.is_multipath(disk) and parts
        held = [disk] if not mapped and _is_held(node(disk)) else []
    yield from (f"the kernel or a program holds {node(name)}" for name in held)


def _is_explained(blocks: Blocks, name: str, parts: Sequence[str]) -> bool:
    return (
        bool(blocks.mounted(name) or set(blocks.above.get(name, ())) - set(parts))
        or name in blocks.swaps
        or name in blocks.united
        or any(name in one.caches + one.backing for one in blocks.cache_sets)
        or any(name in members for members in blocks.pools.values())
    )


def _is_held(path: str) -> bool:
    """Whether anything has claimed a device: a mount out of sight, a program, a driver.

    Opening a block device with O_EXCL and without O_CREAT fails then (open(2)); for reading it
    changes nothing.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
