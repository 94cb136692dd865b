"""`netinstall image build`: kernel, initrd and root file system from Debian's packages.

The parts: Debian 12 by mmdebstrap; Python packages that it has too old, by pip from hashed wheels;
the running `installer` package; the hook of `initrd-hooks/initramfs-tools` or `dracut`. What a
machine that only installs never uses is taken out again: its root lies in memory.

The root holds no firmware, no kernel modules for sound, graphics or radio, and no dpkg.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path

import installer
from installer.act.run import Runner
from installer.model.errors import fail
from installer.model.minisign import parse_public_key
from installer.model.units import format_bytes

SUITE = "bookworm"
DEFAULT_KERNEL = "linux-image-amd64"
FORMATS = ("squashfs", "nfs")
AGENT = Path("usr/lib/netinstall")


@dataclass(frozen=True)
class InitrdSystem:
    """What makes the initrd: Debian's packages, where its folders of `initrd-hooks` go, and its
    command line, to which the kernel's version is added, for the file /boot/initrd."""

    packages: tuple[str, ...]
    places: Mapping[str, str]
    argv: tuple[str, ...]


INITRDS: Mapping[str, InitrdSystem] = {
    "initramfs-tools": InitrdSystem(
        ("initramfs-tools",),
        {"initramfs-tools": "etc/initramfs-tools"},
        ("mkinitramfs", "-o", "/boot/initrd"),
    ),
    "dracut": InitrdSystem(
        ("dracut",),
        {
            "dracut/90netinstall": "usr/lib/dracut/modules.d/90netinstall",
            "dracut/netinstall.conf": "etc/dracut.conf.d/netinstall.conf",
        },
        ("dracut", "--force", "/boot/initrd"),
    ),
}
DEFAULT_INITRD = "initramfs-tools"

PACKAGES = (
    # the boot itself
    *("busybox", "udev", "kmod", "unionfs-fuse", "usr-is-merged"),
    # the agent
    *("python3", "python3-parted", "python3-psutil", "python3-pyudev", "python3-requests"),
    # signatures and frames of packed payloads
    *("python3-nacl", "python3-zstandard"),
    "ca-certificates",
    # what it runs
    *("e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools", "fdisk", "mount", "efibootmgr"),
    *("zstd", "xz-utils", "squashfs-tools", "iproute2", "dhcpcd-base"),
    *("mdadm", "lvm2", "thin-provisioning-tools", "cryptsetup-bin", "f2fs-tools"),
    *("nvme-cli", "hdparm"),
    # systemd-cryptenroll, and what it loads to talk to a TPM
    *("systemd", "libtss2-esys-3.0.2-0", "libtss2-rc0"),
)

NIX_PACKAGES = ("nix-bin",)
"""Nix, for payloads that are copied from a binary cache."""

_NIX_KEEPS = ("usr/lib/*/libp11-kit*", "usr/lib/*/libicu*")
"""What it loads of `_REMOVED`: libcurl wants GnuTLS, libarchive wants libxml2."""

_EXCLUDED = ("doc", "info", "lintian", "locale", "man")
"""Folders of /usr/share that dpkg does not even unpack."""

_REMOVED_MODULES = (
    *("sound", "drivers/gpu", "drivers/media", "drivers/iio", "drivers/staging", "drivers/comedi"),
    *("drivers/bluetooth", "drivers/isdn", "drivers/net/wireless", "drivers/net/wwan"),
    *("drivers/net/can", "drivers/infiniband", "drivers/soundwire", "drivers/hwmon"),
    *("net/bluetooth", "net/can", "net/ceph", "net/mac80211", "net/netfilter", "net/nfc"),
    *("net/sched", "net/tipc", "net/wireless", "drivers/input/joystick", "drivers/nfc"),
    *("drivers/input/tablet", "drivers/input/touchscreen", "drivers/mtd", "drivers/vhost"),
    *("fs/afs", "fs/ceph", "fs/coda", "fs/gfs2", "fs/nfsd", "fs/ocfs2", "fs/smb", "fs/dlm"),
    *(
        "arch/x86/kvm",
        "drivers/target",
        "fs/jfs",
        "fs/reiserfs",
        "fs/orangefs",
        "fs/nilfs2",
        "fs/ubifs",
        "fs/jffs2",
    ),
)
"""Kernel modules without a part in an installation, by their folder."""

