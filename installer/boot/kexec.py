"""`netinstall boot kexec`: kernel, initrd and `kexec-boot`, all that a running Linux needs.

A folder, or a tar archive of it to copy to the machine.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from installer.boot import site as sites
from installer.boot.check import conflicts
from installer.boot.dialects import kexec
from installer.boot.output import unwritable
from installer.boot.site import Site
from installer.model.errors import InstallError, Problem, fail
from installer.model.site import Image

SCRIPT = "kexec-boot"


def tree(site_file: Path, output: Path, host: str | None = None) -> None:
    """Make the tree, or with a name that ends in .tar an archive of it.

    Kernel and initrd are hard links where they can be.

    Args:
        site_file: the site; its images are read below http.root.
        output: a folder, made if missing, or the archive; replaces what an earlier run left.
        host: host name, MAC or UUID; without, what any other machine would boot.

    Raises:
        InstallError: `site.not-found`, `site.syntax`, `site.field`, `site.file`, `site.conflict`
            or `site.value`; `arguments` when there is no such host, or nothing can be written.
    """
    site, problems = sites.load(site_file)
    problems += conflicts(site)
    if problems:
        raise InstallError(problems)
    number = None if host is None else _number(site, host)
    image = site.file.image_of(None if number is None else site.file.hosts[number])
    folder = Path(site.file.http.root, image.folder)
    files = {"bzImage": folder / image.kernel}
    if image.root != "kernel-nfs":
        files["initrd.gz"] = folder / image.initrd
    if missing := [path for path in files.values() if not path.is_file()]:
        raise InstallError(_missing(site, image, path) for path in missing)
    script = kexec.script(kexec.boot_of(site, number, _memory(folder, image)))
    try:
        if output.suffix == ".tar":
            _pack(files, script, output)
        else:
            _lay_out(files, script, output)
    except OSError as error:
        hint = "name a folder that you may write to, with room for kernel and initrd"
        raise unwritable(error.filename or output, error, hint) from None


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """`netinstall boot kexec`. Raises InstallError."""
    tree(arguments.site, arguments.output, arguments.host)
    say(f"{arguments.output}: run {SCRIPT} of it, as root, on the machine that is to be installed")


def link_or_copy(source: Path, target: Path) -> None:
    """Let a file have a second name, or else a copy; an older target goes. Raises OSError."""
    target.unlink(missing_ok=True)
    try:
        # symbolic links are followed: the tree is to be copied as it is
        os.link(source.resolve(), target)
    except OSError:
        # another file system, or somebody else's file
        shutil.copyfile(source, target)


def write_script(folder: Path, text: str) -> None:
    """Write an executable kexec-boot into a folder. Raises OSError."""
    (folder / SCRIPT).write_text(text, encoding="ascii")
    (folder / SCRIPT).chmod(0o755)


def _number(site: Site, host: str) -> int:
    wanted = host.lower().replace("-", ":"), host.lower()
    for number, each in enumerate(site.file.hosts):
        if each.mac == wanted[0] or wanted[1] in (each.uuid, (each.hostname or "").lower()):
            return number
    known = [each.hostname or each.mac or each.uuid or "" for each in site.file.hosts]
    raise fail(
        "arguments",
        f"the site file has no host {host!r}",
        where="netinstall boot kexec --host",
        hint=f"one of {', '.join(known)}; without --host, what any other machine boots"
        if known
        else "it names no hosts: leave --host out",
    )


def _missing(site: Site, image: Image, path: Path) -> Problem:
    return Problem(
        "site.file",
        f"{path} is missing or no regular file",
        site.where(("images", site.file.images.index(image), "folder")),
        "build it there: netinstall image build --output DIR",
    )


def _memory(folder: Path, image: Image) -> int:
    """MiB that a machine needs, as image.json says; 0 where nobody says."""
    kind = "squashfs" if image.root == "http" else "nfs"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        return int(json.loads((folder / "image.json").read_bytes())["memory_mib"][kind])
    return 0


def _lay_out(files: dict[str, Path], script: str, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        link_or_copy(source, output / name)
    write_script(output, script)


def _pack(files: dict[str, Path], script: str, output: Path) -> None:
    folder = output.stem
    output.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(output, "w", dereference=True) as archive:
        for name, source in files.items():
            archive.add(source, f"{folder}/{name}", filter=_plain)
        text = script.encode("ascii")
        entry = _plain(tarfile.TarInfo(f"{folder}/{SCRIPT}"))
        entry.size, entry.mode, entry.mtime = len(text), 0o755, int(time.time())
        archive.addfile(entry, io.BytesIO(text))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry
