"""Archives that want to harm: a corpus by hand, and a hundred thousand that chance wrote.

What was forwarded is given to real GNU tar, beside a folder that nothing may touch.
"""

import io
import itertools
import lzma
import os
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
import zstandard
from tars import (
    END,
    GNU,
    POSIX,
    SYSTEM,
    TOPLEVEL,
    file,
    folder,
    hard_link,
    header,
    long_name,
    padded,
    pax,
    record,
    symlink,
)

from installer.act.payload import names
from installer.act.payload.archive import Stream
from installer.act.payload.names import FullError, Names
from installer.act.payload.tar import TAR
from installer.act.payload.vetting import vet
from installer.model.errors import InstallError, Problem
from installer.model.units import GIB, MIB

Blocks = Callable[[], Iterator[bytes]]


def vetted(data: bytes, capacity: Mapping[str, int] | None = None) -> tuple[bytes, Problem | None]:
    """What of an archive would reach tar, and why no more of it."""
    source, sent = io.BytesIO(data), io.BytesIO()
    stream = Stream(lambda: source.read(4096), sent.write)
    try:
        vet(stream, capacity or {"/": GIB}, None, count_on=False)
    except InstallError as error:
        # what was approved before, as the pipeline passes it on
        stream.flush()
        return sent.getvalue(), error.problems[0]
    return sent.getvalue(), None


