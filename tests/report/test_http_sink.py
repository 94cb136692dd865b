"""Reports over HTTP to real servers on the loopback that are well, slow, broken, silent or gone."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from report_samples import LOST, failed, installation, message, progress
from test_sinks import Memory

from installer.report.http import HttpSink, Patience
from installer.report.sinks import Fanout, LossError

DEADLINE = 20.0
QUICK = Patience(connect=1.0, answer=1.0, gather=0.0, first_pause=0.01, longest_pause=0.05)
MACHINE = {"Netinstall-MAC": "52:54:00:12:34:56", "Netinstall-UUID": "4c4c4544"}

Answer = Callable[["Request"], tuple[int, dict[str, str]]]


class Request:
    """A request as the server saw it."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.events = [json.loads(line) for line in body.splitlines()]


class Server:
    """Keeps what it is sent, and answers as it is told."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[Request] = []
        self.arrived = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, dict(self.headers), body)
                with server.arrived:
                    server.requests.append(request)
                    server.arrived.notify_all()
                status, headers = answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/events"

    def await_requests(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, DEADLINE), (
                f"{len(self.requests)} of {count} requests arrived"
            )

    @property
    def events(self) -> list[dict[str, object]]:
        return [event for request in self.requests for event in request.events]

    @property
    def texts(self) -> list[object]:
        return [event.get("text") for event in self.events]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(
        target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def ok(_request: Request) -> tuple[int, dict[str, str]]:
    return 204, {}


def emit_until_loss(sink: HttpSink) -> str:
    """Emit until the sink says that it loses something, which only an emit can; return what."""
    for _ in range(1000):
        try:
            sink.emit(message("again"))
        except LossError as loss:
            return str(loss)
        threading.Event().wait(DEADLINE / 1000)
    pytest.fail("the sink never told that it does not get through")


def test_a_whole_installation_arrives_as_json_lines() -> None:
    with serving(ok) as server:
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        events = list(installation())
        for event in events:
            sink.emit(event)
        sink.close(DEADLINE)
        assert [event["kind"] for event in server.events] == [event.kind for event in events]
        headers = server.requests[0].headers
        assert headers["Content-Type"] == "application/x-ndjson"
        assert headers["Netinstall-MAC"] == "52:54:00:12:34:56"
        assert headers["Netinstall-UUID"] == "4c4c4544"
        batches = [int(request.headers["Netinstall-Batch"]) for request in server.requests]
        assert batches == list(range(1, len(batches) + 1))


def test_a_server_with_trouble_gets_the_same_batch_again() -> None:
    answers = iter([500, 503, 429, 408])

    def answer(_request: Request) -> tuple[int, dict[str, str]]:
        return next(answers, 200), {}

    with serving(answer) as server:
        others = Memory()
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        fanout = Fanout([sink, others])
        fanout.emit(message("one"))
        server.await_requests(5)
        fanout.emit(message("two"))
        fanout.close(DEADLINE)
        assert server.texts[:5] == ["one"] * 5
        assert {request.headers["Netinstall-Batch"] for request in server.requests[:5]} == {"1"}
        assert server.texts[5] == "two"
        assert others.texts == [
            "one",
            "two",
            f"the report to {server.url} does not get through: the server answers 500",
        ]


def test_a_refused_batch_is_given_up_and_counted_in_the_next() -> None:
    with serving(lambda request: (413 if "poison" in str(request.events) else 200, {})) as server:
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        sink.emit(message("poison"))
        server.await_requests(1)
        assert emit_until_loss(sink).endswith("the server answers 413")
        sink.close(DEADLINE)
        assert server.texts[:3] == [
            "poison",
            "1 events before this one were dropped on their way to this report",
            "again",
        ]


def test_a_slow_server_loses_progress_first_and_is_told_how_much() -> None:
    gate = threading.Event()

    def answer(_request: Request) -> tuple[int, dict[str, str]]:
        assert gate.wait(DEADLINE)
        return 200, {}

    patience = Patience(answer=DEADLINE, gather=0.0)
    with serving(answer) as server:
        sink = HttpSink(server.url, MACHINE, limit=10, patience=patience)
        sink.emit(message("first"))
        server.await_requests(1)
        for number in range(8):
            sink.emit(message(str(number)))
            sink.emit(progress("unpack", number, 8, at=5))
        sink.emit(failed(LOST))
        gate.set()
        sink.close(DEADLINE)
        assert server.texts[:3] == [
            "first",
            "7 events before this one were dropped on their way to this report",
            "0",
        ]
        kinds = [event["kind"] for event in server.events]
        assert kinds.count("message") == 10
        assert kinds.count("step-progress") == 1
        assert kinds[-1] == "failed"


def test_a_server_that_never_answers_holds_up_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        sink = HttpSink(f"http://127.0.0.1:{port}/", MACHINE, patience=QUICK)
        sink.emit(message("one"))
        assert emit_until_loss(sink) == (
            f"the report to http://127.0.0.1:{port}/ does not get through: no answer in time"
        )
        sink.close(0.1)


def test_a_server_that_is_gone_is_tried_again_until_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    sink = HttpSink(f"http://127.0.0.1:{port}/", MACHINE, patience=QUICK)
    sink.emit(message("one"))
    assert emit_until_loss(sink).endswith("does not get through: no connection")
    sink.close(0.2)


def test_what_was_kept_while_the_server_was_away_arrives_at_the_end() -> None:
    answers = iter([503])
    patience = Patience(gather=0.0, first_pause=600.0, longest_pause=600.0)
    with serving(lambda _: (next(answers, 200), {})) as server:
        fanout = Fanout([HttpSink(server.url, MACHINE, patience=patience)])
        fanout.emit(message("one"))
        server.await_requests(1)
        fanout.emit(message("two"))
        # closing ends the pause of ten minutes
        fanout.close(DEADLINE)
        assert server.texts == ["one", "one", "two"]


def test_secrets_in_the_url_reach_the_server_and_nobody_else() -> None:
    answers = iter([500])
    with serving(lambda _: (next(answers, 200), {})) as server:
        url = f"http://agent:hunter%402@127.0.0.1:{server.port}/in?token=s3cret"
        others = Memory()
        sink = HttpSink(url, MACHINE, patience=QUICK)
        fanout = Fanout([sink, others])
        fanout.emit(message("one"))
        server.await_requests(2)
        fanout.emit(message("two"))
        fanout.close(DEADLINE)
        assert server.requests[0].path == "/in?token=s3cret"
        # "agent:hunter@2"
        assert server.requests[0].headers["Authorization"] == "Basic YWdlbnQ6aHVudGVyQDI="
        told = json.dumps(server.events) + "".join(others.texts) + sink.name
        assert "does not get through: the server answers 500" in told
        assert "hunter" not in told
        assert "s3cret" not in told


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_on_the_same_server(status: int) -> None:
    def answer(request: Request) -> tuple[int, dict[str, str]]:
        return (status, {"Location": "/new"}) if request.path == "/events" else (200, {})

    with serving(answer) as server:
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        sink.emit(message("one"))
        sink.close(DEADLINE)
        assert [request.path for request in server.requests] == ["/events", "/new"]
        assert server.requests[1].events == server.requests[0].events


def test_redirects_to_other_servers_are_not_followed() -> None:
    with serving(ok) as other, serving(lambda _: (307, {"Location": other.url})) as server:
        sink = HttpSink(server.url.replace("//", "//me:secret@"), MACHINE, patience=QUICK)
        sink.emit(message("one"))
        assert emit_until_loss(sink).endswith("the server redirects to another one")
        sink.close(DEADLINE)
        assert other.requests == []


def test_redirects_without_end_are_given_up() -> None:
    with serving(lambda _: (307, {"Location": "/events"})) as server:
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        sink.emit(message("one"))
        assert emit_until_loss(sink).endswith("the server redirects without end")
        sink.close(DEADLINE)


@pytest.mark.parametrize(
    "url", ["http://[::1/", "http://" + "a" * 300 + "/", "http://127.0.0.1:x/"]
)
def test_an_impossible_url_fails_quietly(url: str) -> None:
    sink = HttpSink(url, MACHINE, patience=QUICK)
    sink.emit(message("one"))
    assert "does not get through" in emit_until_loss(sink)
    sink.close(0.1)


def test_a_server_without_tls_is_no_https_server() -> None:
    with serving(ok) as server:
        sink = HttpSink(server.url.replace("http:", "https:"), MACHINE, patience=QUICK)
        sink.emit(message("one"))
        assert "does not get through" in emit_until_loss(sink)
        sink.close(0.1)
        assert server.requests == []


def test_hostile_identities_stay_inside_their_header() -> None:
    with serving(ok) as server:
        machine = {"Netinstall-Serial": "abc\r\nX-Evil: 1\x1b[2J Größe\n"}
        sink = HttpSink(server.url, machine, patience=QUICK)
        sink.emit(message("one"))
        sink.close(DEADLINE)
        headers = server.requests[0].headers
        assert headers["Netinstall-Serial"] == "abc\\r\\nX-Evil: 1\\x1b[2J Gro\\xdfe\\n"
        assert "X-Evil" not in headers


def test_hostile_events_are_valid_json() -> None:
    with serving(ok) as server:
        sink = HttpSink(server.url, MACHINE, patience=QUICK)
        sink.emit(message('"\n\x00\x1b \udc80 \u2028'))
        sink.close(DEADLINE)
        assert server.texts == ['"\n\x00\x1b \udc80 \u2028']


def test_libraries_that_are_slow_to_import_wait_until_they_are_needed() -> None:
    modules = sorted((Path(__file__).parents[2] / "installer" / "report").glob("*.py"))
    names = [path.stem for path in modules if path.stem not in ("__init__", "live")]
    program = "".join(f"import installer.report.{name}\n" for name in names)
    program += "import sys; print(sorted({'requests', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
