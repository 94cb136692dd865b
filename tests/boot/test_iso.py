"""`netinstall boot from-iso`, with ISOs in the shape of NixOS's own.

A real one cannot be had here: lab/iso.py makes them, and says what of them is NixOS's. kernel and
Nix store are a few bytes; xorriso, cpio and the compressors are the real ones.
vm-tests/test_from_iso.py boots what comes out.
"""

import os
import shlex
import subprocess
from pathlib import Path

import programs
import pytest
from lab import iso as isos
from processes import netinstall

from installer.boot import iso
from installer.boot.iso import STAGES_1, Entry, first_entry
from installer.model.errors import InstallError

INIT = "/nix/store/11111111111111111111111111111111-nixos-system/init"
MICROCODE = "kernel/x86/microcode/GenuineIntel.bin"
COMPRESSORS = {
    "zstd": ("zstd", "-q", "-c"),
    "gzip": ("gzip", "-c"),
    "xz": ("xz", "-c", "--check=crc32"),
    "none": (),
}


def _parts(folder: Path, kind: isos.Kind = "scripted", compressor: str = "zstd") -> isos.Parts:
    """Kernel, initrd and store of an ISO; before the initrd's archive lies one with microcode."""
    early, tree = folder / "early", folder / "tree"
    (early / MICROCODE).parent.mkdir(parents=True)
    (early / MICROCODE).write_bytes(b"microcode")
    tree.mkdir()
    isos.stage_1(tree, kind)
    for name, content in (
        ("kernel", b"bzImage"),
        ("initrd", isos.pack(early, ()) + isos.pack(tree, COMPRESSORS[compressor])),
        ("store", b"hsqs" + bytes(5000)),
    ):
        (folder / name).write_bytes(content)
    return isos.Parts(folder / "kernel", folder / "initrd", folder / "store", INIT, kind)


