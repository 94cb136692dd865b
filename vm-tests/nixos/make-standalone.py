"""make-standalone.py ROOT USR: let a tree of Debian's files run from wherever it lies.

Programs get the loader and the libraries of ROOT, scripts the interpreters of ROOT, and absolute
links point into ROOT. `patchelf` comes from USR, the /usr of a Debian that has it.
"""

import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
# elf(5): types of program headers
DYNAMIC, INTERPRETER = 2, 3


def segments(file: Path) -> set[int]:
    """Return the types of an ELF file's program headers; of any other file, none (elf(5))."""
    with file.open("rb") as source:
        header = source.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return set()
        (start,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        source.seek(start)
        table = source.read(size * count)
    return {struct.unpack_from("<I", table, size * index)[0] for index in range(count)}


def files(root: Path) -> Iterator[Path]:
    """Return all regular files, each once."""
    for path in sorted(root.rglob("*")):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def patch(root: Path, usr: Path) -> None:
    """Give programs and libraries the loader and the search path of `root`."""
    patchelf = [str(usr / LOADER), "--library-path", str(usr / LIBRARIES)]
    patchelf += [str(usr / "bin/patchelf")]
    inside = root / "usr"
    folders = [inside / LIBRARIES, inside / LIBRARIES / "systemd", inside / "lib/nix"]
    search = ":".join(str(each) for each in folders if each.is_dir())
    programs: list[Path] = []
    libraries: list[Path] = []
    for file in files(root):
        found = segments(file)
        # the loader finds itself, and is found by, nothing
        if DYNAMIC in found and not file.name.startswith(("ld-linux", "libc.so")):
            (programs if INTERPRETER in found else libraries).append(file)
    # Two runs, and in this order: patchelf 0.18 breaks programs at fixed addresses (python3.11)
    # otherwise. DT_RPATH also counts for what is loaded later.
    for group, options in (
        ([*programs, *libraries], ["--force-rpath", "--add-rpath", search]),
        (programs, ["--set-interpreter", str(inside / LOADER)]),
    ):
        for start in range(0, len(group), 200):
            chunk = group[start : start + 200]
            subprocess.run([*patchelf, *options, *map(str, chunk)], check=True)


def relink(root: Path) -> None:
    """Let absolute links and the first lines of scripts name files of `root`."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and path.readlink().is_absolute():
            # /bin and /lib are links to /usr, of which alone this tree is made
            target = root / "usr" / re.sub(r"^/(usr/)?", "", str(path.readlink()))
            path.unlink()
            if target.exists():
                path.symlink_to(target)
    for file in files(root):
        with file.open("rb") as source:
            first = source.readline(200)
        found = re.match(rb"#! *(/[^ \n]+)", first)
        name = re.sub(r"^/(usr/)?", "", found[1].decode()) if found else ""
        if found and (program := root / "usr" / name).exists():
            text = file.read_bytes()[len(found[0]) :]
            file.write_bytes(b"#!%s" % str(program).encode() + text)


if __name__ == "__main__":
    relink(Path(sys.argv[1]))
    patch(Path(sys.argv[1]), Path(sys.argv[2]))
