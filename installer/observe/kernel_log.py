"""What the kernel says of disks while we work (Documentation/ABI/testing/dev-kmsg)."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

KMSG = Path("/dev/kmsg")

_RECORD_LIMIT = 8192
"""Bytes; the kernel cuts a record at CONSOLE_EXT_LOG_MAX."""

_RECORD = re.compile(r"([0-9]+),[0-9]+,[0-9]+,[^;]*;([^\n]*)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_ERROR = 3
_TROUBLE = re.compile(
    r"\berrors?\b|read-only|abort|timeout|corrupt|shut(?:ting)? ?down", re.IGNORECASE
)
_REFUSED = re.compile(r" op 0x[0-9a-f]+:\((?:DISCARD|SECURE_ERASE|WRITE_ZEROES)\)")
"""Many a healthy disk announces these and refuses them (block/blk-core.c: blk_op_name)."""

_NUMBERS = re.compile(r"0x[0-9a-f]+|[0-9]+")


class KernelLog:
    """The kernel's messages from now on. It is empty where there is no log to be read."""

    def __init__(self, path: Path = KMSG) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError:
            # not for this user, or not in this container
            self.close()

    def errors(self, disks: Collection[str]) -> dict[str, list[str]]:
        """Return what went wrong with each disk since the last call, one message of each kind.

        Args:
            disks: names as the kernel has them, without /dev/: vda, nvme0n1. Messages about their
                partitions and their NVMe controller count.
        """
        names = {disk: re.compile(_pattern(disk)) for disk in disks}
        found: dict[str, dict[str, str]] = {}
        for priority, text in self._messages():
            # from 8 on it is a program that speaks (syslog(3), facilities)
            if priority > _ERROR or not _TROUBLE.search(text) or _REFUSED.search(text):
                continue
            for disk, name in names.items():
                if name.search(text):
                    found.setdefault(disk, {}).setdefault(_NUMBERS.sub("", text), text)
        return {disk: list(kinds.values()) for disk, kinds in found.items()}

    def close(self) -> None:
        """Let go of it; nothing is heard any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _messages(self) -> Iterator[tuple[int, str]]:
        while self._descriptor is not None:
            try:
                record = os.read(self._descriptor, _RECORD_LIMIT)
            except BrokenPipeError:
                # some were overwritten before they were read; the next read goes on behind them
                continue
            except OSError:
                return
            if not record:
                return
            match = _RECORD.match(record.decode("utf-8", "backslashreplace"))
            if match:
                yield int(match[1]), _ESCAPED.sub(lambda one: chr(int(one[1], 16)), match[2])


def _pattern(disk: str) -> str:
    controller = re.fullmatch(r"(nvme[0-9]+)n[0-9]+", disk)
    also = rf"|{controller[1]}" if controller else ""
    return rf"(?<![\w-])(?:{re.escape(disk)}(?:p?[0-9]+)?{also})(?!\w)"
