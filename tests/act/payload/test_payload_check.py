"""What is refused, by `check` on whole files, each with the words that a person reads."""

import gzip
import hashlib
import lzma
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tars import (
    END,
    HASH,
    SYSTEM,
    TOPLEVEL,
    file,
    folder,
    hard_link,
    header,
    pax,
    record,
    symlink,
    system,
)

from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.payload import Inventory
from installer.act.payload.source import FileSource
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, StepProgress
from installer.model.payload_steps import CheckPayload
from installer.model.units import MIB

GOOD = SYSTEM + END


def check(
    path: Path,
    *,
    sha256: str | None = None,
    capacity: dict[str, int] | None = None,
    toplevel: str | None = None,
    events: list[AnyEvent] | None = None,
) -> Inventory:
    narrator = Narrator((events if events is not None else []).append)
    step = CheckPayload(str(path), sha256, capacity or {"/": 64 * MIB}, toplevel, 1)
    return payload.check(step, narrator)


def refused(path: Path, data: bytes, **rules: object) -> Problem:
    path.write_bytes(data)
    with pytest.raises(InstallError) as error:
        check(path, **rules)  # type: ignore[arg-type]
    return error.value.problems[0]


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    return tmp_path / "system.tar"


def test_a_good_payload_is_counted(tarball: Path) -> None:
    data = SYSTEM + folder(b"nix/store/x") + file(b"nix/store/x/f", b"x" * 5000) + END
    tarball.write_bytes(data)
    events: list[AnyEvent] = []
    found = check(tarball, capacity={"/": MIB, "/nix": MIB}, events=events)
    assert found == Inventory(
        sha256=hashlib.sha256(data).hexdigest(),
        compressed_size=len(data),
        unpacked_size=5000 + len(b"registered\n#!/bin/sh\n26.05"),
        entries=8,
        usage={"/": 4096, "/nix": 4096 * 5 + 8192},
        toplevel=TOPLEVEL,
    )
    assert check(tarball, sha256=found.sha256).sha256 == found.sha256
    last = [event for event in events if isinstance(event, StepProgress)][-1]
    assert (last.done, last.total) == (len(data), len(data))