_REMOVED = (
    *("boot/*", "etc/kernel", "etc/initramfs-tools", "var/cache/*", "var/log/*", "var/backups/*"),
    *("usr/share/initramfs-tools", "usr/share/netinstall", "usr/lib/klibc", "usr/lib/klibc-*"),
    *("usr/lib/dracut", "etc/dracut.conf*", "usr/bin/dracut*", "usr/bin/lsinitrd"),
    # package management, and Perl, which only it needs
    *("var/lib/dpkg", "var/lib/apt", "usr/lib/dpkg", "usr/share/dpkg", "usr/bin/dpkg*"),
    *("usr/bin/perl*", "usr/lib/*/perl*", "usr/share/perl*", "usr/lib/*/libperl*"),
    *("usr/share/debconf", "var/cache/debconf", "usr/share/bash-completion", "usr/share/bug"),
    *("usr/share/zoneinfo", "usr/share/zsh", "usr/share/pixmaps", "usr/share/common-licenses"),
    # 35 MB of Unicode tables for xfs_scrub alone
    *("usr/lib/*/libicu*", "usr/sbin/xfs_scrub*"),
    # of Nix, what only a machine that builds and serves needs
    *("usr/share/nix", "usr/share/icu"),
    *("usr/lib/python3.11/lib2to3", "usr/lib/python3.11/pydoc_data"),
    *("usr/lib/python3.11/ensurepip", "usr/lib/python3.11/distutils"),
    *("usr/lib/python3/dist-packages/pkg_resources", "usr/lib/python3/dist-packages/setuptools"),
    *("usr/lib/udev/hwdb.*", "etc/udev/hwdb.*", "usr/bin/openssl", "usr/bin/c_rehash"),
    # what lies on the disks is assembled by nobody but the plan
    *("usr/lib/udev/rules.d/64-md-raid-assembly.rules", "usr/lib/udev/rules.d/69-lvm.rules"),
    *("usr/lib/udev/rules.d/70-nvmf-autoconnect.rules", "usr/lib/udev/rules.d/85-hdparm.rules"),
    # an init that does not run here: of systemd, only cryptenroll, udev and their library stay
    *("usr/lib/systemd/system", "usr/lib/systemd/system-*", "usr/lib/systemd/user*"),
    *("usr/lib/systemd/catalog", "usr/lib/systemd/systemd", "usr/lib/systemd/systemd-[a-t]*"),
    "usr/lib/systemd/*-generators",
    *("usr/lib/*/systemd/libsystemd-core-*", "usr/lib/*/libp11-kit*", "var/lib/systemd"),
    *("usr/bin/busctl", "usr/bin/networkctl", "usr/bin/systemd-repart"),
    # LVM's daemons
    *("usr/lib/*/liblvm2cmd*", "usr/lib/*/device-mapper", "usr/sbin/lvmpolld", "usr/sbin/dmeventd"),
)

_FOREIGN_HOOKS = ("mdadm", "lvm2", "dmsetup", "thin-provisioning-tools")
"""Hooks of packages that would assemble in the initrd what lies on the disks."""

_BUSYBOX = (
    *("sbin/reboot", "sbin/poweroff", "sbin/halt"),
    *("bin/clear", "bin/free", "bin/less", "bin/nslookup", "bin/ping", "bin/ps", "bin/top"),
    *("bin/vi", "bin/wget"),
)
"""Programs for the failure shell. reboot and poweroff send init the signals that it knows."""

