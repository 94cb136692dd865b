"""Images whose kernel and initrd are Alpine's, and the overlay that starts the agent from there."""

import io
import json
import re
import tarfile
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import netinstall as _netinstall
from sites import MINIMAL, ROOT, changed

from installer.boot import apkovl
from installer.boot.check import conflicts
from installer.boot.dialects import DIALECTS
from installer.boot.serve.published import with_report
from installer.boot.site import Site
from installer.model.errors import InstallError

# the files are in a folder of whoever runs the tests
netinstall = partial(_netinstall, before=[])

REPOSITORY = "http://192.0.2.1/alpine/v3.22/main"
MAC = "52:54:00:00:00:01"


def _images(**fields: Any) -> list[dict[str, Any]]:
    alpine = {"repository": REPOSITORY} | fields
    files = {"kernel": "vmlinuz-lts", "initrd": "initramfs-lts"}
    return [{"name": "alpine", "folder": "image"} | files | {"alpine": alpine}]


def _line(site: Site) -> str:
    """The kernel command line of a machine that is not named."""
    return " ".join(text for text, _ in site.kernel_arguments(None))


def test_its_boot_line() -> None:
    hosts = [{"mac": MAC, "answers": "http://192.0.2.1/db7.toml", "arguments": ["quiet"]}]
    images = _images(apkovl="overlays/{MAC}.apkovl.tar.gz")
    files = DIALECTS["ipxe"].render(changed(images=images, hosts=hosts))
    lines = files["ipxe/mac-52-54-00-00-00-01.ipxe"].splitlines()
    assert lines[5] == (
        "kernel http://192.0.2.1/image/vmlinuz-lts initrd=initrd BOOTIF=01-${netX/mac:hexhyp} "
        f"alpine_repo={REPOSITORY} "
        "apkovl=http://192.0.2.1/image/overlays/{MAC}.apkovl.tar.gz "
        f"modloop=http://192.0.2.1/image/modloop-lts netinstall.modloop-sha256={'5a' * 32} "
        "netinstall.root=http://192.0.2.1/image/root.squashfs "
        f"netinstall.root-sha256={'5a' * 32} netinstall.answers=http://192.0.2.1/db7.toml quiet "
        "ip=dhcp console=tty0 ${cmdline} || goto failed"
    )
    initramfs = "http://192.0.2.1/image/initramfs-lts"
    assert lines[6] == f"initrd --name initrd {initramfs} || goto failed"


def test_every_loader_can_start_it() -> None:
    site = changed(images=_images(apkovl="{UUID}.apkovl.tar.gz"), hosts=[{"mac": MAC}], grub={})
    for dialect in ("grub", "pixiecore", "kexec"):
        texts = DIALECTS[dialect].render(site).values()
        wanted = "apkovl=http://192.0.2.1/image/{UUID}.apkovl.tar.gz"
        assert any(wanted in text for text in texts), dialect
        assert not any("boot=netinstall" in text for text in texts), dialect


def test_packages_from_nfs_as_mkinitfs_2_had_them() -> None:
    images = _images(nfs="192.0.2.1:/srv/alpine")
    del images[0]["alpine"]["repository"]
    site = changed(images=images, kernel={"arguments": ["ip=192.0.2.9:::255.255.255.0"]})
    line = _line(site)
    assert line.startswith("alpine_dev=nfs:192.0.2.1:/srv/alpine apkovl=")
    assert "alpine_repo" not in line
    assert "ip=dhcp" not in line
    assert conflicts(site) == []
    hostile = changed(images=images, kernel={"arguments": ["x=$(reboot)"]})
    (problem,) = conflicts(hostile)
    assert str(problem) == (
        "error[site.conflict]: mkinitfs before 3.0 would have a shell evaluate 'x=$(reboot)'\n"
        "  where: site.json:33:4: kernel.arguments[0]\n"
        "  try:   use letters, digits and ._:/,=@%+- only, or a newer Alpine and no nfs"
    )


def test_arguments_that_alpine_would_take_for_itself() -> None:
    arguments = ["root=/dev/sda1", "init=/bin/sh", "single", "1", "apkovl=x", "rooted=1", "s=1"]
    site = changed(images=_images(), kernel={"arguments": arguments})
    found = [problem.what.split(" means ")[0] for problem in conflicts(site)]
    assert found == ["root=/dev/sda1", "init=/bin/sh", "single", "1", "apkovl=x", "s=1"]
    # to our own initrd they mean nothing
    assert conflicts(changed(kernel={"arguments": arguments})) == []


def _refusal(images: list[dict[str, Any]]) -> str:
    with pytest.raises(InstallError) as caught:
        changed(images=images)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("x.tar.gz", ".apkovl.tar.gz", "/a.apkovl.tar.gz", "../a.apkovl.tar.gz", "{MAC}.tgz"),
        *("{MAC}{MAC}.apkovl.tar.gz", "{mac}.apkovl.tar.gz", "a b.apkovl.tar.gz", "a/../b"),
        *("a?b.apkovl.tar.gz", "&.apkovl.tar.gz", "${net0/mac}.apkovl.tar.gz", "a\n.apkovl.tar.gz"),
        *("a//b.apkovl.tar.gz", "{{.apkovl.tar.gz", "%7B.apkovl.tar.gz"),
    ],
)
def test_overlay_names_that_would_not_arrive(name: str) -> None:
    assert "._- and {MAC} or {UUID}, each once" in _refusal(_images(apkovl=name))


