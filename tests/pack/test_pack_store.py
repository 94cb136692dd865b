"""A closure, as real Nix knows it, in a store of its own."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lab.trees import snapshot
from trees import by_frames, by_tar, packed, payload_verb

NIX = {
    "PATH": os.environ["PATH"],
    "NIX_CONFIG": "sandbox = false\nsubstituters =\nbuild-users-group =\n",
}


def nix(*argv: str | Path, typed: Sequence[str] = ()) -> str:
    text = "".join(f"{line}\n" for line in typed)
    done = subprocess.run(argv, env=NIX, input=text, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The root of a store, and a toplevel in it that refers to another path."""
    root = tmp_path / "store root"
    (tmp_path / "kernel/lib/modules/6.12.1").mkdir(parents=True)
    (tmp_path / "kernel/lib/modules/6.12.1/twice").write_bytes(b"same" * 2000)
    (tmp_path / "kernel/lib/modules/6.12.1/again").write_bytes(b"same" * 2000)
    kernel = nix("nix-store", "--store", root, "--add", tmp_path / "kernel")
    top = tmp_path / "nixos-system-demo-26.05"
    (top / "bin").mkdir(parents=True)
    (top / "init").write_text("#!/bin/sh\n")
    (top / "nixos-version").write_text("26.05.20260101.abc")
    (top / "system").write_text("x86_64-linux")
    (top / "kernel-modules").symlink_to(kernel)
    (top / "bin/switch-to-configuration").symlink_to(f"{kernel}/x")
    toplevel = nix("nix-store", "--store", root, "--add", top)
    # `--add` looks for no references, and a build wants a store at /nix: they are registered
    known = nix("nix-store", "--store", root, "--dump-db", toplevel).splitlines()
    assert known[4:] == ["0"]
    nix("nix-store", "--store", root, "--load-db", typed=[*known[:4], "1", kernel])
    nix("nix-store", "--store", root, "--optimise")
    yield root, toplevel  # noqa: PT022


@pytest.mark.root
def test_a_toplevel_is_packed_with_its_registration(
    store: tuple[Path, str], tmp_path: Path
) -> None:
    root, toplevel = store
    made = packed(toplevel, tmp_path / "out", store=root)
    assert made.name == "nixos-system-demo-26.05"
    assert made.system is not None
    assert (made.system.toplevel, made.system.platform) == (toplevel, "x86_64-linux")
    assert made.system.nixos_version == "26.05.20260101.abc"
    assert made.built == "1970-01-01T00:00:01Z"
    archive = tmp_path / f"out/{made.archive_name}"
    plain, framed = by_tar(archive, tmp_path / "tar"), by_frames(made, archive, tmp_path / "frames")
    assert snapshot(plain) == snapshot(framed)
    ours, theirs = snapshot(plain / toplevel[1:]), snapshot(root / toplevel[1:])
    # how a store links its files is no part of what it holds
    assert ours.pop(b"//links") == ()
    theirs.pop(b"//links")
    assert ours == theirs
    registration = (plain / "nix-path-registration").read_text()
    paths = nix("nix-store", "--store", root, "-qR", toplevel).split()
    kernel = os.readlink(root / toplevel[1:] / "kernel-modules")  # noqa: PTH115
    assert sorted(paths) == sorted([toplevel, kernel])
    assert made.system.kernel == "6.12.1"
    ours, theirs = snapshot(plain / kernel[1:]), snapshot(root / kernel[1:])
    # a store links equal files, and an archive of it says nothing of that
    assert theirs.pop(b"//links")
    assert ours.pop(b"//links") == ()
    assert ours == theirs
    assert registration == nix("nix-store", "--store", root, "--dump-db", *sorted(paths)) + "\n"
    assert {path.stat().st_mtime for path in (plain, plain / "nix", plain / "nix/store")} == {1}
    assert (plain / "nix/store").stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
def test_a_path_that_nix_does_not_know(store: tuple[Path, str], tmp_path: Path) -> None:
    path = f"/nix/store/{'0' * 32}-nixos-system-none"
    code, _, said = payload_verb("pack", path, "--output", tmp_path / "out", "--store", store[0])
    assert code == 5
    assert "error[command.failed]: nix-store ended with exit code 1" in said
    assert "is not valid" in said
