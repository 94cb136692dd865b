"""Debian's server packages, unpacked: installed, each would start its daemon."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from lab import cache as kept

_PACKAGES = (
    "isc-dhcp-server",
    "kea-dhcp4-server",
    "kea-common",
    "nfs-kernel-server",
    # libraries of Kea and exportfs
    *("liblog4cplus-2.0.5", "libmariadb3", "libpq5", "libldap-2.5-0"),
    "libevent-core-2.1-7",
)
_SECONDS = 60


@cache
def unpacked() -> Path:
    """The folder into which the packages are unpacked. Raises OSError: they cannot be had."""

    def make(folder: Path) -> None:
        folder.mkdir()
        # apt fetches as a user of its own, who may not see the folder otherwise
        folder.chmod(0o755)
        done = subprocess.run(
            ["apt-get", "download", *_PACKAGES],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            timeout=_SECONDS,
        )
        if done.returncode:
            raise OSError(done.stdout)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
            package.unlink()

    return kept.build("unpacked-servers", _PACKAGES, make)
