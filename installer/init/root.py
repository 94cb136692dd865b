"""The file systems that everybody expects, and a root that can be written."""

import errno
import os
from pathlib import Path

from installer.init import kernel
from installer.init.children import Children

_ROOT = Path("/")
_HARDENED = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_VIRTUAL = (
    ("proc", _ROOT / "proc", _HARDENED, ""),
    ("sysfs", _ROOT / "sys", _HARDENED, ""),
    ("devtmpfs", _ROOT / "dev", kernel.MS_NOSUID, "mode=0755"),
    ("devpts", _ROOT / "dev/pts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "gid=5,mode=0620"),
    ("tmpfs", _ROOT / "dev/shm", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777"),
    ("tmpfs", _ROOT / "run", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755"),
)
"""Type, place, flags and options, outer ones first."""

_PIVOT_POINTS = tuple(_ROOT / name for name in ("mnt", "media", "srv", "tmp"))
_MODULE_SECONDS = 30.0
_UNION_SECONDS = 20.0


def mount_virtual() -> None:
    """Mount what is not mounted yet; an initrd may have handed over some of it, leases included.

    Raises OSError.
    """
    for kind, target, flags, options in _VIRTUAL:
        if target.parent == _ROOT / "dev":
            target.mkdir(exist_ok=True)
        if not target.is_mount():
            kernel.mount(kind, target, kind, flags, options)


def writable(folder: Path) -> bool:
    """Whether a file can really be made there.

    Modes and mount flags do not tell: a read-only NFS export may be mounted `rw`.
    """
    probe = folder / f".netinstall-{os.getpid()}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return False
    probe.unlink()
    return True


def make_writable(children: Children, *, union: bool) -> str:
    """Stack a layer in memory on a root that cannot be written, and go there.

    Returns what was done, for people. `union` asks for unionfs-fuse at once; otherwise it is what
    is left when overlayfs does not stack on the root (overlayfs.rst of the kernel: not every file
    system can be a lower layer).

    The process goes on without executing itself again: pivot_root(2) changes its root as well, and
    its open files stay valid.

    Raises:
        InstallError: `root.not-writable`.
        OSError: the kernel refused a step that has no alternative.
    """
    if writable(_ROOT):
        return "the root is writable"
    base = next((folder for folder in _PIVOT_POINTS if folder.is_dir()), None)
    if base is None:
        raise _not_writable(f"it has none of {', '.join(map(str, _PIVOT_POINTS))}")
    # Not below /run: a mount cannot be moved into one that lies inside it.
    kernel.mount("tmpfs", base, "tmpfs", 0, "mode=0755,size=80%")
    new = base / "root"
    for name in ("upper", "work", "lower", "root"):
        (base / name).mkdir()
    problems = []
    kinds = {"overlayfs": _overlay, "unionfs-fuse": _unionfs}
    if union:
        del kinds["overlayfs"]
    for name, stack in kinds.items():
        try:
            stack(children, base)
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if writable(new):
            _enter(new)
            return f"the root is read-only, {name} makes it writable in memory"
        problems.append(f"{name}: mounted, but nothing can be written there")
    raise _not_writable("; ".join(problems))


def _overlay(children: Children, base: Path) -> None:
    children.run(["modprobe", "-q", "overlay"], _MODULE_SECONDS)
    options = f"lowerdir=/,upperdir={base}/upper,workdir={base}/work"
    kernel.mount("overlay", base / "root", "overlay", 0, options)


def _unionfs(children: Children, base: Path) -> None:
    """Stack with unionfs-fuse(8), which lives on as one of our children.

    It is confined to `base`: the paths that it looks up must not lead into itself when the root
    becomes what it serves.
    """
    children.run(["modprobe", "-q", "fuse"], _MODULE_SECONDS)
    kernel.mount("/", base / "lower", "", kernel.MS_BIND)
    options = f"cow,allow_other,use_ino,suid,dev,nonempty,chroot={base}"
    argv = ["unionfs-fuse", "-o", options, "/upper=RW:/lower=RO", f"{base}/root"]
    wrong = children.run(argv, _UNION_SECONDS)
    if wrong is not None:
        raise OSError(errno.EIO, wrong)


def _enter(new: Path) -> None:
    for name in ("dev", "proc", "sys", "run"):
        if (_ROOT / name).is_mount():
            kernel.mount(str(_ROOT / name), new / name, "", kernel.MS_MOVE)
    old = new / "run/netinstall/lower"
    old.mkdir(parents=True, exist_ok=True)
    # The old root stays mounted there: unionfs-fuse goes on reading it.
    kernel.pivot_root(new, old)
    os.chdir("/")


def _not_writable(what: str) -> Exception:
    from installer.model.errors import fail  # noqa: PLC0415 - costs memory, and is rarely needed

    return fail(
        "root.not-writable",
        f"the root file system could not be made writable: {what}",
        where="/",
        hint="a kernel that has overlay or fuse, and more memory",
    )
