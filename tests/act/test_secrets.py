"""Passphrases: where they come from, and that they go nowhere else."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from installer.act import secrets
from installer.act.run import Runner
from installer.model.errors import InstallError


@pytest.fixture
def server() -> Iterator[str]:
    """A web server with a passphrase, which fails once before it gives it."""
    answers = {"/key": [503, 200], "/token": [403], "/empty": [200]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            left = answers.get(path, [404])
            status = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"\n" if path == "/empty" else b" se cret\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_passphrase_is_read_from_a_server_that_is_asked_again(server: str) -> None:
    said: list[str] = []
    assert secrets.read(f"{server}/key?token=hush", said.append) == b" se cret"
    (line,) = said
    assert line.startswith(f"{server}/key?…: the server answered 503; trying again in ")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("gone", "the server answered 404"),
        ("token?key=hush", "the server answered 403"),
        ("empty", "it is empty"),
    ],
)
def test_a_server_without_a_passphrase_is_told(server: str, path: str, why: str) -> None:
    with pytest.raises(InstallError) as caught:
        secrets.read(f"{server}/{path}", lambda _: None)
    shown = path.replace("?key=hush", "?…")
    assert str(caught.value) == (
        f"error[secret.not-found]: the passphrase cannot be read from {server}/{shown}: {why}\n"
        "  try:   it is one line of text; this machine must be able to read it"
    )


def test_a_passphrase_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\x00\xffkey\n\n")
    for place in (f"{path}", f"file:{path}", f"file://{path}"):
        assert secrets.read(place, lambda _: None) == b"\x00\xffkey\n"
    path.write_bytes(b"x" * (secrets.LARGEST + 1))
    with pytest.raises(InstallError, match="it is longer than 65536 bytes"):
        secrets.read(str(path), lambda _: None)


def test_a_child_reads_it_from_memory() -> None:
    with secrets.in_memory(b"secret") as stream:
        path = secrets.path_of(stream)
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Runner().run(["cat", path], timeout=10, capture=True) == "secret"
        assert Runner().run(["cat"], timeout=10, stdin=stream, capture=True) == "secret"
        assert str(Path(path).readlink()).startswith("/memfd:")
    assert secrets.random_secret() != secrets.random_secret()
