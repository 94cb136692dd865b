"""What the image builder runs and puts in; building one takes a minute (see the VM scenarios)."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from installer.act.run import Runner
from installer.boot import image
from installer.model.errors import ExitCode, InstallError
from installer.model.facts import ImageFacts
from installer.observe import machine

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(image.__file__).with_name("image-requirements.txt")


def _arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    image.add_arguments(parser)
    return parser.parse_args(argv)


def test_bootstrap_argv() -> None:
    argv = image.bootstrap_argv(
        Path("/out/root"),
        ("linux-image-cloud-amd64", "busybox"),
        ["deb http://mirror.example.net/debian bookworm main"],
        ['Acquire::http::Proxy "http://proxy:3128"'],
    )
    assert argv == [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/lintian/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        '--aptopt=Acquire::Retries "8"',
        '--aptopt=Acquire::http::Proxy "http://proxy:3128"',
        "--include=linux-image-cloud-amd64,busybox",
        "bookworm",
        "/out/root",
        "deb http://mirror.example.net/debian bookworm main",
    ]


def test_what_the_boot_needs_is_not_taken_out(tmp_path: Path) -> None:
    """udevd and its names for network cards lie beside systemd's own programs."""
    kept = (
        "usr/lib/systemd/systemd-udevd",
        "usr/lib/systemd/network/99-default.link",
        "usr/lib/udev/rules.d/55-dm.rules",
        "usr/lib/udev/rules.d/63-md-raid-arrays.rules",
        "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so",
        "usr/lib/x86_64-linux-gnu/cryptsetup/libcryptsetup-token-systemd-tpm2.so",
        "usr/lib/nix/libnixexpr.so",
        "usr/bin/unsquashfs",
    )
    gone = (
        "usr/lib/systemd/systemd",
        "usr/lib/udev/rules.d/64-md-raid-assembly.rules",
        "usr/lib/udev/rules.d/69-lvm.rules",
    )
    # what stays for Nix is told by the same words as what goes
    assert set(image._NIX_KEEPS) < set(image._REMOVED)
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    removed = {path for pattern in image._REMOVED for path in tmp_path.glob(pattern)}
    for name in kept:
        assert not removed & {tmp_path / name, *(tmp_path / name).parents}, name
    for name in gone:
        assert tmp_path / name in removed


def test_squashfs_argv() -> None:
    assert image.squashfs_argv(Path("/o/root"), Path("/o/root.squashfs"), 15, 1700000000) == [
        *("mksquashfs", "/o/root", "/o/root.squashfs", "-noappend", "-no-progress", "-quiet"),
        *("-comp", "zstd", "-Xcompression-level", "15", "-b", "128K"),
        *("-no-xattrs", "-mkfs-time", "1700000000"),
    ]


