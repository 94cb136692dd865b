"""What stands in for Alpine Linux, whose packages and kernel cannot be had here.

The kernel is Debian's, with its modules packed as Alpine packs them; busybox is Debian's
static one.

With its sources (`Sources`) the initramfs is made by the real mkinitfs and runs the real
initramfs-init, nlplug-findfs and apk, and apk installs from a signed repository. There is one
package in it, which has the name of Alpine's and its parts that matter here.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import cache, process, tiny

_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "af_packet", "e1000", "ahci"),
    *("sd_mod", "nvme", "loop", "squashfs", "overlay", "fuse", "nfs", "nfsv3", "nfsv4"),
    *("ext4", "xfs", "btrfs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "efivarfs"),
)


def kernel_version() -> str:
    """The release of the kernel of `lab.tiny`."""
    (folder,) = (tiny.kernel() / "lib/modules").iterdir()
    return folder.name


def modloop() -> Path:
    """A squashfs as mkinitfs's users know it: modules/VERSION, every module compressed by gzip.

    Debian's kmod reads no such module, busybox's does: as on a machine that booted Alpine.
    """
    source, version = tiny.kernel(), kernel_version()

    def pack(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-modloop-") as folder:
            release = Path(folder, "lib/modules", version)
            argv = ["modprobe", "--dirname", str(source), "--set-version", version]
            said = process.run([*argv, "--show-depends", "--all", *_MODULES]).decode()
            for module in re.findall(r"^insmod (\S+)", said, re.MULTILINE):
                path = release / Path(module).relative_to(source / "lib/modules" / version)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(module, path)
            for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                shutil.copyfile(source / "lib/modules" / version / name, release / name)
            process.run(["depmod", "--basedir", folder, version])
            # Debian's depmod cannot look into what is compressed, so it comes before
            for path in release.rglob("*.ko"):
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
                path.unlink()
            index = release / "modules.dep"
            index.write_text(re.sub(r"\.ko\b", ".ko.gz", index.read_text()))
            (release / "modules.dep.bin").unlink()
            process.run(["mksquashfs", f"{folder}/lib", str(output), "-comp", "xz", "-quiet"], 300)

    inputs: list[Path | str] = [source.name, " ".join(_MODULES), Path(__file__)]
    return cache.build("modloop", inputs, pack)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Sources:
    """Programs of Alpine, built for this machine.

    `mkinitfs`: its source tree, after `make`. `apk`: the program of apk-tools 3. In the PATH has to
    be Alpine's lddtree (ncopa/lddtree).
    """

    mkinitfs: Path
    apk: Path


_INITTAB = """# OpenRC's, as alpine-baselayout has it
::sysinit:/sbin/openrc sysinit
::wait:/sbin/openrc default
::ctrlaltdel:/sbin/reboot
"""

# Alpine's busybox calls such a file; initramfs-init needs the address and /etc/resolv.conf.
_UDHCPC = """#!/bin/sh
case $1 in
deconfig) ip link set dev "$interface" up ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "$subnet" up
    ip route add default via "$router" dev "$interface"
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
"""


def repository(sources: Sources, folder: Path) -> Path:
    """Make keys/lab.rsa.pub and main/ARCHITECTURE, a signed repository with one alpine-base."""
    folder.mkdir()
    key = folder / "lab.rsa"
    process.run(["openssl", "genrsa", "-out", str(key), "2048"])
    (folder / "keys").mkdir()
    public = folder / "keys/lab.rsa.pub"
    process.run(["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)])
    tree = folder / "alpine-base"
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "lib", "run", "tmp", "root", "etc", "var"):
        (tree / name).mkdir(parents=True)
    shutil.copy(tiny.BUSYBOX, tree / "bin/busybox")
    (tree / "etc/inittab").write_text(_INITTAB)
    # in Alpine a trigger does that, with busybox --install
    for name in process.run([str(tiny.BUSYBOX), "--list-full"]).decode().split():
        if name != "bin/busybox":
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to("/bin/busybox")
    packages = folder / "main/x86_64"
    packages.mkdir(parents=True)
    package = packages / "alpine-base-3.99.0-r0.apk"
    about = ("name:alpine-base", "version:3.99.0-r0", "arch:x86_64", "license:none")
    described = [part for field in (*about, "description:lab") for part in ("--info", field)]
    sign = ["--sign-key", str(key)]
    files = ["--files", str(tree), "--output", str(package)]
    process.run([str(sources.apk), "mkpkg", *sign, *described, *files])
    index = [
        *sign,
        "--keys-dir",
        str(folder / "keys"),
        "--output",
        str(packages / "APKINDEX.tar.gz"),
    ]
    process.run([str(sources.apk), "mkndx", *index, str(package)])
    return folder


def initramfs(sources: Sources, keys: Path, features: Path, output: Path) -> None:
    """Make an initramfs by the real mkinitfs, with our feature out of `features`."""
    version = kernel_version()
    with tempfile.TemporaryDirectory(prefix="lab-alpine-") as name:
        system = Path(name)
        for folder in ("usr/bin", "usr/sbin", "usr/lib", "etc/apk", "boot"):
            (system / folder).mkdir(parents=True)
        for folder in ("bin", "sbin", "lib"):
            (system / folder).symlink_to(f"usr/{folder}")
        (system / "lib64").symlink_to("usr/lib")
        shutil.copy(tiny.BUSYBOX, system / "bin/busybox")
        (system / "bin/sh").symlink_to("/bin/busybox")
        for program in (sources.apk, sources.mkinitfs / "nlplug-findfs/nlplug-findfs"):
            shutil.copy(program, system / "sbin")
            libraries = process.run(["ldd", str(program)]).decode()
            for library in re.findall(r"(/\S+) \(0x", libraries):
                shutil.copy(library, system / "lib")
        # the second is where Debian's busybox looks for it
        for script in ("usr/share/udhcpc/default.script", "etc/udhcpc/default.script"):
            (system / script).parent.mkdir(parents=True, exist_ok=True)
            (system / script).write_text(_UDHCPC)
            (system / script).chmod(0o755)
        shutil.copytree(keys, system / "etc/apk/keys")
        shutil.copytree(tiny.kernel() / "lib/modules", system / "lib/modules", symlinks=True)
        config = system / "etc/mkinitfs"
        shutil.copytree(sources.mkinitfs / "features.d", config / "features.d")
        shutil.copytree(features, config / "features.d", dirs_exist_ok=True)
        (config / "mkinitfs.conf").write_text(
            'features="base network squashfs virtio netinstall lab"\n'
        )
        (config / "features.d/lab.files").write_text("/etc/udhcpc/default.script\n")
        directories = [f"SYSCONFDIR={config}", f"DATADIR={sources.mkinitfs}"]
        argv = ["sh", str(sources.mkinitfs / "mkinitfs"), "-b", name, "-o", str(output), version]
        process.run(["env", *directories, *argv], 300)
