"""Build products, kept between runs and keyed on what they are built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_UNUSED_S = 2 * 24 * 3600


def root() -> Path:
    """$NETINSTALL_CACHE, or ~/.cache/netinstall."""
    named = os.environ.get("NETINSTALL_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "netinstall"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder(name: str) -> Path:
    """A folder for downloads that a builder reuses and checks itself."""
    kept = root() / name
    kept.mkdir(exist_ok=True)
    return kept


def key(inputs: Sequence[Path | str]) -> str:
    """A hash of parameters (str) and of files (Path: names, modes and contents; folders deeply).

    Raises FileNotFoundError for a path that does not exist.
    """
    total = hashlib.sha256()
    for number, one in enumerate(inputs):
        if isinstance(one, str):
            total.update(f"{number} text {len(one.encode())}\n{one}".encode())
            continue
        for file in _files(one):
            name = file.relative_to(one).as_posix()
            if file.is_symlink():
                total.update(f"{number} link {name}\0{file.readlink()}\0".encode())
                continue
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            executable = file.stat().st_mode & 0o111 != 0
            total.update(f"{number} file {name}\0{executable} {content}\n".encode())
    return total.hexdigest()[:20]


def build(name: str, inputs: Sequence[Path | str], make: Callable[[Path], None]) -> Path:
    """The product `name` of these inputs; `make` is called with a path to create it at if needed.

    The product (file or folder) is renamed into place when it is complete, and a second process
    that wants the same waits for the first. Products of that name that nobody wanted for two days
    are removed.
    """
    parent = root()
    product = parent / f"{name}-{key(inputs)}"
    if product.exists():
        os.utime(product)
        return product
    with _locked(parent / f"{product.name}.lock"):
        if product.exists():
            return product
        print(f"cache: building {product.name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        partial = parent / f"{product.name}.partial"
        _remove(partial)
        try:
            make(partial)
            partial.rename(product)
        finally:
            _remove(partial)
        _forget_unused(parent, name)
        took = time.monotonic() - began
        print(f"cache: built {product.name} in {took:.1f} s", file=sys.stderr, flush=True)
    return product


def _forget_unused(parent: Path, name: str) -> None:
    # A boot image for each state of the agent would fill the disk within a day's work.
    for path in parent.glob(f"{name}-*"):
        known = re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{20}}", path.name)
        if known and time.time() - path.stat().st_mtime > _UNUSED_S:
            _remove(path)


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink() or not path.is_dir():
        path.lstat()
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.name != "__pycache__":
            yield from (child,) if not child.is_dir() else _files(child)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
