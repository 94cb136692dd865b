"""ISOs in the shape of NixOS's own: the stand-in for what cannot be downloaded here.

As in NixOS (nixos/modules/installer/cd-dvd/iso-image.nix): /nix-store.squashfs, kernel and initrd
below /boot, a menu for ISOLINUX and one for GRUB, and in the initrd an /init, a list of mounts and
their names. What reads the list there is a script of ours, for busybox.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab import cache, process, sample

Kind = Literal["scripted", "systemd"]

LABEL = "nixos-sample-x86_64"
_HASH = "00000000000000000000000000000000"

_MOUNTS = {
    "scripted": (
        f"{_HASH}-initrd-fsinfo",
        (
            "/\ntmpfs\ntmpfs\nx-initrd.mount,mode=0755\n"
            "/iso\n/dev/root\niso9660\nx-initrd.mount\n"
            "/nix/.ro-store\n/iso/nix-store.squashfs\nsquashfs\nx-initrd.mount,loop\n"
            "/nix/.rw-store\ntmpfs\ntmpfs\nx-initrd.mount,mode=0755\n"
            "/nix/store\noverlay\noverlay\nx-initrd.mount,lowerdir=/nix/.ro-store,"
            "upperdir=/nix/.rw-store/store,workdir=/nix/.rw-store/work"
        ),
    ),
    "systemd": (
        f"{_HASH}-initrd-fstab",
        (
            "tmpfs / tmpfs x-initrd.mount,mode=0755 0 0\n"
            f"/dev/disk/by-label/{LABEL} /iso iso9660 x-initrd.mount 0 0\n"
            "/sysroot/iso/nix-store.squashfs /nix/.ro-store squashfs x-initrd.mount,loop 0 0\n"
            "tmpfs /nix/.rw-store tmpfs x-initrd.mount,mode=0755 0 0\n"
            "overlay /nix/store overlay x-initrd.mount,lowerdir=/sysroot/nix/.ro-store,"
            "upperdir=/sysroot/nix/.rw-store/store,workdir=/sysroot/nix/.rw-store/work 0 0\n"
        ),
    ),
}

_EARLY_MOUNTS = """\
specialMount "proc" "/proc" "nosuid" "proc"
specialMount "sysfs" "/sys" "nosuid" "sysfs"
specialMount "devtmpfs" "/dev" "mode=0755" "devtmpfs"
specialMount "tmpfs" "/run" "mode=0755" "tmpfs"
"""

_ENDS = """mounted=$(sed -n "s,.* @TARGET@\\(/[^ ]*\\) \\([^ ]*\\) .*,\\1=\\2,p" /proc/mounts)
echo "STAGE-1 ends:" $mounted
"""

# Mounts what the list says, as each of the two would: a relative device is looked for in the
# initrd, an absolute one below the new root (scripted) or in the initrd (systemd).
_STAGE_1 = """#!/bin/sh
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /run
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1
target=@TARGET@
for word in $(cat /proc/cmdline); do
    case $word in
        init=*) init=${word#init=} ;;
        root=LABEL=*) echo "STAGE-1 waits for ${word#root=}" ;;
    esac
