"""`netinstall payload verify`: signature, manifest, and every byte and member of the archive."""

import hashlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from installer.act.payload.archive import Member, Stream, StreamEndError, next_member, padding, show
from installer.act.payload.vetting import Vetting
from installer.model.errors import InstallError, fail
from installer.model.manifest import MANIFEST_LIMIT, PIECE, WINDOW, Frame, Manifest
from installer.model.minisign import KEY_LIMIT, SIGNATURE_LIMIT, PublicKey, parse_public_key
from installer.model.minisign import verify as verify_signature
from installer.model.units import MIB
from installer.observe import manifest as manifests
from installer.pack.frames import FRAME, Progress

_STEP = MIB


def read_limited(path: Path, limit: int, code: str) -> bytes:
    """Read a small file, and no more of it than one byte beyond the limit.

    Raises:
        InstallError: `code`.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise fail(
            code,
            f"{path} cannot be read: {error.strerror}",
            where=str(path),
            hint="is the path right?",
        ) from None


def public_key(given: str) -> PublicKey:
    """Read a public key from a file or, if it looks like one, from the text itself.

    Raises:
        InstallError: `payload.key`.
    """
    if given.startswith("RW") and len(given) == 56 and not Path(given).exists():
        return parse_public_key(given.encode(), "--public-key")
    return parse_public_key(read_limited(Path(given), KEY_LIMIT, "payload.key"), given)


def read_manifest(path: Path, key: PublicKey | None) -> tuple[Manifest, str | None]:
    """Read a manifest, after its signature was verified if there is a key.

    Returns:
        the manifest, and the trusted comment of its signature.

    Raises:
        InstallError: `payload.manifest` or `payload.signature`.
    """
    data = read_limited(path, MANIFEST_LIMIT, "payload.manifest")
    comment = None
    if key is not None:
        signature = path.with_name(f"{path.name}.minisig")
        comment = verify_signature(
            data,
            read_limited(signature, SIGNATURE_LIMIT, "payload.signature"),
            key,
            str(signature),
        )
    return manifests.load(data, str(path)), comment


def verify_archive(
    manifest: Manifest, archive: Path, progress: Progress, cores: int | None = None
) -> None:
    """Compare an archive with its manifest: every hash, every frame, every member.

    Raises:
        InstallError: `payload.not-found`, `payload.truncated`, `payload.hash`, `payload.format` or
            `payload.hostile`.
    """
    try:
        with archive.open("rb") as file, _Reading(manifest, file, progress, cores) as reading:
            reading.check()
    except OSError as error:
        raise fail(
            "payload.not-found",
            f"{archive} cannot be read: {error.strerror}",
            where=str(archive),
            hint="the archive lies beside its manifest, under the manifest's name",
        ) from None


class _Reading:
    def __init__(
        self, manifest: Manifest, file: BinaryIO, progress: Progress, cores: int | None
    ) -> None:
        self._manifest = manifest
        self._file = file
        self._progress = progress
        self._whole = hashlib.sha256()
        self._cores = cores or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._cores, "decompress")

    def __enter__(self) -> "_Reading":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def check(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        wanted = self._manifest.archive.size
        if size != wanted:
            raise fail(
                "payload.truncated" if size < wanted else "payload.hash",
                f"the archive has {size} bytes, the manifest says {wanted}",
                where=self._manifest.archive_name,
                hint="copy the archive again; archive and manifest must be of the same packing",
            )
        parts = self._unpacked()
        self._members(lambda: next(parts, b""))
        if self._whole.hexdigest() != self._manifest.archive.sha256:
            raise self._damaged("the SHA-256 of the whole is not the manifest's")

    def _members(self, read: Callable[[], bytes]) -> None:
        frames = self._manifest.frames
        ends = list(accumulate(frame.unpacked for frame in frames))
        entries = [0] * len(frames)
        vetting = Vetting({"/": 2**62}, count_on=False)
        stream = Stream(read)
        try:
            while (member := next_member(stream)) is not None:
                vetting.approve(member)
                number = bisect_right(ends, member.offset)
                entries[number] += 1
                whole = member.stored + padding(member.stored)
                if stream.offset + whole > ends[number]:
                    raise self._odd(number, f"ends in the middle of {show(member.name)}")
                if not _fits(member, frames[number]):
                    raise self._odd(
                        number, f"holds {show(member.name)}, a {member.kind}, beside others"
                    )
                stream.approve()
                stream.skip(whole)
        except StreamEndError:
            raise self._damaged("its end-of-archive marker is missing") from None
        if stream.offset != ends[-1] or stream.rest():
            raise self._damaged("it goes on after its end-of-archive marker")
        for number, (found, frame) in enumerate(zip(entries, frames, strict=True)):
            if found != frame.entries:
                raise self._odd(number, f"holds {found} members, announced are {frame.entries}")

    def _unpacked(self) -> Iterator[bytes]:
        """Yield the unpacked bytes, each frame after its hash was compared."""
        waiting: deque[Future[bytes]] = deque()
        for number, frame in enumerate(self._manifest.frames):
            if max(frame.unpacked, frame.length) <= 2 * FRAME:
                data = self._read(frame.length)
                waiting.append(self._pool.submit(self._small, number, frame, data))
                if len(waiting) > self._cores:
                    yield waiting.popleft().result()
            else:
                while waiting:
                    yield waiting.popleft().result()
                yield from self._large(number, frame)
            self._progress(frame.offset + frame.length, self._manifest.archive.size)
        while waiting:
            yield waiting.popleft().result()

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._damaged("it became shorter while it was read")
        self._whole.update(data)
        return data

    def _small(self, number: int, frame: Frame, data: bytes) -> bytes:
        self._compare(number, frame.sha256, hashlib.sha256(data))
        for piece, wanted in enumerate(frame.pieces or ()):
            part = data[piece * PIECE : (piece + 1) * PIECE]
            self._compare(number, wanted, hashlib.sha256(part))
        return b"".join(self._decompressed(number, frame, data))

    def _large(self, number: int, frame: Frame) -> Iterator[bytes]:
        frame_hash = hashlib.sha256()
        left = frame.length
        for wanted in frame.pieces or (None,):
            piece_hash = hashlib.sha256()
            room = min(left, PIECE) if wanted else left
            left -= room
            while room:
                data = self._read(min(room, _STEP))
                room -= len(data)
                piece_hash.update(data)
                frame_hash.update(data)
            if wanted:
                self._compare(number, wanted, piece_hash)
        self._compare(number, frame.sha256, frame_hash)
        self._file.seek(frame.offset)
        limited = _Limited(self._file, frame.length)
        yield from self._decompressed(number, frame, cast("IO[bytes]", limited))
        self._file.seek(frame.offset + frame.length)

    def _decompressed(
        self,
        number: int,
        frame: Frame,
        source: "bytes | IO[bytes]",
    ) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        count = 0
        try:
            # to the end of what is there: `zstd -d` of the whole reads that, too
            with decompressor.stream_reader(source, read_across_frames=True) as reader:
                while data := reader.read(_STEP):
                    count += len(data)
                    if count > frame.unpacked:
                        break
                    yield data
        except zstandard.ZstdError as error:
            raise self._odd(number, f"cannot be decompressed: {error}") from None
        if count != frame.unpacked:
            more = "more than " if count > frame.unpacked else ""
            raise self._odd(
                number,
                f"unpacks to {more}{min(count, frame.unpacked)} bytes, "
                f"announced are {frame.unpacked}",
            )

    def _compare(self, number: int, wanted: str, found: "hashlib._Hash") -> None:
        if found.hexdigest() != wanted:
            frame = self._manifest.frames[number]
            raise fail(
                "payload.hash",
                f"frame {number} of {self._manifest.archive_name} (bytes {frame.offset} to "
                f"{frame.offset + frame.length - 1}) is not the one of the manifest",
                where=self._manifest.archive_name,
                hint="copy the archive again; archive and manifest must be of the same packing",
            )

    def _odd(self, number: int, what: str) -> InstallError:
        return self._damaged(f"frame {number} {what}")

    def _damaged(self, what: str) -> InstallError:
        return fail(
            "payload.format",
            f"the archive is not what its manifest says: {what}",
            where=self._manifest.archive_name,
            hint="pack it again with netinstall payload pack",
        )


class _Limited:
    """The next so many bytes of a file."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._left = count

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def _fits(member: Member, frame: Frame) -> bool:
    match member.kind:
        case "directory":
            return frame.kind in ("folders", "attributes")
        case "hard link":
            return frame.kind == "links"
        case "symbolic link":
            return frame.kind in ("files", "attributes")
        case _:
            return frame.kind == "files"
