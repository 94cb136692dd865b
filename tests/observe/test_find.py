"""Where answer files are looked for, on a real HTTP server and in folders."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Interface
from pathlib import Path
from urllib.parse import unquote

import pytest

from installer.model.errors import ExitCode, InstallError
from installer.model.facts import Dmi, Facts, Lease, Nic
from installer.observe.answers import LARGEST, NfsLocation, find, nfs_location

MAC = "52:54:00:12:34:56"
UUID = "8c1b9d3e-5f2a-4b67-9e10-2d4c6a8f0b15"
FACTS = Facts(
    1,
    "uefi",
    "x86_64",
    "6.1",
    1024**3,
    "0" * 32,
    dmi=Dmi("QEMU", "VM", "SN 42", UUID),
    nics=(Nic("eth0", MAC), Nic("eth1", "52:54:00:12:34:57")),
    leases=(Lease("eth0", IPv4Interface("192.0.2.57/24"), hostname="node7.example.net"),),
    boot_mac=MAC,
)
ORDER = [
    f"{stem}.{ending}"
    for stem in (
        MAC,
        MAC.replace(":", "-"),
        UUID,
        "SN 42",
        "192.0.2.57",
        "node7.example.net",
        "node7",
        "default",
    )
    for ending in ("toml", "json")
]


@dataclass
class Server:
    """What a web server has, and what it was asked for; `odd` answers some paths in other ways."""

    files: dict[str, bytes] = field(default_factory=dict)
    odd: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path)
            state.asked.append(path)
            if path in state.odd:
                state.odd[path](self)
                return
            content = state.files.get(path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def _status(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def _said(
    location: str, facts: Facts | None = FACTS, code: ExitCode = ExitCode.ANSWERS, **options: float
) -> str:
    with pytest.raises(InstallError) as caught:
        find(location, facts, seconds=options.get("seconds", 5))
    assert caught.value.exit_code == code
    return str(caught.value)


def test_the_most_specific_file_wins(server: Server, tmp_path: Path) -> None:
    # from the least specific name on, each new file takes the place of all before it
    for name in reversed(ORDER):
        server.files[f"/answers/{name}"] = name.encode()
        (tmp_path / name).write_text(name)
        server.asked.clear()
        shown = f"{server.url}/answers/{name}".replace("SN 42", "SN%2042").replace(MAC, MAC_QUOTED)
        assert find(f"{server.url}/answers/", FACTS) == (name, shown)
        assert server.asked == [f"/answers/{each}" for each in ORDER[: ORDER.index(name) + 1]]
        assert find(f"{tmp_path}", FACTS) == (name, f"{tmp_path}/{name}")
        assert find(f"file://{tmp_path}/", FACTS) == (name, f"{tmp_path}/{name}")


MAC_QUOTED = MAC.replace(":", "%3A")


def test_nothing_for_this_machine(server: Server) -> None:
    assert _said(f"{server.url}/a/") == (
        f"error[answers.not-found]: {server.url}/a/ has no answer file for this machine; tried "
        + ", ".join(ORDER)
        + "\n  try:   name a file after one of these, or make default.toml"
    )


def test_all_interfaces_count_when_it_is_not_known_which_one_booted(server: Server) -> None:
    server.files["/52-54-00-12-34-57.toml"] = b"x"
    facts = replace(FACTS, boot_mac=None, leases=())
    assert find(f"{server.url}/", facts)[0] == "x"


def test_a_refusal_is_not_a_missing_file(server: Server) -> None:
    server.odd[f"/a/{UUID}.toml"] = _status(403)
    server.files["/a/default.toml"] = b"wipe everything"
    assert _said(f"{server.url}/a/") == (
        f"error[answers.not-found]: the server answered 403 for {server.url}/a/{UUID}.toml\n"
        "  try:   a server must answer 404 for files that it does not have, and let this machine "
        "read the others"
    )


def test_a_broken_server_is_asked_again(server: Server) -> None:
    def fail_twice(handler: BaseHTTPRequestHandler) -> None:
        if server.asked.count("/a.toml") < 3:
            _status(503)(handler)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", "2")
            handler.end_headers()
            handler.wfile.write(b"ok")

    server.odd["/a.toml"] = fail_twice
    told: list[str] = []
    assert find(f"{server.url}/a.toml", FACTS, told.append)[0] == "ok"
    assert len(told) == 2
    assert told[0].startswith(f"{server.url}/a.toml: the server answered 503; trying again in 0.")


def test_a_truncated_answer_is_asked_for_again(server: Server) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"version = 1")
        handler.close_connection = True

    server.odd["/a.toml"] = cut
    said = _said(f"{server.url}/a.toml", code=ExitCode.NETWORK, seconds=1)
    assert said.startswith(f"error[network.unreachable]: {server.url}/a.toml cannot be read: ")
    assert len(server.asked) >= 2


def test_nobody_there(server: Server) -> None:
    server_port = server.port
    location = f"http://user:geheim@127.0.0.2:{server_port}/a.toml?token=geheim"
    assert _said(location, code=ExitCode.NETWORK, seconds=0) == (
        f"error[network.unreachable]: http://***@127.0.0.2:{server_port}/a.toml?… cannot be read: "
        "Connection refused\n"
        "  where: the answer file\n"
        "  try:   check cable, address, gateway and name servers of this machine, then the server"
    )


def test_a_circle_of_redirects_ends(server: Server) -> None:
    server.odd["/a.toml"] = _status(302, Location="/a.toml")
    said = _said(f"{server.url}/a.toml", code=ExitCode.NETWORK)
    assert "the server redirects in circles" in said
    assert len(server.asked) == 6


def test_a_redirect_is_followed(server: Server) -> None:
    server.odd["/a.toml"] = _status(301, Location="/b.toml")
    server.files["/b.toml"] = b"b"
    assert find(f"{server.url}/a.toml", FACTS)[0] == "b"


def test_a_redirect_cannot_lead_to_a_file(server: Server) -> None:
    server.odd["/a.toml"] = _status(302, Location="file:///etc/passwd")
    assert "this is no http(s) URL" in _said(f"{server.url}/a.toml", code=ExitCode.NETWORK)


def test_too_large(server: Server, tmp_path: Path) -> None:
    server.files["/big"] = b" " * (LARGEST + 1)
    (tmp_path / "big").write_bytes(server.files["/big"])
    for location in (f"{server.url}/big", f"{tmp_path}/big"):
        assert _said(location) == (
            f"error[answers.not-found]: {location} is larger than 1.00 MiB: it is no answer file\n"
            "  try:   check the address"
        )
    server.files["/big"] = b" " * LARGEST
    assert len(find(f"{server.url}/big", FACTS)[0]) == LARGEST


def test_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"# caf\xe9")
    assert _said(f"{tmp_path}/a.toml") == (
        "error[answers.syntax]: byte 5 is not UTF-8\n"
        f"  where: {tmp_path}/a.toml\n"
        "  try:   save the file as UTF-8"
    )


def test_placeholders(server: Server, tmp_path: Path) -> None:
    server.files[f"/{MAC}/{UUID}/SN 42?h=node7.example.net&ip=192.0.2.57"] = b"x"
    location = f"{server.url}/{{mac}}/{{uuid}}/{{serial}}?h={{hostname}}&ip={{ip}}"
    assert find(location, FACTS)[0] == "x"
    (tmp_path / f"{MAC}-SN 42").write_text("y")
    assert find(f"{tmp_path}/{{mac}}-{{serial}}", FACTS)[0] == "y"


def test_wrong_placeholders() -> None:
    assert _said("http://h/{mac}/{nix}/{hostname}", replace(FACTS, leases=())) == (
        "error[arguments]: {nix} is not known\n"
        "  where: http://h/{mac}/{nix}/{hostname}\n"
        "  try:   known are {mac}, {uuid}, {serial}, {hostname}, {ip}\n"
        "error[answers.not-found]: this machine does not say its hostname\n"
        "  where: http://h/{mac}/{nix}/{hostname}\n"
        "  try:   use a directory, in which the most specific file wins"
    )


@pytest.mark.parametrize("serial", ["../../etc", "..", "a/b", "a\\b", ".hidden", "a\nb"])
def test_a_value_cannot_leave_the_directory(tmp_path: Path, serial: str) -> None:
    (tmp_path / "answers").mkdir()
    for folder in (tmp_path, tmp_path / "answers"):
        (folder / "etc.toml").write_text("")
    facts = replace(FACTS, dmi=Dmi(serial=serial))
    tried = _said(f"{tmp_path}/answers/", facts)
    assert serial not in tried.partition("tried")[2]
    assert _said("http://h/{serial}", facts) == (
        f"error[answers.not-found]: this machine's serial {serial!r} cannot be a part of an "
        "address\n  where: http://h/{serial}\n  try:   use another placeholder"
    )


def test_no_such_file(server: Server, tmp_path: Path) -> None:
    assert _said(f"{tmp_path}/a.toml") == (
        f"error[answers.not-found]: there is no {tmp_path}/a.toml\n"
        "  try:   is the file there under exactly this name?"
    )
    assert _said(f"{server.url}/{{hostname}}.toml") == (
        f"error[answers.not-found]: there is no {server.url}/node7.example.net.toml\n"
        f"  where: {server.url}/{{hostname}}.toml\n"
        "  try:   is the file there under exactly this name?"
    )


def test_a_location_that_cannot_be_read() -> None:
    assert _said("tftp://host/a.toml") == (
        "error[arguments]: tftp://host/a.toml: answer files come from http, https, nfs or a file\n"
        "  try:   write for example http://SERVER/answers/"
    )


def test_nfs_needs_a_mount() -> None:
    assert nfs_location("nfs:192.0.2.1:/srv/answers/", FACTS) == NfsLocation(
        "192.0.2.1", "/srv/answers", ""
    )
    assert nfs_location("nfs://192.0.2.1/srv/{hostname}.toml", FACTS) == NfsLocation(
        "192.0.2.1", "/srv", "node7.example.net.toml"
    )
    assert nfs_location("http://h/") is None
    assert _said("nfs:192.0.2.1:/srv/a.toml") == (
        "error[answers.not-found]: nfs:192.0.2.1:/srv/a.toml is on an NFS server that is not "
        "mounted\n  try:   mount it, then give the path of the file"
    )


@pytest.mark.parametrize("location", ["nfs:host", "nfs:host:relative", "nfs:h:/a/../b", "nfs::/a"])
def test_no_place_on_an_nfs_server(location: str) -> None:
    with pytest.raises(InstallError) as caught:
        nfs_location(location)
    assert str(caught.value) == (
        f"error[arguments]: {location!r} is no place on an NFS server\n"
        "  try:   write nfs:SERVER:/folder/file.toml, or nfs:SERVER:/folder/ for a directory"
    )
