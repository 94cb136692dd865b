"""What is written for the example, word for word, and the real programs that read it.

After a change that is meant: `UPDATE_GOLDENS=1 pytest tests/boot`, then read the diff.
"""

import json
import os
from functools import partial
from pathlib import Path

import programs
import pytest
from jsonschema import Draft202012Validator
from processes import netinstall as _netinstall
from sites import EXAMPLE, ROOT, changed, site_of

from installer.boot.dialects import DIALECTS
from installer.model.errors import InstallError
from installer.model.site import json_schema

# the files are in a folder of whoever runs the tests
netinstall = partial(_netinstall, before=[])

GOLDEN = Path(__file__).parent / "golden"

CHECKERS = {
    "dnsmasq.conf": programs.dnsmasq,
    "dhcpd.conf": programs.dhcpd,
    "kea-dhcp4.conf": programs.kea,
    "kexec-boot": programs.shellcheck,
    "pixiecore-boot": programs.shellcheck,
}


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [folder / name for name in files]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_example_is_written_as_expected(dialect: str) -> None:
    files = dict(DIALECTS[dialect].render(site_of(EXAMPLE.read_text())))
    folder = GOLDEN / dialect
    if os.environ.get("UPDATE_GOLDENS"):
        _write(folder, files)
    expected = {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files == expected


@pytest.mark.parametrize("dialect", DIALECTS)
def test_its_own_program_accepts_the_example(dialect: str, tmp_path: Path) -> None:
    # Kea looks for the interface even when it only checks
    text = EXAMPLE.read_text().replace('interface = "lan0"', 'interface = "lo"')
    for path in _write(tmp_path, dict(DIALECTS[dialect].render(site_of(text)))):
        checker = programs.grub if dialect == "grub" else CHECKERS.get(path.name)
        if checker is not None:
            assert checker(path) == ""


def test_dnsmasq_accepts_a_proxy(tmp_path: Path) -> None:
    dhcp = {"mode": "proxy", "interface": "lo", "subnet": "192.0.2.0/24"}
    (path,) = _write(tmp_path, dict(DIALECTS["dnsmasq"].render(changed(dhcp=dhcp))))
    assert programs.dnsmasq(path) == ""
    assert "dhcp-range=192.0.2.0,proxy,255.255.255.0\n" in path.read_text()


@pytest.mark.root
def test_exportfs_understands_exports(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    for squash, shown in ((True, "root_squash"), (False, "no_root_squash")):
        nfs = {"server": "192.0.2.1", "path": "/srv/root", "root-squash": squash}
        (path,) = _write(tmp_path, dict(DIALECTS["exports"].render(changed(nfs=nfs))))
        # it must exist, and /srv is not ours
        path.write_text(path.read_text().replace("/srv/root", str(folder)))
        state = tmp_path / f"state-{squash}"
        state.mkdir()
        said = programs.exportfs(path, state)
        assert f"{folder}  192.0.2.0/24(" in said
        options = said.rpartition("(")[2].strip(")\n").split(",")
        assert {"ro", "sync", "no_subtree_check", shown} <= set(options)


@pytest.mark.parametrize("server", ["loader", "option-66"])
def test_grub_accepts_both_ways_to_a_server(server: str, tmp_path: Path) -> None:
    site = changed(grub={"server": server, "fetch": "http", "interface": "efinet1"})
    for path in _write(tmp_path, dict(DIALECTS["grub"].render(site))):
        assert programs.grub(path) == ""
    text = (tmp_path / "grub.cfg").read_text()
    assert "if net_bootp efinet1; then\n" in text
    # also where the firmware has left an address
    assert ('"$net_default_interface" != "efinet1_dhcp"' in text) == (server == "option-66")
    (linux, initrd, boot) = programs.words(
        tmp_path / "load-kernel.cfg",
        ("linux", "initrd", "boot"),
        net_default_server="192.0.2.1",
        net_default_mac="52:54:00:00:00:01",
    )
    assert linux[:3] == ["linux", "(http,192.0.2.1)/image/vmlinuz", "BOOTIF=52:54:00:00:00:01"]
    assert initrd == ["initrd", "(http,192.0.2.1)/image/initrd"]
    assert boot == ["boot"]


def test_a_kernel_that_mounts_its_root_itself_has_no_initrd() -> None:
    site = changed(
        nfs={"server": "192.0.2.1", "path": "/srv/root", "mount-options": ["vers=3"]},
        images=[{"name": "one", "folder": "nixos", "kernel": "bzImage", "root": "kernel-nfs"}],
    )
    text = DIALECTS["ipxe"].render(site)["ipxe/default.ipxe"]
    assert "\ninitrd" not in text
    assert (
        "kernel http://192.0.2.1/nixos/bzImage BOOTIF=01-${netX/mac:hexhyp} root=/dev/nfs "
        "nfsroot=192.0.2.1:/srv/root,vers=3 ro init=/usr/lib/netinstall/init "
        "netinstall.answers=http://192.0.2.1/answers/ ip=dhcp console=tty0 ${cmdline}"
    ) in text


def _refused(dialect: str, **tables: object) -> str:
    with pytest.raises(InstallError) as caught:
        DIALECTS[dialect].render(changed(**tables))
    return str(caught.value)


def test_what_a_dialect_cannot_write_is_named() -> None:
    kernel = {"arguments": ["a=${net0/mac}", "b='x'", "c={{", "d=$HOME"]}
    assert _refused("ipxe", kernel=kernel) == (
        "error[site.value]: iPXE: 'a=${net0/mac}' cannot be written: iPXE replaces ${…} by a "
        "setting, and nothing keeps it from that\n"
        "  where: site.json:28:4: kernel.arguments[0]\n"
        "  try:   choose another value"
    )
    assert "GRUB: \"b='x'\" cannot be written: GRUB hands ' on with a backslash" in _refused(
        "grub", kernel=kernel
    )
    said = _refused("pixiecore", kernel=kernel)
    assert "kernel.arguments[0]" in said
    assert "kernel.arguments[2]" in said


def test_what_a_dialect_cannot_do_is_named() -> None:
    proxy = {"mode": "proxy", "interface": "lo", "subnet": "192.0.2.0/24"}
    for dialect, name in (("dhcpd", "ISC dhcpd"), ("kea", "Kea")):
        assert f"{name}: it cannot answer beside another DHCP server" in _refused(
            dialect, dhcp=proxy
        )
    assert "exports: the site has no NFS server" in _refused("exports")
    http = {"url": "http://192.0.2.1:8080", "root": "/srv/http"}
    assert "has a scheme or port that GRUB 2.06 does not know" in _refused(
        "grub", http=http, grub={"fetch": "http"}
    )
    tftp = {"address": "192.0.2.1", "root": "/srv/tftp", "bios": "x" * 128}
    for dialect in ("dnsmasq", "dhcpd", "kea"):
        assert "it has 128 bytes, and DHCP has room for 127" in _refused(dialect, tftp=tftp)
    arguments = {"arguments": [f"x={'y' * 500}"] * 4}
    assert "the kernel arguments have 2227 bytes; the kernel keeps 2047" in _refused(
        "kexec", kernel=arguments
    )


def test_render_writes_files_and_programs(tmp_path: Path) -> None:
    image = tmp_path / "http/image"
    image.mkdir(parents=True)
    digest = {"files": {"root.squashfs": {"bytes": 1, "sha256": "5a" * 32}}}
    (image / "image.json").write_text(json.dumps(digest))
    site = tmp_path / "site.toml"
    site.write_text(EXAMPLE.read_text().replace("/srv/http", str(tmp_path / "http")))
    done = netinstall("boot", "render", site, "--for", "kexec", "--output", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, f"{tmp_path}/out/kexec-boot\n")
    assert (tmp_path / "out/kexec-boot").stat().st_mode & 0o777 == 0o755
    (image / "image.json").unlink()
    done = netinstall("boot", "render", site, "--for", "ipxe", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"error[site.file]: {image}/image.json: No such file or directory\n"
        f"  where: {site}:30:1: images[0].folder\n"
        "  try:   build it there: netinstall image build --output DIR\n"
    )
    done = netinstall("boot", "render", site, "--for", "lilo", "--output", tmp_path / "out")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error[arguments]: there is no dialect 'lilo'",
    )


def test_mistakes_in_a_site_file_are_told_together(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        EXAMPLE.read_text()
        .replace('server = "192.0.2.1"', 'server = "nfs.example.net"')
        .replace("mac =", "mca =", 1)
        .replace('parity = "none"', "")
        .replace("speed = 115200", "speed = 1200")
    )
    done = netinstall("boot", "check", site)
    assert done.returncode == 2
    assert done.stderr == (
        "error[site.field]: write an IPv4 address such as 192.0.2.1; a name is not understood "
        f"everywhere here\n  where: {site}:14:1: nfs.server\n"
        "error[site.field]: `speed` must be 9600, 19200, 38400, 57600 or 115200, not 1200\n"
        f"  where: {site}:42:1: serial.speed\n"
        f"error[site.field]: unknown field `mca`; did you mean `mac`?\n"
        f"  where: {site}:45:1: hosts[0].mca\n"
    )
    for text, error in (
        ("version = ", "error[site.syntax]: this is not TOML: Invalid value"),
        ("\xff", "error[site.syntax]: byte 0 is not UTF-8"),
    ):
        site.write_bytes(text.encode("latin-1"))
        assert netinstall("boot", "check", site).stderr.startswith(error)
    done = netinstall("boot", "check", tmp_path / "nothing.toml")
    assert done.stderr == (
        f"error[site.not-found]: {tmp_path}/nothing.toml cannot be read: No such file or "
        f"directory\n  where: {tmp_path}/nothing.toml\n  try:   is the path right?\n"
    )


def test_the_schema_takes_the_example() -> None:
    import tomllib  # noqa: PLC0415 - only here

    done = netinstall("schema", "--site")
    schema = json.loads(done.stdout)
    assert schema == json_schema()
    Draft202012Validator(schema).validate(tomllib.loads(EXAMPLE.read_text()))
    assert ROOT in EXAMPLE.parents
