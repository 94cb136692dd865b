"""`netinstall boot serve` as a process: what it refuses, what it serves, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests
from lab import process
from namespaces import CLIENT, SERVER, Pair, inside, ip, pair
from processes import COMMAND, ENVIRONMENT, netinstall, without_root

MAC = "52:54:00:00:00:10"
URL = f"http://{SERVER}:8080/lab"
READY = "Ctrl-C ends it"
_DISCOVER = "53=01"


@pytest.fixture
def network() -> Iterator[Pair]:
    with pair() as names:
        yield names


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, with an HTTP root in which nothing is missing."""
    with TemporaryDirectory(prefix="netinstall-") as name:
        made = Path(name)
        made.chmod(0o755)
        for file, content in (
            ("image/vmlinuz", b"kernel"),
            ("image/initrd", b"initrd"),
            ("image/root.squashfs", b"root"),
            ("answers/default.toml", b"version = 1"),
        ):
            path = made / "http" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digest = {"files": {"root.squashfs": {"sha256": sha256(b"root").hexdigest()}}}
        (made / "http/image/image.json").write_text(json.dumps(digest))
        (made / "tmp").mkdir()
        yield made


def _site(folder: Path, **tables: Any) -> Path:
    document: dict[str, Any] = {
        "version": 1,
        "answers": f"{URL}/answers/",
        "http": {"url": URL, "root": f"{folder}/http"},
        "tftp": {"address": SERVER, "root": f"{folder}/tftp"},
        "dhcp": {
            "interface": "lan0",
            "subnet": "192.0.2.0/24",
            "range": {"first": "192.0.2.100", "last": "192.0.2.100"},
        },
        "images": [{"name": "one", "folder": "image"}],
        "hosts": [{"mac": MAC, "ip": "192.0.2.10", "hostname": "db7"}],
    }
    path = folder / "site.json"
    path.write_text(json.dumps(document | tables))
    return path


def _argv(folder: Path, *options: str) -> list[str]:
    # its private folder is made there
    variables = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    environment = ["env", "-C", "/", *variables, f"TMPDIR={folder / 'tmp'}"]
    return [*environment, *COMMAND, "boot", "serve", str(folder / "site.json"), *options]


@contextmanager
def _serving(folder: Path, prefix: tuple[str, ...], *options: str) -> Iterator[process.Server]:
    """The command, until it is asked to end; nothing of it is left then."""
    server = process.Server(
        "serve",
        _argv(folder, *options),
        folder / "log",
        ready='"kind": "serving"' if "--json" in options else READY,
        prefix=prefix,
        deadline_s=60,
    )
    with server:
        try:
            yield server
        finally:
            assert server.terminate(30) == 0
    assert list((folder / "tmp").iterdir()) == []


