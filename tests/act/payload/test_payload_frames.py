"""Packed payloads over bad networks: everything is detected, nothing wrong reaches the disk."""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from framing import FOLDERS, Payload, many, noise, payload, plain_frames, system_files
from tars import TOPLEVEL, file, folder, hard_link, header, pax, record, symlink

from installer.act.narrator import Narrator
from installer.act.payload.frames import unpack_frames
from installer.act.payload.mirrors import open_mirror
from installer.act.payload.source import Patience
from installer.act.payload.vetting import Contents
from installer.act.run import Runner
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, Message, StepProgress
from installer.model.units import MIB

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COPY = "copy archive and manifest of one packing to the server again"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert psutil.Process().children() == []
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _ours():
        next(iter(_ours())).join(1)
    assert _ours() == []


def _ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name in ("payload", "stalled")]


@dataclass
class Server:
    """A real server process; `requests` has what was asked of it after its end."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(each["sent"] for each in self.requests)


@contextmanager
def faulty(made: Payload, folder_: Path, faults: Sequence[Any] = ()) -> Iterator[Server]:
    """Serve a payload, and fail as told; see faulty.py."""
    folder_.mkdir(exist_ok=True)
    (folder_ / "demo.json").write_bytes(made.text)
    (folder_ / "demo.tar.zst").write_bytes(made.archive)
    argv = [sys.executable, str(HERE / "faulty.py"), str(folder_), json.dumps(list(faults))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        server = Server(f"http://127.0.0.1:{port}/demo.tar.zst")
        lines: list[str] = []
        reader = threading.Thread(target=lambda out=process.stdout: lines.extend(out))
        reader.start()
        try:
            yield server
        finally:
            process.terminate()
            reader.join(10)
            server.requests = [json.loads(line) for line in lines]


def unpack(
    made: Payload,
    places: Sequence[str],
    target: Path,
    events: list[AnyEvent] | None = None,
    *,
    stall: float = 20.0,
    retry: float = 10.0,
    connections: int = 4,
    capacity: int = 1024 * MIB,
    **more: Any,
) -> Contents:
    target.mkdir(exist_ok=True)
    narrator = Narrator((events if events is not None else []).append)
    patience = Patience(timeouts=(2.0, stall), first_delay=0.01, longest_delay=0.1)
    return unpack_frames(
        made.manifest,
        [open_mirror(place, len(made.archive), (2.0, stall)) for place in places],
        target,
        capacity={"/": capacity},
        toplevel=None,
        connections=connections,
        stall_seconds=stall,
        retry_seconds=retry,
        narrator=narrator,
        runner=Runner(on_line=narrator.output),
        patience=patience,
        workers=2,
        **more,
    )


def refused(made: Payload, places: Sequence[str], target: Path, **more: Any) -> tuple[Problem, ...]:
    with pytest.raises(InstallError) as caught:
        unpack(made, places, target, **more)
    nothing_wrong(made, target)
    return caught.value.problems


def nothing_wrong(made: Payload, target: Path) -> None:
    """Whatever is on the disk is what was packed, or has not come to its end."""
    for place, _, names in os.walk(target):
        for name in names:
            path = Path(place, name)
            key = os.fsencode(path.relative_to(target))
            if path.is_symlink() or key not in made.files:
                continue
            data = path.read_bytes()
            assert made.files[key].startswith(data), key


def whole(made: Payload, target: Path) -> None:
    """Everything is there, and nothing else."""
    found = {
        os.fsencode(Path(place, name).relative_to(target))
        for place, _, names in os.walk(target)
        for name in names
    }
    assert found == {*made.files, b"data/link", b"data/hard", b"data/hard-link"}
    for name, data in made.files.items():
        assert (target / os.fsdecode(name)).read_bytes() == data
    assert (target / "data/link").readlink() == Path("/nix/store/somewhere")
    assert (target / "data/hard").stat().st_nlink == 2
    assert (target / "data/hard-link").is_symlink()
    assert (target / "data").stat().st_mode & 0o7777 == 0o755
    assert (target / "data").stat().st_mtime == 1


def said(events: Sequence[AnyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message)]


@pytest.fixture(scope="module")
def small() -> Payload:
    return many(60)


@pytest.fixture(scope="module")
def large() -> Payload:
    return many(300)


def test_a_good_server(small: Payload, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    with faulty(small, tmp_path / "a") as server:
        contents = unpack(small, [server.url], tmp_path / "t", events)
    whole(small, tmp_path / "t")
    assert contents.toplevel == TOPLEVEL
    assert contents.unpacked_size == sum(map(len, small.files.values()))
    # every frame once, over connections that were kept
    assert len(server.requests) == len(small.manifest.frames)
    assert server.sent == len(small.archive)
    assert len({each["connection"] for each in server.requests}) <= 4
    assert said(events) == []
    last = [event for event in events if isinstance(event, StepProgress)][-1]
    assert (last.done, last.total) == (len(small.archive), len(small.archive))
    assert last.bottleneck in ("network", "verify", "decompress", "unpack")


def test_a_path(small: Payload, tmp_path: Path) -> None:
    (tmp_path / "demo.tar.zst").write_bytes(small.archive)
    unpack(small, [str(tmp_path / "demo.tar.zst")], tmp_path / "t")
    whole(small, tmp_path / "t")


def test_200_cuts(large: Payload, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - the same each time
    faults = [{"cut": chance.randrange(20_000)} for _ in range(200)]
    events: list[AnyEvent] = []
    with faulty(large, tmp_path / "a", faults) as server:
        unpack(large, [server.url], tmp_path / "t", events)
    whole(large, tmp_path / "t")
    broken = [text for text in said(events) if "; going on there" in text]
    assert len(broken) == 200
    assert broken[0].startswith(f"{server.url}: the connection was closed after ")
    # less than one frame each; mostly nothing
    longest = max(frame.length for frame in large.manifest.frames)
    assert len(large.archive) <= server.sent < len(large.archive) + 200 * longest


def test_what_came_before_a_cut_is_not_fetched_again(tmp_path: Path) -> None:
    made = payload(plain_frames({**system_files(), b"data/big": noise(1, 4 * MIB)}), {})
    faults: list[Any] = [*[None] * 5, *[{"cut": MIB}] * 4]
    with faulty(made, tmp_path / "a", faults) as server:
        unpack(made, [server.url], tmp_path / "t", connections=1)
    assert server.sent <= len(made.archive) + 4 * 256 * 1024
    assert (tmp_path / "t/data/big").read_bytes() == noise(1, 4 * MIB)


def test_50_truncations(large: Payload, tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311 - the same each time
    faults = [{"short": chance.randrange(1, 20)} for _ in range(50)]
    with faulty(large, tmp_path / "a", faults) as server:
        unpack(large, [server.url], tmp_path / "t")
    whole(large, tmp_path / "t")
    assert server.sent == len(large.archive)


def test_1000_corrupted_bytes(tmp_path: Path) -> None:
    made = many(500, 2_000)
    chance = random.Random(3)  # noqa: S311 - the same each time
    # each frame twice: a third time would be too often for the only server
    faults: list[Any] = []
    for _ in range(500):
        faults += [{"flip": chance.randrange(2_000)}, {"flip": chance.randrange(2_000)}, None]
    events: list[AnyEvent] = []
    with faulty(made, tmp_path / "a", faults) as server:
        unpack(made, [server.url], tmp_path / "t", events, connections=1)
    whole(made, tmp_path / "t")
    assert len([text for text in said(events) if text.endswith("; it is fetched again")]) == 1000


def test_50_stalls(large: Payload, tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - the same each time
    faults = [{"stall": chance.randrange(20_000)} for _ in range(50)]
    begun = time.monotonic()
    with faulty(large, tmp_path / "a", faults) as server:
        unpack(large, [server.url], tmp_path / "t", stall=0.3)
    whole(large, tmp_path / "t")
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("fault", [{"drip": 0.02}, {"header-drip": 0.05}], ids=["body", "header"])
def test_a_server_that_sends_byte_by_byte_is_replaced(
    small: Payload, tmp_path: Path, fault: dict[str, float]
) -> None:
    events: list[AnyEvent] = []
    with (
        faulty(small, tmp_path / "a", [{"always": fault}]) as slow,
        faulty(small, tmp_path / "b") as good,
    ):
        unpack(small, [slow.url, good.url], tmp_path / "t", events, stall=0.5)
    whole(small, tmp_path / "t")
    assert any(
        text == f"{slow.url}: nothing came for 0.5 s; the connection is replaced"
        for text in said(events)
    ), said(events)


def test_a_mirror_that_serves_a_wrong_frame_is_dropped_and_named(
    small: Payload, tmp_path: Path
) -> None:
    events: list[AnyEvent] = []
    faults = [None, None, None, {"flip": 77}]
    with faulty(small, tmp_path / "a", faults) as wrong, faulty(small, tmp_path / "b") as good:
        unpack(small, [wrong.url, good.url], tmp_path / "t", events, connections=1)
    whole(small, tmp_path / "t")
    frame = small.manifest.frames[3]
    assert said(events) == [
        (
            f"{wrong.url} is not used any more: frame 3 (bytes {frame.offset} to "
            f"{frame.offset + frame.length - 1}) is not the one of the manifest"
        )
    ]
    assert len(wrong.requests) == 4


def test_a_part_of_several_places_is_nobodys_fault_yet(small: Payload, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    faults = [None, {"cut": 100}, {"always": {"status": 403}}]
    with (
        faulty(small, tmp_path / "a", faults) as first,
        faulty(small, tmp_path / "b", [{"flip": 5}]) as second,
    ):
        unpack(small, [first.url, second.url], tmp_path / "t", events, connections=1)
    whole(small, tmp_path / "t")
    assert any("it came from several places" in text for text in said(events)), said(events)
    assert [text for text in said(events) if "is not used any more" in text] == [
        f"{first.url} is not used any more: the server answered 403"
    ]


def test_all_mirrors_are_wrong(small: Payload, tmp_path: Path) -> None:
    always = [{"always": {"flip": 5}}]
    with faulty(small, tmp_path / "a", always) as one, faulty(small, tmp_path / "b", always) as two:
        problems = refused(small, [one.url, two.url], tmp_path / "t", connections=1)
    end = small.manifest.frames[0].length - 1
    assert problems == tuple(
        Problem(
            "payload.hash",
            f"{server.url}: frame 0 (bytes 0 to {end}) is not the one of the manifest",
            "payload.manifest",
            COPY,
        )
        for server in (one, two)
    )
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"shift": 1}, "it answered with a range that nobody asked for"),
        ({"status": 403}, "the server answered 403"),
        ({"status": 404}, "the server answered 404"),
        ({"status": 416}, "it is shorter than the manifest says"),
        ({"redirect": "/demo.tar.zst"}, "the server redirects in circles"),
    ],
    ids=str,
)
def test_a_mirror_that_cannot_serve_is_dropped(
    small: Payload, tmp_path: Path, fault: dict[str, Any], why: str
) -> None:
    events: list[AnyEvent] = []
    with (
        faulty(small, tmp_path / "a", [{"always": fault}]) as wrong,
        faulty(small, tmp_path / "b") as good,
    ):
        unpack(small, [wrong.url, good.url], tmp_path / "t", events)
    whole(small, tmp_path / "t")
    assert f"{wrong.url} is not used any more: {why}" in said(events)


def test_another_file_is_noticed_by_its_length(small: Payload, tmp_path: Path) -> None:
    other = many(10)
    with faulty(other, tmp_path / "a") as server:
        (problem,) = refused(small, [server.url], tmp_path / "t")
    assert problem == Problem(
        "payload.hash",
        f"{server.url}: it has {len(other.archive)} bytes, and the manifest says "
        f"{len(small.archive)}",
        "payload.manifest",
        COPY,
    )
    (path := tmp_path / "other.tar.zst").write_bytes(other.archive)
    (problem,) = refused(small, [str(path)], tmp_path / "t")
    assert problem.what == (
        f"{path}: it has {len(other.archive)} bytes, and the manifest says {len(small.archive)}"
    )


def test_redirects_are_followed(small: Payload, tmp_path: Path) -> None:
    with (
        faulty(small, tmp_path / "b") as good,
        faulty(small, tmp_path / "a", [{"always": {"redirect": good.url}}]) as server,
    ):
        unpack(small, [server.url], tmp_path / "t")
    whole(small, tmp_path / "t")
    assert good.sent == len(small.archive)


def test_a_server_without_ranges_is_read_in_order(small: Payload, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    faults = [{"whole": 1}] * 4 + [{"whole": 1, "cut": 300_000}, {"always": {"whole": 1}}]
    with faulty(small, tmp_path / "a", faults) as server:
        unpack(small, [server.url], tmp_path / "t", events)
    whole(small, tmp_path / "t")
    assert said(events)[0] == (
        f"{server.url} does not serve parts of files: everything comes over one connection, in "
        "order"
    )
    # those that found out, one that broke, and one for all the rest
    assert len(server.requests) <= 6


def test_whoever_reads_in_order_waits_for_what_the_others_bring_back(
    small: Payload, tmp_path: Path
) -> None:
    # the first part's connection is the last to find out
    faults = [{"whole": 1, "header-drip": 0.005}, {"always": {"whole": 1}}]
    with faulty(small, tmp_path / "a", faults) as server:
        unpack(small, [server.url], tmp_path / "t")
    whole(small, tmp_path / "t")
    assert [each["range"] is None for each in server.requests].count(True) == 1


def test_a_server_without_ranges_is_the_last_resort(small: Payload, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    with (
        faulty(small, tmp_path / "a", [{"always": {"whole": 1}}]) as server,
        faulty(small, tmp_path / "b") as good,
    ):
        unpack(small, [server.url, good.url], tmp_path / "t", events)
    whole(small, tmp_path / "t")
    assert said(events) == [
        f"{server.url} does not serve parts of files: the other places are used"
    ]
    assert good.sent == len(small.archive)


def test_a_server_without_ranges_goes_on_where_another_died(tmp_path: Path) -> None:
    # memory is full of what other workers will want when the order of the file begins to count
    files = {**system_files(), b"data/big": noise(1, 60 * MIB)}
    files |= {b"data/%05d" % number: noise(number, 5 * MIB) for number in range(8)}
    made = payload(plain_frames(files), files)
    with (
        faulty(made, tmp_path / "a", [*[None] * 8, {"die": 1}]) as first,
        faulty(made, tmp_path / "b", [{"always": {"whole": 1}}]) as second,
    ):
        unpack(made, [first.url, second.url], tmp_path / "t", stall=2.0)
    whole(made, tmp_path / "t")
    # those that found out, and one for all the rest
    assert len(second.requests) <= 5


def test_a_mirror_that_dies(large: Payload, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    faults = [*[None] * 20, {"die": 1}]
    with faulty(large, tmp_path / "a", faults) as first, faulty(large, tmp_path / "b") as second:
        unpack(large, [first.url, second.url], tmp_path / "t", events)
    whole(large, tmp_path / "t")
    (refused,) = {text.rpartition("; ")[2] for text in said(events) if "refused after" in text}
    assert refused == f"going on from {second.url}"
    assert len(first.requests) <= 24
    assert len(second.requests) > 250


def test_what_may_pass_is_waited_for(small: Payload, tmp_path: Path) -> None:
    faults = [{"status": 503}, {"cut": 0}, {"status": 429}, {"cut": 0}]
    with faulty(small, tmp_path / "a", faults) as server:
        unpack(small, [server.url], tmp_path / "t")
    whole(small, tmp_path / "t")


def test_a_server_that_does_not_come_back(small: Payload, tmp_path: Path) -> None:
    faults = [*[None] * 20, {"die": 1}]
    with faulty(small, tmp_path / "a", faults) as server:
        (problem,) = refused(small, [server.url], tmp_path / "t", retry=1.0)
    assert problem.code == "network.lost"
    assert problem.what.startswith(f"{server.url}: ")
    assert problem.what.endswith(f" of {len(small.archive)} bytes, and nothing more came in 1.0 s")
    assert problem.hint == (
        "check the server and the network, then start again; "
        "payload.retry-seconds sets how long to wait for it"
    )
    (problem,) = refused(small, [server.url], tmp_path / "t", retry=0.3)
    assert problem.code == "network.unreachable"
    assert problem.what == (
        f"{server.url}: Connection refused after 0 of {len(small.archive)} bytes, and nothing more "
        "came in 0.3 s"
    )


def test_no_room_is_told(tmp_path: Path) -> None:
    made = many(60)
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    (problem,) = refused(made, [str(path)], tmp_path / "t", capacity=MIB)
    assert problem.code == "payload.too-large"
    # how much depends on which frames came first
    assert re.fullmatch(
        r"the unpacked payload needs 1\.0\d MiB on /, which takes 1\.00 MiB: "
        r"at least \d+\.\d+ KiB too much",
        problem.what,
    )


def test_large_members_come_in_pieces(tmp_path: Path) -> None:
    data = noise(1, 20 * MIB)
    made = payload(plain_frames({**system_files(), b"data/big": data}), {})
    faults = [*[None] * 5, {"flip": 1000}]
    events: list[AnyEvent] = []
    with faulty(made, tmp_path / "a", faults) as server:
        unpack(made, [server.url], tmp_path / "t", events, connections=1)
    assert (tmp_path / "t/data/big").read_bytes() == data
    # one piece of 8 MiB again, not the frame
    assert server.sent == len(made.archive) + 8 * MIB


# ---- what an archive that nobody signed may try ----


def _hostile(
    more: Sequence[tuple[str, Sequence[bytes]]], tmp_path: Path, attributes: Sequence[bytes] = ()
) -> Problem:
    files = system_files()
    made = payload(
        [
            ("folders", [folder(name) for name in FOLDERS]),
            ("files", [file(name, data) for name, data in files.items()]),
            *more,
            ("attributes", [*(folder(name) for name in reversed(FOLDERS)), *attributes]),
        ],
        files,
    )
    (tmp_path / "demo.tar.zst").write_bytes(made.archive)
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    (problem, *others) = refused(made, [str(tmp_path / "demo.tar.zst")], tmp_path / "t")
    assert others == []
    assert list(outside.iterdir()) == []
    return problem


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (
            # two workers have one frame each: whichever is looked at first, the other is refused
            [("files", [symlink(b"data/x", b"../../outside")]), ("files", [file(b"data/x/y")])],
            "payload.",
            "",
        ),
        (
            [("files", [file(b"data/x/y")]), ("files", [symlink(b"data/x", b"../../outside")])],
            "payload.",
            "",
        ),
        (
            [("files", [symlink(b"data/x", b"/")]), ("files", [file(b"data/x")])],
            "payload.format",
            "data/x a second time",
        ),
        (
            [("files", [file(b"data/x", b"1")]), ("files", [file(b"./data//x", b"2")])],
            "payload.format",
            "holds data/x a second time",
        ),
        (
            [("files", [file(b"new/x")])],
            "payload.format",
            "in a folder that no frame of folders made",
        ),
        (
            [("links", [hard_link(b"data/h", b"data/later")])],
            "payload.hostile",
            "which is no earlier file of the archive",
        ),
        (
            [
                ("links", [hard_link(b"data/h", b"nix-path-registration")]),
                ("links", [hard_link(b"data/i", b"data/h")]),
            ],
            "payload.",
            "",
        ),
        (
            [("links", [hard_link(b"data/h", b"../outside")])],
            "payload.hostile",
            "leads through ..",
        ),
        ([("files", [folder(b"data/d")])], "payload.format", "holds data/d, a directory"),
        ([("folders", [file(b"data/f")])], "", ""),
        ([("files", [header(b"data/n", kind=b"3")])], "payload.hostile", "a character device"),
        ([("files", [file(b"/etc/passwd")])], "payload.hostile", "absolute path"),
    ],
    ids=range(12),
)
def test_frames_cannot_do_together_what_one_cannot(
    more: Sequence[tuple[str, Sequence[bytes]]], code: str, what: str, tmp_path: Path
) -> None:
    if more[0][0] == "folders":
        with pytest.raises(InstallError, match="comes after one of files"):
            _hostile(more, tmp_path)
        return
    problem = _hostile(more, tmp_path)
    assert problem.code.startswith(code)
    assert what in problem.what


@pytest.mark.parametrize(
    "frame",
    [
        ("files", [header(b"data/f", owner=b"0001750\0" + b"0000000\0")]),
        ("files", [header(b"data/f", owner=b"0000000\0" + b"0000144\0")]),
        # GNU tar's base 256
        ("files", [header(b"data/f", owner=b"0000000\0" + b"\x80\0\0\0\0\0\0\x05")]),
        ("files", [pax(record(b"uid", b"1000")) + file(b"data/f")]),
        ("files", [pax(record(b"gid", b"01")) + file(b"data/f")]),
        # files in it would have its group
        ("folders", [header(b"data/f", kind=b"5", mode=0o2755)]),
    ],
)
def test_what_is_said_to_be_roots_is_roots(frame: tuple[str, list[bytes]], tmp_path: Path) -> None:
    frames = [
        ("folders", [folder(name) for name in FOLDERS]),
        frame,
        ("files", [file(name, data) for name, data in system_files().items()]),
        ("attributes", [folder(name) for name in reversed(FOLDERS)]),
    ]
    made = payload(frames, archive={"root-owned": True})
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    (problem,) = refused(made, [str(path)], tmp_path / "t")
    assert problem.code == "payload.format"
    assert problem.what == (
        "the archive is not what its manifest says: frame 1 holds data/f, which would not belong "
        "to root and its group"
    )
    # who says nothing may have them
    unpack(payload(frames), [str(path)], tmp_path / "u")
    status = (tmp_path / "u/data/f").stat()
    assert (status.st_uid, status.st_gid) != (0, 0) or status.st_mode & 0o2000


def test_folders_that_were_there_give_nothing_their_group(tmp_path: Path) -> None:
    files = {**system_files(), b"data/new": b"x"}
    made = payload(plain_frames(files), files, archive={"root-owned": True})
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    (tmp_path / "t/data").mkdir(parents=True)
    for kept in (tmp_path / "t", tmp_path / "t/data"):
        os.chown(kept, 0, 50)
        kept.chmod(0o2775)
    unpack(made, [str(path)], tmp_path / "t")
    whole(made, tmp_path / "t")
    assert (tmp_path / "t/data/new").stat().st_gid == 0
    assert (tmp_path / "t/nix-path-registration").stat().st_gid == 0


def test_attributes_that_the_kernel_refuses_are_told(tmp_path: Path) -> None:
    # no capability (capabilities(7)); GNU tar says so and ends with 0
    broken = pax(record(b"SCHILY.xattr.security.capability", b"x"))
    frames = plain_frames(system_files())
    frames.insert(1, ("files", [broken + file(b"data/a"), broken + file(b"data/b")]))
    made = payload(frames)
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    events: list[AnyEvent] = []
    unpack(made, [str(path)], tmp_path / "t", events)
    (warning,) = [e for e in events if isinstance(e, Message) and e.level == "warning"]
    assert warning.text == (
        "extended attributes that could not be set: 2; first: setxattrat: Cannot set "
        "'security.capability' extended attribute for file 'data/a': Invalid argument"
    )


def test_attributes_are_of_folders_that_are_there(tmp_path: Path) -> None:
    problem = _hostile([], tmp_path, [folder(b"other")])
    assert problem == Problem(
        "payload.format",
        "the archive is not what its manifest says: frame 2 holds other, which no frame of folders "
        "made",
        "payload.manifest",
        "pack it again with netinstall payload pack",
    )


@pytest.mark.parametrize(
    ("field_", "change", "what"),
    [
        ("entries", 1, "frame 1 holds 4 members, announced are 5"),
        ("unpacked", -512, "frame 1 "),
        ("unpacked", 512, "frame 1 unpacks to less than was announced"),
    ],
)
def test_a_frame_is_what_the_manifest_says(
    field_: str, change: int, what: str, tmp_path: Path
) -> None:
    made = payload(plain_frames(system_files(), per_frame=4), system_files())
    document = json.loads(made.text)
    document["frames"][1][field_] += change
    document["archive"][field_] += change
    changed = Payload(type(made.manifest).model_validate(document), b"", made.archive, made.files)
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    (problem,) = refused(changed, [str(path)], tmp_path / "t")
    assert problem.code == "payload.format"
    assert what in problem.what


def test_a_bomb_ends_where_it_was_announced_to(tmp_path: Path) -> None:
    files = {**system_files(), b"data/bomb": bytes(64 * MIB)}
    made = payload(plain_frames(files), {})
    document = json.loads(made.text)
    number = 5
    assert document["frames"][number]["length"] < 64 * 1024
    less = document["frames"][number]["unpacked"] - MIB
    document["frames"][number]["unpacked"] -= less
    document["archive"]["unpacked"] -= less
    changed = Payload(type(made.manifest).model_validate(document), b"", made.archive, {})
    (path := tmp_path / "demo.tar.zst").write_bytes(made.archive)
    (problem,) = refused(changed, [str(path)], tmp_path / "t")
    assert "frame 5 ends in the middle of data/bomb" in problem.what
    assert not (tmp_path / "t/data/bomb").exists()


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_payload_is(tmp_path: Path) -> None:
    files = {**system_files(), b"data/big": noise(1, 100 * MIB)}
    files |= {b"data/%05d" % number: noise(number, 6 * MIB) for number in range(30)}
    files |= {b"data/small-%05d" % number: b"" for number in range(20_000)}
    made = payload(plain_frames(files, per_frame=200), {})
    (tmp_path / "demo.json").write_bytes(made.text)
    code = """
import re, sys
from pathlib import Path
from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.payload_steps import UnpackFrames
from installer.observe.manifest import load
step = UnpackFrames(sys.argv[1], (), None, {"/": 2**40}, None, 8, 20, 120)
manifest = load(Path(sys.argv[2]).read_bytes(), "demo.json")
payload.unpack_packed(step, manifest, Path(sys.argv[3]), Runner(), Narrator(lambda event: None))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    (tmp_path / "t").mkdir()
    # not ru_maxrss: a child inherits that of the process which it was started by (getrusage(2))
    with faulty(made, tmp_path / "a") as server:
        url = server.url.replace(".tar.zst", ".json")
        argv = [sys.executable, "-c", code, url, str(tmp_path / "demo.json"), str(tmp_path / "t")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 128 * MIB, done.stdout
    assert (tmp_path / "t/data/big").stat().st_size == 100 * MIB
