"""What `netinstall boot check` finds, each with its text."""

import json
import os
import pwd
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from processes import netinstall
from sites import EXAMPLE, MINIMAL, changed

from installer.boot.check import conflicts
from installer.boot.render import render

HOST = {"mac": "52:54:00:12:34:56", "ip": "192.0.2.10", "hostname": "db7"}


def _said(**tables: object) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in conflicts(changed(**tables))]


def _sum(content: bytes) -> str:
    return sha256(content).hexdigest()


def _dhcp(**fields: object) -> object:
    return MINIMAL["dhcp"] | fields


def test_nothing_contradicts_itself_in_a_good_site() -> None:
    assert _said(hosts=[HOST]) == []


def test_hosts_that_collide() -> None:
    uuid = "4c4c4544-0042-3510-8052-b4c04f4e3132"
    second = {"mac": "52-54-00-12-34-56", "ip": "192.0.2.10", "hostname": "DB7", "uuid": uuid}
    hosts = [HOST, second, {"uuid": uuid.upper()}]
    assert [text.partition(": ")[2] for text in _said(hosts=hosts)] == [
        "hosts[1].mac: hosts[1] and hosts[0] have the same mac, 52:54:00:12:34:56",
        f"hosts[2].uuid: hosts[2] and hosts[1] have the same uuid, {uuid}",
        "hosts[1].ip: hosts[1] and hosts[0] have the same ip, 192.0.2.10",
        "hosts[1].hostname: hosts[1] and hosts[0] have the same hostname, DB7",
    ]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.3.10", "192.0.3.10 of hosts[0] is not in the subnet 192.0.2.0/24"),
        ("192.0.2.255", "192.0.2.255 of hosts[0] is the subnet's own or its broadcast address"),
        ("192.0.2.1", "192.0.2.1 of hosts[0] is the TFTP server"),
        ("192.0.2.150", "192.0.2.150 of hosts[0] lies in the range that is handed out to others"),
    ],
)
def test_addresses_of_hosts(address: str, said: str) -> None:
    (found,) = _said(hosts=[HOST | {"ip": address}])
    assert found.endswith(f": hosts[0].ip: {said}")


def test_addresses_of_the_network() -> None:
    backwards = {"first": "192.0.2.199", "last": "192.0.2.100"}
    found = _said(dhcp=_dhcp(range=backwards, router="198.51.100.1"))
    assert [text.partition(": ")[2] for text in found] == [
        "dhcp.router: 198.51.100.1 of the router is not in the subnet 192.0.2.0/24",
        "dhcp.range: the range ends at 192.0.2.100, before it begins at 192.0.2.199",
    ]
    around = {"first": "192.0.2.1", "last": "192.0.2.9"}
    (server,) = _said(dhcp=_dhcp(range=around))
    assert "tftp.address: 192.0.2.1 of the TFTP server lies in the range" in server


def test_what_a_proxy_cannot_do() -> None:
    proxy = {"mode": "proxy", "interface": "lo", "subnet": "192.0.2.0/24"}
    nfs = {"server": "192.0.2.1", "path": "/srv/root"}
    images = [{"name": "one", "folder": "image", "root": "lease"}]
    found = _said(dhcp=proxy, hosts=[HOST], nfs=nfs, images=images)
    assert [text.partition(": ")[2] for text in found] == [
        "hosts[0].ip: a proxy cannot give hosts[0] its ip",
        "hosts[0].hostname: a proxy cannot give hosts[0] its hostname",
        "images[0].root: a proxy cannot send the root path of the image one",
    ]


def test_nfs_options_that_make_no_sense() -> None:
    options = ["rw", "vers=5", "nfsvers=4.1", "sec=krb5", "proto=udp"]
    nfs = {"server": "192.0.2.1", "path": "/srv/root", "mount-options": options}
    layer = "the root is read-only, and the agent stacks its own writable layer"
    found = _said(nfs=nfs | {"clients": "192.0.2.0/25"})
    assert [text.partition(": ")[2] for text in found] == [
        f"nfs.mount-options[0]: rw: {layer}",
        "nfs.mount-options[1]: vers=5: there is no such version of NFS",
        "nfs.mount-options[2]: nfsvers=4.1 and vers=5 say the same thing",
        "nfs.mount-options[3]: sec=krb5: the initrd has no Kerberos",
        "nfs.mount-options[4]: proto=udp: NFS over UDP damages data at today's speeds (nfs(5))",
        "nfs.clients: 192.0.2.0/25 leaves out machines of the subnet 192.0.2.0/24",
    ]


def test_a_host_without_an_answer_file() -> None:
    (found,) = _said(answers=None, hosts=[HOST])
    assert found.endswith("hosts[0]: nothing says where hosts[0] finds its answer file")