def _refused(folder: Path, prefix: tuple[str, ...] | list[str], *options: str) -> str:
    """What it says on standard error when it does not start."""
    done = subprocess.run(
        [*prefix, *_argv(folder, *options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, 1), done.stdout + done.stderr
    assert list((folder / "tmp").iterdir()) == []
    return done.stderr.replace(str(folder), "")


def _without_places(text: str) -> str:
    return re.sub(r":\d+:\d+:", ":", text)


def _ask(client: str, *options: str, mac: str = MAC) -> dict[str, Any]:
    script = Path(__file__).with_name("dhcp_client.py")
    argv = [*inside(client), sys.executable, str(script), SERVER, CLIENT, mac, "30", *options]
    return dict(json.loads(process.run(argv)))


def _fetch(client: str, name: str) -> bytes:
    code = "import requests, sys; sys.stdout.buffer.write(requests.get(sys.argv[1]).content)"
    return process.run([*inside(client), sys.executable, "-c", code, f"{URL}/{name}"])


def _children(namespace: str) -> list[str]:
    """The programs that run in a namespace."""
    numbers = ip("netns", "pids", namespace).split()
    return [Path("/proc", number, "comm").read_text().strip() for number in numbers]


@contextmanager
def _on_another_interface(network: Pair, folder: Path) -> Iterator[None]:
    """A DHCP server that is not in the way, although it has the same ports."""
    ip("-n", network.server, "link", "add", "lan9", "type", "bridge")
    ip("-n", network.server, "address", "add", "198.51.100.1/24", "dev", "lan9")
    ip("-n", network.server, "link", "set", "lan9", "up")
    argv = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--port=0"),
        *("--log-facility=-", "--user=root", "--interface=lan9", "--bind-interfaces"),
        *("--dhcp-range=198.51.100.9,198.51.100.10,1h", f"--dhcp-leasefile={folder}/lan9-leases"),
    ]
    with process.Server(
        "lan9", argv, folder / "lan9.log", ready="started", prefix=inside(network.server)
    ):
        yield


@pytest.mark.root
def test_it_serves_and_ends(network: Pair, folder: Path) -> None:
    _site(folder)
    with (
        _on_another_interface(network, folder),
        _serving(folder, inside(network.server), "--json") as server,
    ):
        assert _children(network.server).count("dnsmasq") == 2
        (private,) = (folder / "tmp").iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        answer = _ask(network.client, _DISCOVER, "93=0000")
        assert (answer["address"], answer["file"]) == ("192.0.2.10", "undionly.kpxe")
        request = ("53=03", "93=0000", f"50={bytes([192, 0, 2, 10]).hex()}", "54=c0000201")
        _ask(network.client, *request)
        server.said.expect(r'"host": "db7", "step": "dhcp", "state": "done"', 10)
        loader = ["busybox", "tftp", "-g", "-l", "-", "-r", "undionly.kpxe", SERVER]
        assert (
            process.run([*inside(network.client), *loader])
            == Path("/usr/lib/ipxe/undionly.kpxe").read_bytes()
        )
        server.said.expect(
            r'"step": "loader", "state": "done", "text": "undionly.kpxe by TFTP"', 10
        )
        assert _fetch(network.client, "image/vmlinuz") == b"kernel"
        server.said.expect(r'"step": "kernel", "state": "done".*"file": "image/vmlinuz"', 10)
        # UEFI HTTP boot, from where iPXE's package has it
        assert _fetch(network.client, "ipxe.efi")[:2] == b"MZ"
        # option 12: a name that would be a line of its own, and a colour
        hostile = b"x\n1 DHCPACK(lan0) 192.0.2.66 52:54:00:00:00:66 \x1b[31m".hex()
        _ask(network.client, _DISCOVER, f"12={hostile}", mac="52:54:00:00:00:99")
        _ask(network.client, _DISCOVER, "93=0000", mac="52:54:00:00:00:99")
        wrong = ("53=03", f"50={bytes([198, 51, 100, 1]).hex()}", "54=c0000201")
        _ask(network.client, *wrong, mac="52:54:00:00:00:98")
        server.said.expect(
            r'"mac": "52:54:00:00:00:98".*"state": "refused", "text": "198\.51\.100\.1 is', 20
        )
        site = folder / "site.json"
        site.write_text(site.read_text() + " ")
        server.said.expect(r"site\.json has changed: start again to serve what it says now", 20)
    lines = [json.loads(line) for line in server.said.text.splitlines()]
    assert {line["kind"] for line in lines} == {"serving", "note", "boot", "last"}
    assert "\x1b" not in server.said.text
    assert not [line for line in lines if line.get("mac") == "52:54:00:00:00:66"]
    assert _children(network.server) == []
    # what the daemon may read is a copy: the originals stay whose they are
    assert Path("/usr/lib/ipxe/undionly.kpxe").stat().st_uid == 0


@contextmanager
def _another(network: Pair, folder: Path) -> Iterator[None]:
    """A DHCP server at the other end of the cable."""
    argv = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--port=0"),
        *("--log-facility=-", "--user=root", "--interface=lan1", "--bind-interfaces"),
        *("--dhcp-range=192.0.2.200,192.0.2.210,1h", f"--dhcp-leasefile={folder}/other-leases"),
    ]
    with process.Server(
        "other", argv, folder / "other.log", ready="started", prefix=inside(network.client)
    ):
        yield


