"""initrd-hooks/mkinitfs: Alpine's way of making an initramfs.

With MKINITFS_SOURCE (a source tree of mkinitfs, any version from 2.5 on) its real script makes an
initramfs of Debian's kernel with our feature. From 2.6 on it also needs Alpine's lddtree
(lddtree.sh of ncopa/lddtree, with the scanelf of pax-utils) in the PATH: that of Debian leaves out
what is no program.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from lab import tiny

HOOKS = Path(__file__).parents[2] / "initrd-hooks/mkinitfs"
FEATURES = "base network squashfs usb virtio netinstall"


def _patterns(name: str) -> list[str]:
    lines = (HOOKS / name).read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def _release() -> Path:
    (folder,) = (tiny.kernel() / "lib/modules").iterdir()
    return folder


def test_every_module_is_one_of_a_kernel() -> None:
    release = _release()
    built_in = (release / "modules.builtin").read_text().splitlines()
    for pattern in _patterns("features.d/netinstall.modules"):
        assert re.fullmatch(r"kernel/[a-z0-9_/-]+(\.ko\*)?", pattern)
        # Alpine's names have .gz behind them
        known = any(release.glob(pattern)) or pattern.removesuffix("*") in built_in
        assert known, pattern


def test_before_2_6_the_same_without_comments() -> None:
    # that mkinitfs takes the words of a comment for names
    for old, new in (("modules.d/netinstall", "modules"), ("files.d/netinstall", "files")):
        wanted = _patterns(f"features.d/netinstall.{new}")
        assert (HOOKS / old).read_text().splitlines() == wanted


def _mkinitfs(source: Path, folder: Path) -> Path:
    """Install a source tree's script below a folder, with our feature as docs/alpine.md says."""
    config = folder / "etc/mkinitfs"
    for name in ("features.d", "modules.d", "files.d"):
        if (source / name).is_dir():
            shutil.copytree(source / name, config / name)
            shutil.copytree(HOOKS / name, config / name, dirs_exist_ok=True)
    (config / "mkinitfs.conf").write_text(f'features="{FEATURES}"\n')
    data = folder / "usr/share/mkinitfs"
    data.mkdir(parents=True)
    for name in ("fstab", "passwd", "group"):
        shutil.copy(source / name, data)
    shutil.copy(source / "initramfs-init.in", data / "initramfs-init")
    script = folder / "mkinitfs"
    text = (source / "mkinitfs.in").read_text()
    for name, value in (("VERSION", "0"), ("sysconfdir", config), ("datadir", data)):
        text = text.replace(f"@{name}@", str(value))
    script.write_text(text)
    return script


def _system(folder: Path, kernel: Path) -> Path:
    """What it finds on Alpine: kernel modules, busybox, and what udhcpc calls."""
    for name in ("bin", "sbin", "etc/apk/keys", "usr/share/udhcpc", "boot", "lib"):
        (folder / name).mkdir(parents=True)
    (folder / "lib/modules").symlink_to(kernel / "lib/modules")
    shutil.copy(tiny.BUSYBOX, folder / "bin/busybox")
    (folder / "bin/sh").symlink_to("/bin/busybox")
    (folder / "etc/apk/keys/one.rsa.pub").touch()
    (folder / "usr/share/udhcpc/default.script").touch()
    return folder


def _built(source: Path, tmp_path: Path) -> set[str]:
    script = _mkinitfs(source, tmp_path / "mkinitfs")
    system = _system(tmp_path / "system", tiny.kernel())
    output = tmp_path / "initramfs"
    argv: list[str | Path] = ["sh", script, "-b", system, "-o", output, _release().name]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    packed = subprocess.run(["gzip", "-dc", output], check=True, capture_output=True).stdout
    listed = subprocess.run(["cpio", "-t"], check=True, input=packed, capture_output=True).stdout
    return {name.removeprefix("./") for name in listed.decode().splitlines()}


if "MKINITFS_SOURCE" in os.environ:

    @pytest.mark.root
    def test_the_real_mkinitfs_takes_the_feature(tmp_path: Path) -> None:
        names = _built(Path(os.environ["MKINITFS_SOURCE"]), tmp_path)
        modules = {Path(name).name for name in names if name.endswith(".ko")}
        # what was named, and what it depends on
        assert {"nfsv4.ko", "nfsv3.ko", "xen-netfront.ko", "vmd.ko", "igb.ko"} <= modules
        assert {"sunrpc.ko", "dns_resolver.ko", "usbnet.ko", "net_failover.ko"} <= modules
        assert {"squashfs.ko", "overlay.ko", "loop.ko", "fuse.ko", "virtio_net.ko"} <= modules
        assert {"init", "usr/share/udhcpc/default.script"} <= names
