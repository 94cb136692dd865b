"""The smallest payload that the agent takes: no NixOS, and nothing of it boots.

For scenarios that are about storage alone, where an emulated processor would unpack the sample
system a hundred times. Nix and the boot loader are stand-ins that leave marks; only
nixos-generate-config is the sample system's own, because what it says depends on the storage.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from lab import cache, process, sample
from lab.tiny import BUSYBOX

_TOOLS = f"/nix/store/{'0' * 32}-busybox"
_TOPLEVEL = f"/nix/store/{'1' * 32}-nixos-system-bare"

_NIX_ENV = f"""
while [ $# -gt 0 ]; do
    if [ "$1" = --profile ]; then profile=$2; fi
    shift
done
mkdir -p "${{profile%/*}}"
ln -sfn {_TOPLEVEL} "$profile"
"""

# on a UEFI machine that is on the ESP, like what a real boot loader leaves
_BOOT_LOADER = """
mkdir -p /boot/bare
cp /etc/nixos/*.nix /boot/bare/
"""

_CONFIGURATION = """{
  imports = [ ./hardware-configuration.nix ./networking.nix ./storage.nix ];
  # ./boot-device.nix ./boot-mirror.nix
}
"""


def tarball() -> Path:
    """system.tar, 2 MB."""
    programs = sample.SOURCE / "programs" / "nixos-generate-config"
    return cache.build("bare", [Path(__file__), programs, BUSYBOX], _make)


def _make(output: Path) -> None:
    generate = (sample.SOURCE / "programs" / "nixos-generate-config").read_text()
    for name in ("busybox", "util-linux"):
        generate = generate.replace(f"@{name}@", _TOOLS)
    scripts = {
        "init": "exit 1\n",
        "bin/switch-to-configuration": _BOOT_LOADER,
        "sw/bin/nix-store": "case $1 in --load-db) cat >/dev/null ;; esac\n",
        "sw/bin/nix-env": _NIX_ENV,
    }
    head = f"#!{_TOOLS}/bin/sh\nset -eu\nexport PATH={_TOOLS}/bin\n"
    with tarfile.open(output, "x", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("nix", "nix/store", "etc", "etc/nixos"):
            _folder(archive, folder)
        for folder in ("", "/bin"):
            _folder(archive, _TOOLS + folder)
        _file(archive, f"{_TOOLS}/bin/busybox", BUSYBOX.read_bytes())
        for applet in process.run([str(BUSYBOX), "--list"]).decode().split():
            if applet != "busybox":
                _link(archive, f"{_TOOLS}/bin/{applet}", "busybox")
        for folder in ("", "/bin", "/sw", "/sw/bin"):
            _folder(archive, _TOPLEVEL + folder)
        _file(archive, f"{_TOPLEVEL}/nixos-version", b"bare\n", 0o644)
        for name, text in scripts.items():
            _file(archive, f"{_TOPLEVEL}/{name}", (head + text).encode())
        _file(archive, f"{_TOPLEVEL}/sw/bin/nixos-generate-config", generate.encode())
        _file(archive, "/etc/nixos/configuration.nix", _CONFIGURATION.encode(), 0o644)
        _file(archive, "/nix-path-registration", b"none\n", 0o644)


def _folder(archive: tarfile.TarFile, path: str) -> None:
    member = tarfile.TarInfo(path.strip("/"))
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(member)


def _file(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o755) -> None:
    member = tarfile.TarInfo(path.strip("/"))
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _link(archive: tarfile.TarFile, path: str, to: str) -> None:
    member = tarfile.TarInfo(path.strip("/"))
    member.type, member.linkname = tarfile.SYMTYPE, to
    archive.addfile(member)