@pytest.mark.root
def test_it_does_not_start_beside_another_dhcp_server(network: Pair, folder: Path) -> None:
    _site(folder)
    kept = sorted(Path("/var/lib/dhcpcd").glob("*"))
    # dhcpcd's own hooks wrote it anew, without any name server
    names = Path("/etc/resolv.conf").read_bytes()
    before = ip("-4", "-n", network.server, "address", "show")
    with _another(network, folder):
        assert _without_places(_refused(folder, inside(network.server))) == (
            f"error[serve.dhcp]: {CLIENT} is a DHCP server on lan0 already\n"
            "  where: /site.json: dhcp.mode\n"
            '  try:   say mode = "proxy" under [dhcp]: then it gives the addresses, and this '
            "server says what to boot;\n"
            "         or --beside-other-dhcp, if you know that it must be so\n"
        )
        # asking left nothing behind, and no lease was taken
        assert _children(network.server) == []
        assert ip("-4", "-n", network.server, "address", "show") == before
        assert sorted(Path("/var/lib/dhcpcd").glob("*")) == kept
        assert Path("/etc/resolv.conf").read_bytes() == names
        assert (folder / "other-leases").read_text() == ""
        with _serving(folder, inside(network.server), "--beside-other-dhcp") as server:
            assert f"warning: {CLIENT} is a DHCP server on lan0, too" in server.said.text


@pytest.mark.root
def test_a_proxy_wants_another_dhcp_server(network: Pair, folder: Path) -> None:
    proxy = {"mode": "proxy", "interface": "lan0", "subnet": "192.0.2.0/24"}
    _site(folder, dhcp=proxy, hosts=[{"mac": MAC}])
    with _serving(folder, inside(network.server)) as server:
        assert "warning: no DHCP server answered on lan0 within 8 s" in server.said.text
    with _another(network, folder), _serving(folder, inside(network.server)) as server:
        assert f"addresses come from the DHCP server {CLIENT}" in server.said.text
        assert "DHCP     proxy on lan0" in server.said.text


@pytest.mark.root
def test_ports_that_are_taken(network: Pair, folder: Path) -> None:
    _site(folder)
    argv = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--port=0"),
        *("--log-facility=-", "--user=root", "--interface=lan0", "--bind-dynamic"),
        *("--dhcp-range=192.0.2.200,192.0.2.210,1h", f"--dhcp-leasefile={folder}/other-leases"),
        *("--enable-tftp", f"--tftp-root={folder}"),
    ]
    web = ["env", "-C", str(folder), sys.executable, "-u", "-m", "http.server", "8080"]
    prefix = inside(network.server)
    with (
        process.Server("other", argv, folder / "other.log", ready="started", prefix=prefix),
        process.Server("web", web, folder / "web.log", ready="Serving", prefix=prefix),
    ):
        text = _refused(folder, prefix)
    for where, name in (
        (f"TCP port 8080 on {SERVER} is taken by python", "http.url"),
        ("UDP port 67 on lan0 is taken by dnsmasq (process ", "dhcp.interface"),
        (f"UDP port 69 on {SERVER} is taken by dnsmasq (process ", "dhcp.interface"),
    ):
        assert f"error[serve.port]: {where}" in text
        assert name in text.partition(where)[2].partition("error[")[0]
    assert "stop that program, or let it serve and use --http-only" in text
    assert "stop that program, or choose another port in http.url" in text