def _unpacked(initrd: Path, own: int) -> dict[str, bytes]:
    """What the archive that was added to an initrd of `own` bytes holds, as cpio(1) reads it."""
    archive = initrd.read_bytes()[-(-own // 4) * 4 :]
    assert archive.startswith(b"070701")
    done = subprocess.run(
        ["cpio", "--list", "--quiet"], input=archive, check=True, capture_output=True
    )
    return {
        name: subprocess.run(
            ["cpio", "--extract", "--to-stdout", "--quiet", name],
            input=archive,
            check=True,
            capture_output=True,
        ).stdout
        for name in done.stdout.decode().splitlines()
    }


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("kind", ["scripted", "systemd"])
def test_the_store_is_nested_in_the_initrd(
    tmp_path: Path, kind: isos.Kind, compressor: str
) -> None:
    parts = _parts(tmp_path, kind, compressor)
    image = isos.make(tmp_path / "nixos.iso", parts)
    output = tmp_path / "out"
    done = netinstall(
        *("boot", "from-iso", image, "--output", output),
        *("--argument", "console=ttyS0", "--argument", "systemd.show_status=1"),
        before=[],
    )
    assert done.returncode == 0, done.stderr
    root = {"scripted": "", "systemd": "root=fstab "}[kind]
    line = f"init={INIT} loglevel=4 boot.shell_on_fail {root}console=ttyS0 systemd.show_status=1"
    assert f"kernel arguments: {line}\n" in done.stderr
    assert "a machine needs 512 MiB of memory, more for a graphical system\n" in done.stderr
    assert sorted(path.name for path in output.iterdir()) == [
        *("boot.ipxe", "bzImage", "initrd", "initrd.gz", "kexec-boot")
    ]
    assert (output / "bzImage").read_bytes() == b"bzImage"
    assert (output / "initrd").samefile(output / "initrd.gz")
    own = parts.initrd.read_bytes()
    assert (output / "initrd").read_bytes().startswith(own)
    nested = _unpacked(output / "initrd", len(own))
    assert nested.pop("nix-store.squashfs") == parts.store.read_bytes()
    ((name, mounts),) = nested.items()
    if kind == "scripted":
        assert name.endswith("-initrd-fsinfo")
        assert mounts.decode().splitlines() == [
            *("/", "tmpfs", "tmpfs", "x-initrd.mount,mode=0755"),
            *("/iso", "tmpfs", "tmpfs", "mode=0755"),
            *("/nix/.ro-store", "../nix-store.squashfs", "squashfs", "x-initrd.mount,loop"),
            *("/nix/.rw-store", "tmpfs", "tmpfs", "x-initrd.mount,mode=0755"),
            *("/nix/store", "overlay", "overlay"),
            (
                "x-initrd.mount,lowerdir=/nix/.ro-store,upperdir=/nix/.rw-store/store,"
                "workdir=/nix/.rw-store/work"
            ),
        ]
    else:
        assert name.endswith("-initrd-fstab")
        assert mounts.decode().splitlines()[1:3] == [
            "tmpfs /iso tmpfs x-initrd.mount,mode=0755 0 0",
            "/nix-store.squashfs /nix/.ro-store squashfs x-initrd.mount,loop 0 0",
        ]
    script = (output / "boot.ipxe").read_text()
    assert f"\nkernel bzImage initrd=initrd {line} ${{cmdline}} || goto failed\n" in script
    assert "\ninitrd --name initrd initrd || goto failed\nboot || goto failed\n" in script
    text = (output / "kexec-boot").read_text()
    assert shlex.split(text.partition("\narguments=")[2].partition("\n")[0]) == [line]
    assert "\nmemory=512\n" in text
    assert os.access(output / "kexec-boot", os.X_OK)


def test_a_name_that_no_script_can_hold(tmp_path: Path) -> None:
    image = isos.make(tmp_path / 'ein "Würfel" $(x).iso', _parts(tmp_path))
    iso.from_iso(image, tmp_path / "out", narrate=print)
    assert "from-iso ein-W-rfel-x-.iso. A machine" in (tmp_path / "out/boot.ipxe").read_text()
    assert programs.shellcheck(tmp_path / "out/kexec-boot") == ""


def test_the_same_iso_gives_the_same_initrd(tmp_path: Path) -> None:
    image = isos.make(tmp_path / "nixos.iso", _parts(tmp_path))
    first, second = (
        (
            iso.from_iso(image, tmp_path / "out", narrate=print),
            (tmp_path / "out/initrd").read_bytes(),
        )
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("menu", ["isolinux", "grub"])
@pytest.mark.parametrize("long_paths", [True, False])
def test_one_menu_is_enough(tmp_path: Path, menu: str, long_paths: bool) -> None:
    parts = _parts(tmp_path)
    parts = isos.Parts(parts.kernel, parts.initrd, parts.store, INIT, long_paths=long_paths)
    image = isos.make(tmp_path / "nixos.iso", parts, menus=(menu,))
    report = iso.from_iso(image, tmp_path / "out", ["root=tmpfs"], narrate=print)
    assert report.arguments == f"init={INIT} loglevel=4 boot.shell_on_fail root=tmpfs"


def test_the_first_entry_counts() -> None:
    assert first_entry(
        "menuentry 'Memtest86+' {\n linux ($root)/boot/memtest.bin\n}\n"
        "menuentry 'NixOS' {\n  terminal_output console\n"
        "  linux /boot//nix/store/x/bzImage ${isoboot} init=/i root=fstab\n"
        "  initrd /boot//nix/store/y/initrd\n}\n"
        "menuentry 'Debug' {\n linux /other debug\n initrd /other\n}\n"
    ) == Entry("/boot/nix/store/x/bzImage", "/boot/nix/store/y/initrd", ("init=/i", "root=fstab"))
    assert first_entry("LABEL memtest\nLINUX /boot/memtest.bin\nAPPEND x\n") is None


def _refusal(image: Path, output: Path, *arguments: str) -> str:
    with pytest.raises(InstallError) as caught:
        iso.from_iso(image, output, arguments, narrate=print)
    # nothing that looks finished, and nothing left over
    assert not output.exists() or not list(output.iterdir())
    return str(caught.value)


def test_what_is_no_iso(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none.iso", tmp_path / "out") == (
        f"error[arguments]: {tmp_path}/none.iso cannot be read: No such file or directory\n"
        "  where: netinstall boot from-iso\n"
        "  try:   is the path right?"
    )
    other = tmp_path / "other.iso"
    other.write_bytes(b"\x28\xb5\x2f\xfd" * 10000)
    assert _refusal(other, tmp_path / "out") == (
        "error[iso.not-nixos]: it is no ISO 9660 image\n"
        f"  where: {other}\n"
        "  try:   unpack it first if it is compressed (.iso.zst)"
    )


def test_an_iso_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/README").touch()
    other = tmp_path / "debian.iso"
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o"]
    subprocess.run([*argv, other, tmp_path / "tree"], check=True)
    assert _refusal(other, tmp_path / "out") == (
        "error[iso.not-nixos]: it holds no /nix-store.squashfs: no ISO of NixOS\n"
        f"  where: {other}\n"
        "  try:   take an ISO of nixos.org, or one of NixOS's iso-image.nix"
    )


def test_an_iso_without_a_menu(tmp_path: Path) -> None:
    image = isos.make(tmp_path / "nixos.iso", _parts(tmp_path), menus=())
    assert "its boot menu (isolinux.cfg or grub.cfg) names no kernel and initrd" in _refusal(
        image, tmp_path / "out"
    )


def test_a_stage_1_that_is_not_known(tmp_path: Path) -> None:
    parts = _parts(tmp_path)
    (tmp_path / "tree/init").unlink()
    (tmp_path / "tree/init").symlink_to("/bin/dinit")
    parts.initrd.write_bytes(isos.pack(tmp_path / "tree"))
    image = isos.make(tmp_path / "nixos.iso", parts)
    assert _refusal(image, tmp_path / "out") == (
        "error[iso.not-nixos]: its initrd has a stage 1 that is not known here: /init is "
        "/bin/dinit, with 1 lists of mounts\n"
        f"  where: {image}\n"
        "  try:   NixOS's scripted and systemd's stage 1 are known; please report this ISO"
    )


def test_a_list_of_mounts_that_would_lie_outside(tmp_path: Path) -> None:
    parts = _parts(tmp_path)
    (mounts,) = (tmp_path / "tree/nix/store").glob("*-initrd-fsinfo")
    outside = "nix/store/../../../evil-initrd-fsinfo"
    (tmp_path / "evil-initrd-fsinfo").write_bytes(mounts.read_bytes())
    mounts.unlink()
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet", f"-D{tmp_path}/tree"],
        input=f"init\n{outside}\n".encode(),
        check=True,
        capture_output=True,
    )
    assert outside.encode() in archive.stdout
    parts.initrd.write_bytes(archive.stdout)
    image = isos.make(tmp_path / "nixos.iso", parts)
    assert "with 0 lists of mounts" in _refusal(image, tmp_path / "out")


@pytest.mark.parametrize("kind", ["scripted", "systemd"])
def test_a_list_of_mounts_that_is_not_understood(tmp_path: Path, kind: isos.Kind) -> None:
    parts = _parts(tmp_path, kind)
    (mounts,) = (tmp_path / "tree/nix/store").glob("*-initrd-fs*")
    mounts.write_text(mounts.read_text().replace("nix-store.squashfs", "store.erofs"))
    parts.initrd.write_bytes(isos.pack(tmp_path / "tree"))
    said = _refusal(isos.make(tmp_path / "nixos.iso", parts), tmp_path / "out")
    assert f"/nix/store/{mounts.name} of its initrd is not understood: it does not mount" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x04\x22\x4d\x18" * 100, "no known compression begins with 04 22 4d 18 04 22"),
        (b"070701" + b"x" * 200, "a header in it is damaged"),
        (b"070701" + b"f" * 200, "a name in it is too long"),
    ],
)
def test_an_initrd_that_cannot_be_read(tmp_path: Path, content: bytes, said: str) -> None:
    parts = _parts(tmp_path)
    parts.initrd.write_bytes(content)
    image = isos.make(tmp_path / "nixos.iso", parts)
    assert f"its initrd cannot be read: {said}" in _refusal(image, tmp_path / "out")


