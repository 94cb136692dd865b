"""What keeps a device or a mounted file system busy: the answer to EBUSY."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_BLOCK = Path("/sys/class/block")


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


def device_holders(node: Path) -> list[str]:
    """Name what the kernel itself lets hold a disk or one of its partitions, then the processes.

    Mounts of other mount namespaces are not seen from here.
    """
    found: list[str] = []
    top = _BLOCK / node.name
    for device in (top, *sorted(child.parent for child in top.glob("*/partition"))):
        shown = Path("/dev") / device.name
        found += [f"{shown} is mounted at {where}" for where in mount_points(shown)]
        if shown in swap_areas():
            found.append(f"{shown} is swapped to")
        for above in sorted((device / "holders").glob("*")):
            name = _text(_BLOCK / above.name / "dm/name")
            found.append(f"{shown} is held by {above.name}" + (f" ({name})" if name else ""))
        found += [f"{shown} is open in {process}" for process in holders(shown)]
    return found


def mount_points(node: Path) -> list[str]:
    """Return where a device is mounted, in the order of mounting (proc_pid_mountinfo(5))."""
    try:
        number = _text(_BLOCK / node.resolve().name / "dev")
    except OSError:
        return []
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        words, source = fields.split(" "), rest.split(" ")[1]
        # btrfs mounts under a number of its own; its source names one of the devices
        if number is not None and (words[2] == number or _same(source, node)):
            found.append(unescaped(words[4]))
    return found


def is_mount_point(where: str) -> bool:
    """Whether anything is mounted at a path, a bind mount of the same file system too."""
    return mounted_from(where) is not None


def mounted_from(where: Path | str) -> str | None:
    """Return what is mounted at a path, as it was named to the kernel; None if nothing is.

    Of several mounts that cover each other, the one that is seen.
    """
    found = None
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if unescaped(fields.split(" ")[4]) == str(where):
            found = unescaped(rest.split(" ")[1])
    return found


def swap_areas() -> list[Path]:
    """Return the devices and files that are swapped to."""
    lines = Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    return [Path(unescaped(line.split()[0])) for line in lines]


def unescaped(text: str) -> str:
    r"""Undo the kernel's octal escapes in /proc: `\040` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _same(source: str, node: Path) -> bool:
    return source.startswith("/dev/") and Path(source).resolve() == node.resolve()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


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
