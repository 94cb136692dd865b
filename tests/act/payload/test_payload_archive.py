"""Headers are read strictly, and nothing is forwarded before it was approved."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import (
    END,
    GNU,
    POSIX,
    SYSTEM,
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

from installer.act.payload.archive import Member, Stream, next_member, padding
from installer.act.payload.vetting import vet
from installer.model.errors import InstallError


def pieces(data: bytes, size: int) -> Stream:
    source = io.BytesIO(data)
    return Stream(lambda: source.read(size))


def members(data: bytes, size: int = 4096) -> list[Member]:
    stream = pieces(data, size)
    found = []
    while (member := next_member(stream)) is not None:
        found.append(member)
        stream.approve()
        stream.skip(member.stored + padding(member.stored))
    return found


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=400,
        ).filter(lambda name: not name.endswith("/")),
        max_size=8,
    ),
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    size=st.integers(1, 3000),
)
def test_names_are_read_as_tarfile_wrote_them(names: list[str], kind: int, size: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for number, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size = number * 300
            entry.mtime = 1.5
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    found = members(out.getvalue(), size)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        read = [(entry.name.encode(), entry.size) for entry in archive]
    assert [(member.name, member.stored) for member in found] == read
    assert [member.name for member in found] == [name.encode() for name in names]


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 2047), value=st.integers(0, 255))
def test_a_changed_header_is_an_error_or_changes_nothing(place: int, value: int) -> None:
    data = bytearray(pax(record(b"path", b"a/b")) + file(b"x") + symlink(b"l", b"t") + END)
    before = members(bytes(data))
    data[place] = value
    try:
        after = members(bytes(data))
    except InstallError:
        return
    # what an extended header says has no checksum
    assert after == before or 512 <= place < 1024


@pytest.mark.parametrize("layout", ["gnu", "pax", "ustar", "oldgnu"])
@pytest.mark.parametrize("size", [1, 511, 1 << 20])
def test_what_gnu_tar_writes_is_understood(tmp_path: Path, layout: str, size: int) -> None:
    deep = tmp_path / "root" / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 700)
    (tmp_path / "root/a").write_bytes(b"")
    (tmp_path / "root/b").hardlink_to(tmp_path / "root/a")
    (tmp_path / "root/link").symlink_to("/nix/store/somewhere")
    data = subprocess.run(
        ["tar", "-C", tmp_path / "root", f"--format={layout}", "--sort=name", "-c", "."],
        capture_output=True,
        check=True,
    ).stdout
    path = b"./" + b"d" * 90 + b"/" + b"e" * 90
    assert [(m.name, m.kind, m.target, m.stored) for m in members(data, size)] == [
        (b"./", "directory", b"", 0),
        (b"./a", "file", b"", 0),
        (b"./b", "hard link", b"./a", 0),
        (b"./" + b"d" * 90 + b"/", "directory", b"", 0),
        (path + b"/", "directory", b"", 0),
        (path + b"/file", "file", b"", 700),
        (b"./link", "symbolic link", b"/nix/store/somewhere", 0),
    ]


def test_sizes_of_eight_gibibytes_and_more() -> None:
    base256 = b"\x80" + (9 << 30).to_bytes(11, "big")
    stream = pieces(header(b"large", size_field=base256, magic=GNU), 512)
    assert next_member(stream) == Member(b"large", "file", b"", 9 << 30, 0)
    data = pax(record(b"size", b"%d" % (9 << 30))) + header(b"large")
    assert next_member(pieces(data, 512)) == Member(b"large", "file", b"", 9 << 30, 0)


@pytest.mark.parametrize("layout", ["gnu", "posix"])
def test_sparse_files_count_what_is_stored(tmp_path: Path, layout: str) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        for number in range(200):
            stream.seek(number << 20)
            stream.write(b"x" * 4096)
    data = subprocess.run(
        ["tar", "-C", tmp_path, f"--format={layout}", "-S", "-c", "sparse"],
        capture_output=True,
        check=True,
    ).stdout
    (member,) = members(data)
    assert member.name == b"sparse"
    assert 200 * 4096 <= member.stored < 200 * 4096 + 8192


TWO_BLANKS = b"18  path=etc/evil\n"
NO_ORDER = "the archive is damaged or not understood: "

STRICT = {
    "tarfile reads etc/good here, and GNU tar etc/evil": (
        pax(TWO_BLANKS) + file(b"etc/good"),
        NO_ORDER + "an extended header holds something that is no record",
    ),
    "a tab instead of a blank": (
        pax(b"17\tpath=etc/evil\n") + file(b"etc/good"),
        NO_ORDER + "an extended header holds something that is no record",
    ),
    "unknown keyword": (
        pax(record(b"PATH", b"x")) + file(b"a"),
        NO_ORDER + "the extended header PATH is not known",
    ),
    "keyword twice": (
        pax(record(b"path", b"x"), record(b"path", b"y")) + file(b"a"),
        NO_ORDER + "the extended header path comes twice",
    ),
    "record too long": (
        pax(b"99 path=x\n") + file(b"a"),
        NO_ORDER + "the extended header path has a wrong length",
    ),
    "record too short": (
        pax(b"3 path=x\n") + file(b"a"),
        NO_ORDER + "the extended header path has a wrong length",
    ),
    "name with NUL": (
        pax(record(b"path", b"a\0b")) + file(b"a"),
        NO_ORDER + "the extended header path holds a NUL",
    ),
    "long name with NUL": (
        long_name(b"a\0b") + file(b"a", magic=GNU),
        NO_ORDER + "the long name a goes on after a NUL",
    ),
    "global name": (
        pax(record(b"path", b"x"), kind=b"g") + file(b"a"),
        NO_ORDER + "a global extended header that changes members",
    ),
    "both kinds of long names": (
        long_name(b"long") + pax(record(b"path", b"x")) + file(b"a"),
        NO_ORDER + "extended headers that contradict each other",
    ),
    "two long names": (
        long_name(b"long") * 2 + file(b"a"),
        NO_ORDER + "extended headers that contradict each other",
    ),
    "extended header at the end": (
        pax(record(b"path", b"x")),
        NO_ORDER + "an extended header without a member",
    ),
    "huge extended header": (
        header(b"x", 1 << 30, b"x"),
        NO_ORDER + "an extended header of 1.00 GiB (at most 1.00 MiB)",
    ),
    "negative size": (
        header(b"a", size_field=b"-0000000001\0"),
        NO_ORDER + "a header has a size that is no number",
    ),
    "size with underscore": (
        header(b"a", size_field=b"0000001_000\0"),
        NO_ORDER + "a header has a size that is no number",
    ),
    "pax size": (
        pax(record(b"size", b"-1")) + header(b"a"),
        NO_ORDER + "a has a size that is no number",
    ),
    "link with contents": (
        header(b"l", 512, b"1", b"t") + bytes(512),
        NO_ORDER + "l is a hard link with contents",
    ),
    "folder with contents": (
        header(b"d", 512, b"5") + file(b"hidden"),
        NO_ORDER + "d is a directory with contents",
    ),
    "unknown type": (header(b"a", kind=b"V"), NO_ORDER + "a has the unknown type 'V'"),
    "no magic": (header(b"a", magic=bytes(8)), NO_ORDER + "this is no tar header"),
    "checksum": (
        header(b"a")[:300] + b"x" + header(b"a")[301:],
        NO_ORDER + "a header has a wrong checksum",
    ),
    "one zero block": (
        bytes(512) + file(b"a"),
        NO_ORDER + "a lone zero block between two members",
    ),
    "sparse 0.1": (
        pax(record(b"GNU.sparse.realsize", b"1"), record(b"GNU.sparse.name", b"x")) + file(b"a"),
        NO_ORDER + "a is a sparse file in a form other than 1.0",
    ),
    "sparse POSIX": (header(b"a", kind=b"S"), NO_ORDER + "a is a sparse file in two forms"),
    "character device": (
        header(b"dev/null", kind=b"3"),
        "dev/null is a character device; a system's archive holds files, folders and links",
    ),
    "block device": (
        header(b"dev/sda", kind=b"4"),
        "dev/sda is a block device; a system's archive holds files, folders and links",
    ),
    "FIFO": (
        header(b"run/initctl", kind=b"6"),
        "run/initctl is a FIFO; a system's archive holds files, folders and links",
    ),
}


@pytest.mark.parametrize("case", STRICT)
def test_doubtful_headers_are_errors(case: str) -> None:
    data, text = STRICT[case]
    before = file(b"first", b"1")
    with pytest.raises(InstallError) as error:
        members(before + data + END)
    (problem,) = error.value.problems
    assert problem.what == text
    hostile = case in ("character device", "block device", "FIFO")
    assert problem.code == ("payload.hostile" if hostile else "payload.format")
    assert problem.where.startswith("at byte 1") or problem.where.startswith("at byte 2")
    assert problem.hint


def test_a_sparse_map_without_end_is_an_error() -> None:
    block = bytearray(header(b"a", kind=b"S", magic=GNU))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = bytearray(512)
    more[504] = 1
    with pytest.raises(InstallError, match="a has too long a sparse map"):
        members(bytes(block) + bytes(more) * 3000)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 5000))
def test_a_whole_archive_is_forwarded_to_its_end(size: int) -> None:
    good = (
        SYSTEM
        + pax(record(b"comment", b"git"), kind=b"g")
        + pax(record(b"path", b"p" * 200 + b"/x"))
        + file(b"x", b"data" * 1000)
        + long_name(b"q" * 200)
        + file(b"q", magic=GNU)
        + hard_link(b"h", b"nix-path-registration")
        + folder(b"d")
    )
    source = io.BytesIO(good + END + bytes(8192))
    sent = io.BytesIO()
    contents = vet(Stream(lambda: source.read(size), sent.write), {}, None, count_on=False)
    assert sent.getvalue() == good + END
    assert contents.entries == 10
    assert contents.unpacked_size == len(b"registered\n#!/bin/sh\n26.05") + 4000


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 3000))
def test_nothing_of_a_refused_member_is_forwarded(size: int) -> None:
    good = file(b"a", b"1" * 2000) + folder(b"d")
    bad = pax(record(b"path", b"../outside")) + file(b"x", b"data" * 1000)
    source = io.BytesIO(good + bad + END)
    sent = io.BytesIO()
    with pytest.raises(InstallError, match=r"leads through \.\."):
        vet(Stream(lambda: source.read(size), sent.write), {}, None, count_on=False)
    assert good.startswith(sent.getvalue())


def test_posix_prefix_and_gnu_times_are_told_apart() -> None:
    data = header(b"name", prefix=b"some/folder", magic=POSIX)
    data += header(b"name", prefix=b"14567654321\0", magic=GNU) + END
    assert [member.name for member in members(data)] == [b"some/folder/name", b"name"]


def test_padding() -> None:
    assert [padding(size) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
    assert len(padded(b"x")) == 512