_ENTRIES = {
    "usr/bin/netinstall": "from installer.cli import main\n\nmain()\n",
    "usr/lib/netinstall/init": "from installer.init.main import run\n\nrun()\n",
}
_LINKS = {"usr/sbin/init": "../lib/netinstall/init"}
_FILES = {
    "etc/hostname": "netinstall\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/resolv.conf": "",
    "etc/machine-id": "",
    "etc/fstab": "",
}

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_BOOTSTRAP_SECONDS = 1800.0
_STEP_SECONDS = 600.0

_MEMORY_NFS = 256
_MEMORY_BESIDE_SQUASHFS = 176
"""MiB. Measured: the smallest BIOS machine under QEMU that installed the sample system had 208 MiB
over HTTP (root.squashfs of 60 MiB) and 192 over NFS with the cloud kernel, 256 (84 MiB) over HTTP
with linux-image-amd64; the steps tried were 16 to 64 MiB. Building a large system in the target
needs more, and so does UEFI firmware."""

Narrate = Callable[[str], None]


@dataclass(frozen=True)
class ImageReport:
    """What was built. `files` maps a name to its size in bytes and SHA-256; `packages` is a list
    of NAME=VERSION, and `built` the date that all of it bears (ISO 8601, UTC). `memory_mib` maps
    each format to the memory that a machine needs."""

    netinstall: str
    built: str
    kernel: str
    files: Mapping[str, tuple[int, str]]
    memory_mib: Mapping[str, int]
    packages_sha256: str
    packages: tuple[str, ...]


def build_image(
    output: Path,
    *,
    kernel: str = DEFAULT_KERNEL,
    initrd: str = DEFAULT_INITRD,
    formats: Collection[str] = ("squashfs",),
    compression: int = 15,
    nix: bool = False,
    trusted_keys: Sequence[Path] = (),
    narrate: Narrate,
) -> ImageReport:
    """Build the boot environment in a folder: vmlinuz, initrd, image.json, and for each format
    root.squashfs or the folder `root` for an NFS export.

    The date of everything is $SOURCE_DATE_EPOCH, or else that of the kernel's package.

    Args:
        output: made if missing; what an earlier build left there is replaced at the end.
        kernel: name of Debian's kernel package.
        initrd: of `INITRDS`.
        formats: of `FORMATS`.
        compression: zstd's level for root.squashfs, 1 to 22.
        nix: with Nix in it, which copies closures.
        trusted_keys: public keys of minisign; with any, the image installs nothing that none of
            them signed.
        narrate: told each step.

    Raises:
        InstallError: `image.build`, `payload.key`, `tool.missing`, `command.failed` or
            `command.timeout`.
    """
    if os.geteuid() != 0:
        raise fail(
            "image.build",
            "building a boot environment needs root: it holds files of other owners",
            where="netinstall image build",
            hint="sudo netinstall image build …",
        )
    keys = [_public_key(path) for path in trusted_keys]
    output.mkdir(parents=True, exist_ok=True)
    runner = Runner()
    # beside the result: it is moved there, and /tmp may be small
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output.resolve()) as folder:
        work = Path(folder)
        # mmdebstrap and the programs in it see the root folder, not what is around it
        work.chmod(0o755)
        tree = work / "root"
        narrate(f"bootstrapping Debian {SUITE} with {kernel}")
        runner.run(
            bootstrap_argv(
                tree,
                (
                    *(kernel, *INITRDS[initrd].packages, *PACKAGES),
                    *(NIX_PACKAGES if nix else ()),
                ),
                debian_mirrors(runner),
                apt_options(runner),
            ),
            timeout=_BOOTSTRAP_SECONDS,
            # the initrd is made once, below
            environment={**_environment(), "INITRD": "No"},
            purpose="bootstrapping Debian",
        )
        packages = tuple(
            runner.run(
                ["dpkg-query", "--show", "--showformat=${Package}=${Version}\n"],
                timeout=60,
                chroot=tree,
                capture=True,
            ).split()
        )
        version = _kernel_version(tree)
        epoch = _epoch(tree / f"boot/vmlinuz-{version}")
        narrate("adding the agent")
        _add_agent(tree, runner)
        _add_trust(tree, keys, epoch)
        narrate(f"making the initrd for {version} with {initrd}")
        _make_initrd(tree, version, INITRDS[initrd], runner, epoch)
        shutil.move(tree / f"boot/vmlinuz-{version}", work / "vmlinuz")
        shutil.move(tree / "boot/initrd", work / "initrd")
        # there is no secret in it, and dracut makes it readable by root only
        (work / "initrd").chmod(0o644)
        narrate("cleaning up")
        _clean(tree, runner, epoch, keep=_NIX_KEEPS if nix else ())
        results = ["vmlinuz", "initrd"]
        if "squashfs" in formats:
            narrate("packing root.squashfs")
            runner.run(
                squashfs_argv(tree, work / "root.squashfs", compression, epoch),
                timeout=_STEP_SECONDS,
                purpose="packing the root file system",
            )
            results.append("root.squashfs")
        files = {name: _described(work / name) for name in results}
        report = ImageReport(
            netinstall=installer.__version__,
            built=datetime.fromtimestamp(epoch, UTC).isoformat(),
            kernel=version,
            files=files,
            memory_mib={
                name: memory_needed(name, files.get("root.squashfs", (0, ""))[0])
                for name in formats
            },
            packages_sha256=sha256("\n".join(packages).encode()).hexdigest(),
            packages=packages,
        )
        (work / "image.json").write_text(json.dumps(_as_json(report), indent=2) + "\n")
        if "nfs" in formats:
            results.append("root")
        _replace(work, output, [*results, "image.json"])
    return report


