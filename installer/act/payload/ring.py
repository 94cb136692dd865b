"""Memory that is filled piece by piece, and written into a pipe without being copied.

The kernel puts the ring's own pages into the pipe (splice(2)), where write(2) would copy them. So a
page has to stay as it is until the pipe's reader has read it. Nobody says when that is, but a pipe
never holds more than its capacity: what was written before that has been read.
"""

import fcntl
import io
import os
from collections.abc import Callable
from mmap import mmap
from typing import Self

PIECE = 128 * 1024
"""Bytes at once. With the pipe they fit into a core's cache, so that what was just decompressed is
still there when it is read from the pipe: larger pieces make the copy that is left slower."""

_NONBLOCK = 2
"""SPLICE_F_NONBLOCK of <linux/splice.h>, which Python 3.11 does not name."""


class Ring:
    """A ring of pages before a pipe; one thread fills it and writes from it.

    All that is filled is written, in its order; a copy of it may be written in its place.
    """

    def __init__(self, end: io.FileIO) -> None:
        """Take a pipe's writing end, which does not block."""
        self._end = end
        # a piece that is filled, one that may wait to be written, and all that was not read yet
        self._size = 2 * PIECE + fcntl.fcntl(end, fcntl.F_GETPIPE_SZ)
        self._file = os.memfd_create("netinstall-ring", os.MFD_CLOEXEC)
        os.truncate(self._file, self._size)
        self._memory = mmap(self._file, self._size)
        self._position = 0
        self._next = 0
        self._waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def fill(self, readinto: Callable[[memoryview], int]) -> memoryview:
        """Let the next piece be read, and return it: empty at the end."""
        if self._waiting > PIECE:
            # a header longer than a piece; what is in the pipe may begin right behind it
            free = memoryview(bytearray(PIECE))
            count = readinto(free)
        else:
            free = memoryview(self._memory)[self._position : self._position + PIECE]
            count = readinto(free)
            self._next = self._position
            self._position = (self._position + count) % self._size
        self._waiting += count
        return free[:count]

    def write(self, data: memoryview) -> int:
        """Write as much as the pipe takes now, and return how much that is.

        Args:
            data: the next bytes of the last piece, or a copy of bytes that were filled before.

        Raises:
            BrokenPipeError: nobody reads from it any more.
        """
        if data.obj is self._memory:
            try:
                count = os.splice(
                    self._file,
                    self._end.fileno(),
                    len(data),
                    offset_src=self._next,
                    flags=_NONBLOCK,
                )
            except BlockingIOError:
                count = 0
            self._next += count
        else:
            count = self._end.write(data) or 0
        self._waiting -= count
        return count