@pytest.mark.root
def test_everything_that_is_wrong_is_said_together(network: Pair, folder: Path) -> None:
    site = {
        "dhcp": {
            "interface": "lan7",
            "subnet": "192.0.2.0/24",
            "range": {"first": "192.0.2.100", "last": "192.0.2.1"},
        },
        "http": {"url": "http://192.0.2.9:8080", "root": f"{folder}/http"},
        "tftp": {"address": SERVER, "root": "/nowhere", "user": "nobody-at-all", "bios": "my.0"},
    }
    _site(folder, **site)
    (folder / "http/image/vmlinuz").unlink()
    text = _refused(folder, inside(network.server))
    for line in (
        "error[site.conflict]: the range ends at 192.0.2.1, before it begins at 192.0.2.100",
        "error[site.file]: /http/image/vmlinuz: No such file or directory",
        "error[serve.address]: 192.0.2.9 of http.url is no address of this machine",
        f"  try:   it has 127.0.0.1, {SERVER}",
        "error[serve.interface]: there is no interface lan7 here",
        "  try:   there are lan0, lo",
        "error[site.file]: /nowhere/my.0 and /usr/lib/ipxe/my.0 are missing",
        "error[site.file]: there is no user nobody-at-all here",
    ):
        assert line in text
    said = subprocess.run(
        [*inside(network.server), *_argv(folder, "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=60,
    ).stdout
    problems = json.loads(said)
    assert problems["kind"] == "problems"
    assert {problem["code"] for problem in problems["problems"]} == {
        *("site.conflict", "site.file", "serve.address", "serve.interface"),
    }


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (("link", "set", "lan0", "down"), "lan0 is down", "ip link set lan0 up"),
        (
            ("address", "replace", "192.0.2.2/24", "dev", "lan0"),
            f"lan0 does not have tftp.address, {SERVER}, but 192.0.2.2",
            f"ip address add {SERVER}/24 dev lan0",
        ),
        (
            (),
            f"lan0 does not have tftp.address, {SERVER}, but no IPv4 address",
            f"ip address add {SERVER}/24 dev lan0",
        ),
    ],
)
def test_an_interface_that_is_not_set_up(
    network: Pair, folder: Path, change: tuple[str, ...], said: str, hint: str
) -> None:
    _site(folder)
    if change[:2] != ("link", "set"):
        ip("-n", network.server, "address", "flush", "dev", "lan0")
    if change:
        ip("-n", network.server, *change)
    text = _refused(folder, inside(network.server))
    assert f"error[serve.interface]: {said}\n" in text
    assert f"  try:   {hint}\n" in text


@pytest.mark.root
def test_a_subnet_of_others(network: Pair, folder: Path) -> None:
    between = {"first": "198.51.100.9", "last": "198.51.100.10"}
    dhcp = {"interface": "lan0", "subnet": "198.51.100.0/24", "range": between}
    _site(folder, dhcp=dhcp, hosts=[])
    assert (
        f"error[serve.interface]: {SERVER} of lan0 is not in dhcp.subnet, 198.51.100.0/24: "
        "dnsmasq would answer nobody\n"
    ) in _refused(folder, inside(network.server))


def test_https_is_for_others(folder: Path) -> None:
    url = "https://127.0.0.1:8443"
    _site(folder, http={"url": url, "root": f"{folder}/http"})
    assert _without_places(_refused(folder, [], "--http-only")) == (
        f"error[serve.address]: {url} asks for TLS, which this server does not speak\n"
        "  where: /site.json: http.url\n"
        "  try:   write http://, or serve the files by a web server of your own\n"
    )


def test_what_needs_root(folder: Path) -> None:
    _site(folder, http={"url": "http://127.0.0.1:80", "root": f"{folder}/http"})
    (folder / "tmp").chmod(0o777)
    text = _refused(folder, without_root(folder))
    assert (
        "error[serve.rights]: DHCP and TFTP need root: their ports, and looking for other DHCP "
        "servers\n"
        "  try:   sudo netinstall boot serve …, or --http-only beside servers that run already\n"
    ) in text


@pytest.mark.root
def test_a_port_that_needs_root(network: Pair, folder: Path) -> None:
    _site(folder, http={"url": f"http://{SERVER}", "root": f"{folder}/http"})
    (folder / "tmp").chmod(0o777)
    # ports below this one are root's, whatever the host says
    setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    process.run([*inside(network.server), "tee", setting], stdin=b"1024")
    prefix = [*inside(network.server), *without_root(folder)]
    text = _refused(folder, prefix, "--http-only")
    assert "error[serve.rights]: port 80 of http.url needs root\n" in text
    assert "  try:   sudo netinstall boot serve …, or another port, such as 8080\n" in text


