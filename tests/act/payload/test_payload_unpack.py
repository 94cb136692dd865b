"""Unpacking for real: what survives, what is kept out, and how failures end."""

import hashlib
import os
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from serving import Fault, serving
from tars import END, SYSTEM, TOPLEVEL, file, folder, hard_link, header, pax, record, symlink

from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.payload import Inventory
from installer.act.payload.source import Patience
from installer.act.run import Runner
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, Message, StepProgress
from installer.model.payload_steps import CheckPayload, UnpackPayload
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.root

ROOMY = {"/": GIB}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert psutil.Process().children() == []
    assert [thread for thread in threading.enumerate() if thread.name == "payload"] == []


def unpack(
    source: Path | str,
    target: Path,
    *,
    sha256: str | None = None,
    capacity: dict[str, int] | None = None,
    expected: Inventory | None = None,
    events: list[AnyEvent] | None = None,
    stuck: float = 60.0,
) -> Inventory:
    narrator = Narrator((events if events is not None else []).append)
    return payload.unpack(
        UnpackPayload(str(source), sha256, capacity or ROOMY, None, 5),
        target,
        Runner(on_line=narrator.output),
        narrator,
        expected,
        patience=Patience(timeouts=(2.0, 5.0), first_delay=0.01, longest_delay=0.1, stuck=stuck),
    )


def refused(source: Path | str, target: Path, **rules: object) -> Problem:
    with pytest.raises(InstallError) as error:
        unpack(source, target, **rules)  # type: ignore[arg-type]
    return error.value.problems[0]


