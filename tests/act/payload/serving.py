"""An HTTP server that fails as told: each request takes the next fault, then all goes well."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).parent / "self-signed.pem"
"""A certificate for 127.0.0.1, valid until 2126, and its key, which is nobody's secret."""


@dataclass(frozen=True)
class Fault:
    """What is different in one answer; `cut` and `stall` come after so many bytes of its body."""

    status: int | None = None
    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    chunked: bool = False
    no_length: bool = False
    ranges: bool = True
    etag: str | None = None
    content: bytes | None = None
    wrong_range: bool = False
    location: str | None = None


@dataclass
class Serving:
    """What is served under every path, and what was asked for: method and Range of each."""

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    faults: list[Fault] = field(default_factory=list)
    always: Fault = field(default_factory=Fault)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/system.tar"


@contextmanager
def serving(content: bytes, *, tls: bool = False) -> Iterator[Serving]:
    """Serve until the end of `with`."""
    state = Serving(content, scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            _answer(self, state)

        def do_GET(self) -> None:
            _answer(self, state)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _answer(request: BaseHTTPRequestHandler, state: Serving) -> None:
    fault = state.faults.pop(0) if state.faults else state.always
    asked = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    state.asked.append((request.command, asked))
    state.conditions.append(condition)
    request.close_connection = True
    content = state.content if fault.content is None else fault.content
    etag = fault.etag or state.etag
    status, start = fault.status or 200, 0
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
    if match and fault.ranges and status == 200 and condition in (None, etag, state.modified):
        status, start = 206, int(match[1])
        if start >= len(content):
            status = 416
    if status not in (200, 206):
        request.send_response(status)
        if fault.location:
            request.send_header("Location", fault.location)
        request.send_header("Content-Length", "0")
        request.send_header("Connection", "close")
        request.end_headers()
        return
    body = content[start : int(match[2]) + 1 if match and match[2] and status == 206 else None]
    request.send_response(status)
    if etag:
        request.send_header("ETag", etag)
    if state.modified:
        request.send_header("Last-Modified", state.modified)
    if fault.ranges:
        request.send_header("Accept-Ranges", "bytes")
    if status == 206:
        first = start + 1 if fault.wrong_range else start
        request.send_header(
            "Content-Range", f"bytes {first}-{start + len(body) - 1}/{len(content)}"
        )
    if fault.chunked:
        request.send_header("Transfer-Encoding", "chunked")
    elif not fault.no_length:
        request.send_header("Content-Length", str(len(body)))
    request.send_header("Connection", "close")
    request.end_headers()
    if request.command == "HEAD":
        return
    _send(request, state, fault, body)


def _send(request: BaseHTTPRequestHandler, state: Serving, fault: Fault, body: bytes) -> None:
    limit = next((limit for limit in (fault.cut, fault.stall) if limit is not None), None)
    part = body[:limit]
    try:
        if fault.chunked:
            for place in range(0, len(part), 50_000):
                piece = part[place : place + 50_000]
                request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if limit is None:
                request.wfile.write(b"0\r\n\r\n")
        else:
            request.wfile.write(part)
        request.wfile.flush()
    except ConnectionError:
        return
    if fault.stall is not None:
        state.over.wait(20)
    if fault.reset:
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
