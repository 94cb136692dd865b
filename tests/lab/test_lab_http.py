"""The lab's HTTP server against a real client (http.client over real sockets)."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.http import Fault, HttpServer
from lab.network import UserNetwork

BODY = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def web() -> Iterator[HttpServer]:
    with HttpServer(UserNetwork()) as server:
        yield server


@pytest.fixture
def big(web: HttpServer, tmp_path: Path) -> str:
    (tmp_path / "big").write_bytes(BODY)
    web.publish("/big", tmp_path / "big")
    return "/big"


def connect(web: HttpServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)


def ask(
    web: HttpServer, path: str, *, method: str = "GET", body: str = "", part: str = ""
) -> Reply:
    line = connect(web)
    line.request(method, path, body or None, {"Range": part} if part else {})
    reply = line.getresponse()
    try:
        return Reply(reply.status, dict(reply.getheaders()), reply.read())
    finally:
        line.close()


def test_serves_what_was_published_and_nothing_else(web: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("deep")
    assert web.publish("/text", "grüße") == f"http://10.0.2.2:{web.port}/text"
    web.publish_folder("/t", tmp_path / "tree")
    assert ask(web, "/text").body == "grüße".encode()
    assert ask(web, "/t/sub/file").body == b"deep"
    assert [ask(web, path).status for path in ("/", "/t", "/t/sub", "/text/", "/t/../text")] == [
        404
    ] * 5
    assert ask(web, "/text", method="DELETE").status == 405
    head = ask(web, "/text", method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "7", b"")
    with pytest.raises(FileNotFoundError):
        web.publish("/x", tmp_path / "missing")


@pytest.mark.parametrize(
    ("part", "expected", "body"),
    [
        ("bytes=0-9", (206, f"bytes 0-9/{len(BODY)}"), BODY[:10]),
        ("bytes=1048570-", (206, f"bytes 1048570-1048575/{len(BODY)}"), BODY[-6:]),
        ("bytes=-3", (206, f"bytes 1048573-1048575/{len(BODY)}"), BODY[-3:]),
        ("bytes=5-99999999", (206, f"bytes 5-1048575/{len(BODY)}"), BODY[5:]),
        ("bytes=1048576-", (416, f"bytes */{len(BODY)}"), b"416: /big\n"),
    ],
)
def test_ranges(
    web: HttpServer, big: str, part: str, expected: tuple[int, str], body: bytes
) -> None:
    reply = ask(web, big, part=part)
    assert (reply.status, reply.headers["Content-Range"]) == expected
    assert reply.body == body
    assert web.wait_for_request(big, 1).range == part


def test_status_fault_for_two_requests(web: HttpServer, big: str) -> None:
    web.fail(big, Fault(status=503, times=2))
    assert [ask(web, big).status for _ in range(3)] == [503, 503, 200]


@pytest.mark.parametrize("reset", [False, True])
def test_cut_after_some_bytes(web: HttpServer, big: str, reset: bool) -> None:
    web.fail(big, Fault(cut_after=100_000, reset=reset))
    expected = ConnectionResetError if reset else http.client.IncompleteRead
    with pytest.raises(expected) as caught:
        ask(web, big)
    if isinstance(caught.value, http.client.IncompleteRead):
        assert len(caught.value.partial) == 100_000
    entry = web.wait_for_request(big, 5, sent=100_000)
    assert (entry.status, entry.sent, entry.complete) == (200, 100_000, False)
    web.heal(big)
    assert ask(web, big).body == BODY


def test_range_ignored(web: HttpServer, big: str) -> None:
    web.fail(big, Fault(ignore_range=True))
    reply = ask(web, big, part="bytes=5-9")
    assert (reply.status, reply.body) == (200, BODY)
    assert "Accept-Ranges" not in reply.headers


def test_a_stall_ends_when_healed(web: HttpServer, big: str) -> None:
    web.fail(big, Fault(stall_after=1000))
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(ask, web, big)
        assert web.wait_for_request(big, 5, sent=1000).done is False
        web.heal(big)
        assert reply.result(10).body == BODY


def test_a_stalled_client_may_leave(web: HttpServer, big: str) -> None:
    web.fail(big, Fault(stall_after=1000))
    line = connect(web)
    line.request("GET", big)
    assert line.getresponse().read(1000) == BODY[:1000]
    line.close()
    assert web.wait_for_request(big, 5, done=True).complete is False


def test_pace(web: HttpServer) -> None:
    web.publish("/slow", bytes(50_000))
    web.pace(100_000)
    began = time.monotonic()
    ask(web, "/slow")
    assert 0.4 < time.monotonic() - began < 2


def test_killed_during_a_transfer_and_back_on_the_same_port(web: HttpServer, big: str) -> None:
    web.fail(big, Fault(stall_after=1000))
    port = web.port
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(ask, web, big)
        web.wait_for_request(big, 5, sent=1000)
        web.stop()
        assert isinstance(reply.exception(10), OSError | http.client.IncompleteRead)
    with pytest.raises(ConnectionRefusedError):
        ask(web, big)
    web.heal(big)
    web.start()
    assert web.port == port
    assert ask(web, big).body == BODY


def test_reports_are_collected_and_awaited(web: HttpServer) -> None:
    lines = '{"event": "start"}\n{"event": "done", "exit": 0}\n'
    timer = threading.Timer(0.05, ask, [web, "/report"], {"method": "POST", "body": lines})
    timer.start()
    assert web.wait_for_report(lambda event: event["event"] == "done", 5)["exit"] == 0
    assert [event["event"] for event in web.reports] == ["start", "done"]
    assert ask(web, "/report", method="POST", body="no json").status == 400
    timer.join()


def test_a_missed_request_lists_the_others(web: HttpServer) -> None:
    ask(web, "/other")
    with pytest.raises(TimeoutError, match=r"(?s)for a request for /x; .* GET /other  -> 404, 0"):
        web.wait_for_request("/x", 0.01)
