"""Odd trees, packed and unpacked in several ways."""

import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab.trees import odd_tree
from processes import COMMAND, ENVIRONMENT, ROOT

from installer.act.narrator import Narrator
from installer.act.payload.frames import unpack_frames
from installer.act.payload.mirrors import open_mirror
from installer.act.payload.source import Patience
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.manifest import Manifest
from installer.observe.manifest import load
from installer.pack.payload import Wishes, pack


def large_odd_tree(root: Path) -> Path:
    """Make an odd tree with files that do not fit into one frame."""
    odd_tree(root)
    (root / "large").write_bytes(os.urandom(1 << 20) * 40)
    (root / "noise").write_bytes(os.urandom(20 << 20))
    os.utime(root, ns=(99, 99))
    return root


def leftovers(root: Path) -> list[socket.socket]:
    """Add what no payload holds."""
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    return [listener]


def packed(source: Path | str, output: Path, **wishes: Any) -> Manifest:
    """Pack, and read the manifest back."""
    made = pack(
        Wishes(str(source), output, **wishes), lambda _text: None, lambda _done, _total: None
    )
    assert load((output / f"{made.name}.json").read_bytes(), "x.json") == made
    return made


def by_tar(archive: Path, target: Path) -> Path:
    """Unpack as anybody would."""
    target.mkdir()
    subprocess.run(
        ["tar", "--zstd", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", target],
        check=True,
    )
    return target


TAR = ("tar", "--extract", "--file=-", "--preserve-permissions", "--same-owner")
ATTRIBUTES = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp")


def by_frames(manifest: Manifest, archive: Path, target: Path) -> Path:
    """Unpack each frame by a tar of its own, two at a time where the kind allows it."""
    target.mkdir()
    for kind in ("folders", "files", "links", "attributes"):
        frames = [frame for frame in manifest.frames if frame.kind == kind]
        width = 2 if kind in ("files", "links") else 1
        # backwards: their order must not matter
        if width == 2:
            frames.reverse()
        for start in range(0, len(frames), width):
            running = []
            for frame in frames[start : start + width]:
                script = 'tail -c "+$1" "$2" | head -c "$3" | zstd -dc | "${@:4}"'
                argv = ["bash", "-c", script, "-", str(frame.offset + 1), str(archive)]
                argv += [str(frame.length), *TAR, *ATTRIBUTES, f"--directory={target}"]
                running.append(subprocess.Popen(argv))
            assert [process.wait() for process in running] == [0] * len(running)
    return target


def by_agent(manifest: Manifest, archive: Path, target: Path) -> Path:
    """Unpack as the agent does; what makes a NixOS of it does not matter."""
    target.mkdir()
    runner, narrator = Runner(), Narrator(lambda _event: None)
    with pytest.raises(InstallError) as refused:
        unpack_frames(
            manifest,
            [open_mirror(str(archive), manifest.archive.size, (1.0, 1.0))],
            target,
            capacity={"/": 2**40},
            toplevel=None,
            connections=2,
            stall_seconds=20,
            retry_seconds=20,
            narrator=narrator,
            runner=runner,
            patience=Patience(),
            workers=2,
        )
    assert [problem.code for problem in refused.value.problems] == ["payload.not-nixos"]
    return target


def payload_verb(
    *arguments: str | Path, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """Run `netinstall payload` as this user; return exit code, output and errors."""
    done = subprocess.run(
        [*COMMAND, "payload", *map(str, arguments)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        input=stdin,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