def tarball(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "system.tar"
    path.write_bytes(data)
    return path


def seen(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about each file below a folder that an installation must keep."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for place, folders, files in os.walk(os.fsencode(root)):
        for leaf in [b".", *folders, *files]:
            path = os.path.join(place, leaf)  # noqa: PTH118 - names are bytes here
            short = os.path.relpath(path, os.fsencode(root))
            state = os.lstat(path)
            kind = stat.S_IFMT(state.st_mode)
            found[short] = (
                oct(state.st_mode),
                state.st_uid,
                state.st_gid,
                state.st_mtime_ns,
                state.st_size if kind == stat.S_IFREG else None,
                state.st_nlink,
                os.readlink(path) if kind == stat.S_IFLNK else None,  # noqa: PTH115
                {
                    key: os.getxattr(path, key, follow_symlinks=False)
                    for key in os.listxattr(path, follow_symlinks=False)
                },
                Path(os.fsdecode(path)).read_bytes() if kind == stat.S_IFREG else None,
            )
            if kind != stat.S_IFDIR:
                # a hard link is told by the first name of the same file
                found[short] += (min(first.setdefault(state.st_ino, short), short),)
    return found


def tree(root: Path) -> None:
    """Make what is hard to keep."""
    store = root / TOPLEVEL.removeprefix("/")
    (store / "bin").mkdir(parents=True)
    (root / "nix-path-registration").write_text("registered\n")
    for name in ("init", "nixos-version", "bin/switch-to-configuration"):
        (store / name).write_text("#!/bin/sh\n")
    odd = root / "odd"
    odd.mkdir()
    for raw in (
        b"line\nbreak",
        b"tab\t",
        b"back\\slash",
        b"\xff\xfe not UTF-8",
        "ä·漢字".encode(),
        b"-rf",
        b" blank ",
        b"quote'\"",
        b"*",
        b"e" * 255,
    ):
        (odd / os.fsdecode(raw)).write_bytes(raw)
    deep = root
    for _ in range(20):
        deep /= "a-folder-with-a-long-name"
    deep.mkdir(parents=True)
    (deep / "leaf").write_text("deep")
    (deep / "link").symlink_to("../" * 30 + "y/" * 150)
    (root / "absolute").symlink_to("/nix/store/somewhere/else")
    (root / "up").symlink_to("../../outside")
    (root / "dangling").symlink_to("nowhere")
    (odd / "again").hardlink_to(store / "init")
    # Nix's store optimiser links symbolic links too
    os.link(root / "absolute", root / "zabsolute", follow_symlinks=False)
    os.lchown(root / "up", 1000, 100)
    plain = root / "plain"
    plain.write_text("x")
    os.setxattr(plain, "user.note", b"binary\0value\n=\xff")
    # VFS_CAP_REVISION_2 with CAP_NET_RAW (capabilities(7), linux/capability.h)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(plain, "security.capability", capability)
    with (root / "sparse").open("wb") as stream:
        stream.seek(40 * MIB)
        stream.write(b"end")
        stream.truncate(64 * MIB)
    (root / "setgid").mkdir()
    for name, mode in (("setgid", 0o2750), ("odd", 0o1755), ("none", 0o000), ("read", 0o444)):
        if not (root / name).is_dir():
            (root / name).write_text(name)
        os.chown(root / name, 30001, 65534)
        (root / name).chmod(mode)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for path in sorted(root.rglob("*"), key=str, reverse=True):
        os.utime(path, ns=(1, 1_000_000_001 + len(str(path))), follow_symlinks=False)
    store.chmod(0o555)
    os.utime(store, ns=(1, 1_000_000_000))


@pytest.mark.parametrize("layout", ["posix", "gnu"])
@pytest.mark.parametrize("pack", [["--zstd"], ["--xz"], ["--gzip"], []])
def test_everything_survives(tmp_path: Path, target: Path, layout: str, pack: list[str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tree(root)
    if layout == "gnu":
        # the GNU format keeps neither parts of seconds nor extended attributes
        for key in os.listxattr(root / "plain"):
            os.removexattr(root / "plain", key)
        for path in [*root.rglob("*"), root]:
            os.utime(path, (1, 1_000_000_000), follow_symlinks=False)
    extras = ["--xattrs", "--xattrs-include=*"] if layout == "posix" else []
    path = tmp_path / "system.tar"
    subprocess.run(
        ["tar", "-C", root, f"--format={layout}", "-S", *extras, *pack, "-cf", path, "."],
        check=True,
    )
    before = seen(root)
    events: list[AnyEvent] = []
    found = unpack(path, target, events=events)
    after = seen(target)
    assert after.keys() == before.keys()
    for name, state in before.items():
        assert after[name] == state, name
    assert found.toplevel == TOPLEVEL
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (target / "sparse").stat().st_blocks * 512 < MIB
    last = [event for event in events if isinstance(event, StepProgress)][-1]
    assert (last.done, last.total) == (path.stat().st_size, path.stat().st_size)


def test_attributes_that_the_kernel_refuses_are_told(tmp_path: Path, target: Path) -> None:
    broken = pax(record(b"SCHILY.xattr.security.capability", b"x")) + file(b"a")
    events: list[AnyEvent] = []
    unpack(tarball(tmp_path, SYSTEM + broken + END), target, events=events)
    (warning,) = [e for e in events if isinstance(e, Message) and e.level == "warning"]
    assert warning.text == (
        "extended attributes that could not be set: 1; first: setxattrat: Cannot set "
        "'security.capability' extended attribute for file 'a': Invalid argument"
    )


def test_times_of_folders_that_come_before_their_last_file(tmp_path: Path, target: Path) -> None:
    data = folder(b"a") + file(b"a/1") + folder(b"b") + file(b"a/2") + SYSTEM + END
    unpack(tarball(tmp_path, data), target)
    assert (target / "a").stat().st_mtime == 1
    assert (target / "a/2").exists()


def test_numbers_count_and_not_names_of_this_machine(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tree(root)
    path = tmp_path / "system.tar"
    owners = ["--owner=daemon:4242", "--group=daemon:4343"]
    subprocess.run(["tar", "-C", root, *owners, "-cf", path, "."], check=True)
    unpack(path, target)
    state = (target / "plain").stat()
    assert (state.st_uid, state.st_gid) == (4242, 4343)


def test_a_wrong_clock_is_no_reason_to_talk(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tree(root)
    os.utime(root / "plain", (1, time.time() + 10_000_000))
    path = tmp_path / "system.tar"
    subprocess.run(["tar", "-C", root, "-cf", path, "."], check=True)
    events: list[AnyEvent] = []
    unpack(path, target, events=events)
    assert [event for event in events if isinstance(event, Message)] == []


def test_what_is_hostile_stays_out(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    where = str(outside).encode()
    up = b"../outside"
    attacks = [
        symlink(b"out", where) + file(b"out/new", b"x"),
        symlink(b"out", up) + file(b"out/kept", b"x"),
        symlink(b"out", up) + hard_link(b"mine", b"out/kept"),
        hard_link(b"mine", where + b"/kept"),
        hard_link(b"mine", up + b"/kept"),
        file(where + b"/new", b"x"),
        file(up + b"/new", b"x"),
        file(b"out/x") + symlink(b"out", where) + file(b"out/new", b"x"),
        symlink(b"out", where + b"/new") + file(b"out", b"x"),
        header(b"null", kind=b"3"),
        header(b"pipe", kind=b"6"),
    ]
    before = seen(outside)
    for number, attack in enumerate(attacks):
        place = target / str(number)
        place.mkdir()
        problem = refused(tarball(tmp_path, SYSTEM + attack + file(b"after") + END), place)
        assert problem.code == "payload.hostile", attack
        assert seen(outside) == before
        assert not (place / "after").exists()
        assert not (place / "mine").exists()
        assert not (place / "null").exists()


def test_a_changed_payload_is_not_the_checked_one(tmp_path: Path, target: Path) -> None:
    first = SYSTEM + file(b"a", b"1") + END
    path = tarball(tmp_path, first)
    narrator = Narrator(lambda _event: None)
    checked = payload.check(CheckPayload(str(path), None, ROOMY, None, 1), narrator)
    assert unpack(path, target, expected=checked) == checked
    other = SYSTEM + file(b"a", b"2") + END
    digest = hashlib.sha256(other).hexdigest()
    assert refused(tarball(tmp_path, other), target, expected=checked) == Problem(
        "payload.changed",
        f"{path} changed after it had been checked: "
        f"it had the SHA-256 {checked.sha256}, now {digest}",
        "payload",
        "start again; give each version of a payload a name of its own on the server",
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    longer = tarball(tmp_path, other + bytes(512))
    problem = refused(longer, empty, expected=checked)
    assert problem.what == (
        f"{path} changed after it had been checked: "
        f"it had {len(first)} bytes, now {len(first) + 512}"
    )
    assert list(empty.iterdir()) == []


def test_wrong_sha256(tmp_path: Path, target: Path) -> None:
    problem = refused(tarball(tmp_path, SYSTEM + END), target, sha256="0" * 64)
    assert problem.code == "payload.hash"


def test_too_large_for_the_plan_stops_before_the_disk_is_full(tmp_path: Path, target: Path) -> None:
    path = tarball(tmp_path, SYSTEM + file(b"big", bytes(3 * MIB)) + END)
    problem = refused(path, target, capacity={"/": 2 * MIB})
    assert problem.what == (
        "the unpacked payload needs 3.02 MiB on /, which takes 2.00 MiB: at least 1.02 MiB too much"
    )
    assert not (target / "big").exists()


@pytest.fixture
def small_nix(target: Path) -> Iterator[Path]:
    """A file system of 8 MiB below the target, where the plan believes in more."""
    (target / "nix").mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m"]
    subprocess.run(["mount", *options, "small", target / "nix"], check=True)
    yield target / "nix"
    subprocess.run(["umount", target / "nix"], check=True)


@pytest.mark.usefixtures("small_nix")
def test_a_full_file_system_is_named(tmp_path: Path, target: Path) -> None:
    noise = b"".join(file(b"nix/file%d" % number, bytes(MIB)) for number in range(64))
    path = tarball(tmp_path, SYSTEM + noise + END)
    problem = refused(path, target, capacity={"/": GIB, "/nix": GIB})
    assert problem.code == "payload.too-large"
    assert problem.what.startswith("no space left on /nix (8.00 MiB on small): tar: nix/file")
    assert problem.what.endswith(": No space left on device")
    assert problem.hint == "make the file system larger, or the payload smaller"
    # it did not go through all the others
    assert problem.where.startswith("after ")
    assert len(list((target / "nix").glob("file*"))) < 32


def test_tars_words_are_told(tmp_path: Path, target: Path) -> None:
    (target / "init").mkdir()
    (target / "init/x").mkdir()
    path = tarball(tmp_path, SYSTEM + file(b"init") + END)
    problem = refused(path, target)
    assert problem.code == "command.failed"
    assert problem.what == "tar ended with exit code 2"
    assert problem.where.startswith(f"unpacking into {target}: tar --extract ")
    assert "tar: init: Cannot open: File exists" in problem.hint


def test_no_target(tmp_path: Path) -> None:
    # more than a pipe holds: whoever feeds tar sees it end
    path = tarball(tmp_path, SYSTEM + file(b"big", bytes(8 * MIB)) + END)
    problem = refused(path, tmp_path / "missing")
    assert problem.code == "command.failed"
    assert f"tar: {tmp_path}/missing: Cannot open: No such file or directory" in problem.hint


@pytest.mark.parametrize("name", ["zstd", "tar"])
def test_a_program_that_does_nothing_is_given_up(target: Path, name: str) -> None:
    noise = os.urandom(8 * MIB)
    data = subprocess.run(
        ["zstd", "-qc"], input=SYSTEM + file(b"noise", noise) + END, capture_output=True, check=True
    ).stdout
    with serving(data) as server:
        # less than a pipe holds, so that nobody waits for the stopped program yet
        server.faults = [Fault(stall=MIB // 2)]
        problems: list[Problem] = []
        work = threading.Thread(
            target=lambda: problems.append(refused(server.url, target, stuck=0.6))
        )
        work.start()
        deadline = time.monotonic() + 10
        stopped = False
        while not stopped and time.monotonic() < deadline:
            for child in psutil.Process().children():
                # the name before exec is Python's
                if child.name() == name:
                    child.suspend()
                    stopped = True
            time.sleep(0.01)
        assert stopped, f"{name} did not start within 10 s"
        # the server has stalled for longer than a program may: that is no program's fault
        work.join(1.0)
        assert work.is_alive()
        server.over.set()
        work.join(20)
    (problem,) = problems
    assert problem.code == "command.timeout"
    assert problem.what == (
        "the decompressor gave no data for 0.6 s"
        if name == "zstd"
        else "tar took no data for 0.6 s"
    )
    assert problem.hint == "the kernel's log (dmesg) tells of a disk that does not answer"


def test_memory_does_not_grow_with_the_payload(tmp_path: Path, target: Path) -> None:
    big = SYSTEM + file(b"big", bytes(100 * MIB)) + END
    path = tmp_path / "system.tar.zst"
    path.write_bytes(
        subprocess.run(["zstd", "-qc"], input=big, capture_output=True, check=True).stdout
    )
    del big
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from installer.act import payload\n"
        "from installer.act.narrator import Narrator\n"
        "from installer.act.run import Runner\n"
        "from installer.model.plan import UnpackPayload\n"
        "step = UnpackPayload(sys.argv[1], None, {'/': 1 << 30}, None, 1)\n"
        "payload.unpack(step, Path(sys.argv[2]), Runner(), Narrator(lambda e: None), None)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, target], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) * 1024 < 64 * MIB
