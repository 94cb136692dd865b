"""The smallest thing that boots: Debian's kernel and an initrd of one static busybox."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import cache, process

BUSYBOX = Path("/bin/busybox")

_PROLOGUE = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
dmesg -n 1
for module in $(cat /modules/order); do insmod "/modules/$module"; done
"""

# What "udhcpc -i eth0" runs with the lease in its environment (busybox's default.script).
_LEASE = """#!/bin/sh
case $1 in
    deconfig) ifconfig "$interface" up ;;
    bound | renew)
        ifconfig "$interface" "$ip" netmask "$subnet"
        route add default gw "$router" dev "$interface"
        ;;
esac
"""


def kernel() -> Path:
    """A folder with Debian's linux-image-amd64: "vmlinuz" and "lib/modules/VERSION"."""
    package, version = _kernel_package()

    def fetch(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-kernel-") as folder:
            process.run(["env", "-C", folder, "apt-get", "download", f"{package}={version}"], 600)
            (archive,) = Path(folder).glob("*.deb")
            process.run(["dpkg-deb", "--extract", str(archive), f"{folder}/root"], 120)
            (image,) = Path(folder, "root/boot").glob("vmlinuz-*")
            output.mkdir()
            shutil.copytree(Path(folder, "root/lib"), output / "lib")
            shutil.copyfile(image, output / "vmlinuz")
            process.run(["depmod", "--basedir", str(output), package.removeprefix("linux-image-")])

    return cache.build("tiny-kernel", [package, version], fetch)


def vmlinuz() -> Path:
    """The kernel's image."""
    return kernel() / "vmlinuz"


def initrd(
    init: str,
    modules: Sequence[str] = ("virtio_pci", "virtio_blk"),
    files: Mapping[str, Path] | None = None,
) -> Path:
    """An initrd whose /init is this shell script, with `modules` loaded and /dev mounted.

    `files` are further files (with their modes), by their absolute paths in it.
    """
    added = dict(files or {})
    script = _PROLOGUE + init
    source = kernel()

    def pack(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-initrd-") as folder:
            root = Path(folder)
            for name in ("bin", "dev", "proc", "sys", "etc", "mnt", "modules"):
                (root / name).mkdir()
            shutil.copy(BUSYBOX, root / "bin/busybox")
            (root / "etc/udhcpc").mkdir()
            for name, text in (("init", script), ("etc/udhcpc/default.script", _LEASE)):
                (root / name).write_text(text)
                (root / name).chmod(0o755)
            for name, file in added.items():
                (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, root / name.lstrip("/"))
            needed = _with_dependencies(source, modules)
            for module in needed:
                shutil.copyfile(module, root / "modules" / module.name)
            order = "".join(f"{module.name}\n" for module in needed)
            (root / "modules/order").write_text(order)
            names = sorted(f"./{path.relative_to(root)}" for path in root.rglob("*"))
            archive = process.run(
                ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", f"-D{folder}"],
                stdin="\n".join(names).encode(),
            )
            output.write_bytes(gzip.compress(archive, compresslevel=1, mtime=0))

    inputs: list[Path | str] = [BUSYBOX, script, source.name, " ".join(modules), Path(__file__)]
    inputs += [part for one in added.items() for part in one]
    return cache.build("tiny-initrd", inputs, pack)


def _with_dependencies(source: Path, modules: Sequence[str]) -> list[Path]:
    (version,) = (path.name for path in (source / "lib/modules").iterdir())
    argv = ["modprobe", "--dirname", str(source), "--set-version", version, "--show-depends"]
    needed: dict[Path, None] = {}
    for module in modules:
        for line in process.run([*argv, module]).decode().splitlines():
            verb, *rest = line.split()
            # The other verb is "builtin".
            if verb == "insmod":
                needed[Path(rest[0])] = None
    return list(needed)


def _kernel_package() -> tuple[str, str]:
    said = process.run(["apt-cache", "show", "--no-all-versions", "linux-image-amd64"])
    fields = dict(line.split(": ", 1) for line in said.decode().splitlines() if ": " in line)
    return fields["Depends"].split()[0], fields["Version"]
