"""make-initrd-ng.py CONTENTS ROOT: what nixpkgs' program of that name does, which is in Rust.

CONTENTS is a JSON list of {source, target}: files and folders of the store that are copied to ROOT
under their own names, with what their links and their ELF files name, and a link at `target`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def libraries(file: Path) -> Iterator[str]:
    """Return the paths that an ELF file loads: its interpreter, what it needs, what it may open."""
    content = file.read_bytes()
    if not content.startswith(b"\x7fELF"):
        return
    said = {
        option: subprocess.run(
            ["patchelf", f"--print-{option}", file], check=False, capture_output=True, text=True
        ).stdout.split()
        for option in ("interpreter", "rpath", "needed")
    }
    yield from said["interpreter"]
    # https://systemd.io/ELF_DLOPEN_METADATA/
    opened = [
        name
        for names in re.findall(rb'"soname":\[([^]]*)\]', content)
        for name in json.loads(b"[" + names + b"]")
    ]
    folders = ":".join(said["rpath"]).split(":")
    for name in (*said["needed"], *opened):
        for folder in folders:
            if folder and Path(folder, name).exists():
                yield str(Path(folder, name))
                break


def copy(path: str, root: Path) -> Iterator[str]:
    """Copy one path; return those that have to be copied with it."""
    source = Path("/")
    parts = Path(path).parts[1:]
    for index, part in enumerate(parts):
        source /= part
        target = root / source.relative_to("/")
        if source.is_symlink():
            if not target.is_symlink():
                target.symlink_to(source.readlink())
            # what stands before it is no link: `..` leads where it seems to
            following = os.path.normpath(
                Path(source.parent, source.readlink(), *parts[index + 1 :])
            )
            if Path(following).exists():
                yield following
            return
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists():
            shutil.copy(source, target)
            yield from libraries(source)
    if source.is_dir():
        yield from (str(child) for child in source.iterdir())


def main(contents: str, root: Path) -> None:
    entries = json.loads(Path(contents).read_text())
    for entry in entries:
        if entry.get("target"):
            target = root / entry["target"].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(entry["source"])
    waiting = [entry["source"] for entry in entries]
    seen: set[str] = set()
    while waiting:
        path = os.path.normpath(waiting.pop(0))
        # a build in a sandbox would not see this machine's files
        if path not in seen and path.startswith("/nix/store/"):
            seen.add(path)
            waiting += copy(path, root)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
