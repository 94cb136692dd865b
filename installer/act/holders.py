"""Which processes keep a device or a mounted file system busy: the answer to EBUSY."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def holders(place: Path) -> list[str]:
    """Name the processes that have `place` open, or are below it: `dd (pid 4711)`.

    Args:
        place: a block device, or a mount point.

    Processes that end meanwhile, or that may not be looked into, are left out.
    """
    import psutil  # noqa: PLC0415 - needed only when something is in the way

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and any(
                _concerns(used, place) for used in _used_by(process)
            ):
                found.append(f"{process.name()} (pid {process.pid})")
        except (psutil.Error, OSError):
            continue
    return found


def _used_by(process: "psutil.Process") -> Iterator[Path]:
    yield Path(process.cwd())
    yield Path(process.exe() or "/")
    # psutil's open_files() leaves devices out
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        yield link.readlink()


def _concerns(used: Path, place: Path) -> bool:
    if used == place:
        return True
    return not stat.S_ISBLK(place.stat().st_mode) and used.is_relative_to(place)
