"""The benchmarks' HTTP server: files of a folder, ranges, kept-alive connections.

    python benchmarks/server.py FOLDER [--address ADDRESS]

It prints its port.
"""

import argparse
import os
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
_STEP = 1024**2


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()

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
                step = min(stop - start, _STEP)
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
    parser.add_argument("--address", default="127.0.0.1")
    arguments = parser.parse_args()
    _Handler.folder = arguments.folder.resolve()
    server = _Server((arguments.address, 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
