"""All kernel consoles: whoever watches any of them sees what happens."""

import os
from collections.abc import Sequence
from pathlib import Path

_ACTIVE = Path("/sys/class/tty/console/active")


def find() -> list[Path]:
    """Return the terminals of all kernel consoles; the last is the one behind /dev/console.

    Source: Documentation/ABI/testing/sysfs-tty of the kernel.
    """
    try:
        names = _ACTIVE.read_text().split()
    except OSError:
        names = []
    return [Path("/dev", name) for name in names] or [Path("/dev/console")]


def say(consoles: Sequence[Path], text: str) -> None:
    """Write lines to every console; one that does not take them is skipped."""
    data = "".join(f"netinstall: {line}\r\n" for line in text.splitlines()).encode()
    for console in consoles:
        try:
            # A serial line without a carrier blocks whoever opens it for good.
            where = os.open(console, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_APPEND)
        except OSError:
            continue
        try:
            os.write(where, data)
        except OSError:
            pass
        finally:
            os.close(where)


def terminal(consoles: Sequence[Path]) -> Path:
    """Return the main console as a terminal that can control a shell's jobs."""
    main = consoles[-1]
    # tty0 is whichever virtual terminal is in front, and cannot be a controlling terminal.
    return Path("/dev/tty1") if main == Path("/dev/tty0") else main