done
for module in loop squashfs overlay isofs; do modprobe -q "$module"; done
attach() {
    options=$(echo "$4" | tr ',' '\\n' | grep -v -e '^x-' | sed "s,dir=/nix,dir=$target/nix," |
        tr '\\n' ',' | sed 's/,$//')
    for folder in $(echo "$options" | tr ',' '\\n' | sed -n 's/^[uw][a-z]*dir=//p'); do
        mkdir -p "$folder"
    done
    mkdir -p "$target$2"
    mount -t "$3" ${options:+-o "$options"} "$1" "$target$2" || echo "STAGE-1 FAILED: $1 on $2"
}
cd /
case @KIND@ in
    scripted)
        exec 3<@MOUNTS@
        while read -r place <&3; do
            read -r device <&3
            read -r type <&3
            read -r options <&3
            case $device in /dev/*) ;; /*) device=$target$device ;; esac
            attach "$device" "$place" "$type" "$options"
        done
        ;;
    systemd)
        while read -r device place type options _; do
            attach "$device" "$place" "$type" "$options"
        done <@MOUNTS@
        ;;
esac
@ENDS@umount /proc /sys
mkdir -p "$target/dev"
mount -o move /dev "$target/dev"
exec switch_root "$target" "$init"
"""


@dataclass(frozen=True)
class Parts:
    """What an ISO is made of; `init` is the store path of its stage 2.

    `long_paths`: kernel and initrd lie below /boot/nix/store, as since NixOS 21.05.
    """

    kernel: Path
    initrd: Path
    store: Path
    init: str
    kind: Kind = "scripted"
    long_paths: bool = True


def stage_1(folder: Path, kind: Kind, nixpkgs: Path | None = None) -> None:
    """Put a stage 1 of this kind into the tree of an initrd.

    With a nixpkgs the scripted one is NixOS's own; the tree has /bin/busybox then.
    """
    name, mounts = _MOUNTS[kind]
    store = folder / "nix/store"
    store.mkdir(parents=True)
    (store / name).write_text(mounts)
    inside = {
        "scripted": f"{_HASH}-stage-1-init.sh",
        "systemd": f"{_HASH}-systemd-257/lib/systemd/systemd",
    }[kind]
    (store / inside).parent.mkdir(parents=True, exist_ok=True)
    if nixpkgs is None:
        script = (
            _STAGE_1.replace("@ENDS@", _ENDS)
            .replace("@KIND@", kind)
            .replace("@MOUNTS@", f"/nix/store/{name}")
        )
        script = script.replace("@TARGET@", {"scripted": "/mnt-root", "systemd": "/sysroot"}[kind])
    else:
        script = _of_nixos(folder, nixpkgs / "nixos/modules/system/boot/stage-1-init.sh", name)
    (store / inside).write_text(script)
    (store / inside).chmod(0o755)
    (folder / "init").unlink(missing_ok=True)
    (folder / "init").symlink_to(f"/nix/store/{inside}")


def _of_nixos(folder: Path, source: Path, mounts: str) -> str:
    """NixOS's script with its placeholders filled in, for a machine without udev and LVM."""
    utils = folder / f"nix/store/{_HASH}-extra-utils"
    utils.mkdir()
    # the script makes its own /bin and /sbin
    shutil.rmtree(folder / "sbin", ignore_errors=True)
    (folder / "bin").rename(utils / "bin")
    for applet in process.run([str(utils / "bin/busybox"), "--list"]).decode().split():
        link = utils / "bin" / applet
        if not link.is_symlink() and not link.exists():
            link.symlink_to("busybox")
    for stub in ("systemd-udevd", "udevadm", "lvm"):
        (utils / "bin" / stub).symlink_to("busybox-true")
    (utils / "bin/busybox-true").write_text(f"#!/nix/store/{utils.name}/bin/ash\nexit 0\n")
    (utils / "bin/busybox-true").chmod(0o755)
    early = folder / f"nix/store/{_HASH}-mounts.sh"
    early.write_text(_EARLY_MOUNTS)
    filled = {
        "extraUtils": f"/nix/store/{utils.name}",
        "shell": f"/nix/store/{utils.name}/bin/ash",
        "earlyMountScript": f"/nix/store/{early.name}",
        "fsInfo": f"/nix/store/{mounts}",
        "kernelModules": "loop overlay squashfs isofs",
        "distroName": "NixOS",
        "stage1Greeting": "NixOS stage 1",
        "verbose": "1",
        "postMountCommands": _ENDS.replace("@TARGET@", "/mnt-root"),
    }
    return re.sub(r"@([a-zA-Z0-9]+)@", lambda found: filled.get(found[1], ""), source.read_text())


def pack(folder: Path, compressor: tuple[str, ...] = ("zstd", "-q", "-1", "-c")) -> bytes:
    """A tree as the initrd that NixOS would make of it; no compressor, no compression."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    archive = process.run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", f"-D{folder}"],
        stdin="\n".join(names).encode(),
    )
    return process.run(list(compressor), stdin=archive) if compressor else archive


def make(output: Path, parts: Parts, *, menus: tuple[str, ...] = ("isolinux", "grub")) -> Path:
    """An ISO with these parts (not one that firmware could boot)."""
    with tempfile.TemporaryDirectory(prefix="lab-iso-") as folder:
        root = Path(folder)
        below = f"/nix/store/{_HASH}-" if parts.long_paths else ""
        kernel = f"/boot/{below}linux/bzImage" if parts.long_paths else "/boot/bzImage"
        initrd = f"/boot/{below}initrd/initrd" if parts.long_paths else "/boot/initrd"
        for path, source in (
            (kernel, parts.kernel),
            (initrd, parts.initrd),
            ("/nix-store.squashfs", parts.store),
        ):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        words = [f"init={parts.init}", "loglevel=4", "boot.shell_on_fail"]
        words += {"scripted": [f"root=LABEL={LABEL}"], "systemd": ["root=fstab"]}[parts.kind]
        arguments = " ".join(words)
        texts = {
            "isolinux": (
                "isolinux/isolinux.cfg",
                (
                    f"SERIAL 0 115200\nUI vesamenu.c32\nDEFAULT boot\n\nLABEL boot\n"
                    f"MENU LABEL NixOS Installer\nLINUX {kernel}\nAPPEND {arguments}\n"
                    f"INITRD {initrd}\n\nMENU BEGIN Options\nLABEL boot-copytoram\nLINUX {kernel}\n"
                    f"APPEND {arguments} copytoram\nINITRD {initrd}\nMENU END\n"
                ),
            ),
            "grub": (
                "EFI/BOOT/grub.cfg",
                (
                    f"set timeout=10\nmenuentry 'NixOS Installer' --class installer {{\n"
                    f"  linux {kernel} ${{isoboot}} {arguments}\n  initrd {initrd}\n}}\n"
                    f"menuentry 'copytoram' {{\n"
                    f"  linux {kernel} ${{isoboot}} {arguments} copytoram\n"
                    f"  initrd {initrd}\n}}\n"
                ),
            ),
        }
        for menu in menus:
            path, text = texts[menu]
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        argv = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", LABEL.upper()]
        process.run([*argv, "-o", str(output), folder], 300)
    return output


def of_the_sample(kind: Kind, nixpkgs: Path | None = None) -> Path:
    """The sample system as a live ISO, its initrd with a stage 1 of this kind. Needs root.

    `nixpkgs`: see `stage_1`.
    """

    def build(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-sample-iso-") as folder:
            root = Path(folder, "system")
            root.mkdir()
            process.run(["tar", "-C", str(root), "-xf", str(sample.tarball())], 120)
            store = root / "nix/store"
            (toplevel,) = store.glob("*/nixos-version")
            (kernel,) = store.glob("*-linux-*/bzImage")
            (base,) = store.glob("*-base-initrd/initrd")
            tree = Path(folder, "initrd-tree")
            tree.mkdir()
            process.run(["cpio", "-idm", "--quiet", f"-D{tree}"], stdin=_plain(base))
            stage_1(tree, kind, nixpkgs)
            Path(folder, "initrd").write_bytes(pack(tree))
            squashfs = Path(folder, "store.squashfs")
            argv = ["mksquashfs", str(store), str(squashfs), "-quiet", "-no-progress", "-comp"]
            process.run([*argv, "zstd", "-Xcompression-level", "3"], 300)
            init = f"/nix/store/{toplevel.parent.name}/init"
            make(output, Parts(kernel, Path(folder, "initrd"), squashfs, init, kind))

    return cache.build("sample-iso", [kind, str(nixpkgs), sample.SOURCE, Path(__file__)], build)


def _plain(initrd: Path) -> bytes:
    return process.run(["gzip", "--decompress", "--stdout", str(initrd)])
