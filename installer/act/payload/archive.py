"""Tar headers, read so strictly that no other program can read them differently.

What is approved here is unpacked by GNU tar, so it is not enough to understand an archive: GNU tar
must understand the same. Python's tarfile is lenient where GNU tar is lenient in another way (a
blank too many before a pax keyword, a name that continues after a NUL, a size such as `-1` or
`1_0`, two extended headers of different kinds for one member), and each of these hides a member
or a name from one of them. Here everything that is not written as the formats say is an error.

Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files".
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple
from zlib import adler32

from installer.model.errors import InstallError, fail
from installer.model.units import MIB, format_bytes

BLOCK = 512
EXTENDED_LIMIT = MIB
"""Bytes of one extended header; Linux takes 64 KiB of extended attributes' values and names."""

NAME_LIMIT = 4095
"""Bytes of a path: PATH_MAX of Linux without the final NUL."""

_COMMENTS_LIMIT = 100

COMPONENT_LIMIT = 255
"""Bytes of a file's name: NAME_MAX of Linux."""

_ZEROS = bytes(BLOCK)
_POSIX = b"ustar\x0000"
_GNU = b"ustar  \0"
_NUMBER = re.compile(rb" *([0-7]*)[ \0]*")
_ZERO = re.compile(rb" *0+[ \0]*")
_ROOT = b"0000000\0" * 2
_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ([^=\n\0 ][^=\n\0]*)=")
_SPARSE_PATH = re.compile(rb"(?:^|/)GNUSparseFile\.[0-9]{1,10}/")
_DECIMAL = re.compile(rb"[0-9]{1,19}")

_PAX_KEYS = re.compile(
    rb"path|linkpath|size|uid|gid|uname|gname|mtime|atime|ctime|comment|charset|hdrcharset"
    rb"|GNU\.sparse\.(?:major|minor|name|realsize)"
    rb"|SCHILY\.(?:xattr|acl)\..+|SCHILY\.(?:dev|ino|nlink|fflags)"
    rb"|LIBARCHIVE\..+|RHT\.security\.selinux"
)
_KINDS: dict[bytes, Literal["file", "hard link", "symbolic link", "directory"]] = {
    b"0": "file",
    b"\0": "file",
    b"S": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"5": "directory",
}
_DEVICES = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}


Piece = bytes | memoryview


class Member(NamedTuple):
    """A member as its header announces it.

    `name` and `target` (of links) are as they are written in the archive; `stored` counts the
    bytes that follow the header, without padding (less than a sparse file's size); `mode` has the
    twelve bits of chmod(2); `of_root` says whether user and group are both 0.
    """

    name: bytes
    kind: Literal["file", "hard link", "symbolic link", "directory"]
    target: bytes
    stored: int
    offset: int
    mode: int = 0o755
    of_root: bool = True


class StreamEndError(Exception):
    """The stream has no more bytes."""


class Stream:
    """Unpacked bytes with their offset, forwarded no earlier than they were approved."""

    def __init__(
        self, read: Callable[[], Piece], forward: Callable[[memoryview], object] | None = None
    ) -> None:
        """Read pieces from `read`, which returns b"" at the end.

        What is forwarded is what was read, in order and without gaps, up to what `rest` returns.
        A piece may be overwritten when the next one is read.
        """
        self._read = read
        self._forward = forward
        self._chunk: Piece = b""
        self._position = 0
        self._approved = 0
        self._sent = 0
        self._held: list[bytes] = []
        self._before = 0

    @property
    def offset(self) -> int:
        """How many bytes were taken or passed."""
        return self._before + self._position

    def take(self, count: int) -> bytes:
        """Return the next bytes and hold them back until `approve`. Raises StreamEndError."""
        end = self._position + count
        if end <= len(self._chunk):
            # of bytes it makes no second copy
            data = bytes(self._chunk[self._position : end])
            self._position = end
            return data
        parts = []
        while count:
            if self._position == len(self._chunk):
                self._next()
            part = self._chunk[self._position : self._position + count]
            self._position += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def approve(self) -> None:
        """Let everything that was taken be forwarded."""
        for part in self._held:
            self._send(memoryview(part))
        self._held.clear()
        self._approved = self._position

    def skip(self, count: int) -> None:
        """Let the next bytes be forwarded without looking at them. Raises StreamEndError."""
        while True:
            step = min(count, len(self._chunk) - self._position)
            self._position += step
            self._approved = self._position
            count -= step
            if not count:
                return
            self._next()

    def flush(self) -> None:
        """Forward now what was approved and still waits."""
        self._send(memoryview(self._chunk)[self._sent : self._approved])
        self._sent = self._approved

    def rest(self) -> bytes:
        """Return the next piece that nobody took, b"" at the end; it is never forwarded."""
        self.flush()
        if self._position == len(self._chunk):
            try:
                self._next()
            except StreamEndError:
                return b""
        piece = bytes(self._chunk[self._position :])
        self._sent = self._approved = self._position = len(self._chunk)
        return piece

    def _next(self) -> None:
        self.flush()
        if self._approved < len(self._chunk):
            self._held.append(bytes(self._chunk[self._approved :]))
        self._before += len(self._chunk)
        self._position = self._approved = self._sent = 0
        self._chunk = self._read()
        if not self._chunk:
            raise StreamEndError

    def _send(self, data: memoryview) -> None:
        if self._forward is not None and data:
            self._forward(data)


