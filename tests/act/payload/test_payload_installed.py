"""The sample system from each other source: unpacked, registered and built again in the target."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import sample

from installer.act import nixos
from installer.act.narrator import Narrator
from installer.act.payload import Inventory, closure, squashfs
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.payload_steps import CheckClosure, CopyClosure, UnpackSquashfs
from installer.model.plan import EnterTarget, RebuildSystem
from installer.model.units import GIB

pytestmark = [pytest.mark.root, pytest.mark.loop, pytest.mark.slow]

ROOMY = {"/": 2 * GIB}
NARRATOR = Narrator(lambda _event: None)
RUNNER = Runner()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample system, unpacked."""
    root = tmp_path_factory.mktemp("sample") / "root"
    root.mkdir()
    subprocess.run(["tar", "--zstd", "-xpf", sample.tarball(), "-C", root], check=True)
    return root


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A file system of its own: nixos-generate-config writes what is mounted."""
    image, root = tmp_path / "disk.img", tmp_path / "target"
    with image.open("wb") as file:
        file.truncate(2 * GIB)
    root.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    made = Target(root, RUNNER)
    try:
        yield made
    finally:
        made.abandon()
        subprocess.run(["umount", root], check=True)


def _finish(target: Target, found: Inventory, *, register: bool, rebuild: bool) -> str:
    """What an installation does next, but the boot loader; return the system that would boot."""
    target.enter(EnterTarget(efivars=False))
    if register:
        nixos.register_store(target, RUNNER, found.toplevel)
    nixos.generate_config(target, RUNNER, found.toplevel)
    if rebuild:
        step = RebuildSystem(
            None, "<nixpkgs/nixos>", "system", substitute=False, timeout_seconds=900
        )
        nixos.rebuild(step, target, RUNNER, found.toplevel)
    else:
        nixos.set_profile(target, RUNNER, found.toplevel)
    nixos.flush(target, RUNNER, whole_store=True)
    return nixos.profile_toplevel(target)


def _squashfs(source: Path, image: Path) -> UnpackSquashfs:
    options = ["-quiet", "-no-progress", "-comp", "zstd", "-Xcompression-level", "3"]
    subprocess.run(["mksquashfs", source, image, *options], check=True)
    return UnpackSquashfs(str(image), None, ROOMY, None, 5)


def test_a_squashfs_of_a_whole_root(system: Path, target: Target, tmp_path: Path) -> None:
    step = _squashfs(system, tmp_path / "root.squashfs")
    found = squashfs.unpack(step, target.root, RUNNER, NARRATOR)
    built = _finish(target, found, register=True, rebuild=True)
    assert built != found.toplevel
    assert (target.path(built) / "init").exists()


def test_the_store_of_a_netboot_image(system: Path, target: Target, tmp_path: Path) -> None:
    store = tmp_path / "store"
    subprocess.run(["cp", "-a", system / "nix/store", store], check=True)
    subprocess.run(["cp", system / "nix-path-registration", store], check=True)
    step = _squashfs(store, tmp_path / "nix-store.squashfs")
    found = squashfs.unpack(step, target.root, RUNNER, NARRATOR)
    assert _finish(target, found, register=True, rebuild=False) == found.toplevel
    assert not target.path("nix-path-registration").exists()


def test_a_closure_with_its_channel(system: Path, target: Target, tmp_path: Path) -> None:
    def nix(*argv: str | Path, text: str = "") -> str:
        settings = "sandbox = false\nsubstituters =\nbuild-users-group =\n"
        done = subprocess.run(
            argv,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "NIX_CONFIG": settings + "experimental-features = nix-command\n",
            },
            input=text,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    (toplevel,) = (f"/{p.relative_to(system)}" for p in system.glob("nix/store/*-nixos-system-*/"))
    channel = str((system / "nix/var/nix/profiles/per-user/root/channels/nixos").readlink())
    store = ("nix-store", "--store", system)
    nix(*store, "--load-db", text=(system / "nix-path-registration").read_text())
    configuration = nix(*store, "--add", system / "etc/nixos")
    nix("nix-store", "--generate-binary-cache-key", "k-1", tmp_path / "sec", tmp_path / "pub")
    cache = f"file://{tmp_path}/cache?secret-key={tmp_path}/sec&compression=none"
    nix("nix", "copy", "--from", system, "--to", cache, toplevel, channel, configuration)
    key = (tmp_path / "pub").read_text()
    what = (f"{tmp_path}/cache", toplevel, (key,), configuration, channel, ROOMY, 5)
    closure.check(CheckClosure(*what), NARRATOR, RUNNER)
    found = closure.copy(CopyClosure(*what), target.root, RUNNER, NARRATOR)
    built = _finish(target, found, register=False, rebuild=True)
    assert built != toplevel
    assert (target.path(built) / "init").exists()