def test_an_initrd_that_ends_too_early(tmp_path: Path) -> None:
    parts = _parts(tmp_path, compressor="zstd")
    parts.initrd.write_bytes(parts.initrd.read_bytes()[:-20])
    said = _refusal(isos.make(tmp_path / "nixos.iso", parts), tmp_path / "out")
    assert "error[command.failed]: zstd ended with exit code 1" in said


def test_arguments_that_ipxe_cannot_write(tmp_path: Path) -> None:
    image = isos.make(tmp_path / "nixos.iso", _parts(tmp_path))
    assert _refusal(image, tmp_path / "out", "a=${net0/mac}") == (
        "error[arguments]: the kernel argument 'a=${net0/mac}' cannot be written: iPXE replaces "
        "${…} by a setting, and nothing keeps it from that\n"
        "  where: --argument\n"
        "  try:   choose another value"
    )
    assert "'a b' cannot be written: it is not printable ASCII" in _refusal(
        image, tmp_path / "out", "a b"
    )


def test_an_initrd_over_4_gib(tmp_path: Path) -> None:
    files = {"/nix-store.squashfs": 4 * 1024**3}
    with pytest.raises(InstallError) as caught:
        iso.check_sizes(tmp_path / "nixos.iso", files, tmp_path / "out")
    assert str(caught.value) == (
        "error[iso.too-large]: the initrd would have 4.00 GiB, and the kernel can be given less\n"
        f"  where: {tmp_path}/nixos.iso\n"
        "  try:   a smaller ISO: the minimal one, or one without what you do not need"
    )