def padding(size: int) -> int:
    """Bytes that fill a member's last block."""
    return -size % BLOCK


def at(offset: int) -> str:
    """Say a place in the archive."""
    return f"at byte {offset} of the unpacked archive"


def show(name: bytes) -> str:
    """Make a name printable: control characters and invalid UTF-8 as escapes."""
    text = name.decode("utf-8", "backslashreplace")
    if len(text) > 300:
        text = f"{text[:200]}…{text[-60:]}"
    return text if text.isprintable() else ascii(text)[1:-1]


def next_member(stream: Stream) -> Member | None:
    """Read the headers of the next member; None after the two zero blocks that end an archive.

    Nothing of it is approved yet.

    Raises:
        InstallError: `payload.format`, or `payload.hostile` for devices and FIFOs.
        StreamEndError: in the middle of a header, or without the end-of-archive marker.
    """
    start = stream.offset
    extended: dict[bytes, bytes] = {}
    seen = b""
    comments = 0
    while True:
        offset = stream.offset
        block = stream.take(BLOCK)
        if block == _ZEROS:
            if seen:
                raise _broken("an extended header without a member", offset)
            if stream.take(BLOCK) != _ZEROS:
                raise _broken("a lone zero block between two members", offset)
            return None
        size = _check(block, offset)
        kind = block[156:157]
        if kind not in b"LKxg":
            return _member(stream, block, size, extended, start)
        data = _extended_header(stream, size, offset)
        if kind == b"g" and not seen:
            if _pax(data, offset).keys() - {b"comment"}:
                raise _broken("a global extended header that changes members", offset)
            comments += 1
            if comments > _COMMENTS_LIMIT:
                raise _broken(f"more than {_COMMENTS_LIMIT} comments and no member", offset)
            stream.approve()
            start = stream.offset
            continue
        # which of two headers counts is decided differently by different programs
        if kind == b"g" or kind in seen or (seen and b"x" in (kind, seen)):
            raise _broken("extended headers that contradict each other", offset)
        seen += kind
        if kind == b"x":
            extended = _pax(data, offset)
        else:
            extended[b"path" if kind == b"L" else b"linkpath"] = _long(data, offset)


def _member(
    stream: Stream, block: bytes, size: int, extended: dict[bytes, bytes], start: int
) -> Member:
    name = extended.get(b"path", _field_name(block))
    target = extended.get(b"linkpath", block[157:257].split(b"\0", 1)[0])
    flag = block[156:157]
    if flag in _DEVICES:
        raise fail(
            "payload.hostile",
            f"{show(name)} is {_DEVICES[flag]}; a system's archive holds files, folders and links",
            where=at(start),
            hint="leave /dev and /run out of the archive: they are made at boot",
        )
    kind = _KINDS.get(flag)
    if kind is None:
        raise _broken(f"{show(name)} has the unknown type {show(flag)!r}", start)
    if b"size" in extended:
        if not _DECIMAL.fullmatch(extended[b"size"]):
            raise _broken(f"{show(name)} has a size that is no number", start)
        size = int(extended[b"size"])
    if extended and any(key.startswith(b"GNU.sparse.") for key in extended):
        name = _sparse_name(name, flag, extended, start)
    if flag == b"S":
        if extended.keys() - {b"path", b"linkpath"} or block[257:265] != _GNU:
            raise _broken(f"{show(name)} is a sparse file in two forms", start)
        more = block[482]
        while more:
            more = stream.take(BLOCK)[504]
            if stream.offset - start > EXTENDED_LIMIT:
                raise _broken(f"{show(name)} has too long a sparse map", start)
    if kind != "file" and size:
        raise _broken(f"{show(name)} is a {kind} with contents", start)
    mode = _NUMBER.fullmatch(block[100:108])
    if mode is None:
        raise _broken(f"{show(name)} has a mode that is no number", start)
    return Member(
        name,
        kind,
        target,
        size,
        start,
        int(mode[1] or b"0", 8) & 0o7777,
        (block[108:124] == _ROOT and not extended) or _of_root(block, extended),
    )