def test_what_an_image_of_alpine_needs() -> None:
    images = _images()
    del images[0]["alpine"]["repository"]
    assert "say where Alpine's packages are: repository" in _refusal(images)
    images = [_images()[0] | {"root": "kernel-nfs"}]
    assert "Alpine needs its initrd: root is http, nfs or lease" in _refusal(images)
    for nfs in ("server:/srv", "192.0.2.1", "192.0.2.999:/srv", "192.0.2.1:/a b", "192.0.2.1:srv"):
        assert "IPv4" in _refusal(_images(nfs=nfs))


@given(st.text(st.sampled_from("ab '\"\\$`;#&|%{}()*?~!<>@,:=+-"), min_size=1, max_size=12))
def test_a_strange_name_of_the_modules_stays_a_name(name: str) -> None:
    line = _line(changed(images=_images(modloop=name)))
    assert f" modloop=http://192.0.2.1/image/{quote(name)} " in line
    # what the start program takes for a URL (RFC 3986)
    assert re.fullmatch(r"[A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]*", quote(name))


def test_the_modules_are_hashed(tmp_path: Path) -> None:
    folder = tmp_path / "http/image"
    folder.mkdir(parents=True)
    digest = {"files": {"root.squashfs": {"bytes": 1, "sha256": "5a" * 32}}}
    (folder / "image.json").write_text(json.dumps(digest))
    tables = {"http": {"url": "http://192.0.2.1", "root": str(tmp_path / "http")}}
    site = tmp_path / "site.json"
    site.write_text(json.dumps(MINIMAL | tables | {"images": _images()}))
    render = ("boot", "render", site, "--for", "ipxe", "--output", tmp_path / "out")
    done = netinstall(*render)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        f"error[site.file]: {folder}/modloop-lts: No such file or directory"
    )
    (folder / "modloop-lts").write_bytes(b"modules")
    assert netinstall(*render).returncode == 0
    script = (tmp_path / "out/ipxe/default.ipxe").read_text()
    assert f"netinstall.modloop-sha256={sha256(b'modules').hexdigest()} " in script
    checked = netinstall("boot", "check", site).stderr
    assert f"error[site.file]: {folder}/netinstall.apkovl.tar.gz: No such file or" in checked
    netinstall("boot", "apkovl", "--output", folder)
    assert "apkovl" not in netinstall("boot", "check", site).stderr


def _entries(packed: bytes) -> dict[tarfile.TarInfo, bytes]:
    """What is in an archive, with its content."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        files = {entry: archive.extractfile(entry) for entry in archive}
        return {entry: file.read() if file else b"" for entry, file in files.items()}


def test_the_overlay_holds_what_starts_the_agent() -> None:
    entries = _entries(apkovl.build())
    hooks = ROOT / "initrd-hooks"
    library = [f"usr/share/netinstall/{path.name}" for path in (hooks / "lib").iterdir()]
    start = ["usr/share/netinstall/start", "usr/share/netinstall/enter"]
    folders = ["etc", "usr", "usr/share", "usr/share/netinstall"]
    contents = {entry.name: content for entry, content in entries.items()}
    assert sorted(contents) == sorted([*folders, "etc/inittab", *start, *library])
    for entry in entries:
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "root", "root")
        executable = entry.isdir() or entry.name.endswith(("start", "enter", "-udhcpc"))
        assert entry.mode == (0o755 if executable else 0o644), entry.name
    lines = contents["etc/inittab"].decode().splitlines()
    actions = [line for line in lines if not line.startswith("#")]
    assert actions == [f"::sysinit:/{start[0]}", f"::restart:/{start[1]}"]


def test_the_overlay_is_always_the_same(tmp_path: Path) -> None:
    once = apkovl.build()
    assert apkovl.build() == once
    assert {entry.mtime for entry in _entries(once)} == {0}
    assert {entry.mtime for entry in _entries(apkovl.build(86400))} == {86400}
    # no date and no file name of gzip's own (RFC 1952, 2.3)
    assert once[3:8] == b"\0" * 5
    for folder in ("out", "out"):
        done = netinstall("boot", "apkovl", "--output", tmp_path / folder)
        path = tmp_path / folder / "netinstall.apkovl.tar.gz"
        assert (done.returncode, done.stderr) == (0, f"{path}\n")
        assert path.read_bytes() == once


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = netinstall("boot", "apkovl", "--output", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr == (
        f"error[arguments]: {tmp_path}/file/netinstall.apkovl.tar.gz cannot be written: "
        "File exists\n  where: --output\n  try:   name a folder that you may write to\n"
    )


def test_boot_serve_knows_its_modules_too() -> None:
    assert f"netinstall.modloop-sha256={'5a' * 32} " in _line(
        with_report(changed(images=_images()))
    )