HOSTILE = {
    "absolute": (
        file(b"/etc/passwd"),
        "the archive's member /etc/passwd has the absolute path /etc/passwd",
    ),
    "absolute in an extended header": (
        pax(record(b"path", b"/etc/passwd")) + file(b"x"),
        "the archive's member /etc/passwd has the absolute path /etc/passwd",
    ),
    "dots": (file(b"a/../../x"), "the archive's member a/../../x leads through .. (a/../../x)"),
    "only dots": (folder(b".."), "the archive's member .. leads through .. (..)"),
    "through a link": (
        symlink(b"etc", b"/etc") + file(b"etc/passwd"),
        "the archive's member etc/passwd leads through etc, a symbolic link of the archive",
    ),
    "through a link, written in another way": (
        symlink(b"./a/etc", b"/etc") + file(b".//a/./etc//sub/passwd"),
        (
            "the archive's member .//a/./etc//sub/passwd leads through a/etc, "
            "a symbolic link of the archive"
        ),
    ),
    "link in place of a folder": (
        file(b"etc/x") + symlink(b"etc", b"/etc") + file(b"etc/x"),
        "the archive's member etc comes a second time: first as directory, now as symbolic link",
    ),
    "file in place of a link": (
        symlink(b"x", b"/etc/passwd") + file(b"x"),
        "the archive's member x comes a second time: first as symbolic link, now as file",
    ),
    "link twice": (
        symlink(b"x", b"/a") + symlink(b"x", b"/b"),
        "the archive's member x comes a second time: first as symbolic link, now as symbolic link",
    ),
    "folder in place of a link": (
        symlink(b"x", b"/etc") + folder(b"x/"),
        "the archive's member x/ comes a second time: first as symbolic link, now as directory",
    ),
    "hard link outside": (
        hard_link(b"x", b"../../etc/passwd"),
        "the archive's member x leads through .. (../../etc/passwd)",
    ),
    "absolute hard link": (
        hard_link(b"x", b"/etc/passwd"),
        "the archive's member x has the absolute path /etc/passwd",
    ),
    "hard link through a link": (
        symlink(b"etc", b"/etc") + hard_link(b"x", b"etc/passwd"),
        "the archive's member x leads through etc, a symbolic link of the archive",
    ),
    "hard link to nothing": (
        hard_link(b"x", b"etc/passwd"),
        (
            "the archive's member x is a hard link to etc/passwd, which is no earlier file "
            "of the archive"
        ),
    ),
    "hard link to a folder": (
        folder(b"etc") + hard_link(b"x", b"etc"),
        "the archive's member x is a hard link to etc, which is no earlier file of the archive",
    ),
    "through a hard link to a link": (
        symlink(b"a", b"/etc") + hard_link(b"b", b"a") + file(b"b/passwd"),
        "the archive's member b/passwd leads through b, a symbolic link of the archive",
    ),
    "root replaced": (
        symlink(b".", b"/etc"),
        "the archive's member . would replace the root of the system",
    ),
    "device": (
        header(b"sda", kind=b"4"),
        "sda is a block device; a system's archive holds files, folders and links",
    ),
    "FIFO": (
        header(b"f", kind=b"6"),
        "f is a FIFO; a system's archive holds files, folders and links",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_archives_that_would_leave_the_target(tarball: Path, case: str) -> None:
    data, text = HOSTILE[case]
    problem = refused(tarball, SYSTEM + data + END)
    assert problem.what == text
    assert problem.code == "payload.hostile"
    assert problem.where.startswith("at byte ")
    assert "archive" in problem.hint


ODD = {
    "file below a file": (
        file(b"a") + file(b"a/b"),
        "the archive's member a/b leads through a, a file of the archive",
    ),
    "folder in place of a file": (
        file(b"a") + folder(b"a"),
        "the archive's member a comes a second time: first as file, now as directory",
    ),
    "long part": (
        pax(record(b"path", b"a" * 256)) + file(b"x"),
        f"the archive's member {'a' * 256} has a part of more than 255 bytes",
    ),
    "long path": (
        pax(record(b"path", b"a/" * 2100 + b"b")) + file(b"x"),
        (
            f"the archive's member {'a/' * 100}…{('a/' * 2100 + 'b')[-60:]} "
            "has a name of 4201 bytes (1 to 4095 are possible)"
        ),
    ),
    "no name": (
        file(b""),
        "the archive's member  has a name of 0 bytes (1 to 4095 are possible)",
    ),
    "slash": (file(b"a/"), "the archive's member a/ is a file with a slash at the end"),
    "link to nothing": (
        symlink(b"l", b""),
        "the archive's member l is a symbolic link to 0 bytes",
    ),
    "control characters are shown as escapes": (
        file(b"a\x1b[2J\xff/"),
        "the archive's member a\\x1b[2J\\\\xff/ is a file with a slash at the end",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_archives_that_contradict_themselves(tarball: Path, case: str) -> None:
    data, text = ODD[case]
    problem = refused(tarball, SYSTEM + data + END)
    assert (problem.code, problem.what) == ("payload.format", text)


def test_links_that_nix_makes_are_welcome(tarball: Path) -> None:
    tarball.write_bytes(
        SYSTEM
        + symlink(b"etc", b"/etc/static")
        + symlink(b"up", b"../../../outside")
        + symlink(b"a", b"b")
        # Nix's store optimiser makes hard links of symbolic links
        + hard_link(b"c", b"a")
        + file(b"f", b"1")
        + file(b"f", b"2")
        + folder(b"./d/")
        + folder(b"d")
        + END
    )
    assert check(tarball).toplevel == TOPLEVEL


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, 1024])
def test_no_end_marker(tarball: Path, cut: int) -> None:
    data = SYSTEM + file(b"last", b"x" * 512) + END
    problem = refused(tarball, data[: len(data) - 512 - cut])
    assert problem == Problem(
        "payload.truncated",
        "the archive ends in the middle, in or after last: its end-of-archive marker is missing",
        f"at byte {len(data) - 512 - cut} of the unpacked archive",
        "make the archive again, or copy it to the server again",
    )


def test_damage_in_the_middle_is_not_taken_for_the_end(tarball: Path) -> None:
    broken = bytearray(file(b"b"))
    broken[200] = 1
    problem = refused(tarball, SYSTEM + bytes(broken) + file(b"c") + END)
    assert problem == Problem(
        "payload.format",
        "the archive is damaged or not understood: a header has a wrong checksum",
        f"at byte {len(SYSTEM)} of the unpacked archive",
        "make the archive again, or fetch it again",
    )


@pytest.mark.parametrize("after", [0, 9000, 3 * MIB])
def test_something_after_the_end(tarball: Path, after: int) -> None:
    problem = refused(tarball, GOOD + bytes(after) + file(b"second"))
    assert problem == Problem(
        "payload.format",
        "something other than zeros follows the end of the archive "
        "(a second archive, or a damaged header)",
        f"at byte {len(GOOD) + after} of the unpacked archive",
        "make the archive again, in one piece",
    )


def test_zeros_after_the_end_are_padding(tarball: Path) -> None:
    tarball.write_bytes(GOOD + bytes(10240))
    assert check(tarball).compressed_size == len(GOOD) + 10240


def test_too_large_says_by_how_much(tarball: Path) -> None:
    data = SYSTEM + file(b"nix/big", bytes(3 * MIB)) + file(b"home/x", bytes(MIB)) + END
    capacity = {"/": 2 * MIB, "/nix": 2 * MIB, "/nix/other": MIB}
    assert refused(tarball, data, capacity=capacity) == Problem(
        "payload.too-large",
        "the unpacked payload needs 3.02 MiB on /nix, which takes 2.00 MiB: 1.02 MiB too much",
        "disks",
        "make the file system larger, or the payload smaller",
    )
    small = refused(tarball, data, capacity={"/": MIB, "/nix": MIB})
    assert small.what == (
        "the unpacked payload needs 3.02 MiB on /nix, which takes 1.00 MiB: "
        "at least 2.02 MiB too much"
    )


def test_a_mount_point_must_be_a_folder(tarball: Path) -> None:
    capacity = {"/": MIB, "/srv/data": MIB}
    problem = refused(tarball, SYSTEM + symlink(b"srv", b"/home/srv") + END, capacity=capacity)
    assert (problem.code, problem.what) == (
        "payload.format",
        "the archive's member srv is a symbolic link, and a file system is mounted at /srv/data",
    )
    problem = refused(tarball, SYSTEM + file(b"srv/data") + END, capacity=capacity)
    assert problem.what == (
        "the archive's member srv/data is a file, and a file system is mounted at /srv/data"
    )
    tarball.write_bytes(SYSTEM + folder(b"srv/data") + file(b"srv/data/x") + END)
    assert check(tarball, capacity=capacity).usage["/srv/data"] == 4096


def test_a_system_without_its_parts(tarball: Path) -> None:
    whole = file(b"etc/hostname") + END
    assert refused(tarball, whole).what == (
        "the payload is no NixOS system: it holds no store (nix/store) and no nix-path-registration"
    )
    assert refused(tarball, system(leave_out=["registration"]) + END).what == (
        "the payload is no NixOS system: it holds no nix-path-registration at its root"
    )
    assert refused(tarball, system(leave_out=["init", "switch"]) + END).what == (
        f"the payload is no NixOS system: {TOPLEVEL} lacks bin/switch-to-configuration, init"
    )
    other = system(f"/nix/store/{HASH}-hello") + END
    assert refused(tarball, other) == Problem(
        "payload.not-nixos",
        "the payload is no NixOS system: it holds no toplevel (/nix/store/…-nixos-system-…)",
        "payload",
        "make it of a system's closure and its registration "
        "(nix-store --dump-db, or closureInfo's registration)",
    )


def test_several_systems(tarball: Path) -> None:
    second = TOPLEVEL.replace("demo", "other")
    data = SYSTEM + system(second, ["registration"]) + END
    assert refused(tarball, data) == Problem(
        "payload.not-nixos",
        f"the payload holds 2 NixOS systems:\n    {TOPLEVEL}\n    {second}",
        "system.toplevel",
        'say which one: toplevel = "…" below [system]',
    )
    assert check(tarball, toplevel=second).toplevel == second
    third = TOPLEVEL.replace("demo", "third")
    problem = refused(tarball, data, toplevel=third)
    assert problem.where == "system.toplevel"
    assert problem.what == (
        f"the payload is no NixOS system: it does not hold {third}; it holds"
        f"\n    {TOPLEVEL}\n    {second}"
    )


def test_a_toplevel_of_another_name_can_be_asked_for(tarball: Path) -> None:
    other = f"/nix/store/{HASH}-my-machine"
    tarball.write_bytes(system(other) + END)
    assert check(tarball, toplevel=other).toplevel == other


NO_TARBALL = {
    "nothing": (b"", "payload.truncated", "{} is empty"),
    "web page": (
        b"<!DOCTYPE html><p>log in",
        "payload.format",
        "{} is no tarball but a web page or a text",
    ),
    "zip": (b"PK\3\4" + bytes(600), "payload.format", "{} is no tarball but a zip archive"),
    "bzip2": (b"BZh9" + bytes(600), "payload.format", "{} is no tarball but bzip2"),
    "noise": (
        bytes(range(1, 200)),
        "payload.format",
        (
            "{} is no tarball but something that begins with "
            "01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10"
        ),
    ),
}


@pytest.mark.parametrize("case", NO_TARBALL)
def test_what_is_no_tarball(tarball: Path, case: str) -> None:
    data, code, text = NO_TARBALL[case]
    problem = refused(tarball, data)
    assert (problem.code, problem.what) == (code, text.format(tarball))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
NOISE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(12_000))
BIG = SYSTEM + file(b"noise", NOISE) + END


@pytest.mark.parametrize("name", COMPRESS)
def test_compressed_payloads(tarball: Path, name: str) -> None:
    # the name says tar, the content counts
    tarball.write_bytes(COMPRESS[name](BIG))
    found = check(tarball)
    assert found.unpacked_size == len(NOISE) + len(b"registered\n#!/bin/sh\n26.05")
    assert found.compressed_size == tarball.stat().st_size
    # programs that compress in parallel write streams one after the other
    tarball.write_bytes(COMPRESS[name](BIG[:70_000]) + COMPRESS[name](BIG[70_000:]))
    assert check(tarball).unpacked_size == found.unpacked_size


def test_zstd_may_begin_with_a_skippable_frame(tarball: Path) -> None:
    tarball.write_bytes(b"\x50\x2a\x4d\x18\4\0\0\0pzst" + zstd(BIG))
    assert check(tarball).entries == 7


WORDS = {
    "gzip": "gzip: stdin: unexpected end of file",
    "xz": "xz: (stdin): Unexpected end of input",
    "zstd": "/*stdin*\\ : Read error (39) : premature end",
}


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("left", [12, 1000, 200_000, -9, -1])
def test_compressed_streams_that_are_cut(tarball: Path, name: str, left: int) -> None:
    data = COMPRESS[name](BIG)[:left]
    problem = refused(tarball, data)
    assert problem.code == "payload.truncated"
    assert problem.what == f"the {name} stream of the payload ends in the middle: {WORDS[name]}"
    assert problem.where.startswith(f"after {len(data)} compressed and ")


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("size", [1, 300_000])
def test_compressed_streams_with_something_behind(tarball: Path, name: str, size: int) -> None:
    problem = refused(tarball, COMPRESS[name](BIG) + b"x" * size)
    # to gzip and xz one more byte is the beginning of another stream
    cut = name != "zstd" and size == 1
    assert problem.code == ("payload.truncated" if cut else "payload.format")
    assert problem.what.startswith(
        f"the {name} stream of the payload {'ends in the middle' if cut else 'is damaged'}: "
    )


@pytest.mark.parametrize("name", COMPRESS)
def test_compressed_streams_that_are_damaged(tarball: Path, name: str) -> None:
    data = bytearray(COMPRESS[name](BIG))
    data[len(data) // 2] ^= 0x40
    problem = refused(tarball, bytes(data))
    assert problem.code == "payload.format"
    assert "damaged" in problem.what


@pytest.mark.parametrize(
    "argv",
    [["zstd", "-q", "--long=28", "-c"], ["xz", "--lzma2=preset=0,dict=256MiB", "-c"]],
    ids=["zstd", "xz"],
)
def test_windows_are_bounded(tarball: Path, argv: list[str]) -> None:
    packed = subprocess.run(argv, input=BIG, capture_output=True, check=True).stdout
    problem = refused(tarball, packed)
    assert problem.code == "payload.format"
    assert problem.what.startswith("decompressing takes more than 128 MiB of memory: ")
    assert problem.hint == "compress it without --long, or with a smaller dictionary"


def test_wrong_sha256(tarball: Path) -> None:
    digest = hashlib.sha256(GOOD).hexdigest()
    assert refused(tarball, GOOD, sha256="0" * 64) == Problem(
        "payload.hash",
        f"{tarball} is not the announced payload: its SHA-256 is {digest}, "
        f"announced was {'0' * 64} ({len(GOOD)} bytes were read)",
        "payload.sha256",
        "announce the SHA-256 of this file (sha256sum), or serve the file that was meant",
    )


def test_an_archive_that_is_both_odd_and_another_one_says_both(tarball: Path) -> None:
    tarball.write_bytes(file(b"etc/hostname") + END)
    with pytest.raises(InstallError) as error:
        check(tarball, sha256="0" * 64)
    assert [problem.code for problem in error.value.problems] == [
        "payload.not-nixos",
        "payload.hash",
    ]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("missing.tar", ": No such file or directory"),
        (".", " is no regular file"),
        ("fifo", " is no regular file"),
    ],
)
def test_no_file(tmp_path: Path, where: str, reason: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / where
    with pytest.raises(InstallError) as error:
        check(path)
    assert error.value.problems == (
        Problem(
            "payload.not-found",
            f"{path}{reason}",
            "payload.path",
            "is the share mounted in the boot environment, and payload.path right?",
        ),
    )


def test_a_file_that_grows_while_it_is_read(tarball: Path) -> None:
    tarball.write_bytes(bytes(MIB))
    source = FileSource(tarball)
    chunks = source.chunks()
    next(chunks)
    with tarball.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(InstallError) as error:
        list(chunks)
    assert error.value.problems == (
        Problem(
            "payload.changed",
            f"{tarball} changed while it was being read: "
            f"it had {MIB} bytes at first, now {MIB + 4}, and {MIB + 4} could be read",
            "payload",
            "start again; give each version of a payload a name of its own on the server",
        ),
    )


def test_a_file_that_is_written_over_while_it_is_read(tarball: Path) -> None:
    tarball.write_bytes(bytes(MIB))
    os.utime(tarball, (1, 1))
    chunks = FileSource(tarball).chunks()
    next(chunks)
    tarball.write_bytes(b"x" * MIB)
    with pytest.raises(InstallError, match="changed while it was being read"):
        list(chunks)
