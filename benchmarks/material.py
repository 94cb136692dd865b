"""What the benchmarks read: one real tree, and the same tree as each competitor wants it.

    python benchmarks/material.py FOLDER [--source /usr] [--size 2048] [--files 60000]

Needs root, Nix, squashfs-tools, xz, zstd and gzip. The tree is a NixOS-shaped one: folders of
`--source` as paths of a Nix store (in the order of a hash of their names, until there are enough
bytes and files), a registration, and a toplevel. What exists is not made again.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024**2
LEVEL = 9
"""zstd's, for every zstd file: the packer's default."""

_NAME = re.compile(r"[A-Za-z0-9_+=?-][A-Za-z0-9_.+=?-]{0,100}")
_TAR = ("tar", "--sort=name", "--numeric-owner", "--format=posix", "--create", "--file=-")
_NIX = {
    "PATH": os.environ["PATH"],
    "HOME": "/root",
    "USER": "root",
    "NIX_USER_CONF_FILES": "/dev/null",
    "NIX_CONFIG": "extra-experimental-features = nix-command\nbuild-users-group =\n"
    "substituters =\nrequire-sigs = false\n",
}


@dataclass(frozen=True)
class Material:
    """Where everything is."""

    folder: Path

    @property
    def tree(self) -> Path:
        """The tree itself."""
        return self.folder / "tree"

    @property
    def manifest(self) -> Path:
        """Ours; the archive lies beside it."""
        return self.folder / "web/bench.json"

    def file(self, suffix: str) -> Path:
        """What the server serves: `tar.gz` and so on."""
        return self.folder / f"web/plain.{suffix}"

    def halves(self, suffix: str, count: int) -> list[Path]:
        """Shares of the tree for one process each."""
        return [self.folder / f"share{number}of{count}.{suffix}" for number in range(count)]

    @property
    def paths(self) -> list[str]:
        """The store paths."""
        return sorted(f"/nix/store/{path.name}" for path in (self.tree / "nix/store").iterdir())


def _shell(script: str, *arguments: object) -> None:
    argv = ["bash", "-o", "pipefail", "-c", script, "-", *map(str, arguments)]
    subprocess.run(argv, check=True, cwd=ROOT)


def _folders(source: Path, size: int, files: int) -> list[Path]:
    """Choose folders of the source, never the same bytes twice."""
    chosen, bytes_seen, files_seen = [], 0, 0
    waiting = list(source.glob("*"))
    depth = len(source.parts) + 1
    while waiting:
        found = [path for path in waiting if path.is_dir() and not path.is_symlink()]
        found = [path for path in found if "local" not in path.parts]
        waiting = []
        for path in sorted(found, key=lambda path: hashlib.sha256(str(path).encode()).digest()):
            measured = [
                Path(place, name).lstat().st_size
                for place, _, names in os.walk(path)
                for name in names
            ]
            if len(path.parts) == depth or sum(measured) > min(size * 0.4, 1024 * MIB):
                waiting += path.glob("*")
                continue
            if not _NAME.fullmatch(path.name):
                continue
            chosen.append(path)
            bytes_seen += sum(measured)
            files_seen += len(measured)
            if bytes_seen >= size and files_seen >= files:
                return chosen
    sys.exit(f"{source} has only {bytes_seen / MIB:.0f} MiB in {files_seen} files of use")


def _make_tree(folder: Path, source: Path, size: int, files: int) -> None:
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    top = folder / "nixos-system-bench-24.11"
    (top / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("init", "nixos-version", "bin/switch-to-configuration"):
        (top / name).write_text("24.11\n")
    chosen = [*_folders(source, size, files), top]
    add = ["nix-store", "--store", str(store), "--add", *map(str, chosen)]
    subprocess.run(add, check=True, env=_NIX, stdout=subprocess.DEVNULL)
    with (folder / "registration").open("wb") as out:
        dump = ["nix-store", "--store", str(store), "--dump-db"]
        subprocess.run(dump, check=True, env=_NIX, stdout=out)
    names = sorted(path.name for path in (store / "nix/store").iterdir() if path.name[0] != ".")
    cache = folder / "web/cache"
    url = f"file://{cache}?compression=zstd&parallel-compression=true"
    argv = ["nix", "copy", "--from", str(store), "--to", url]
    subprocess.run([*argv, *(f"/nix/store/{name}" for name in names)], check=True, env=_NIX)
    tree = folder / "tree"
    (tree / "nix").mkdir(parents=True)
    (store / "nix/store/.links").exists() and shutil.rmtree(store / "nix/store/.links")
    (store / "nix/store").rename(tree / "nix/store")
    (folder / "registration").rename(tree / "nix-path-registration")
    shutil.rmtree(store)
    (folder / "tree.is-whole").touch()


def _shares(tree: Path, count: int) -> list[list[str]]:
    """Divide the store paths so that each process has as much to do."""
    shares: list[list[str]] = [[] for _ in range(count)]
    costs = [0] * count
    weighed = []
    for path in (tree / "nix/store").iterdir():
        cost = 0
        for place, _, names in os.walk(path):
            # making a file costs as much as writing some 50 KB
            cost += sum(50_000 + Path(place, name).lstat().st_size for name in names)
        weighed.append((cost, f"./nix/store/{path.name}"))
    for cost, name in sorted(weighed, reverse=True):
        least = costs.index(min(costs))
        shares[least].append(name)
        costs[least] += cost
    return shares


def prepare(folder: Path, source: Path, size: int, files: int, wanted: Sequence[str]) -> Material:
    """Make what is missing of `wanted`: names of _MAKERS."""
    material = Material(folder)
    cores = os.cpu_count() or 1
    (folder / "web").mkdir(parents=True, exist_ok=True)
    if not (folder / "tree.is-whole").exists():
        _make_tree(folder, source, size, files)
    for name in wanted:
        _MAKERS[name](material, cores)
    return material


def _into(path: Path, script: str, *arguments: object) -> None:
    """Make a file of a shell's standard output, whole or not at all."""
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr, flush=True)
        _shell(f"{script} > {path}.part", *arguments)
        path.with_name(path.name + ".part").rename(path)