@pytest.mark.root
def test_no_room(tmp_path: Path) -> None:
    image = isos.make(tmp_path / "nixos.iso", _parts(tmp_path))
    script = 'mount -t tmpfs -o size=8k none "$1" && shift && exec "$@"'
    (tmp_path / "small").mkdir()
    done = netinstall(
        *("boot", "from-iso", image, "--output", tmp_path / "small"),
        before=["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path / "small")],
    )
    assert done.returncode == 2
    assert f"error[iso.too-large]: {tmp_path}/small has room for 8.00 KiB, and 11" in done.stderr
    assert "  try:   make room, or name a folder on another file system\n" in done.stderr
    done = netinstall("boot", "from-iso", image, "--output", "/proc/out", before=[])
    assert "error[arguments]: /proc/out cannot be written: No such file" in done.stderr


if "NIXPKGS" in os.environ:

    def test_nixos_itself_is_as_we_think() -> None:
        """$NIXPKGS is a nixpkgs; its modules say how NixOS's stage 1 and its lists look."""
        modules = Path(os.environ["NIXPKGS"]) / "nixos/modules"
        scripted, by_systemd = STAGES_1
        boot = modules / "system/boot"
        assert f'"{scripted.mounts[1:]}"' in (boot / "stage-1.nix").read_text()
        assert scripted.init.strip("-") in (boot / "stage-1.nix").read_text()
        assert "exec 3< @fsInfo@" in (boot / "stage-1-init.sh").read_text()
        assert f'"{by_systemd.mounts[1:]}"' in (modules / "tasks/filesystems.nix").read_text()
        own = f'"/init".source = "${{cfg.package}}{by_systemd.init}"'
        assert own in (boot / "systemd/initrd.nix").read_text()
        image = (modules / "installer/cd-dvd/iso-image.nix").read_text()
        assert "/iso/nix-store.squashfs" in image