def sized(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    return header(name, size_field=b"\x80" + size.to_bytes(11, "big"), kind=kind, magic=GNU)


SPARSE = pax(
    record(b"GNU.sparse.major", b"1"),
    record(b"GNU.sparse.minor", b"0"),
    record(b"GNU.sparse.name", b"sparse"),
    record(b"GNU.sparse.realsize", b"%d" % 2**62),
) + file(b"GNUSparseFile.0/sparse", b"1\n0\n%d\n" % 2**62)

CORPUS = {
    "setuid": (
        header(b"usr/bin/su", mode=0o4755),
        "payload.hostile",
        (
            "the archive's member usr/bin/su is a file with set-user-ID or set-group-ID "
            "(mode 4755); a NixOS makes those at boot, in /run/wrappers, and has none on its disk"
        ),
    ),
    "setgid in the store": (
        header(TOPLEVEL[1:].encode() + b"/write", mode=0o2555),
        "payload.hostile",
        (
            f"the archive's member {TOPLEVEL[1:]}/write is a file with set-user-ID or set-group-ID "
            "(mode 2555); a NixOS makes those at boot, in /run/wrappers, and has none on its disk"
        ),
    ),
    "mode in base 256": (
        header(b"a", mode=0)[:100] + b"\x80\0\0\0\0\0\x09\xed" + header(b"a")[108:],
        "payload.format",
        "the archive is damaged or not understood: a header has a wrong checksum",
    ),
    "an exabyte": (
        sized(b"huge", 2**60),
        "payload.too-large",
        (
            "the unpacked payload needs 1048576 TiB on /, which takes 1.00 GiB: "
            "at least 1048576 TiB too much"
        ),
    ),
    "more than 64 bits": (
        sized(b"huge", 2**80),
        "payload.too-large",
        (
            "the unpacked payload needs 1099511627776 TiB on /, which takes 1.00 GiB: at least "
            "1099511627776 TiB too much"
        ),
    ),
    "an exabyte, in an extended header": (
        pax(record(b"size", b"%d" % 2**60)) + header(b"huge"),
        "payload.too-large",
        (
            "the unpacked payload needs 1048576 TiB on /, which takes 1.00 GiB: "
            "at least 1048576 TiB too much"
        ),
    ),
    "an exabyte as a long name": (
        sized(b"././@LongLink", 2**60, b"L"),
        "payload.format",
        (
            "the archive is damaged or not understood: an extended header of 1048576 TiB (at most "
            "1.00 MiB)"
        ),
    ),
    "comments without end": (
        pax(record(b"comment", b"x"), kind=b"g") * 101,
        "payload.format",
        "the archive is damaged or not understood: more than 100 comments and no member",
    ),
    "zeros without end": (
        END + bytes(65 * MIB),
        "payload.format",
        "more than 64.0 MiB of zeros follow the end of the archive",
    ),
    "systems without end": (
        b"".join(folder(f"nix/store/{n:032d}-nixos-system-x".encode()) for n in range(10_000)),
        "payload.not-nixos",
        "the payload is no NixOS system: it holds more than 10000 paths that look like a system",
    ),
    "through a long link": (
        long_name(b"../" * 40, b"K")
        + header(b"up", kind=b"2", magic=GNU)
        + long_name(b"up/" + b"x" * 150)
        + header(b"x", magic=GNU),
        "payload.hostile",
        f"the archive's member up/{'x' * 150} leads through up, a symbolic link of the archive",
    ),
    "hard link to a link, then through it": (
        symlink(b"a", b"..") + hard_link(b"b", b"a") + hard_link(b"c", b"b/outside/kept"),
        "payload.hostile",
        "the archive's member c leads through b, a symbolic link of the archive",
    ),
}


@pytest.mark.parametrize("case", CORPUS)
def test_the_corpus_is_refused(case: str) -> None:
    data, code, what = CORPUS[case]
    sent, problem = vetted(SYSTEM + data + END)
    assert problem is not None
    assert (problem.code, problem.what) == (code, what)
    assert problem.hint
    assert (SYSTEM + data + END).startswith(sent)
    # the refused member is not among it
    assert len(SYSTEM) <= len(sent) <= len(SYSTEM + data) - 512 + len(END) * data.startswith(END)


def test_files_and_folders_may_come_twice() -> None:
    twice = file(b"a/f", b"1") + file(b"a/f", b"22") + folder(b"a") + folder(b"a")
    assert vetted(SYSTEM + twice + END)[1] is None


@pytest.mark.root
def test_a_sparse_file_takes_no_more_than_is_stored(tmp_path: Path) -> None:
    # what it claims to be is GNU tar's to judge: it is a hole, or an error
    sent, _ = vetted(SYSTEM + SPARSE + END)
    (tmp_path / "target").mkdir()
    done = _tar(tmp_path / "target", sent)
    used = subprocess.run(
        ["du", "-s", "--block-size=1", tmp_path / "target"], capture_output=True, check=True
    )
    assert int(used.stdout.split()[0]) < MIB
    assert done.returncode in (0, 2)


def test_names_are_kept_exactly_and_no_more_of_them_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Names(("one", "two"))
    for number in range(20_000):
        kept.put(b"%d" % number, ("one", "two")[number % 2])
    kept.put(b"7", "one")
    assert [kept.get(b"%d" % number) for number in range(20_001)] == [
        "one" if number == 7 else ("one", "two")[number % 2] for number in range(20_000)
    ] + [None]
    monkeypatch.setattr(names, "LIMIT", 20_001)
    kept.put(b"last", "one")
    kept.put(b"last", "two")
    with pytest.raises(FullError):
        kept.put(b"more", "one")


def _zeros(compress: "Callable[[], Compressor]", size: int) -> bytes:
    made = compress()
    zeros = bytes(16 * MIB)
    parts = [made.compress(SYSTEM + sized(b"zeros", size))]
    parts += [made.compress(zeros) for _ in range(size // len(zeros))]
    return b"".join([*parts, made.compress(END), made.flush()])


class Compressor(Protocol):
    """What gzip, lzma and zstandard have in common."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


BOMBS: Mapping[str, Callable[[], Compressor]] = {
    "gzip": lambda: zlib.compressobj(1, zlib.DEFLATED, 31),
    "xz": lambda: lzma.LZMACompressor(preset=0),
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
}

PROGRAM = """
import sys
import zlib
from pathlib import Path
from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.payload_steps import CheckPayload, UnpackPayload
source, target = sys.argv[1:]
narrator = Narrator(lambda event: None)
for work in (
    lambda: payload.check(CheckPayload(source, None, {"/": 64 << 20}, None, 1), narrator),
    lambda: payload.unpack(
        UnpackPayload(source, None, {"/": 64 << 20}, None, 1),
        Path(target), Runner(), narrator, None),
):
    try:
        work()
        print("done")
    except InstallError as error:
        print(error.problems[0].code, error.problems[0].what)
print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
"""


def _in_a_process(source: Path, target: Path) -> tuple[list[str], int]:
    """Check and unpack; return what was said, and the peak of memory in bytes."""
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, source, target],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    *said, peak = done.stdout.splitlines()
    return said, int(peak) * 1024


@pytest.mark.root
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_small_in_memory_and_on_the_disk(tmp_path: Path, name: str) -> None:
    path = tmp_path / "system.tar"
    path.write_bytes(_zeros(BOMBS[name], MIB * 512))
    assert path.stat().st_size < 3 * MIB
    said, peak = _in_a_process(path, tmp_path / "target")
    what = (
        "payload.too-large the unpacked payload needs 512 MiB on /, which takes 64.0 MiB: "
        "at least 448 MiB too much"
    )
    assert said == [what, what]
    assert peak < 64 * MIB
    assert not (tmp_path / "target/zeros").exists()


def test_a_million_names_take_sixteen_bytes_each() -> None:
    program = (
        "from pathlib import Path\n"
        "from installer.act.payload.names import Names\n"
        "def peak():\n"
        "    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "before, kept = peak(), Names(('one',))\n"
        "for number in range(1_000_000):\n"
        "    kept.put(b'%d' % number, 'one')\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    # while it grows, the table of half the size is there, too
    assert int(done.stdout) * 1024 < 30 * MIB


# Chance. Each archive begins with a system and goes on with members of odd parts, some of them
# damaged; one in two damaged headers gets its checksum back, so that what is in it counts.


class _Chance:
    def __init__(self, seed: int, outside: bytes) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._outside = outside
        self._parts = (b"a", b"b", b"l", b"..", b".", b"", b"new\nline", b"\xff", b"etc", b"x" * 99)

    def name(self) -> bytes:
        pick = self._random
        if pick.random() < 0.05:
            return pick.choice(
                (
                    b"",
                    b"/",
                    b"..",
                    b"./../" * 30,
                    b"../outside/kept",
                    self._outside + b"/kept",
                    self._outside + b"/new",
                    b"y" * 300,
                    b"z/" * 2100,
                    b"a\0b",
                )
            )
        # mostly few and plain, so that links are met again
        weights = (30, 30, 30, 2, 4, 2, 3, 3, 8, 2)
        count = pick.choice((1, 1, 1, 2, 2, 3))
        name = b"/".join(pick.choices(self._parts, weights, k=count))
        return name + b"/" * (pick.random() < 0.05)

    def target(self) -> bytes:
        pick = self._random
        return pick.choice(
            (self.name(), b"..", b"../outside", self._outside, b"../outside/kept", b"a", b"l", b".")
        )

    def member(self) -> bytes:
        pick = self._random
        kind = pick.choices(
            (b"0", b"\0", b"1", b"2", b"5", b"S", b"3", b"4", b"6", b"7", b"V", b"x", b"g"),
            (30, 2, 16, 20, 16, 2, 1, 1, 1, 1, 1, 1, 1),
        )[0]
        name, before = self.name(), b""
        target = self.target() if kind in (b"1", b"2") else b""
        magic = pick.choice((POSIX, POSIX, GNU))
        data = pick.randbytes(pick.choice((0, 0, 1, 511, 512, 513))) if kind in b"0\0" else b""
        prefix = b""
        form = pick.random()
        if form < 0.08 or len(name) > 100 or b"\0" in name:
            name, before = b"short", pax(record(b"path", name), *self._records())
        elif form < 0.16:
            name, before = b"short", long_name(name)
        elif form < 0.2:
            prefix = self.name()[:155]
        elif form < 0.24:
            before = pax(*self._records(), kind=pick.choice((b"x", b"g")))
        if len(target) > 100 or (target and pick.random() < 0.1):
            before += pick.choice((pax(record(b"linkpath", target)), long_name(target, b"K")))
            target = self.name()[:100]
        size = len(data) if pick.random() < 0.93 else pick.choice((1, 10**6, 2**33, 2**60, 2**70))
        field = b"\x80" + size.to_bytes(11, "big") if size > 8**11 - 1 else b"%011o\0" % size
        mode = pick.choice((0o755, 0o755, 0o755, 0o4755, 0o2755, 0o1777, 0))
        block = header(
            name[:100], 0, kind, target, magic=magic, prefix=prefix, size_field=field, mode=mode
        )
        return before + self._damaged(block) + padded(data)

    def _records(self) -> list[bytes]:
        pick = self._random
        keys = (b"path", b"linkpath", b"size", b"GNU.sparse.name", b"SCHILY.xattr.user.x", b"mode")
        return [
            record(pick.choice(keys), pick.choice((self.name(), b"7", b"-1", b"99999999999999999")))
            for _ in range(pick.choice((0, 0, 1, 2)))
        ]

    def _damaged(self, block: bytes) -> bytes:
        pick = self._random
        if pick.random() < 0.8:
            return block
        wrong = bytearray(block)
        for _ in range(pick.choice((1, 1, 2, 8))):
            wrong[pick.randrange(512)] = pick.choice((0, 32, 47, 46, 48, 55, 128, 255))
        if pick.random() < 0.7:
            wrong[148:156] = b" " * 8
            wrong[148:156] = b"%06o\0 " % sum(wrong)
        return bytes(wrong)


def _tar(target: Path, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    # without GNU tar's own defences, so that only ours are tried
    argv = [*TAR, "--absolute-names", f"--directory={target}"]
    return subprocess.run(argv, input=data, capture_output=True, check=False, timeout=60)


def _state(place: Path) -> dict[str, tuple[int, int, int, int]]:
    """What is in a folder, whether somebody was there, and last the bytes that it takes."""
    found = {}
    # not Path.rglob: it stumbles over links to names that are too long
    for top, folders, files in os.walk(place):
        for name in [".", *folders, *files]:
            status = os.lstat(f"{top}/{name}")
            blocks = status.st_blocks * 512
            found[f"{top}/{name}"] = (status.st_mode, status.st_nlink, status.st_ctime_ns, blocks)
    return found


def _by_chance(tmp_path: Path, count: int, seed: int) -> dict[str, int]:
    """Let `count` generated headers through vetting, and what passes through tar."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    before = _state(outside)
    chance = _Chance(seed, os.fsencode(outside))
    told: dict[str, int] = {}
    made = 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in itertools.count():
        if made >= count:
            break
        members = [chance.member() for _ in range((2, 5, 10)[number % 3])]
        made += len(members)
        sent, problem = vetted(SYSTEM + b"".join(members) + END, {"/": 64 * MIB})
        code = problem.code if problem is not None else "accepted"
        told[code] = told.get(code, 0) + 1
        assert problem is None or (problem.hint and problem.where)
        if len(sent) <= len(SYSTEM):
            continue
        # `../outside` is beside it
        target = tmp_path / f"{number}"
        target.mkdir()
        done = _tar(target, sent if problem is None else sent + END)
        assert done.returncode in (0, 2), done.stderr
        assert sum(size for *_, size in _state(target).values()) < MIB
        subprocess.run(["rm", "-rf", target], check=True)
        assert _state(outside) == before, (seed, number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024
    return told


@pytest.mark.root
def test_three_thousand_generated_headers(tmp_path: Path) -> None:
    told = _by_chance(tmp_path, 3000, seed=1)
    # chance finds its way through, and into each refusal
    assert set(told) == {
        "accepted",
        "payload.hostile",
        "payload.format",
        "payload.too-large",
        "payload.truncated",
    }
    assert told["accepted"] > 20


@pytest.mark.root
@pytest.mark.slow
def test_a_hundred_thousand_generated_headers(tmp_path: Path) -> None:
    assert sum(_by_chance(tmp_path, 100_000, seed=int(os.environ.get("SEED", "2"))).values()) > 1000
