"""The private folder: a TFTP root of dnsmasq's own user, its configuration, its leases."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from installer.boot.check import uses_grub
from installer.boot.dialects import DIALECTS
from installer.boot.site import Site
from installer.model.errors import Problem

DEBIAN = Path("/usr/lib/ipxe")
"""Where Debian's package ipxe has iPXE's loaders."""


@dataclass(frozen=True)
class Folder:
    """`tftp` is the TFTP root, `config` dnsmasq's configuration."""

    path: Path
    tftp: Path
    config: Path


def find_loaders(site: Site) -> tuple[Mapping[str, Path], list[Problem]]:
    """Return where the loaders are (by their names in the site file), and which are missing."""
    found: dict[str, Path] = {}
    problems = []
    for key, name in (("bios", site.file.tftp.bios), ("uefi", site.file.tftp.uefi)):
        places = [Path(site.file.tftp.root, name), DEBIAN / Path(name).name]
        there = next((place for place in places if place.is_file()), None)
        if there is not None:
            found[name] = there
            continue
        problems.append(
            Problem(
                "site.file",
                " and ".join(str(place) for place in places) + " are missing",
                site.where(("tftp", key)),
                "Debian's package ipxe has undionly.kpxe and ipxe.efi; GRUB's is made by "
                "netinstall boot loader",
            )
        )
    return found, problems


@contextmanager
def folder(site: Site, loaders: Mapping[str, Path]) -> Iterator[Folder]:
    """Fill a new folder, which is removed at the end.

    In dnsmasq's secure mode the files must belong to its user, so they are copies: a hard link
    would change the owner of the original.

    Raises:
        InstallError: `site.value`.
    """
    user = pwd.getpwnam(site.file.tftp.user)
    path = Path(tempfile.mkdtemp(prefix="netinstall-serve-"))
    try:
        made = Folder(path, path / "tftp", path / "dnsmasq.conf")
        for name, source in _tftp_files(site, loaders).items():
            target = made.tftp / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if uses_grub(site):
            for name, text in DIALECTS["grub"].render(site).items():
                (made.tftp / name).write_text(text, encoding="ascii")
        tftp = site.file.tftp.model_copy(update={"root": str(made.tftp)})
        file = site.file.model_copy(update={"tftp": tftp})
        here = replace(site, file=file)
        made.config.write_text(DIALECTS["dnsmasq"].render(here)["dnsmasq.conf"], encoding="ascii")
        for entry in (path, *path.rglob("*")):
            os.chown(entry, user.pw_uid, user.pw_gid)
        yield made
    finally:
        shutil.rmtree(path)


def _tftp_files(site: Site, loaders: Mapping[str, Path]) -> dict[str, Path]:
    found = dict(loaders)
    if uses_grub(site) and site.file.grub.fetch == "tftp":
        for image in site.file.images:
            names = [image.kernel, *([image.initrd] if image.root != "kernel-nfs" else [])]
            for name in names:
                below = f"{image.folder}/{name}"
                found[below] = Path(site.file.http.root, below)
    return found
