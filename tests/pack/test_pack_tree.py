"""A folder is packed, unpacked by others, and equal."""

import hashlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.trees import snapshot
from trees import by_agent, by_frames, by_tar, large_odd_tree, leftovers, packed, payload_verb

from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.manifest import PIECE, Rebuild
from installer.model.payload_steps import UnpackPayload
from installer.pack.verify import verify_archive


@pytest.mark.root
def test_an_odd_tree_comes_out_equal(tmp_path: Path) -> None:
    source = large_odd_tree(tmp_path / "odd")
    before = snapshot(source)
    made = packed(source, tmp_path / "out")
    archive = tmp_path / "out/odd.tar.zst"
    assert snapshot(by_tar(archive, tmp_path / "tar")) == before
    assert snapshot(by_frames(made, archive, tmp_path / "frames")) == before
    assert not made.archive.root_owned
    assert snapshot(by_agent(made, archive, tmp_path / "agent")) == before
    verify_archive(made, archive, lambda _done, _total: None)
    kinds = [frame.kind for frame in made.frames]
    assert kinds == sorted(kinds, key=["folders", "files", "links", "attributes"].index)
    assert {"folders", "files", "links", "attributes"} == set(kinds)
    # 20 MiB of noise are one frame of three pieces
    assert [len(frame.pieces or ()) for frame in made.frames if frame.length > PIECE] == [3]
    assert [frame for frame in made.frames if frame.length <= PIECE and frame.pieces] == []


@pytest.mark.root
def test_a_tree_of_roots_keeps_its_folders_groups(tmp_path: Path) -> None:
    source = large_odd_tree(tmp_path / "roots")
    for place, folders, files in os.walk(os.fsencode(source)):
        for name in folders + files:
            path = os.path.join(place, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            # it would take a capability away
            if (status.st_uid, status.st_gid) != (0, 0):
                os.chown(path, 0, 0, follow_symlinks=False)
    # as on a NixOS: root:nixbld
    (store := source / "nix/store").mkdir(parents=True)
    (store / "file").write_text("x")
    (store / "file").chmod(0o444)
    os.chown(store, 0, 30000)
    store.chmod(0o3775)
    before = snapshot(source)
    made = packed(source, tmp_path / "out")
    assert made.archive.root_owned
    archive = tmp_path / "out/roots.tar.zst"
    assert snapshot(by_agent(made, archive, tmp_path / "agent")) == before
    os.chown(store / "file", 0, 30000)
    assert not packed(source, tmp_path / "other").archive.root_owned


@pytest.mark.root
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    source = large_odd_tree(tmp_path / "odd")
    sums = set()
    for cores in (1, 2, 5):
        made = packed(source, tmp_path / f"out-{cores}", cores=cores)
        text = (tmp_path / f"out-{cores}/odd.json").read_bytes()
        sums.add((made.archive.sha256, hashlib.sha256(text).hexdigest()))
    assert len(sums) == 1


@pytest.mark.root
def test_each_frame_is_whole_members_and_only_the_last_ends_the_archive(tmp_path: Path) -> None:
    made = packed(large_odd_tree(tmp_path / "odd"), tmp_path / "out")
    data = (tmp_path / "out/odd.tar.zst").read_bytes()
    for number, frame in enumerate(made.frames):
        compressed = data[frame.offset : frame.offset + frame.length]
        assert hashlib.sha256(compressed).hexdigest() == frame.sha256
        if frame.pieces:
            sums = [
                hashlib.sha256(compressed[start : start + PIECE]).hexdigest()
                for start in range(0, frame.length, PIECE)
            ]
            assert sums == frame.pieces
        tar = zstandard.ZstdDecompressor().decompress(compressed)
        assert len(tar) == frame.unpacked
        assert tar.endswith(bytes(1024)) or number < len(made.frames) - 1
        with (
            TemporaryDirectory() as folder,
            open(os.path.join(folder, "t"), "w+b") as file,  # noqa: PTH118, PTH123
        ):
            file.write(tar)
            file.flush()
            listed = subprocess.run(
                ["tar", "--list", "--null", "--quoting-style=literal", "-f", file.name],
                capture_output=True,
                check=True,
            )
        assert listed.stderr == b""


@pytest.mark.root
def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some").chmod(0o700)
    (tmp_path / "some/kept").write_bytes(b"k")
    (tmp_path / "some/other").mkdir()
    listeners = leftovers(tmp_path / "some")
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "some/other"], check=True)
    try:
        (tmp_path / "some/other/lost").write_bytes(b"l")
        code, _, said = payload_verb("pack", tmp_path / "some", "--output", tmp_path / "out")
    finally:
        subprocess.run(["umount", tmp_path / "some/other"], check=True)
        for listener in listeners:
            listener.close()
    assert code == 0
    for line in (
        "left out: device: a character device\n",
        "left out: fifo: a FIFO\n",
        "left out: socket: a socket\n",
        "left out: other: what another file system holds there\n",
        f"note: the root of the system will have mode 0700 and owner 0, as {tmp_path}/some has\n",
        "netinstall install would refuse it\n",
        "not signed: minisign -S -H -m some.json\n",
    ):
        assert line in said
    tree = snapshot(by_tar(tmp_path / "out/some.tar.zst", tmp_path / "tar"))
    assert set(tree) == {b"", b"kept", b"other", b"//links"}


_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not set(name) & {0, ord("/")}
)
_LEAF = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda target: ("link", target), _NAMES | st.just(b"/nix/x") | st.just(b"../x")),
    st.just("hard link"),
)
_TREES = st.recursive(
    st.dictionaries(_NAMES, _LEAF, max_size=4),
    lambda inner: st.dictionaries(_NAMES, _LEAF | inner, max_size=4),
    max_leaves=20,
)


def _make(path: bytes, tree: dict[bytes, object], files: list[bytes]) -> None:
    os.mkdir(path)  # noqa: PTH102
    for name, what in tree.items():
        place = path + b"/" + name
        if isinstance(what, dict):
            _make(place, what, files)
        elif isinstance(what, tuple):
            os.symlink(what[1], place)  # noqa: PTH211
        elif what == "hard link" and files:
            os.link(files[len(name) % len(files)], place)
        else:
            with open(place, "wb") as file:  # noqa: PTH123
                file.write(what if isinstance(what, bytes) else b"")
            os.chmod(place, 0o600 | name[0] % 0o200)  # noqa: PTH101
            files.append(place)
        os.utime(place, ns=(name[0] * 10**9, name[-1] * 10**9 + 5), follow_symlinks=False)
    os.utime(path, (7, 7))


@pytest.mark.root
@settings(max_examples=8)
@given(tree=_TREES)
def test_generated_trees_come_out_equal(tree: dict[bytes, object]) -> None:
    with TemporaryDirectory() as folder:
        top = Path(folder)
        _make(os.fsencode(top / "t"), tree, [])
        before = snapshot(top / "t")
        made = packed(top / "t", top / "out", name="t")
        archive = top / "out/t.tar.zst"
        assert snapshot(by_tar(archive, top / "tar")) == before
        assert snapshot(by_frames(made, archive, top / "frames")) == before


def _system(root: Path) -> str:
    """A folder in which the agent finds a system, of more than one frame."""
    toplevel = f"nix/store/{'0' * 32}-nixos-system-demo-26.05"
    (root / toplevel / "bin").mkdir(parents=True)
    (root / toplevel / "init").write_bytes(b"#!/bin/sh\n")
    (root / toplevel / "nixos-version").write_bytes(b"26.05")
    (root / toplevel / "bin/switch-to-configuration").symlink_to("/nix/store/elsewhere")
    (root / "nix-path-registration").write_bytes(b"r\n")
    for number in range(5):
        (root / f"large-{number}").write_bytes(os.urandom(1 << 19) * 18)
    (root / "again").hardlink_to(root / "large-0")
    (root / toplevel).chmod(0o555)
    os.utime(root / toplevel / "bin", (1, 1))
    os.utime(root / toplevel, (1, 1))
    root.chmod(0o755)
    return f"/{toplevel}"