@pytest.fixture
def server() -> Iterator[Path]:
    """A whole boot server's folders, with nothing wrong; its site file is `site.toml`.

    They lie in a folder that everybody may enter, which pytest's own is not.
    """
    with TemporaryDirectory(prefix="netinstall-") as folder:
        Path(folder).chmod(0o755)
        _furnish(Path(folder))
        yield Path(folder)


def _furnish(folder: Path) -> None:
    text = EXAMPLE.read_text().replace("/srv/", f"{folder}/srv/")
    user = pwd.getpwuid(os.geteuid()).pw_name
    text = text.replace("[nfs]", f'user = "{user}"\n\n[nfs]')
    (folder / "site.toml").write_text(text)
    content = {
        "http/image/vmlinuz": "kernel",
        "http/image/initrd": "initrd",
        "http/image/root.squashfs": "root",
        "http/answers/db7.toml": "",
        "http/ipxe.efi": "",
        "tftp/undionly.kpxe": "",
        "tftp/ipxe.efi": "",
        "nfs/netinstall/usr/lib/netinstall/init": "",
    }
    about = {"files": {"root.squashfs": {"bytes": 4, "sha256": _sum(b"root")}}}
    content["http/image/image.json"] = json.dumps(about)
    for name, inside in content.items():
        path = folder / "srv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inside)
    render(folder / "site.toml", "ipxe", folder / "srv/http")


def _check(server: Path) -> str:
    done = netinstall("boot", "check", server / "site.toml", before=[])
    assert done.returncode == (2 if "error[" in done.stderr else 0)
    return done.stderr.replace(str(server), "")


def test_a_server_with_nothing_wrong(server: Path) -> None:
    assert _check(server) == "/site.toml: no mistakes found\n"


def _outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(4 * 1024**3)


_MISTAKES: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "http/image/initrd",
        Path.unlink,
        "/srv/http/image/initrd: No such file or directory",
    ),
    ("http/image/vmlinuz", _folder, "/srv/http/image/vmlinuz is not a regular file"),
    (
        "http/image/vmlinuz",
        _outside,
        "/srv/http/image/vmlinuz leads to /etc/hostname, outside of the root",
    ),
    (
        "http/answers/db7.toml",
        lambda path: path.chmod(0o640),
        "/srv/http/answers/db7.toml cannot be read by the server",
    ),
    (
        "http/answers",
        lambda path: path.chmod(0o700),
        "/srv/http/answers cannot be entered by the server",
    ),
    (
        "http/image/root.squashfs",
        lambda path: path.write_text("another"),
        f"/srv/http/image/root.squashfs has the SHA-256 {_sum(b'another')}, and image.json",
    ),
    (
        "http/image/initrd",
        _huge,
        "/srv/http/image/initrd has 4.00 GiB: a boot loader cuts it off at 4 GiB",
    ),
    (
        "http/image/image.json",
        lambda path: path.write_text("{}"),
        "/srv/http/image/image.json: it names no root.squashfs with a sha256",
    ),
    (
        "http/ipxe/default.ipxe",
        lambda path: path.write_text("#!ipxe\n"),
        "/srv/http/ipxe/default.ipxe is not what the site file says now",
    ),
    ("tftp/undionly.kpxe", Path.unlink, "/srv/tftp/undionly.kpxe: No such file or directory"),
    (
        "nfs/netinstall/usr/lib/netinstall/init",
        Path.unlink,
        "/srv/nfs/netinstall holds no boot environment: /srv/nfs/netinstall/usr/lib/netinstall",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "said"), _MISTAKES)
def test_files_that_a_client_stumbles_over(
    server: Path, name: str, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(server / "srv" / name)
    assert f"error[site.file]: {said}" in _check(server)


@pytest.mark.root
def test_tftp_files_of_somebody_else(server: Path) -> None:
    site = server / "site.toml"
    site.write_text(site.read_text().replace('user = "root"', 'user = "nobody"'))
    assert (
        "error[site.file]: /srv/tftp/ipxe.efi does not belong to nobody: dnsmasq serves only its "
        "own files (tftp-secure)\n  where: /site.toml:9:2: tftp.uefi\n"
        "  try:   chown nobody /srv/tftp/ipxe.efi\n"
    ) in _check(server)
    for path in (server / "srv/tftp").iterdir():
        os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    assert _check(server) == "/site.toml: no mistakes found\n"
    site.write_text(site.read_text().replace('user = "nobody"', 'user = "ghost"'))
    assert "error[site.file]: there is no user ghost here\n" in _check(server)


def test_everything_is_told_together(server: Path) -> None:
    site = server / "site.toml"
    site.write_text(site.read_text().replace('ip = "192.0.2.10"', 'ip = "192.0.2.150"'))
    (server / "srv/http/image/initrd").unlink()
    (server / "srv/tftp/ipxe.efi").unlink()
    said = _check(server)
    assert said.count("error[site.conflict]") == 1
    assert "/srv/http/image/initrd" in said
    assert "/srv/tftp/ipxe.efi" in said
