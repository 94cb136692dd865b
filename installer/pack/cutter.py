"""Cutting a tar at its members: each frame is whole members of one kind."""

import re
from collections.abc import Callable

from installer.act.payload.archive import (
    BLOCK,
    Member,
    Stream,
    StreamEndError,
    at,
    next_member,
    padding,
)
from installer.act.payload.vetting import Vetting
from installer.model.errors import fail
from installer.model.manifest import KINDS, Kind
from installer.pack.facts import WANTED_LIMIT, Observer
from installer.pack.frames import FRAME, Frames, Large, Progress

END = bytes(2 * BLOCK)
"""The end-of-archive marker (POSIX.1-2017, pax, "ustar Interchange Format")."""

_SPARSE_NAME = b"GNUSparseFile"
_FOLDER = re.compile(rb"((?:(?:nix|var)/)?[A-Za-z0-9._+@-]{1,64})/")
_FOLDERS_LIMIT = 64


class Cutter:
    """Takes tar streams one after the other, and makes one archive of frames of them.

    Every member is vetted as the installer will: what is packed can be installed.
    """

    def __init__(self, frames: Frames, observer: Observer, progress: Progress) -> None:
        self._frames = frames
        self._observer = observer
        self._progress = progress
        self._vetting = Vetting({"/": 2**62}, count_on=False)
        self._kind: Kind = "folders"
        self._frame = bytearray()
        self._head = bytearray()
        self._sink: Callable[[memoryview], object] = self._head.extend
        self._in_frame = 0
        self.entries = 0
        self.unpacked = 0
        self.root_owned = True
        self.folders: dict[str, int] = {}
        self.total: int | None = None
        """Bytes that will come, if it is known."""

    @property
    def usage(self) -> int:
        """Bytes on a file system with blocks of 4 KiB."""
        return self._vetting.usage["/"]

    def feed(self, read: Callable[[], bytes], *, last: bool = False) -> None:
        """Add a tar stream's members; folders are made first, and get their attributes last.

        Raises:
            InstallError: `payload.format`, `payload.hostile` or `payload.truncated`.
        """
        stream = Stream(read, self._forward)
        try:
            while (member := next_member(stream)) is not None:
                self._take(stream, member, last=last)
                self._progress(self.unpacked, self.total)
        except StreamEndError:
            raise fail(
                "payload.truncated",
                "the archive ends in the middle: its end-of-archive marker is missing",
                where=at(stream.offset),
                hint="make the archive again, or copy it again",
            ) from None
        while stream.rest():
            pass

    def finish(self) -> None:
        """Write the end of the archive."""
        self._turn("attributes")
        self._frame += END
        self.unpacked += len(END)
        self._cut()
        self._frames.finish()

    def _forward(self, data: memoryview) -> None:
        self._sink(data)

    def _take(self, stream: Stream, member: Member, *, last: bool) -> None:
        before = self.usage
        name = self._vetting.approve(member)
        self._count(name, self.usage - before)
        self._turn(self._kind_of(member, last=last))
        self.root_owned = self.root_owned and (member.of_root or self._kind != "files")
        whole = member.stored + padding(member.stored)
        stream.approve()
        stream.flush()
        head = _constant(self._head)
        self._head.clear()
        # a link among the attributes belongs to the folder before it
        together = self._kind == "attributes" and member.kind == "symbolic link"
        if not together and len(self._frame) + len(head) + whole > FRAME:
            self._cut()
        self.entries += 1
        self.unpacked += len(head) + whole
        if len(head) + whole > FRAME:
            large = self._frames.open_large(self._kind, len(head) + whole)
            large.write(head)
            self._pass(stream, whole, large)
            return
        self._in_frame += 1
        self._frame += head
        self._sink = self._frame.extend
        stream.skip(whole)
        stream.flush()
        self._sink = self._head.extend
        data = b""
        if 0 < member.stored <= WANTED_LIMIT and self._observer.wants(name):
            end = len(self._frame) - padding(member.stored)
            data = bytes(self._frame[end - member.stored : end])
        self._observer.saw(name, member, data)

    def _count(self, name: bytes, usage: int) -> None:
        """Note below which folder a member takes its room: one that may be a file system."""
        match = _FOLDER.match(name)
        if usage and match:
            folder = f"/{match[1].decode()}"
            if folder in self.folders or len(self.folders) < _FOLDERS_LIMIT:
                self.folders[folder] = self.folders.get(folder, 0) + usage

    def _pass(self, stream: Stream, count: int, large: Large) -> None:
        self._sink = large.write
        while count:
            step = min(count, FRAME)
            stream.skip(step)
            stream.flush()
            count -= step
            self._progress(self.unpacked - count, self.total)
        large.close()
        self._sink = self._head.extend

    def _kind_of(self, member: Member, *, last: bool) -> Kind:
        match member.kind:
            case "directory":
                return "attributes" if last else "folders"
            case "hard link":
                return "links"
            case "symbolic link" if self._kind == "attributes":
                return "attributes"
            case _:
                return "files"

    def _turn(self, kind: Kind) -> None:
        if KINDS.index(kind) < KINDS.index(self._kind):
            raise AssertionError(f"{kind} after {self._kind}")
        if kind != self._kind:
            self._cut()
            self._kind = kind

    def _cut(self) -> None:
        if self._frame:
            self._frames.add(self._kind, self._frame, self._in_frame)
            self._frame, self._in_frame = bytearray(), 0


def _constant(head: bytearray) -> bytes:
    """Take GNU tar's process id out of a sparse file's headers.

    In GNU tar's form 1.0 the real name is GNU.sparse.name (GNU tar manual, "Storing Sparse
    Files"); DIR/GNUSparseFile.PID/NAME is for programs without sparse files, and no option
    changes it. A `path` with it is taken out, too: which of the two counts would be a question.
    """
    block = head[-BLOCK:]
    if b"GNU.sparse.name=" not in head or _SPARSE_NAME not in block[:100] + block[345:500]:
        return bytes(head)
    size = int(head[124:135], 8)
    records, position = b"", BLOCK
    while position < BLOCK + size:
        length, _, rest = bytes(head[position : position + 16]).partition(b" ")
        if not rest.startswith(b"path="):
            records += head[position : position + int(length)]
        position += int(length)
    head[124:136] = b"%011o\0" % len(records)
    return (
        _named(head[:BLOCK], b"PaxHeaders/" + _SPARSE_NAME)
        + records
        + bytes(padding(len(records)))
        + _named(block, _SPARSE_NAME)
    )


def _named(block: bytearray, name: bytes) -> bytes:
    block[:100] = name.ljust(100, b"\0")
    block[345:500] = bytes(155)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