def bootstrap_argv(
    tree: Path, packages: Sequence[str], mirrors: Sequence[str], apt: Sequence[str] = ()
) -> list[str]:
    """Return mmdebstrap's command line. Without mirrors it takes its own."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        # with usr-is-merged instead of usrmerge, which needs all of Perl
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _EXCLUDED),
        # a mirror that answers the hundredth file with an error is no reason to start anew
        '--aptopt=Acquire::Retries "8"',
        *(f"--aptopt={option}" for option in apt),
        f"--include={','.join(packages)}",
        SUITE,
        str(tree),
        *mirrors,
    ]


def squashfs_argv(tree: Path, image: Path, compression: int, epoch: int) -> list[str]:
    """Return mksquashfs's command line."""
    return [
        *("mksquashfs", str(tree), str(image), "-noappend", "-no-progress", "-quiet"),
        *("-comp", "zstd", "-Xcompression-level", str(compression)),
        # 256K saves 4 %, and doubles the time to the agent: each small file costs a whole block
        *("-b", "128K"),
        *("-no-xattrs", "-mkfs-time", str(epoch)),
    ]


def pip_argv(requirements: Path, target: Path) -> list[str]:
    """Return pip's command line for the target's Python, whatever runs here."""
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore"),
        # five, pip's own number, are over in 15 seconds
        "--retries=10",
        *("--target", str(target), "--no-deps", "--require-hashes", "--no-compile"),
        *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
        *(f"--platform={name}" for name in _PLATFORMS),
        *("--requirement", str(requirements)),
    ]


