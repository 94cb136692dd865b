"""Squashfs images by real mksquashfs, unpacked by real unsquashfs."""

import hashlib
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Fault, serving
from tars import HASH, TOPLEVEL
from test_payload_unpack import seen, tree

from installer.act.holders import mounted_from
from installer.act.narrator import Narrator
from installer.act.payload import Inventory, squashfs
from installer.act.payload.source import Patience
from installer.act.run import Runner
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, Message, StepProgress
from installer.model.payload_steps import CheckSquashfs, UnpackSquashfs
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.root

ROOMY = {"/": GIB}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole root, with whatever is hard to keep; squashfs knows whole seconds only."""
    path = tmp_path / "root"
    path.mkdir()
    tree(path)
    # unsquashfs makes hard links of files only: two links for one symbolic link with two names
    (path / "zabsolute").unlink()
    for each in [path, *path.rglob("*")]:
        os.utime(each, (1, 1_000_000_000), follow_symlinks=False)
    return path


def made(source: Path, *options: str) -> Path:
    image = source.with_suffix(".squashfs")
    subprocess.run(
        ["mksquashfs", source, image, "-quiet", "-no-progress", "-xattrs", *options], check=True
    )
    return image


def unpack(
    source: Path | str,
    target: Path,
    *,
    sha256: str | None = None,
    capacity: dict[str, int] | None = None,
    events: list[AnyEvent] | None = None,
    retry_seconds: int = 5,
) -> Inventory:
    narrator = Narrator((events if events is not None else []).append)
    step = UnpackSquashfs(str(source), sha256, capacity or ROOMY, None, retry_seconds)
    patience = Patience(timeouts=(2.0, 5.0), first_delay=0.01, longest_delay=0.1, stuck=60.0)
    return squashfs.unpack(
        step, target, Runner(on_line=narrator.output), narrator, patience=patience
    )


def refused(source: Path | str, target: Path, **rules: object) -> Problem:
    with pytest.raises(InstallError) as error:
        unpack(source, target, **rules)  # type: ignore[arg-type]
    return error.value.problems[0]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz"])
def test_a_whole_root_comes_out_equal(root: Path, target: Path, compression: str) -> None:
    image = made(root, "-comp", compression)
    events: list[AnyEvent] = []
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    found = unpack(image, target, sha256=digest, events=events)
    before, after = seen(root), seen(target)
    assert after.keys() == before.keys()
    for name, state in before.items():
        assert after[name] == state, name
    assert (target / "sparse").stat().st_blocks * 512 < MIB
    assert (found.toplevel, found.sha256) == (TOPLEVEL, digest)
    size = image.stat().st_size
    steps = [event for event in events if isinstance(event, StepProgress)]
    assert (steps[-1].done, steps[-1].total) == (2 * size, 2 * size)


def test_the_store_of_a_netboot_image(root: Path, target: Path) -> None:
    store = root / "nix/store"
    (root / "nix-path-registration").rename(store / "nix-path-registration")
    image = made(store, "-all-root")
    found = unpack(image, target)
    assert found.toplevel == TOPLEVEL
    assert (target / "nix-path-registration").read_text() == "registered\n"
    status = (target / "nix/store").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 1)
    (store / "nix-path-registration").unlink()
    before, after = seen(store / TOPLEVEL[11:]), seen(target / TOPLEVEL[1:])
    # what else it was linked with lies outside the store
    before[b"init"], after[b"init"] = before[b"init"][:5], after[b"init"][:5]
    assert after == before


def test_it_is_fetched_again_where_it_broke_off(root: Path, target: Path) -> None:
    (root / "noise").write_bytes(os.urandom(2 * MIB))
    image = made(root)
    content = image.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    events: list[AnyEvent] = []
    with serving(content) as server:
        server.faults = [Fault(cut=500_000), Fault(cut=300_000)]
        assert unpack(server.url, target, sha256=digest, events=events).toplevel == TOPLEVEL
        starts = [asked for _, asked in server.asked]
        assert starts == [None, "bytes=500000-", "bytes=800000-"]
    assert len([event for event in events if isinstance(event, Message)]) == 2
    assert (target / "noise").read_bytes() == (root / "noise").read_bytes()
    assert not (target / ".netinstall-download").exists()


def test_nothing_is_unpacked_before_its_hash_was_right(root: Path, target: Path) -> None:
    content = made(root).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with serving(content) as server:
        problem = refused(server.url, target, sha256="0" * 64)
        assert problem == Problem(
            "payload.hash",
            f"{server.url} is not the announced payload: its SHA-256 is {digest}, announced was "
            f"{'0' * 64} ({len(content)} bytes were read)",
            "payload.sha256",
            "announce the SHA-256 of this file (sha256sum), or serve the file that was meant",
        )
    assert list(target.iterdir()) == []


def test_a_server_that_goes_away(root: Path, target: Path) -> None:
    (root / "noise").write_bytes(os.urandom(MIB))
    content = made(root).read_bytes()
    with serving(content) as server:
        server.always = Fault(cut=0)
        server.faults = [Fault(cut=500_000)]
        problem = refused(server.url, target, retry_seconds=0)
    assert problem.code == "network.lost"
    assert list(target.iterdir()) == []


def test_what_is_no_squashfs_and_what_is_damaged(root: Path, target: Path) -> None:
    (root / "noise").write_bytes(os.urandom(2 * MIB))
    image = made(root)
    content = image.read_bytes()
    image.write_bytes(b"<html>log in</html>" + bytes(200))
    assert refused(image, target) == Problem(
        "payload.format",
        f"{image} is no squashfs: it begins with '<html>log in</ht'",
        "payload.squashfs",
        "a tarball is given as url or path; a squashfs is made by mksquashfs 4.0 or newer",
    )
    used = int.from_bytes(content[40:48], "little")
    image.write_bytes(content[: used - 1])
    problem = refused(image, target)
    assert (problem.code, problem.what) == (
        "payload.truncated",
        f"{image} has {used - 1} bytes, and its superblock says {used}",
    )
    image.write_bytes(content[:28] + b"\3" + content[29:])
    assert refused(image, target).what == (
        f"{image} is a squashfs of version 3, only 4 is understood"
    )
    # the tables at its end say where everything is
    image.write_bytes(content[: used - 2000] + bytes(len(content) - used + 2000))
    problem = refused(image, target)
    assert problem.code == "payload.format"
    assert problem.what.startswith(f"{image} is damaged, or of a kind that unsquashfs does not ")
    assert list(target.iterdir()) == []
    # what it holds is not looked at before it is unpacked, unless its hash is known
    noise = content.index((root / "noise").read_bytes()[:100])
    wrong = bytearray(content)
    wrong[noise : noise + 100] = bytes(100)
    image.write_bytes(wrong)
    assert refused(image, target, sha256=hashlib.sha256(content).hexdigest()).code == "payload.hash"
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("what", ["device", "fifo", "socket", "setuid", "setgid"])
def test_what_no_system_holds_is_refused_before_anything_is_written(
    root: Path, target: Path, what: str
) -> None:
    place = root / "a\nb"
    match what:
        case "device":
            os.mknod(place, stat.S_IFBLK | 0o600, os.makedev(8, 0))
        case "fifo":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(place))
        case _:
            place.write_bytes(b"")
            place.chmod(0o4711 if what == "setuid" else 0o2755)
    image = made(root)
    problem = refused(image, target)
    said = {
        "device": "is a block device",
        "fifo": "is a FIFO",
        "socket": "is a socket",
        "setuid": "is a file with set-user-ID or set-group-ID; a NixOS makes those at boot, in "
        "/run/wrappers, and has none on its disk",
    }
    assert (problem.code, problem.what) == (
        "payload.hostile",
        f"a of {image} {said['setuid' if what == 'setgid' else what]}",
    )
    assert list(target.iterdir()) == []


def test_one_on_a_path_is_looked_through_before_a_disk_is_touched(root: Path) -> None:
    image = made(root)
    narrator = Narrator(lambda _event: None)
    squashfs.check(CheckSquashfs(str(image), None, ROOMY, None, 5), narrator, Runner())
    with pytest.raises(InstallError) as error:
        squashfs.check(CheckSquashfs(str(image), "0" * 64, ROOMY, None, 5), narrator, Runner())
    assert error.value.problems[0].code == "payload.hash"
    os.mkfifo(root / "fifo")
    image.unlink()
    made(root)
    with pytest.raises(InstallError) as error:
        squashfs.check(CheckSquashfs(str(image), None, ROOMY, None, 5), narrator, Runner())
    assert error.value.problems[0].what == f"fifo of {image} is a FIFO"


def test_what_holds_no_system(tmp_path: Path, target: Path) -> None:
    (tmp_path / "empty/home").mkdir(parents=True)
    image = made(tmp_path / "empty")
    assert refused(image, target) == Problem(
        "payload.not-nixos",
        f"{image} holds neither a folder nix nor store paths at its root",
        "payload.squashfs",
        "give the nix-store.squashfs of a netboot image, or one of a whole root",
    )
    store = tmp_path / "store" / f"{HASH}-hello"
    store.mkdir(parents=True)
    problem = refused(made(tmp_path / "store"), target)
    assert problem.what == (
        "the payload is no NixOS system: it holds no nix-path-registration at its root"
    )


def test_a_store_behind_a_link_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "linked/nix").mkdir(parents=True)
    (tmp_path / "linked/nix/store").symlink_to(tmp_path)
    problem = refused(made(tmp_path / "linked"), target)
    assert (problem.code, problem.what) == (
        "payload.hostile",
        "nix/store is a symbolic link in the payload",
    )


@pytest.fixture
def small(target: Path) -> Iterator[Path]:
    """A real file system of 16 MiB as the target."""
    image = target.with_name("disk.img")
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-N", "200", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    yield target
    subprocess.run(["umount", target], check=True)


@pytest.mark.loop
def test_a_full_disk(root: Path, small: Path) -> None:
    (root / "noise").write_bytes(os.urandom(10 * MIB))
    image = made(root)
    with serving(image.read_bytes()) as server:
        problem = refused(server.url, small)
    assert problem.code == "payload.too-large"
    loop = mounted_from(small)
    assert re.fullmatch(rf"no space left on / \(1\d\.\d MiB on {loop}\): .*", problem.what)
    assert problem.where == f"unpacking {server.url}, which lies there meanwhile"
    assert not (small / ".netinstall-download").exists()
    (root / "more").write_bytes(os.urandom(20 * MIB))
    image.unlink()
    content = made(root).read_bytes()
    with serving(content) as server:
        problem = refused(server.url, small)
    assert problem.code == "payload.too-large"
    assert problem.what == (
        f"no space left for the download of {server.url} ({len(content) / MIB:.1f} MiB)"
    )
    assert problem.where == f"{small} ({loop})"
    assert not (small / ".netinstall-download").exists()


def test_the_download_lies_where_there_is_room_and_never_in_memory(
    root: Path, target: Path
) -> None:
    content = made(root).read_bytes()
    mount = target / "memory"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500g", "none", mount], check=True)
    places: list[str] = []

    def look(_event: AnyEvent) -> None:
        places.extend(str(path.parent) for path in target.glob("**/.netinstall-download"))

    try:
        with serving(content) as server:
            step = UnpackSquashfs(server.url, None, {"/": GIB, "/memory": GIB}, None, 5)
            squashfs.unpack(step, target, Runner(), Narrator(look))
    finally:
        subprocess.run(["umount", mount], check=True)
    assert set(places) == {str(target)}
