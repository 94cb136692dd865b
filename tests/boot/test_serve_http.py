"""The HTTP side of boot serve, asked by real clients over real sockets."""

import asyncio
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import requests
from sites import changed

from installer.boot.serve import published, web
from installer.boot.serve.journey import Event, Reported, Transfer
from installer.boot.serve.published import Published

HOST = {"mac": "52:54:00:00:00:07", "hostname": "rack7", "arguments": ["quiet"]}
KERNEL = bytes(range(256)) * 40
SECONDS = 30


@dataclass
class Running:
    """A server that runs in a thread; `events` and `complaints` are what it said."""

    url: str
    root: Path
    events: Queue[Event] = field(default_factory=Queue)
    complaints: Queue[str] = field(default_factory=Queue)

    def get(self, name: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.url}/{name}", headers=headers, timeout=SECONDS)

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are; return the whole answer."""
        with socket.create_connection(self.address, timeout=SECONDS) as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def status(self, path: str) -> int:
        """The status for a path that no client library may touch before."""
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return int(self.raw(request.encode("latin-1")).split()[1])

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)

    def happened(self) -> Transfer:
        event = self.events.get(timeout=SECONDS)
        assert isinstance(event, Transfer)
        return event


@contextmanager
def _running(root: Path, prefix: str = "/boot", **tables: object) -> Iterator[Running]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    site = changed(
        http={"url": url, "root": str(root)}, answers=f"{url}/answers/", hosts=[HOST], **tables
    )
    site = published.with_report(site)
    what = Published(site, root, published.texts(site), {"ipxe.efi": root / "loaders/ipxe.efi"})
    running = Running(url, root)
    server = web.Server(what, running.events.put, running.complaints.put)
    loop, up = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with server.listening(listener):
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(SECONDS)
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
        loop.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    root = tmp_path / "http"
    for name, content in (
        ("image/vmlinuz", KERNEL),
        ("answers/default.toml", b"version = 1\n"),
        ("loaders/ipxe.efi", b"MZ"),
        (".git/config", b"secret"),
        ("image/.hidden", b"secret"),
        ("odd name & 100%.txt", b"odd"),
        ("../outside", b"secret"),
        ("../http-sibling/file", b"secret"),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with _running(root) as running:
        yield running


def test_scripts_are_those_of_the_site(server: Running) -> None:
    main = server.get("ipxe/boot.ipxe")
    assert main.text.startswith("#!ipxe\n")
    assert main.headers["Content-Type"].startswith("text/plain")
    own = server.get("ipxe/mac-52-54-00-00-00-07.ipxe").text
    assert f" netinstall.report={server.url}/report " in own
    assert [server.happened().step for _ in range(2)] == ["script", "script"]
    head = requests.head(f"{server.url}/ipxe/boot.ipxe", timeout=SECONDS)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(main.content)))
    assert server.events.empty()


def test_a_file_and_what_is_told_of_it(server: Running) -> None:
    answer = server.get("image/vmlinuz")
    assert (answer.status_code, answer.content) == (200, KERNEL)
    begun, done = server.happened(), server.happened()
    assert (begun.state, begun.size) == ("begun", len(KERNEL))
    assert (done.state, done.step, done.name) == ("done", "kernel", "image/vmlinuz")
    assert (done.done, done.size, done.ip) == (len(KERNEL), len(KERNEL), "127.0.0.1")
    assert server.get("odd%20name%20%26%20100%25.txt").content == b"odd"
    # UEFI HTTP boot finds the loader although http.root has none
    assert server.get("ipxe.efi").content == b"MZ"


def test_several_requests_over_one_connection(server: Running) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=SECONDS)
    connection.connect()
    own = connection.sock.getsockname()
    for name, method in (("image/vmlinuz", "GET"), ("nothing", "GET"), ("image/vmlinuz", "HEAD")):
        connection.request(method, f"/boot/{name}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == (404 if name == "nothing" else 200)
        assert connection.sock.getsockname() == own
    assert body == b""
    connection.close()


@pytest.mark.parametrize(
    ("wanted", "status", "part", "said"),
    [
        ("bytes=0-9", 206, KERNEL[:10], "bytes 0-9/10240"),
        ("bytes=10000-", 206, KERNEL[10000:], "bytes 10000-10239/10240"),
        ("bytes=-5", 206, KERNEL[-5:], "bytes 10235-10239/10240"),
        ("bytes=-99999", 206, KERNEL, "bytes 0-10239/10240"),
        ("bytes=10230-99999", 206, KERNEL[10230:], "bytes 10230-10239/10240"),
        ("bytes=10240-", 416, b"", "bytes */10240"),
        ("bytes=9-1", 416, b"", "bytes */10240"),
        # more than one range, and nonsense: the whole file is allowed (RFC 9110, 14.2)
        (None, 200, KERNEL, None),
    ],
)
def test_ranges(
    server: Running, wanted: str | None, status: int, part: bytes, said: str | None
) -> None:
    answer = server.get("image/vmlinuz", **({"Range": wanted} if wanted else {}))
    assert (answer.status_code, answer.content) == (status, part)
    assert answer.headers.get("Content-Range") == said


def test_a_range_of_a_file_that_has_changed_is_all_of_it(server: Running) -> None:
    first = server.get("image/vmlinuz")
    for validator in (first.headers["ETag"], first.headers["Last-Modified"]):
        part = server.get("image/vmlinuz", Range="bytes=5-", **{"If-Range": validator})
        assert (part.status_code, part.content) == (206, KERNEL[5:])
    new = server.root / "new"
    new.write_bytes(b"another kernel")
    os.utime(new, (2_000_000_000, 2_000_000_000))
    new.rename(server.root / "image/vmlinuz")
    for validator in (first.headers["ETag"], first.headers["Last-Modified"]):
        whole = server.get("image/vmlinuz", Range="bytes=5-", **{"If-Range": validator})
        assert (whole.status_code, whole.content) == (200, b"another kernel")


def test_what_a_client_has_already(server: Running) -> None:
    first = server.get("image/vmlinuz")
    again = server.get("image/vmlinuz", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    said = [server.happened().state for _ in range(4)]
    assert said == ["begun", "done", "begun", "unneeded"]
    head = requests.head(f"{server.url}/image/vmlinuz", timeout=SECONDS)
    assert (head.headers["Content-Length"], head.content) == ("10240", b"")
    assert head.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "path",
    [
        "/boot/../outside",
        "/boot/image/../../outside",
        "/boot/%2e%2e/outside",
        "/boot/..%2foutside",
        "/boot/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/boot/%252e%252e/outside",
        "/boot/../http-sibling/file",
        "/boot/..\\outside",
        "/boot/..%5coutside",
        "/boot//etc/passwd",
        "/boot/%2fetc/passwd",
        "/boot/image/vmlinuz%00",
        "/boot/image/vmlinuz%00.txt",
        "/boot/image/vmlinuz/",
        "/boot/image/vmlinuz/x",
        "/boot/image/./vmlinuz",
        "/boot/image//vmlinuz",
        "/boot/image/vmlinuz%0a",
        "/boot/image/%c3%28",
        "/boot/.git/config",
        "/boot/image/.hidden",
        "/boot/image",
        "/boot/image/",
        "/boot/",
        "/boot",
        "/",
        "/image/vmlinuz",
        "/bootimage/vmlinuz",
        "/boot/nothing",
        "/boot/" + "a" * 5000,
        "/boot/" + "a/" * 3000,
        "http://127.0.0.1/boot/../outside",
    ],
)
def test_what_is_not_published_is_not_found(server: Running, path: str) -> None:
    assert server.status(path) == 404
    assert server.status("/boot/image/vmlinuz") == 200


def test_links_stay_within_the_root(server: Running) -> None:
    (server.root / "inside").symlink_to("image/vmlinuz")
    (server.root / "outside").symlink_to("../outside")
    (server.root / "folder").symlink_to(server.root.parent)
    (server.root / "loop").symlink_to("loop")
    (server.root / "dangling").symlink_to("nothing")
    assert server.get("inside").content == KERNEL
    for name in ("outside", "folder/outside", "loop", "dangling"):
        assert server.get(name).status_code == 404
    said = [server.complaints.get(timeout=SECONDS) for _ in range(2)]
    outside = server.root.parent / "outside"
    assert said[0] == (f"127.0.0.1 asked for 'outside': it leads to {outside}, outside of the root")


def test_special_files_are_not_found_at_once(server: Running) -> None:
    os.mkfifo(server.root / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        # a socket's path has at most 108 bytes
        short = Path(os.path.relpath(server.root / "socket"))
        bound.bind(str(short if len(str(short)) < 100 else server.root / "s"))
        for name in ("pipe", short.name):
            assert server.get(name).status_code == 404
    assert "it is not a regular file" in server.complaints.get(timeout=SECONDS)


@pytest.mark.root
def test_devices_are_not_opened(server: Running) -> None:
    os.mknod(server.root / "zero", 0o20666, os.makedev(1, 5))
    assert server.get("zero").status_code == 404


def test_what_not_everybody_may_read_is_not_given_out(server: Running) -> None:
    (server.root / "image/vmlinuz").chmod(0o640)
    assert server.get("image/vmlinuz").status_code == 404
    assert "not everybody may read it (chmod a+r)" in server.complaints.get(timeout=SECONDS)


def test_a_request_that_is_too_large_or_none(server: Running) -> None:
    huge = b"GET /boot/image/vmlinuz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    assert server.raw(huge).startswith(b"HTTP/1.0 400 ") or b" 400 " in server.raw(huge)[:20]
    assert b" 400 " in server.raw(b"nonsense\r\n\r\n")[:20]
    assert (
        b" 405 "
        in server.raw(
            b"DELETE /boot/image/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )[:20]
    )
    assert server.status("/boot/image/vmlinuz") == 200


def test_a_client_that_hangs_up(server: Running) -> None:
    size = 64 * 1024**2
    with (server.root / "large").open("wb") as stream:
        stream.truncate(size)
    with socket.create_connection(server.address, timeout=SECONDS) as connection:
        connection.sendall(b"GET /boot/large HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(1024)
        assert server.happened().state == "begun"
        # nothing is taken from the connection meanwhile: how far it is comes from the kernel
        moved = server.happened()
        assert moved.state == "moved"
        assert 0 < moved.done < size
    while (event := server.happened()).state == "moved":
        pass
    assert (event.state, event.name) == ("broken", "large")


def _pixiecore(server: Running, mac: str, prefix: str = "pixiecore") -> dict[str, Any] | None:
    """Ask as README.api.md of Pixiecore says; anything but 200 means to ignore the machine."""
    answer = requests.get(f"{server.url}/{prefix}/v1/boot/{mac}", timeout=SECONDS)
    if answer.status_code != 200:
        return None
    found = json.loads(answer.text)
    assert isinstance(found["kernel"], str)
    assert all(isinstance(url, str) for url in found.get("initrd", []))
    assert isinstance(found.get("cmdline", ""), str)
    assert isinstance(found.get("message", ""), str)
    assert set(found) <= {"kernel", "initrd", "cmdline", "message"}
    return dict(found)


def test_the_api_of_pixiecore(server: Running) -> None:
    # several times in one boot, in each way to write a MAC address
    first = _pixiecore(server, "52:54:00:00:00:07")
    assert first is not None
    assert requests.get(first["kernel"], timeout=SECONDS).content == KERNEL
    assert "BOOTIF=01-52-54-00-00-00-07" in first["cmdline"].split()
    assert first["message"] == "Netinstall: rack7"
    for mac in ("52:54:00:00:00:07", "52-54-00-00-00-07", "52%3A54%3a00:00:00:07"):
        assert _pixiecore(server, mac) == first
    event = server.happened()
    assert (event.mac, event.ip, event.step) == ("52:54:00:00:00:07", "", "script")
    assert (
        requests.get(f"{server.url}/v1/boot/52:54:00:00:00:07", timeout=SECONDS)
        .headers["Content-Type"]
        .startswith("application/json")
    )


@pytest.mark.parametrize(
    "mac",
    [
        *("52:54:00:00:00:08", "", "x", "52:54:00:00:00", "52:54:00:00:00:07:00"),
        *("525400000007", "52:54-00:00:00:07", "52:54:00:00:00:0g", "boot", "%00", "a" * 3000),
        "52:54:00:00:00:07/",
    ],
)
def test_pixiecore_ignores_other_machines(server: Running, mac: str) -> None:
    assert _pixiecore(server, mac) is None
    assert server.events.empty()


def _post(server: Running, body: bytes, batch: int = 1) -> int:
    headers = {"Netinstall-MAC": "52:54:00:00:00:07", "Netinstall-Batch": str(batch)}
    answer = requests.post(f"{server.url}/report", body, headers=headers, timeout=SECONDS)
    return answer.status_code


def test_reports_of_the_agent(server: Running) -> None:
    lines = b'{"time": 1, "kind": "planned", "plan": {}}\n\n{"kind": "of-tomorrow", "x": [1]}\n'
    assert _post(server, lines) == 204
    # sent again because the answer was lost
    assert _post(server, lines) == 204
    found = [server.events.get(timeout=SECONDS) for _ in range(2)]
    assert [one.event.kind for one in found if isinstance(one, Reported)] == [
        "planned",
        "of-tomorrow",
    ]
    assert all(isinstance(one, Reported) and one.mac == "52:54:00:00:00:07" for one in found)
    assert server.events.empty()
    assert server.get("report").status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        *(b"x", b"[]", b'{"kind": 1}', b"{}", b"\xff", b'{"kind": "failed", "problems": [1]}'),
        b"[" * 100_000,
    ],
)
def test_a_report_that_is_none(server: Running, body: bytes) -> None:
    assert _post(server, body) == 400
    assert "sent a report that is none: line 1: " in server.complaints.get(timeout=SECONDS)
    assert server.events.empty()


def test_a_report_that_is_too_large(server: Running) -> None:
    assert _post(server, b" " * (9 * 1024**2)) == 413


def test_a_url_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with _running(tmp_path, prefix="") as server:
        assert server.get("file").content == b"x"
        assert server.get("ipxe/boot.ipxe").status_code == 200
        assert server.status("//file") == 404


def test_a_site_that_names_its_own_place_for_reports() -> None:
    elsewhere = {"arguments": ["netinstall.report=http://192.0.2.9/"]}
    site = published.with_report(changed(kernel=elsewhere))
    assert site.file.kernel.arguments == elsewhere["arguments"]
    assert not published.known(site).reports
    assert published.known(published.with_report(changed())).reports