def memory_needed(format_: str, squashfs: int) -> int:
    """Return the MiB of memory for an installation; `squashfs` is the image's size in bytes."""
    if format_ == "nfs":
        return _MEMORY_NFS
    # in steps of 32 MiB, upwards
    return -(-(squashfs // 1024**2 + _MEMORY_BESIDE_SQUASHFS) // 32) * 32


def debian_mirrors(runner: Runner) -> list[str]:
    """Return the Debian mirrors this machine uses for the suite, as lines of sources.list(5).

    Empty on another system than Debian 12.
    """
    if shutil.which("apt-get") is None:
        return []
    said = runner.run(
        [
            *("apt-get", "indextargets", "--format", "deb $(SITE) $(RELEASE) $(COMPONENT)"),
            *("Created-By: Packages", "Origin: Debian"),
        ],
        timeout=60,
        capture=True,
    )
    lines = list(dict.fromkeys(said.splitlines()))
    found = [line for line in lines if line.split()[2].partition("-")[0] == SUITE]
    return found if any(line.split()[2] == SUITE for line in found) else []


def apt_options(runner: Runner) -> list[str]:
    """Return this machine's proxies as options of apt.conf(5)."""
    if shutil.which("apt-config") is None:
        return []
    said = runner.run(
        ["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"],
        timeout=60,
        capture=True,
    )
    return [line for line in said.splitlines() if '::Proxy "' in line and '""' not in line]


def hooks_folder() -> Path:
    """Return `initrd-hooks`: beside the package in a checkout, inside it in a wheel."""
    package = Path(installer.__file__).parent
    inside = package / "boot/initrd-hooks"
    return inside if inside.is_dir() else package.parent / "initrd-hooks"


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith("PIP_")
    }


def _kernel_version(tree: Path) -> str:
    versions = [path.name for path in (tree / "usr/lib/modules").iterdir()]
    if len(versions) != 1:
        raise fail(
            "image.build",
            f"exactly one kernel is wanted, there are {len(versions)}: {', '.join(versions)}",
            where="/usr/lib/modules of the new root",
            hint="--kernel names one kernel package, such as linux-image-amd64",
        )
    return versions[0]


def _epoch(kernel: Path) -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isdigit() else int(kernel.stat().st_mtime)


def _add_agent(tree: Path, runner: Runner) -> None:
    requirements = Path(__file__).with_name("image-requirements.txt")
    agent = tree / AGENT
    runner.run(
        pip_argv(requirements, agent),
        timeout=_STEP_SECONDS,
        environment=_environment(),
        purpose="fetching Python packages",
    )
    shutil.rmtree(agent / "bin", ignore_errors=True)
    shutil.copytree(
        Path(installer.__file__).parent,
        agent / "installer",
        ignore=shutil.ignore_patterns("__pycache__", "initrd-hooks"),
    )
    for name, code in _ENTRIES.items():
        # -I: nothing but these folders; PyPA's `installer` has the same import name
        text = f'#!/usr/bin/python3 -I\nimport sys\n\nsys.path.insert(0, "/{AGENT}")\n{code}'
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    for name, text in _FILES.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).write_text(text)
    for name, target in _LINKS.items():
        (tree / name).symlink_to(target)
    for name in _BUSYBOX:
        if not (tree / "usr" / name).exists():
            (tree / "usr" / name).symlink_to("/bin/busybox")