@pytest.mark.root
def test_programs_that_are_missing(network: Pair, folder: Path) -> None:
    _site(folder)
    hide = 'for name in dnsmasq dhcpcd; do mount --bind /dev/null /usr/sbin/$name; done; exec "$@"'
    text = _refused(folder, [*inside(network.server), "unshare", "--mount", "sh", "-c", hide, "sh"])
    for name in ("dnsmasq", "dhcpcd"):
        assert (
            f"error[tool.missing]: {name} is not installed here\n"
            "  where: netinstall boot serve\n"
            f"  try:   install Debian's package {name}-base\n"
        ) in text


@pytest.mark.root
def test_the_end_of_dnsmasq_is_the_end(network: Pair, folder: Path) -> None:
    _site(folder)
    prefix = inside(network.server)
    argv = _argv(folder)
    with process.Server(
        "serve", argv, folder / "log", ready=READY, prefix=prefix, deadline_s=60
    ) as server:
        numbers = ip("netns", "pids", network.server).split()
        (dnsmasq,) = (
            int(number)
            for number in numbers
            if Path("/proc", number, "comm").read_text().strip() == "dnsmasq"
        )
        os.kill(dnsmasq, signal.SIGTERM)
        server.said.expect(r"error\[command\.failed\]: dnsmasq ended with exit code 0$", 30)
        server.said.expect(r"exiting on receipt of SIGTERM", 10)
        assert server.said.wait_closed(30)
    assert list((folder / "tmp").iterdir()) == []


def test_http_only_needs_no_root(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    nfs = {"server": "192.0.2.3", "path": "/srv/root"}
    _site(folder, http={"url": url, "root": f"{folder}/http"}, answers=f"{url}/answers/", nfs=nfs)
    (folder / "tmp").chmod(0o777)
    with _serving(folder, tuple(without_root(folder)), "--http-only") as server:
        said = server.said.text
        assert "DHCP" not in said
        assert f"HTTP     {url} ({folder}/http)" in said
        assert "NFS      192.0.2.3:/srv/root is another server's: none is run here" in said
        assert f"host     {MAC} 192.0.2.10 db7 image one" in said
        assert f"others   image one, {url}/answers/" in said
        requests.get(f"{url}/pixiecore/v1/boot/{MAC}", timeout=30).raise_for_status()
        server.said.expect(rf"{MAC}  db7 +script +pixiecore/v1/boot/{MAC} \d+ B by HTTP$", 10)
    server.said.expect(rf"^How far each machine came:\n.*{MAC}  db7 +script", 5)


def _ask_for_nothing(connection: socket.socket, times: int) -> None:
    connection.sendall(b"GET /.%050d HTTP/1.1\r\nHost: x\r\n\r\n" % 0 * times)
    answers = b""
    while answers.count(b"HTTP/1.1 404 ") < times:
        answers += connection.recv(65536)


def test_a_reader_that_stops_reading_stops_nobody(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    _site(folder, http={"url": url, "root": f"{folder}/http"}, answers=f"{url}/answers/")
    (folder / "tmp").chmod(0o777)
    argv = [*without_root(folder), *_argv(folder, "--http-only")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if READY in line:
                break
        # each is a line; a pipe holds 64 KiB of them, and the backlog 2000
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            for _ in range(28):
                _ask_for_nothing(connection, 100)
            # the gap is told once there is room for it, with the next line after that
            while "lines are missing here: nobody read" not in server.stdout.readline():
                _ask_for_nothing(connection, 1)
        server.terminate()
        server.stdout.read()
        assert server.wait(30) == 0


def test_a_site_file_that_is_none(tmp_path: Path) -> None:
    done = netinstall("boot", "serve", tmp_path / "nothing.toml")
    assert done.returncode == 2
    assert "error[site.not-found]: " in done.stderr
