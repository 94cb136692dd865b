"""The benchmarks' HTTP server: files of a folder, ranges, kept-alive connections, a paced link.

    python benchmarks/server.py FOLDER [--rate BYTES]

It prints its port. `--rate` is the link's bytes a second, for all connections together, with the
40 bytes of TCP and IP and the 38 of Ethernet (IEEE 802.3: preamble, header, checksum, gap) that
each 1460 bytes of a file cost on a wire left out: it is the rate of the file's bytes.
"""

import argparse
import os
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
_STEP = 1024**2
_PACED_STEP = 16 * 1024
_BURST = 0.005


class Link:
    """Bytes a second for all who send, in the order in which they ask (a token bucket)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, count: int) -> None:
        """Return when `count` more bytes may have been sent."""
        with self._lock:
            now = time.monotonic()
            # what was not used is lost, but for what a switch would hold
            self._free_at = max(self._free_at, now - _BURST) + count / self._rate
            pause = self._free_at - now
        if pause > 0:
            time.sleep(pause)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    link: Link | None = None

    def do_GET(self) -> None:
        path = (self.folder / self.path.partition("?")[0].lstrip("/")).resolve()
        if self.folder not in path.parents or not path.is_file():
            self.send_error(404)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, stop = 0, size
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if asked:
                start = int(asked[1])
                stop = min(size, int(asked[2]) + 1) if asked[2] else size
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            self.wfile.flush()
            while start < stop:
                step = min(stop - start, _PACED_STEP if self.link else _STEP)
                if self.link:
                    self.link.wait(step)
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, step)

    def do_HEAD(self) -> None:
        path = self.folder / self.path.lstrip("/")
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away."""

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


def main() -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float)
    arguments = parser.parse_args()
    _Handler.folder = arguments.folder.resolve()
    _Handler.link = Link(arguments.rate) if arguments.rate else None
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