def test_pip_argv() -> None:
    assert image.pip_argv(Path("/r.txt"), Path("/o/root/usr/lib/netinstall")) == [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore"),
        "--retries=10",
        *("--target", "/o/root/usr/lib/netinstall", "--no-deps", "--require-hashes"),
        *("--no-compile", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
        *("--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"),
        *("--platform=manylinux_2_5_x86_64", "--requirement", "/r.txt"),
    ]


SERVERS_OWN = {
    "aiohttp": ("aiohttp", ("boot/serve",)),
}
"""Packages that no machine needs while it is installed: what they are imported as, and where."""


def test_what_only_a_server_needs_is_imported_there_only() -> None:
    package = ROOT / "installer"
    for path in package.rglob("*.py"):
        used = set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        for module, places in SERVERS_OWN.values():
            allowed = any(path.is_relative_to(package / place) for place in places)
            assert module not in used or allowed, path


def test_what_the_agent_needs_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheels = set(re.findall(r"^([a-z-]+)==", REQUIREMENTS.read_text(), re.MULTILINE))
    for line in project["dependencies"]:
        name = re.split(r"[<>=]", line)[0]
        if name in SERVERS_OWN:
            continue
        packages = {f"python3-{name}", f"python3-{name.removeprefix('py')}"}
        assert name in wheels or packages & set(image.PACKAGES), name


def test_every_wheel_is_known_by_its_hash() -> None:
    text = REQUIREMENTS.read_text()
    assert len(re.findall(r"^[a-z-]+==[0-9.]+ \\$", text, re.MULTILINE)) == len(
        re.findall(r"^    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("name", image.INITRDS)
def test_the_hooks_are_found(name: str) -> None:
    assert (image.hooks_folder() / "lib/netinstall.sh").is_file()
    assert os.access(image.hooks_folder() / "lib/netinstall-udhcpc", os.X_OK)
    for place in image.INITRDS[name].places:
        assert (image.hooks_folder() / place).exists()
    assert os.access(image.hooks_folder() / "initramfs-tools/hooks/netinstall", os.X_OK)
    assert _arguments("--output", "/o", "--initrd", name).initrd == name


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="reads the configuration of apt")
def test_the_mirrors_of_this_machine_are_used() -> None:
    for line in image.debian_mirrors(Runner()):
        assert re.fullmatch(r"deb \S+ bookworm\S* [a-z-]+", line)


def test_defaults() -> None:
    arguments = _arguments("--output", "/o")
    assert arguments.kernel == "linux-image-amd64"
    assert arguments.initrd == "initramfs-tools"
    assert arguments.formats == ["squashfs"]
    assert arguments.compression == 15
    assert _arguments("--output", "/o", "--format", "squashfs", "nfs").formats == [
        "squashfs",
        "nfs",
    ]


def test_an_image_knows_its_date_and_whom_it_trusts(tmp_path: Path) -> None:
    key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
    (tmp_path / "a.pub").write_text(f"untrusted comment: minisign public key\n{key}\n")
    (tmp_path / "etc").mkdir()
    image._add_trust(tmp_path, [], 1_790_000_000)
    assert machine.image(tmp_path) == ImageFacts((), "2026-09-21T14:13:20Z")
    image._add_trust(tmp_path, [image._public_key(tmp_path / "a.pub")], 1_790_000_000)
    assert machine.image(tmp_path) == ImageFacts((key,), "2026-09-21T14:13:20Z")
    (tmp_path / "etc/netinstall/trusted-keys").write_text("# nobody\n")
    with pytest.raises(InstallError) as error:
        machine.image(tmp_path)
    assert str(error.value) == (
        "error[payload.key]: /etc/netinstall/trusted-keys holds no key\n"
        "  where: /etc/netinstall/trusted-keys\n"
        "  try:   build the boot image again: netinstall image build --trusted-key minisign.pub"
    )
    (tmp_path / "etc/netinstall/trusted-keys").write_text(f"{key}\nRWabc\n")
    with pytest.raises(InstallError, match="trusted-keys is no public key of minisign"):
        machine.image(tmp_path)
    with pytest.raises(InstallError, match=r"b\.pub cannot be read: No such file or directory"):
        image._public_key(tmp_path / "b.pub")


def test_the_memory_that_is_needed() -> None:
    assert image.memory_needed("squashfs", 60 * 1024**2) == 256
    assert image.memory_needed("squashfs", 84 * 1024**2) == 288
    assert image.memory_needed("nfs", 0) == 256


def test_building_needs_root(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        script = (
            "import os, sys; os.setgid(65534); os.setuid(65534)\n"
            "from pathlib import Path\n"
            "from installer.boot.image import build_image\n"
            "build_image(Path(sys.argv[1]), narrate=print)"
        )
        result = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "out")],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        said = result.stderr
    else:
        with pytest.raises(InstallError) as caught:
            image.build_image(tmp_path / "out", narrate=lambda _text: None)
        assert caught.value.exit_code is ExitCode.COMMAND
        said = str(caught.value)
    assert (
        "error[image.build]: building a boot environment needs root: "
        "it holds files of other owners\n"
        "  where: netinstall image build\n"
        "  try:   sudo netinstall image build …"
    ) in said
    assert not (tmp_path / "out").exists()
