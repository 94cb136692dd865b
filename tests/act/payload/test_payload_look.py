"""The first look at a payload."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Fault, Serving, serving

from installer.model.errors import InstallError, Problem
from installer.model.facts import PayloadFacts
from installer.model.payload import Payload
from installer.model.urls import redacted
from installer.observe.payload import look


@pytest.fixture
def server() -> Iterator[Serving]:
    with serving(b"x" * 1000) as state:
        yield state


def at(url: str) -> Payload:
    return Payload.model_validate({"url": url, "unverified": True})


def on(path: Path) -> Payload:
    return Payload.model_validate({"path": str(path), "unverified": True})


def refused(payload: Payload, **limits: object) -> Problem:
    with pytest.raises(InstallError) as error:
        look(payload, **limits)  # type: ignore[arg-type]
    return error.value.problems[0]


def test_head_says_it(server: Serving) -> None:
    assert look(at(server.url)) == PayloadFacts(server.url, 1000, ranges=True)
    assert server.asked == [("HEAD", None)]
    server.always = Fault(ranges=False)
    assert look(at(server.url)) == PayloadFacts(server.url, 1000, ranges=False)
    server.always = Fault(no_length=True)
    assert look(at(server.url)) == PayloadFacts(server.url, None, ranges=True)


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_one_byte_is_asked_for_where_head_is_refused(server: Serving, status: int) -> None:
    server.faults = [Fault(status=status)]
    assert look(at(server.url)) == PayloadFacts(server.url, 1000, ranges=True)
    assert server.asked == [("HEAD", None), ("GET", "bytes=0-0")]
    server.faults = [Fault(status=status), Fault(ranges=False)]
    assert look(at(server.url)) == PayloadFacts(server.url, 1000, ranges=False)
    server.content = b""
    server.faults = [Fault(status=status)]
    assert look(at(server.url)) == PayloadFacts(server.url, 0)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (404, "check payload.url: is the file there under exactly this name?"),
        (410, "the file was removed from the server: point payload.url to its successor"),
        (
            403,
            "the server forbids it: check the file's permissions there, or an expired signature",
        ),
    ],
)
def test_not_there(server: Serving, status: int, hint: str) -> None:
    server.always = Fault(status=status)
    assert refused(at(server.url)) == Problem(
        "payload.not-found",
        f"the server answered {status} for {server.url}",
        "payload.url",
        hint,
    )


def test_retries_are_told_and_end(server: Serving) -> None:
    server.faults = [Fault(status=503)]
    told: list[str] = []
    assert look(at(server.url), told.append).size == 1000
    assert len(told) == 1
    assert told[0].startswith(f"{server.url}: the server answered 503; trying again in 0.")
    server.always = Fault(status=503)
    assert refused(at(server.url), seconds=0) == Problem(
        "network.unreachable",
        f"{server.url} cannot be reached: the server answered 503",
        "payload.url",
        "the server is there but not well: look at its log",
    )


def test_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        problem = refused(at(url), seconds=0, timeouts=(0.2, 0.2))
        assert problem.what == f"{url} cannot be reached: no answer in time"
    problem = refused(at(url.replace("//", "//alice:hunter2@")), seconds=0)
    assert problem == Problem(
        "network.unreachable",
        f"{url.replace('//', '//***@')} cannot be reached: Connection refused",
        "payload.url",
        "check cable, address, gateway and name servers of this machine, then the server",
    )


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "system.tar"
    path.write_bytes(b"x" * 7)
    assert look(on(path)) == PayloadFacts(str(path), 7, ranges=True)
    hint = "is the share mounted in the boot environment, and payload.path right?"
    assert refused(on(tmp_path / "no")) == Problem(
        "payload.not-found", f"{tmp_path}/no: No such file or directory", "payload.path", hint
    )
    assert refused(on(tmp_path)) == Problem(
        "payload.not-found", f"{tmp_path} is no regular file", "payload.path", hint
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a.tar", "http://host/a.tar"),
        ("https://u:p@host:8443/a.tar?sig=1#f", "https://***@host:8443/a.tar?…"),
        ("https://token@host/", "https://***@host/"),
        ("https://u:p@ss@host/", "https://***@host/"),
        ("http://[::1/broken", "http://…"),
        ("/srv/a?b.tar", "/srv/a?b.tar"),
    ],
)
def test_secrets_are_taken_out(url: str, shown: str) -> None:
    assert redacted(url) == shown