def _make_packed(material: Material, _cores: int) -> None:
    if material.manifest.exists():
        return
    print("packing ours", file=sys.stderr, flush=True)
    options = ["--output", str(material.manifest.parent), "--name", "bench"]
    options += ["--compression", str(LEVEL)]
    argv = [sys.executable, "-m", "installer", "payload", "pack", str(material.tree), *options]
    subprocess.run(argv, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)


def _make_plain(material: Material, _cores: int) -> None:
    _into(material.file("tar"), f'{" ".join(_TAR)} -C "$1" .', material.tree)


def _made_by(suffix: str, compressor: str) -> Callable[[Material, int], None]:
    def make(material: Material, cores: int) -> None:
        _make_plain(material, cores)
        _into(material.file(suffix), f'{compressor} < "$1"', material.file("tar"))

    return make


def _make_squashfs(material: Material, _cores: int) -> None:
    path = material.file("squashfs")
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr, flush=True)
        # as nixpkgs makes it (nixos/lib/make-squashfs.nix), with our level
        _shell(
            'mksquashfs "$1" "$2.part" -quiet -no-progress -no-hardlinks -b 1048576 '
            f'-comp zstd -Xcompression-level {LEVEL} >/dev/null && mv "$2.part" "$2"',
            material.tree,
            path,
        )


def _make_shares(material: Material, cores: int) -> None:
    paths = material.halves("tar", cores)
    if all(path.exists() for path in paths):
        return
    for path, names in zip(paths, _shares(material.tree, cores), strict=True):
        listed = path.with_suffix(".names")
        listed.write_text("\n".join(names))
        _into(path, f'{" ".join(_TAR)} -C "$1" -T "$2"', material.tree, listed)


def _make_frames(material: Material, cores: int) -> None:
    """Our own frames, as files that `zstd -d` takes: folders, attributes, a share for each core."""
    _make_packed(material, cores)
    frames = json.loads(material.manifest.read_text())["frames"]
    if any(frame["kind"] == "links" for frame in frames):
        sys.exit("the tree has hard links: choose another source")
    files = [frame for frame in frames if frame["kind"] == "files"]
    parts = {
        material.folder / f"{kind}.zst": [frame for frame in frames if frame["kind"] == kind]
        for kind in ("folders", "attributes")
    } | {path: files[number::cores] for number, path in enumerate(material.halves("zst", cores))}
    data = material.manifest.with_name("bench.tar.zst").read_bytes()
    for path, chosen in parts.items():
        if path.exists():
            continue
        with path.open("wb") as out:
            for frame in chosen:
                out.write(data[frame["offset"] : frame["offset"] + frame["length"]])


_MAKERS: dict[str, Callable[[Material, int], None]] = {
    "packed": _make_packed,
    "tar": _make_plain,
    "zst": _made_by("tar.zst", f"zstd -q -T0 -{LEVEL} -c"),
    "gz": _made_by("tar.gz", "gzip -6 -n"),
    "xz": _made_by("tar.xz", "xz -1 -T0"),
    "squashfs": _make_squashfs,
    "shares": _make_shares,
    "frames": _make_frames,
    "cache": lambda _material, _cores: None,
}


def main() -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, default=Path("/usr"))
    parser.add_argument("--size", type=int, default=2048, help="MiB of contents, at least")
    parser.add_argument("--files", type=int, default=60_000, help="at least")
    parser.add_argument("--only", action="append", choices=sorted(_MAKERS))
    arguments = parser.parse_args()
    prepare(
        arguments.folder.resolve(),
        arguments.source,
        arguments.size * MIB,
        arguments.files,
        arguments.only or list(_MAKERS),
    )


if __name__ == "__main__":
    main()
