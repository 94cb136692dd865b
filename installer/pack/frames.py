"""zstd frames, compressed on all cores and written in order: the same bytes on any number."""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self

import zstandard

from installer.model.errors import fail
from installer.model.manifest import FRAMES_LIMIT, PIECE, Frame, Kind
from installer.model.units import MIB

FRAME = 16 * MIB
"""Unpacked bytes of a frame; a member that is larger has a frame of its own."""

_STEP = MIB


class Frames:
    """Makes frames of unpacked bytes and appends them to a file.

    Memory: two frames for each core, and one member of at most `FRAME`.
    """

    def __init__(self, out: BinaryIO, *, level: int, cores: int | None = None) -> None:
        """Write to `out`; `level` is zstd's, 1 to 19."""
        self._out = out
        self._level = level
        self._cores = cores or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._cores, "compress")
        self._waiting: deque[tuple[Kind, int, int, Future[tuple[bytes, str]]]] = deque()
        self._whole = hashlib.sha256()
        self.frames: list[Frame] = []
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def sha256(self) -> str:
        """Of everything that was written."""
        return self._whole.hexdigest()

    def add(self, kind: Kind, data: bytearray, entries: int) -> None:
        """Make a frame of these bytes, which nobody may change any more."""
        self._waiting.append((kind, len(data), entries, self._pool.submit(self._compress, data)))
        while len(self._waiting) > self._cores:
            self._write_next()

    def open_large(self, kind: Kind, unpacked: int) -> "Large":
        """Begin a frame of one member, of which so many bytes will come."""
        self.finish()
        return Large(self, kind, unpacked, level=self._level, cores=self._cores)

    def finish(self) -> None:
        """Write what is still being compressed."""
        while self._waiting:
            self._write_next()

    def write(self, data: bytes) -> None:
        """Append compressed bytes."""
        self._out.write(data)
        self._whole.update(data)
        self.size += len(data)

    def describe(self, frame: Frame) -> None:
        """Note a frame that was written."""
        if len(self.frames) == FRAMES_LIMIT:
            raise fail(
                "payload.source",
                f"it would take more than {FRAMES_LIMIT} frames",
                where="netinstall payload pack",
                hint="make the payload smaller: 128 GiB of small files are possible",
            )
        self.frames.append(frame)

    def _compress(self, data: bytearray) -> tuple[bytes, str]:
        made = zstandard.ZstdCompressor(level=self._level, write_checksum=True).compress(data)
        return made, hashlib.sha256(made).hexdigest()

    def _write_next(self) -> None:
        kind, unpacked, entries, future = self._waiting.popleft()
        data, digest = future.result()
        offset = self.size
        self.write(data)
        pieces = [
            hashlib.sha256(data[start : start + PIECE]).hexdigest()
            for start in range(0, len(data) if len(data) > PIECE else 0, PIECE)
        ]
        self.describe(
            Frame.model_construct(
                kind=kind,
                offset=offset,
                length=len(data),
                unpacked=unpacked,
                entries=entries,
                sha256=digest,
                pieces=pieces or None,
            )
        )


class Large:
    """A frame that is compressed while its bytes come, by all cores."""

    def __init__(self, frames: Frames, kind: Kind, unpacked: int, *, level: int, cores: int):
        parameters = zstandard.ZstdCompressionParameters.from_level(
            # with threads the bytes are the same for any number of them from one on (zstd.h:
            # ZSTD_c_nbWorkers), without they are others
            level,
            threads=max(1, cores),
            write_checksum=True,
            write_content_size=True,
        )
        self._frames = frames
        self._kind: Kind = kind
        self._unpacked = unpacked
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(
            size=unpacked
        )
        self._offset = frames.size
        self._waiting = bytearray()
        self._whole = hashlib.sha256()
        self._piece = hashlib.sha256()
        self._in_piece = 0
        self._pieces: list[str] = []

    def write(self, data: "memoryview | bytes | bytearray") -> None:
        """Take more of the member."""
        self._waiting += data
        while len(self._waiting) >= _STEP:
            # in steps of one size: what zstd makes may depend on them
            step = bytes(self._waiting[:_STEP])
            del self._waiting[:_STEP]
            self._take(self._compressor.compress(step))

    def close(self) -> None:
        """End the frame."""
        self._take(self._compressor.compress(bytes(self._waiting)))
        self._take(self._compressor.flush())
        if self._pieces and self._in_piece:
            self._pieces.append(self._piece.hexdigest())
        self._frames.describe(
            Frame.model_construct(
                kind=self._kind,
                offset=self._offset,
                length=self._frames.size - self._offset,
                unpacked=self._unpacked,
                entries=1,
                sha256=self._whole.hexdigest(),
                pieces=self._pieces if self._frames.size - self._offset > PIECE else None,
            )
        )

    def _take(self, data: bytes) -> None:
        self._frames.write(data)
        self._whole.update(data)
        rest = memoryview(data)
        while rest:
            part = rest[: PIECE - self._in_piece]
            self._piece.update(part)
            self._in_piece += len(part)
            rest = rest[len(part) :]
            if self._in_piece == PIECE:
                self._pieces.append(self._piece.hexdigest())
                self._piece, self._in_piece = hashlib.sha256(), 0


Progress = Callable[[int, int | None], None]
"""Is told how many bytes of how many are done."""