def _of_root(block: bytes, extended: dict[bytes, bytes]) -> bool:
    user, group = extended.get(b"uid", block[108:116]), extended.get(b"gid", block[116:124])
    return bool(_ZERO.fullmatch(user) and _ZERO.fullmatch(group))


def _sparse_name(name: bytes, flag: bytes, extended: dict[bytes, bytes], start: int) -> bytes:
    # With "size" beside them, programs differ in which of two they believe. GNU tar writes "path"
    # for a name that is not ASCII, and believes GNU.sparse.name (src/xheader.c: path_decoder).
    if (
        flag not in (b"0", b"\0")
        or (extended.get(b"GNU.sparse.major"), extended.get(b"GNU.sparse.minor")) != (b"1", b"0")
        or b"GNU.sparse.name" not in extended
        or not _SPARSE_PATH.search(extended.get(b"path", b"GNUSparseFile.0/"))
        or b"size" in extended
    ):
        raise _broken(
            f"{show(name)} is a sparse file in a form other than 1.0",
            start,
            hint="make the archive with GNU tar --format=posix --sparse-version=1.0",
        )
    return extended[b"GNU.sparse.name"]


def _check(block: bytes, offset: int) -> int:
    """Check a header block; return the size it announces."""
    if block[257:265] not in (_POSIX, _GNU):
        raise _broken(
            "this is no tar header",
            offset,
            hint="make the archive with GNU tar, bsdtar or another that writes ustar, pax or GNU",
        )
    said = _NUMBER.fullmatch(block[148:156])
    if not said or int(said[1] or b"0", 8) != _sum(block) - sum(block[148:156]) + 8 * 32:
        raise _broken("a header has a wrong checksum", offset)
    field = block[124:136]
    # GNU tar writes sizes from 8 GiB on in base 256
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    number = _NUMBER.fullmatch(field)
    if number is None:
        raise _broken("a header has a size that is no number", offset)
    return int(number[1] or b"0", 8)


def _sum(block: bytes) -> int:
    """Add up the bytes of a header block: a tenth of the time that sum() takes.

    The low half of an Adler-32 that begins with 0 is the sum modulo 65521 (RFC 1950, 8.2), which
    256 bytes cannot reach.
    """
    first, second = adler32(block[:256], 0), adler32(block[256:], 0)
    return (first & 0xFFFF) + (second & 0xFFFF)


def _field_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    # only POSIX has a prefix there; GNU keeps times of access and change in its place
    if block[257:265] == _POSIX and block[345]:
        return block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _extended_header(stream: Stream, size: int, offset: int) -> bytes:
    if size > EXTENDED_LIMIT:
        raise _broken(
            f"an extended header of {format_bytes(size)} (at most {format_bytes(EXTENDED_LIMIT)})",
            offset,
        )
    return stream.take(size + padding(size))[:size]


def _long(data: bytes, offset: int) -> bytes:
    name, _, after = data.partition(b"\0")
    if after.strip(b"\0"):
        raise _broken(f"the long name {show(name)} goes on after a NUL", offset)
    return name


def _pax(data: bytes, offset: int) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        match = _RECORD.match(data, position)
        if match is None:
            raise _broken("an extended header holds something that is no record", offset)
        end = position + int(match[1])
        key, value = match[2], data[match.end() : end - 1]
        if end > len(data) or end <= match.end() or data[end - 1] != 0x0A:
            raise _broken(f"the extended header {show(key)} has a wrong length", offset)
        if not _PAX_KEYS.fullmatch(key):
            raise _broken(f"the extended header {show(key)} is not known", offset)
        if key in records:
            raise _broken(f"the extended header {show(key)} comes twice", offset)
        if b"\0" in value and not key.startswith((b"SCHILY.xattr.", b"LIBARCHIVE.")):
            raise _broken(f"the extended header {show(key)} holds a NUL", offset)
        records[key] = value
        position = end
    return records


def _broken(what: str, offset: int, *, hint: str = "") -> InstallError:
    return fail(
        "payload.format",
        f"the archive is damaged or not understood: {what}",
        where=at(offset),
        hint=hint or "make the archive again, or fetch it again",
    )
