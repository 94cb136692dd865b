"""What is unpacked goes to the disk while the rest is unpacked, not when all of it is there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

BACKGROUND = 32 * 1024**2
"""Bytes of unwritten data from which on the kernel writes. Its own tenth of the memory is more than
a whole system on many machines, and then nothing would be written before the last flush."""

_SETTINGS = Path("/proc/sys/vm")


@contextlib.contextmanager
def early_writeback(settings: Path = _SETTINGS) -> Iterator[None]:
    """Let the kernel begin to write soon (dirty_background_bytes: admin-guide/sysctl/vm.rst).

    Where that cannot be set, everything works as it would have without it.
    """
    value, ratio = settings / "dirty_background_bytes", settings / "dirty_background_ratio"
    try:
        before = value.read_text(encoding="ascii"), ratio.read_text(encoding="ascii")
        value.write_text(str(BACKGROUND), encoding="ascii")
    except OSError:
        yield
        return
    if int(before[0]) == BACKGROUND:
        # somebody else's, who will put it back
        yield
        return
    try:
        yield
    finally:
        # whichever is written last counts, and the other one reads as 0
        with contextlib.suppress(OSError):
            if int(before[0]):
                value.write_text(before[0], encoding="ascii")
            else:
                ratio.write_text(before[1], encoding="ascii")
