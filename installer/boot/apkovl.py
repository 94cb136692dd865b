"""`netinstall boot apkovl`: the overlay that makes a diskless Alpine start the agent.

An apkovl is a gzipped tar archive that Alpine's initramfs-init unpacks over the root in memory,
before it installs packages (mkinitfs-bootparam(7)). Ours has the same content for every machine:
what differs is on the kernel command line.
"""

import argparse
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from installer.boot.image import hooks_folder
from installer.boot.output import unwritable

NAME = "netinstall.apkovl.tar.gz"

_LIBRARY = "usr/share/netinstall"
"""Where the files of initrd-hooks/lib lie in it."""


def build(epoch: int = 0) -> bytes:
    """Return the archive; from the same files always the same bytes.

    Everything belongs to root and has the date `epoch`, in seconds since 1970.
    """
    hooks = hooks_folder()
    tree = hooks / "mkinitfs/apkovl"
    files = {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}
    files |= {f"{_LIBRARY}/{path.name}": path for path in (hooks / "lib").iterdir()}
    folders = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted({*files, *folders}):
            entry = tarfile.TarInfo(name)
            entry.mtime = epoch
            entry.uname = entry.gname = "root"
            if name in folders:
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o755
                archive.addfile(entry)
                continue
            content = files[name].read_bytes()
            entry.size = len(content)
            # not from the file: an umask, or a wheel, may have taken the bits away
            entry.mode = 0o755 if content.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Write netinstall.apkovl.tar.gz into a folder, dated $SOURCE_DATE_EPOCH or 1970.

    Raises InstallError (`arguments`).
    """
    path: Path = arguments.output / NAME
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    epoch = int(given) if given.isdigit() else 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build(epoch))
    except OSError as error:
        raise unwritable(path, error) from None
    say(str(path))
