"""Trees of files: odd ones, what a tree is, and what became of it on a disk."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

ACL_ACCESS = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permission, identity)
    for tag, permission, identity in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)
"""user::rw- user:1234:r-- group::r-- mask::r-- other::--- (Linux: posix_acl_xattr.h)."""

Snapshot = dict[bytes, tuple[Any, ...]]


def snapshot(root: Path) -> Snapshot:
    """Everything about a tree: type, mode, owner, time, links, attributes, contents."""
    found: Snapshot = {}
    top = os.fsencode(root)
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        path = top + b"/" + name if name else top
        status = os.lstat(path)
        data: object = None
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:  # noqa: PTH123 - bytes
                digest = sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
            sparse = status.st_size > 1 << 20 and status.st_blocks * 512 < status.st_size // 2
            data = (status.st_size, digest.digest(), sparse)
        elif stat.S_ISLNK(status.st_mode):
            data = os.readlink(path)  # noqa: PTH115
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            data,
            attributes,
        )
        if stat.S_ISDIR(status.st_mode):
            waiting += [name + b"/" + each if name else each for each in os.listdir(path)]  # noqa: PTH208
    groups: dict[int, list[bytes]] = {}
    for name in found:
        status = os.lstat(top + b"/" + name if name else top)
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            groups.setdefault(status.st_ino, []).append(name)
    found[b"//links"] = tuple(sorted(tuple(sorted(names)) for names in groups.values()))
    return found


def odd_tree(root: Path) -> Path:
    """Make everything that a system may hold, and more. Needs root."""
    root.mkdir()
    root.chmod(0o755)
    top = os.fsencode(root)
    for name in (b"new\nline", b"\xff\xfe", "ü".encode(), b"-rf", b"*", b" ", b"a" * 255):
        os.mkdir(top + b"/" + name)  # noqa: PTH102
        with open(top + b"/" + name + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(name * 100)
    long = top
    for _ in range(8):
        long += b"/" + b"d" * 200
        os.mkdir(long)  # noqa: PTH102
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "owned").write_bytes(b"s")
    os.chown(root / "owned", 12, 34)
    (root / "owned").chmod(0o1751)
    (root / "setgid").mkdir()
    os.chown(root / "setgid", 0, 77)
    (root / "setgid").chmod(0o2750)
    (root / "setgid/below").mkdir()
    (root / "closed").mkdir()
    (root / "closed/file").write_bytes(b"c")
    (root / "closed").chmod(0)
    (root / "unreadable").write_bytes(b"u")
    (root / "unreadable").chmod(0)
    os.chown(root / "unreadable", 3_000_000, 3_000_000)
    (root / "z-first").write_bytes(b"linked")
    (root / "a-second").hardlink_to(root / "z-first")
    (root / "sticky/third").hardlink_to(root / "z-first")
    (root / "absolute").symlink_to("/nix/store/somewhere")
    (root / "sticky/absolute").symlink_to("/nix/store/somewhere")
    (root / "sticky/up").symlink_to("../a-second")
    (root / "sticky/gone").symlink_to("nowhere")
    (root / "linked-link").symlink_to("target")
    os.link(root / "linked-link", root / "sticky/linked-link", follow_symlinks=False)
    (root / "capable").write_bytes(b"x")
    subprocess.run(["setcap", "cap_net_raw+ep", root / "capable"], check=True)
    (root / "attributes").write_bytes(b"x")
    os.setxattr(root / "attributes", "user.value", b"\0\n=\xff" * 20)
    os.setxattr(root / "attributes", "trusted.value", b"t")
    os.setxattr(root / "attributes", "system.posix_acl_access", ACL_ACCESS)
    (root / "inherits").mkdir()
    (root / "inherits/plain").write_bytes(b"p")
    (root / "inherits/below").mkdir()
    os.setxattr(root / "inherits", "system.posix_acl_default", ACL_ACCESS)
    os.setxattr(root / "inherits", "user.folder", b"f")
    with (root / "sparse").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(17 << 20)
        file.write(b"middle")
    (root / "süß-sparse").write_bytes(b"")
    with (root / "süß-sparse").open("wb") as file:
        file.truncate(5 << 20)
    times = {"owned": 1, "sticky": 1_700_000_000_123_456_789, "sparse": -5, "absolute": 7}
    for entry, value in times.items():
        os.utime(root / entry, ns=(value, value), follow_symlinks=False)
    os.utime(root, ns=(99, 99))
    return root


def require_equal(
    before: Snapshot, after: Snapshot, *, written: Collection[str] = (), timed: Collection[str] = ()
) -> None:
    """Compare two trees.

    Args:
        before, after: what to compare.
        written: paths that do not count, with all that lies below them.
        timed: paths whose time does not count.

    Raises:
        AssertionError: they differ; it names each path and what each tree has there.
    """
    ours = [os.fsencode(path) for path in written]

    def counts(name: bytes) -> bool:
        return not any(name == path or name.startswith(path + b"/") for path in ours)

    said = []
    for name in sorted(filter(counts, before.keys() | after.keys())):
        one, two = before.get(name), after.get(name)
        if one is not None and two is not None and os.fsdecode(name) in timed:
            one, two = (*one[:3], *one[4:]), (*two[:3], *two[4:])
        if one != two:
            said.append(f"{name!r}:\n  {one}\n  {two}")
    if said:
        raise AssertionError("\n".join(said))