@pytest.mark.root
def test_what_a_rebuild_finds_is_recorded(tmp_path: Path) -> None:
    root = tmp_path / "system"
    root.mkdir()
    toplevel = root / _system(root)[1:]
    made = packed(root, tmp_path / "out")
    assert made.system is not None
    assert made.system.programs is None
    assert made.system.rebuild == Rebuild(channel=None, configuration=False, stdenv=False)
    _, said, _ = payload_verb("show", tmp_path / "out/system.json")
    assert "programs      unknown\nchannel       none: it can be installed as prebuilt only" in said
    assert said.endswith("configuration none\nbuild tools   none\n")

    store = root / "nix/store"
    profile = store / f"{'1' * 32}-system-path"
    (profile / "bin").mkdir(parents=True)
    for name in ("nix-env", "nix-store", "other"):
        (profile / "bin" / name).symlink_to(f"/nix/store/{'2' * 32}-nix/bin/{name}")
    toplevel.chmod(0o755)
    (toplevel / "sw").symlink_to(f"/nix/store/{profile.name}")
    (store / f"{'3' * 32}-stdenv-linux").mkdir()
    (root / "etc/nixos").mkdir(parents=True)
    (root / "etc/nixos/configuration.nix").write_text("{ }")
    channel = f"/nix/store/{'4' * 32}-nixos-26.05"
    profiles = root / "nix/var/nix/profiles/per-user/root"
    profiles.mkdir(parents=True)
    # as nix-channel makes it
    environment = store / f"{'5' * 32}-user-environment"
    environment.mkdir()
    (environment / "nixos").symlink_to(f"{channel}/nixos")
    (profiles / "channels").symlink_to("channels-1-link")
    (profiles / "channels-1-link").symlink_to(f"/nix/store/{environment.name}")
    made = packed(root, tmp_path / "out")
    assert made.system is not None
    assert made.system.programs == ["nix-store", "nix-env"]
    wanted = Rebuild(channel=channel, configuration=True, stdenv=True)
    assert made.system.rebuild == wanted
    _, said, _ = payload_verb("show", tmp_path / "out/system.json")
    assert f"programs      nix-store nix-env\nchannel       {channel}\n" in said
    # as the sample system has it
    (profiles / "channels").unlink()
    (profiles / "channels").mkdir()
    (profiles / "channels/nixos").symlink_to(channel)
    made = packed(root, tmp_path / "out")
    assert made.system is not None
    assert made.system.rebuild == wanted
    # links in a circle lead nowhere
    (profiles / "channels/nixos").unlink()
    (profiles / "channels/nixos").symlink_to("nixos")
    made = packed(root, tmp_path / "out")
    assert made.system is not None
    assert made.system.rebuild == wanted.model_copy(update={"channel": None})


@pytest.mark.root
def test_the_agent_unpacks_it_as_the_tarball_that_it_is(tmp_path: Path) -> None:
    root = tmp_path / "system"
    root.mkdir()
    toplevel = _system(root)
    made = packed(root, tmp_path / "out")
    assert len([frame for frame in made.frames if frame.kind == "files"]) > 2
    assert made.system is not None
    assert (made.system.toplevel, made.system.nixos_version) == (toplevel, "26.05")
    archive = tmp_path / "out/system.tar.zst"
    (tmp_path / "target").mkdir()
    step = UnpackPayload(str(archive), made.archive.sha256, {"/": 2**40}, None, 30)
    inventory = payload.unpack(
        step, tmp_path / "target", Runner(), Narrator(lambda _event: None), None
    )
    assert snapshot(tmp_path / "target") == snapshot(root)
    assert (inventory.toplevel, inventory.entries) == (toplevel, made.archive.entries)
    assert inventory.usage["/"] == made.archive.usage


