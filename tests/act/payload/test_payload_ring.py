"""Memory that is written into a pipe without being copied: nothing may be overwritten unread."""

import io
import os
import random
import select
import threading
from collections.abc import Iterator

import pytest

from installer.act.payload.ring import PIECE, Ring
from installer.act.payload.tar import pipe
from installer.model.units import MIB

Ends = tuple[io.FileIO, io.FileIO]


@pytest.fixture(params=[64 * 1024, 256 * 1024, MIB])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    reader, writer = pipe(request.param)
    os.set_blocking(writer.fileno(), False)
    with reader, writer:
        yield reader, writer


def poured(ends: Ends, data: bytes, seed: int, longest_held: int) -> bytes:
    """Pour data through, as `archive.Stream` does: pieces, and now and then a copy of what had to
    wait. Reads and writes are of any size, and the reader is as slow as it can be."""
    reader, writer = ends
    dice = random.Random(seed)  # noqa: S311 - the same each time
    read: list[bytes] = []
    source = io.BytesIO(data)

    def readinto(free: memoryview) -> int:
        return source.readinto(free[: dice.randint(1, len(free))] if dice.random() < 0.5 else free)

    def give(piece: memoryview) -> None:
        while piece:
            count = ring.write(piece)
            piece = piece[count:]
            if not count:
                # only now: all that is in the pipe is as old as it can be
                read.append(os.read(reader.fileno(), dice.randint(1, 128 * 1024)))

    with Ring(writer) as ring:
        held: list[bytes] = []
        while piece := ring.fill(readinto):
            keep = dice.random() < 0.3 and sum(map(len, held)) < longest_held
            for part in held if not keep else ():
                give(memoryview(part))
            cut = dice.randint(0, len(piece)) if not held or not keep else 0
            if not keep:
                held.clear()
                give(piece[:cut])
                held.append(bytes(piece[cut:]))
            else:
                held.append(bytes(piece))
        for part in held:
            give(memoryview(part))
    writer.close()
    read.append(reader.readall() or b"")
    return b"".join(read)


@pytest.mark.parametrize("longest_held", [0, PIECE, 3 * MIB])
@pytest.mark.parametrize("seed", range(4))
def test_what_comes_out_is_what_was_filled_in(ends: Ends, seed: int, longest_held: int) -> None:
    data = random.Random(seed).randbytes(9 * MIB + seed)  # noqa: S311
    assert poured(ends, data, seed, longest_held) == data


def test_a_full_pipe_takes_nothing(ends: Ends) -> None:
    reader, writer = ends
    with Ring(writer) as ring:
        while True:
            piece = ring.fill(len)
            count = ring.write(piece)
            if count < len(piece):
                break
        assert ring.write(piece[count:]) == 0
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        assert poll.poll(0) == []
        threading.Thread(target=reader.read, args=(PIECE,)).start()
        assert poll.poll(10_000)
        assert ring.write(piece[count:]) > 0


def test_nobody_reads(ends: Ends) -> None:
    reader, writer = ends
    with Ring(writer) as ring:
        piece = ring.fill(len)
        reader.close()
        with pytest.raises(BrokenPipeError):
            ring.write(piece)
        with pytest.raises(BrokenPipeError):
            ring.write(memoryview(b"a copy"))
