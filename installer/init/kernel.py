"""System calls that Python has no function for, and what the kernel tells.

PID 1's modules import little: under emulation, and on a small machine, its start costs seconds
and its memory is missing elsewhere. Hence no dataclasses, no subprocess, no logging here.
"""

import ctypes
import os
import re
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

# sys/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

# linux/reboot.h
_REBOOT = {"reboot": 0x01234567, "poweroff": 0x4321FEDC}
_REBOOT_CAD_OFF = 0

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    _check(
        _LIBC.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        f"mount {source} on {target}",
    )


def unmount(target: Path) -> None:
    """umount2(2). Raises OSError."""
    _check(_LIBC.umount2(os.fsencode(target), 0), f"umount {target}")


def pivot_root(new: Path, old: Path) -> None:
    """pivot_root(2): `new` becomes the root, the old one is mounted at `old`. Raises OSError."""
    # glibc has no wrapper for it
    number = {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]
    _check(_LIBC.syscall(number, os.fsencode(new), os.fsencode(old)), f"pivot_root {new}")


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, as PID 1 is by nature (prctl(2))."""
    _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def catch_ctrl_alt_del() -> None:
    """Get SIGINT for it, instead of a reboot at once (reboot(2)). Raises OSError."""
    _check(_LIBC.reboot(_REBOOT_CAD_OFF), "reboot")


def restart(action: str) -> None:
    """Reboot or power off at once (reboot(2)). Raises OSError."""
    _check(_LIBC.reboot(ctypes.c_int(_REBOOT[action])), action)


def argument(name: str, text: str) -> str | None:
    """Return the last value of NAME=VALUE in a kernel command line, without its quotes."""
    found = re.findall(rf'(?:^|\s){re.escape(name)}=("[^"]*"|\S*)', text)
    return found[-1].strip('"') if found else None


def mounts() -> list[tuple[str, Path, str]]:
    """Return source, target and type of all mounts, in the order in which they were made."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind = (
            # proc(5): blanks are written in octal
            re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)
            for field in line.split(" ")[:3]
        )
        found.append((source, Path(target), kind))
    return found


def oom_kills() -> int:
    """Return how many processes the kernel has killed since boot because memory ran out."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