@pytest.mark.root
def test_another_packer_may_not_hide_a_member_between_frames(tmp_path: Path) -> None:
    root = tmp_path / "system"
    root.mkdir()
    _system(root)
    made = packed(root, tmp_path / "out")
    archive = tmp_path / "out/system.tar.zst"
    wrong = made.model_copy(
        update={
            "frames": [
                frame.model_copy(update={"entries": frame.entries + (frame.kind == "files")})
                for frame in made.frames
            ]
        }
    )
    with pytest.raises(InstallError) as caught:
        verify_archive(wrong, archive, lambda _done, _total: None)
    said = caught.value.problems[0]
    first = made.frames[1]
    assert first.kind == "files"
    assert (said.code, said.what) == (
        "payload.format",
        (
            "the archive is not what its manifest says: "
            f"frame 1 holds {first.entries} members, announced are {first.entries + 1}"
        ),
    )


def test_every_flipped_byte_of_a_small_archive_is_found(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/file").write_bytes(b"hello")
    made = packed(tmp_path / "s", tmp_path / "out")
    archive = tmp_path / "out/s.tar.zst"
    data = archive.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        archive.write_bytes(damaged)
        with pytest.raises(InstallError) as caught:
            verify_archive(made, archive, lambda _done, _total: None)
        assert caught.value.problems[0].code == "payload.hash"


def test_a_frame_that_looks_back_too_far_is_refused_as_by_the_agent(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/file").write_bytes(b"hello")
    made = packed(tmp_path / "s", tmp_path / "out")
    archive = tmp_path / "out/s.tar.zst"
    data = archive.read_bytes()
    far = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    first = made.frames[0]
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(data[: first.length])
    compressor = zstandard.ZstdCompressor(compression_params=far).compressobj()
    other = compressor.compress(plain) + compressor.flush()
    more = len(other) - first.length
    archive.write_bytes(other + data[first.length :])
    hashed = {"length": len(other), "sha256": hashlib.sha256(other).hexdigest()}
    frames = [
        first.model_copy(update=hashed),
        *(one.model_copy(update={"offset": one.offset + more}) for one in made.frames[1:]),
    ]
    whole = made.archive.model_copy(
        update={
            "size": made.archive.size + more,
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        }
    )
    wrong = made.model_copy(update={"frames": frames, "archive": whole})
    with pytest.raises(InstallError) as caught:
        verify_archive(wrong, archive, lambda _done, _total: None)
    (problem,) = caught.value.problems
    assert problem.code == "payload.format"
    assert "frame 0 cannot be decompressed: " in problem.what


def test_an_archive_that_is_not_the_manifests(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/file").write_bytes(b"hello")
    packed(tmp_path / "s", tmp_path / "out")
    archive = tmp_path / "out/s.tar.zst"
    size = archive.stat().st_size
    archive.write_bytes(archive.read_bytes()[:-1])
    code, _, said = payload_verb("verify", tmp_path / "out/s.json")
    assert code == 4
    assert said.endswith(
        f"error[payload.truncated]: the archive has {size - 1} bytes, the manifest says {size}\n"
        "  where: s.tar.zst\n"
        "  try:   copy the archive again; archive and manifest must be of the same packing\n"
    )
    archive.unlink()
    code, _, said = payload_verb("verify", tmp_path / "out/s.json")
    assert code == 4
    assert "error[payload.not-found]" in said


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    code, _, said = payload_verb("pack", "/nowhere", "--output", tmp_path)
    assert code == 4
    assert said == (
        "error[payload.source]: /nowhere is no folder, no file and no store path\n"
        "  where: netinstall payload pack\n"
        "  try:   is the path right?\n"
    )
    code, _, said = payload_verb("pack", tmp_path, "--output", tmp_path, "--name", "a b")
    assert code == 2
    assert "'a b' cannot be a payload's name" in said
    code, _, said = payload_verb("pack", tmp_path, "--output", tmp_path, "--expires", "2027")
    assert code == 2
    assert said == (
        "error[arguments]: '2027' is no time in UTC\n"
        "  where: --expires\n"
        "  try:   write it like 2027-01-01T00:00:00Z\n"
    )


@pytest.mark.root
@pytest.mark.slow
def test_three_hundred_thousand_empty_files(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for folder in range(300):
        (root / str(folder)).mkdir(parents=True)
        for number in range(1000):
            os.mknod(root / str(folder) / str(number), 0o644 | stat.S_IFREG)
    made = packed(root, tmp_path / "out")
    assert made.archive.entries == 300_000 + 2 * 301
    archive = tmp_path / "out/many.tar.zst"
    assert snapshot(by_frames(made, archive, tmp_path / "frames")) == snapshot(root)


@pytest.mark.root
@pytest.mark.slow
def test_a_sparse_file_of_five_gibibytes(tmp_path: Path) -> None:
    root = tmp_path / "sparse"
    root.mkdir()
    with (root / "file").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(3 << 30)
        file.write(os.urandom(20 << 20))
    made = packed(root, tmp_path / "out")
    assert made.archive.size < 30 << 20
    archive = tmp_path / "out/sparse.tar.zst"
    before = snapshot(root)
    assert snapshot(by_tar(archive, tmp_path / "tar")) == before
    assert snapshot(by_frames(made, archive, tmp_path / "frames")) == before


def test_a_tarball_is_put_in_order(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "mixed.tar.xz", "w:xz") as archive:
        for name, kind, target in (
            ("a/one", tarfile.REGTYPE, ""),
            ("a/link", tarfile.LNKTYPE, "a/one"),
            ("a/absolute", tarfile.SYMTYPE, "/x"),
            ("a", tarfile.DIRTYPE, ""),
            ("b/c/two", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime, info.mode = kind, target, 5, 0o755
            archive.addfile(info)
    made = packed(tmp_path / "mixed.tar.xz", tmp_path / "out")
    assert made.name == "mixed"
    assert [(frame.kind, frame.entries) for frame in made.frames] == [
        ("folders", 3),
        ("files", 2),
        ("links", 1),
        ("attributes", 4),
    ]
    result = by_tar(tmp_path / "out/mixed.tar.zst", tmp_path / "tar")
    assert (result / "a").stat().st_mtime == 5
    assert (result / "a/one").samefile(result / "a/link")
    assert (result / "b/c").stat().st_mode & 0o777 == 0o755
    verify_archive(made, tmp_path / "out/mixed.tar.zst", lambda _done, _total: None)


def test_a_tarball_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("same"))
        archive.addfile(tarfile.TarInfo("same"))
    code, _, said = payload_verb("pack", tmp_path / "twice.tar", "--output", tmp_path / "out")
    assert code == 4
    assert said.endswith(
        f"error[payload.source]: same comes twice in {tmp_path}/twice.tar, and frames have no "
        f"order\n  where: {tmp_path}/twice.tar\n"
        "  try:   unpack the archive as root, and pack the folder\n"
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_room_is_told_by_folder(tmp_path: Path) -> None:
    for name in ("nix/store/x/a", "nix/store/y", "nix/var/b", "var/lib/c", "home/d", "e"):
        path = tmp_path / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    made = packed(tmp_path / "s", tmp_path / "out")
    # two blocks for each file, one for each folder in it; those of / are not told
    assert made.archive.folders == {
        "/home": 8192,
        "/nix": 8192,
        "/nix/store": 20480,
        "/nix/var": 8192,
        "/var": 4096,
        "/var/lib": 8192,
    }
