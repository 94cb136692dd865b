"""NixOS's own configurations, built of Debian's programs: see ../nixos."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import cache, image, process

SOURCE = Path(__file__).resolve().parents[1] / "nixos"
REPOSITORY = SOURCE.parents[1]

# a whole nixpkgs, and a Nix that is new enough for it (Debian 12's is not)
NIXPKGS = os.environ.get("NETINSTALL_NIXPKGS")
NIX_BUILD = Path(os.environ.get("NETINSTALL_NIX_INSTANTIATE", "nix-instantiate")).with_name(
    "nix-build"
)

# NixOS's units are for a systemd that is newer than Debian 12's
_SUITE = "trixie"
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = (
    *("bash", "coreutils", "findutils", "grep", "sed", "gawk", "diffutils", "less", "procps"),
    *("gzip", "bzip2", "xz-utils", "tar", "zstd", "patchelf", "busybox-static"),
    *("util-linux", "util-linux-extra", "mount", "fdisk", "login", "passwd", "kmod", "kbd"),
    *("systemd", "systemd-cryptsetup", "libnss-systemd", "libpam-systemd", "udev"),
    *("dbus", "dbus-daemon", "iproute2", "iputils-ping", "libc-bin", "hostname", "ncurses-bin"),
    *("perl", "libfile-slurp-perl", "libjson-perl", "e2fsprogs", "dosfstools"),
    *("lvm2", "dmsetup"),
    *("dhcpcd-base", "nix-bin", "linux-image-amd64"),
)
_NIX_CONFIG = """\
build-users-group =
build-hook =
fsync-metadata = false
sandbox = false
substitute = false
"""


def debian() -> Path:
    """Debian 13, unpacked and not configured; `packages/NAME` lists programs. Needs root."""

    def build(output: Path) -> None:
        excluded = [
            f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in ("doc", "locale", "man")
        ]
        argv = ["mmdebstrap", "--mode=root", "--variant=extract", "--format=directory"]
        argv += ["--skip=cleanup,essential/unlink", '--aptopt=Acquire::Retries "8"', *excluded]
        argv += [f"--include={','.join(_PACKAGES)}", _SUITE, str(output), _MIRROR]
        process.run(argv, 1800)
        (output / "packages").mkdir()
        for deb in (output / "var/cache/apt/archives").glob("*.deb"):
            listed = output / "packages" / deb.name.partition("_")[0]
            listed.write_text("".join(f"{name}\n" for name in _programs(deb)))
        for path in output.iterdir():
            if path.is_dir() and path.name not in ("boot", "packages", "usr"):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)

    return cache.build("debian-13", [_SUITE, *_PACKAGES], build)


def _programs(deb: Path) -> list[str]:
    """Paths of a package's programs, from the root, under their names in a merged /usr."""
    content = io.BytesIO(process.run(["dpkg-deb", "--fsys-tarfile", str(deb)], 300))
    with tarfile.open(fileobj=content) as archive:
        names = [Path(member.name) for member in archive if not member.isdir()]
    found = [name for name in names if name.parent.name in ("bin", "sbin")]
    return sorted({f"usr/{name.parent.name}/{name.name}" for name in found})


def netboot(nixpkgs: Path, *, scripted: bool = False) -> Path:
    """What nixosModules.installer makes of ../nixos/system.nix: bzImage, initrd, netboot.ipxe.

    `scripted` is NixOS's older stage 1, without systemd. Needs root.
    """
    arguments = ["--argstr", "module", "installer", "--arg", "scripted", str(scripted).lower()]

    def build(output: Path) -> None:
        _build(nixpkgs, "netinstallNetboot", arguments, output)

    return _product("nixos-netboot", nixpkgs, arguments, build)


def nfs_root(nixpkgs: Path, *, scripted: bool = False) -> Path:
    """What nixosModules.nfsroot makes of it: root/ (the tarball's content), tftp/. Needs root."""
    arguments = ["--argstr", "module", "nfsroot", "--arg", "scripted", str(scripted).lower()]

    def build(output: Path) -> None:
        (output / "root").mkdir(parents=True)
        _build(nixpkgs, "nfsroot.tftp", arguments, output / "tftp")
        _build(nixpkgs, "nfsroot.tarball", arguments, output / "tarball")
        packed = output / "tarball/nfsroot.tar.xz"
        process.run(["tar", "-xpf", str(packed), "-C", str(output / "root")], 600)

    return _product("nixos-nfs-root", nixpkgs, arguments, build)


def http_image(nixpkgs: Path) -> Path:
    """The folder that a site file calls an image, of the same: see image.folder. Needs root."""
    arguments = ["--argstr", "module", "nfsroot"]

    def build(output: Path) -> None:
        _build(nixpkgs, "nfsroot.image", arguments, output)

    return _product("nixos-image", nixpkgs, arguments, build)


def payload(nixpkgs: Path) -> Path:
    """machine.tar.zst and machine.json, as nixosModules.image packs such a system. Needs root."""
    arguments = ["--argstr", "module", "image"]

    def build(output: Path) -> None:
        _build(nixpkgs, "netinstallPayload", arguments, output)

    return _product("nixos-payload", nixpkgs, arguments, build)


def boot_server(nixpkgs: Path, handed_out: Path) -> Path:
    """http/, tftp/ and dnsmasq.conf of nixosModules.server, for a Namespace. Needs root."""
    arguments = ["--argstr", "module", "server", "--arg", "payload", str(handed_out)]

    def build(output: Path) -> None:
        _build(nixpkgs, "netinstallServer", arguments, output)

    return _product("nixos-server", nixpkgs, arguments, build)


def _product(
    name: str, nixpkgs: Path, arguments: Sequence[str], build: Callable[[Path], None]
) -> Path:
    inputs = [REPOSITORY / one for one in ("nix", "initrd-hooks", "vm-tests/nixos")]
    return cache.build(name, [str(nixpkgs), image.folder().name, *arguments, *inputs], build)


def _build(nixpkgs: Path, attribute: str, arguments: Sequence[str], output: Path) -> None:
    """Build system.build.ATTRIBUTE and copy it, with what its links lead to.

    The builders see a store of their own at /nix.
    """
    store = cache.folder("nixos-store") / "nix"
    store.mkdir(exist_ok=True)
    # need not be there on a machine that never built anything
    Path("/nix").mkdir(exist_ok=True)
    nix = [str(NIX_BUILD), "--no-out-link", str(SOURCE / "system.nix")]
    nix += ["-A", f"system.build.{attribute}", "--arg", "nixpkgs", str(nixpkgs), *arguments]
    nix += ["--arg", "debian", str(debian()), "--arg", "environment", f"{image.folder()}/root"]
    # a link of the result leads to its files only where /nix is that store
    script = 'mount --bind "$1" /nix; shift; output=$1; shift; cp -rL "$("$@")" "$output"'
    argv = ["env", f"NIX_CONFIG={_NIX_CONFIG}", "unshare", "--mount", "sh", "-euc", script]
    process.run([*argv, "sh", str(store), str(output), *nix], 3600)