def _public_key(path: Path) -> str:
    """Return the line of minisign.pub that is the key. Raises InstallError: `payload.key`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise fail(
            "payload.key",
            f"{path} cannot be read: {error.strerror}",
            where="--trusted-key",
            hint="is the path right?",
        ) from None
    parse_public_key(text, str(path))
    return text.removesuffix(b"\n").split(b"\n")[-1].decode()


def _add_trust(tree: Path, keys: Sequence[str], epoch: int) -> None:
    """Write what the image says of itself: its date, and whom it trusts."""
    # pydantic, at the start of every verb
    from installer.model.manifest import time_text  # noqa: PLC0415
    from installer.model.trust import IMAGE_BUILT, IMAGE_KEYS  # noqa: PLC0415

    built = tree / IMAGE_BUILT.lstrip("/")
    built.parent.mkdir(exist_ok=True)
    built.write_text(time_text(epoch) + "\n")
    if keys:
        (tree / IMAGE_KEYS.lstrip("/")).write_text("".join(f"{key}\n" for key in keys))


def _make_initrd(
    tree: Path, version: str, system: InitrdSystem, runner: Runner, epoch: int
) -> None:
    modules = tree / "usr/lib/modules" / version
    for name in _REMOVED_MODULES:
        shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
    runner.run(["depmod", version], timeout=60, chroot=tree)
    for name in _FOREIGN_HOOKS:
        for path in (tree / "usr/share/initramfs-tools").rglob(name):
            path.unlink()
    hooks = hooks_folder()
    shutil.copytree(hooks / "lib", tree / "usr/share/netinstall/initrd-hooks/lib")
    for name, place in system.places.items():
        if (hooks / name).is_dir():
            shutil.copytree(hooks / name, tree / place, dirs_exist_ok=True)
        else:
            shutil.copy(hooks / name, tree / place)
    runner.run(
        [*system.argv, version],
        timeout=_STEP_SECONDS,
        chroot=tree,
        environment={"SOURCE_DATE_EPOCH": str(epoch)},
        purpose="making the initrd",
    )


def _clean(tree: Path, runner: Runner, epoch: int, *, keep: Collection[str]) -> None:
    for pattern in (name for name in _REMOVED if name not in keep):
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    # Bytecode that is not compared with its source: the same bytes each time, and a faster start.
    # The root cannot be written, so what is missing would be compiled at each boot.
    runner.run(
        [
            *("python3", "-m", "compileall", "-q", "-f", "--invalidation-mode=unchecked-hash"),
            *("/usr/lib/python3.11", "/usr/lib/python3", f"/{AGENT}"),
        ],
        timeout=_STEP_SECONDS,
        chroot=tree,
        purpose="compiling Python",
    )
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.lstat().st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(tree, (epoch, epoch))


def _replace(work: Path, output: Path, names: Collection[str]) -> None:
    for name in {*names, "root.squashfs", "root"}:
        old = output / name
        if old.is_dir():
            # aside first: a server may be handing it out
            shutil.move(old, work / "old")
            shutil.rmtree(work / "old")
        if name in names:
            shutil.move(work / name, old)
        else:
            old.unlink(missing_ok=True)


def _described(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        return path.stat().st_size, file_digest(stream, "sha256").hexdigest()


def _as_json(report: ImageReport) -> dict[str, object]:
    files = {name: {"bytes": size, "sha256": sum_} for name, (size, sum_) in report.files.items()}
    return {**asdict(report), "files": files}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `netinstall image build`."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--kernel", default=DEFAULT_KERNEL, metavar="PACKAGE", help="default: %(default)s"
    )
    parser.add_argument(
        "--initrd",
        choices=INITRDS,
        default=DEFAULT_INITRD,
        help="what makes the initrd; default: %(default)s",
    )
    parser.add_argument(
        "--format",
        dest="formats",
        nargs="+",
        choices=FORMATS,
        default=["squashfs"],
        help="squashfs for HTTP (the default), nfs: a folder to export",
    )
    parser.add_argument(
        "--compression",
        type=int,
        choices=range(1, 23),
        default=15,
        metavar="1-22",
        help="zstd's level for the squashfs; default: %(default)s",
    )

    parser.add_argument(
        "--nix", action="store_true", help="put Nix in, for payloads from a binary cache"
    )
    parser.add_argument(
        "--trusted-key",
        dest="trusted_keys",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="minisign.pub: install nothing but what this key signed; may be repeated",
    )


def run(arguments: argparse.Namespace, narrate: Narrate) -> None:
    """`netinstall image build`. Raises InstallError."""
    output: Path = arguments.output
    report = build_image(
        output,
        kernel=arguments.kernel,
        initrd=arguments.initrd,
        formats=arguments.formats,
        compression=arguments.compression,
        nix=arguments.nix,
        trusted_keys=arguments.trusted_keys,
        narrate=narrate,
    )
    for name, (size, digest) in report.files.items():
        narrate(f"{name:14} {format_bytes(size):>10}  sha256 {digest}")
    for name, memory in report.memory_mib.items():
        over = {"squashfs": "HTTP", "nfs": "NFS"}[name]
        narrate(f"memory over {over}: {memory} MiB (building a large system needs more)")
