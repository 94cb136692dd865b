"""Servers that fail in the middle: what is resumed, what is given up, and the words for it."""

import gzip
import hashlib
import socket
import time
from collections.abc import Iterator

import pytest
from serving import CERTIFICATE, Fault, Serving, serving
from tars import END, SYSTEM, file, symlink

from installer.act import payload
from installer.act.narrator import Narrator
from installer.act.payload import Inventory
from installer.act.payload.source import CHUNK, Patience
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, Message
from installer.model.payload_steps import CheckPayload
from installer.model.units import MIB

NOISE = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(60_000))
CONTENT = SYSTEM + file(b"noise", NOISE) + END
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LAST_TRY = (
    "check the server and the network, then start again; "
    "payload.retry-seconds sets how long to wait for it"
)


@pytest.fixture
def server() -> Iterator[Serving]:
    with serving(CONTENT) as state:
        yield state


def check(
    url: str, *, events: list[AnyEvent] | None = None, seconds: int = 3, read: float = 5.0
) -> Inventory:
    narrator = Narrator((events if events is not None else []).append)
    step = CheckPayload(url, DIGEST, {"/": 64 * MIB}, None, seconds)
    patience = Patience(timeouts=(2.0, read), first_delay=0.01, longest_delay=0.1)
    return payload.check(step, narrator, patience=patience)


def refused(url: str, *, seconds: int = 0, read: float = 5.0) -> Problem:
    with pytest.raises(InstallError) as error:
        check(url, seconds=seconds, read=read)
    assert len(error.value.problems) == 1
    return error.value.problems[0]


def warnings(events: list[AnyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message)]


def test_a_good_server(server: Serving) -> None:
    assert check(server.url).compressed_size == len(CONTENT)
    assert server.asked == [("GET", None)]


def test_cut_connections_are_resumed_where_they_broke(server: Serving) -> None:
    server.faults = [Fault(cut=700_000), Fault(cut=1), Fault(cut=600_000, reset=True), Fault(cut=0)]
    events: list[AnyEvent] = []
    assert check(server.url, events=events).sha256 == DIGEST
    assert server.asked[:3] == [
        ("GET", None),
        ("GET", "bytes=700000-"),
        ("GET", "bytes=700001-"),
    ]
    assert server.conditions == [None, '"one"', '"one"', '"one"', '"one"']
    told = warnings(events)
    assert len(told) == 4
    assert told[0].startswith(
        f"{server.url}: the connection was closed after 700000 of {len(CONTENT)} bytes; retry 1 in "
    )


def test_a_server_that_stalls_is_asked_again(server: Serving) -> None:
    server.faults = [Fault(stall=900_000)]
    events: list[AnyEvent] = []
    assert check(server.url, events=events, read=0.2).sha256 == DIGEST
    assert "no answer in time after " in warnings(events)[0]


def test_errors_that_may_pass(server: Serving) -> None:
    server.faults = [Fault(status=503), Fault(cut=500_000), Fault(status=502), Fault(status=429)]
    events: list[AnyEvent] = []
    assert check(server.url, events=events).sha256 == DIGEST
    assert "the server answered 503 after 0 bytes" in warnings(events)[0]


def test_a_server_without_ranges_is_read_again(server: Serving) -> None:
    server.always = Fault(ranges=False)
    server.faults = [Fault(cut=700_001, ranges=False), Fault(cut=300_000, ranges=False)]
    assert check(server.url).sha256 == DIGEST
    assert [asked for _, asked in server.asked] == [None, "bytes=700001-", "bytes=700001-"]


def test_a_second_reading_that_ends_early_is_noticed(server: Serving) -> None:
    server.faults = [
        Fault(cut=700_000, ranges=False),
        Fault(cut=300_000, ranges=False, no_length=True),
        Fault(cut=900_000, no_length=True),
        Fault(cut=200_000, no_length=True),
    ]
    assert check(server.url).sha256 == DIGEST
    assert [asked for _, asked in server.asked] == [
        None,
        "bytes=700000-",
        "bytes=700000-",
        "bytes=1600000-",
        "bytes=1800000-",
    ]


def test_weak_validators_are_no_condition(server: Serving) -> None:
    server.etag, server.modified = 'W/"one"', "Sat, 21 Nov 2026 07:00:00 GMT"
    server.faults = [Fault(cut=700_000)]
    assert check(server.url).sha256 == DIGEST
    assert server.conditions == [None, server.modified]


@pytest.mark.parametrize("how", [Fault(chunked=True), Fault(no_length=True)], ids=["chunks", "end"])
def test_answers_without_a_length(server: Serving, how: Fault) -> None:
    server.always = how
    assert check(server.url).sha256 == DIGEST


def test_cut_chunks_are_resumed(server: Serving) -> None:
    server.faults = [Fault(chunked=True, cut=700_000)]
    assert check(server.url).sha256 == DIGEST
    assert len(server.asked) == 2


def test_a_range_that_nobody_asked_for_is_not_used(server: Serving) -> None:
    server.faults = [Fault(cut=700_000), Fault(wrong_range=True)]
    events: list[AnyEvent] = []
    assert check(server.url, events=events).sha256 == DIGEST
    assert "the server answered with a range that nobody asked for" in warnings(events)[1]


def test_a_body_that_ends_too_early_without_a_length_is_truncated(server: Serving) -> None:
    server.always = Fault(no_length=True, cut=700_000)
    with pytest.raises(InstallError) as error:
        check(server.url)
    problem, mismatch = error.value.problems
    assert mismatch.code == "payload.hash"
    assert problem == Problem(
        "payload.truncated",
        "the archive ends in the middle, in or after noise: its end-of-archive marker is missing",
        "at byte 700000 of the unpacked archive",
        "make the archive again, or copy it to the server again",
    )


def test_lost_for_good(server: Serving) -> None:
    server.always = Fault(cut=0)
    server.faults = [Fault(cut=700_000)]
    problem = refused(server.url, seconds=1)
    assert problem.code == "network.lost"
    assert problem.what.startswith(
        f"{server.url}: the connection was closed after 700000 of {len(CONTENT)} bytes "
        "(684 KiB of 1.84 MiB), and nothing more came in 1.0 s ("
    )
    assert problem.what.endswith(" retries)")
    assert problem.hint == LAST_TRY
    # backed off: not one request after the other
    assert 5 < len(server.asked) < 60


def test_progress_makes_patience_new(server: Serving) -> None:
    server.faults = [Fault(stall=140_000)] * 12
    begun = time.monotonic()
    assert check(server.url, seconds=1, read=0.15).sha256 == DIGEST
    assert time.monotonic() - begun > 1.5


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (404, "check payload.url: is the file there under exactly this name?"),
        (410, "the file was removed from the server: point payload.url to its successor"),
        (
            403,
            "the server forbids it: check the file's permissions there, or an expired signature",
        ),
        (401, "the server wants a user and a password: https://user:password@host/…"),
        (400, "try it by hand: curl -I '{}'"),
    ],
)
def test_not_there(server: Serving, status: int, hint: str) -> None:
    server.always = Fault(status=status)
    assert refused(server.url, seconds=60) == Problem(
        "payload.not-found",
        f"the server answered {status} for {server.url}",
        "payload.url",
        hint.format(server.url),
    )
    assert len(server.asked) == 1


def test_unwell_from_the_beginning(server: Serving) -> None:
    server.always = Fault(status=500)
    assert refused(server.url) == Problem(
        "network.unreachable",
        f"{server.url} cannot be reached: the server answered 500",
        "payload.url",
        "the server is there but not well: look at its log",
    )


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_between_two_tries(server: Serving, ranges: bool) -> None:
    other = SYSTEM + file(b"noise", NOISE[::-1]) + END
    server.faults = [
        Fault(cut=700_000),
        Fault(etag='"two"', content=other, ranges=ranges),
    ]
    assert refused(server.url, seconds=5) == Problem(
        "payload.changed",
        f'{server.url} changed while it was being read: its ETag was "one", now it is "two"',
        "payload",
        "start again; give each version of a payload a name of its own on the server",
    )


def test_a_file_of_another_length_changed(server: Serving) -> None:
    server.etag = None
    server.faults = [Fault(cut=700_000), Fault(content=CONTENT + bytes(512))]
    problem = refused(server.url, seconds=5)
    assert problem.what == (
        f"{server.url} changed while it was being read: "
        f"its length was {len(CONTENT)}, now it is {len(CONTENT) + 512}"
    )


@pytest.mark.parametrize("status", [404, 416])
def test_a_file_that_vanished_between_two_tries(server: Serving, status: int) -> None:
    server.faults = [Fault(cut=700_000), Fault(status=status)]
    problem = refused(server.url, seconds=5)
    assert problem.code == "payload.changed"
    assert problem.what == (
        f"{server.url} changed while it was being read: "
        f"after 700000 of {len(CONTENT)} bytes the server answers {status}"
    )


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}/x") == Problem(
        "network.unreachable",
        f"http://127.0.0.1:{port}/x cannot be reached: Connection refused",
        "payload.url",
        "check cable, address, gateway and name servers of this machine, then the server",
    )


def test_no_such_host() -> None:
    # .invalid never resolves (RFC 2606, 2)
    problem = refused("http://payload.invalid/x")
    assert problem.code == "network.unreachable"
    assert problem.what.startswith("http://payload.invalid/x cannot be reached: ")
    assert "ame" in problem.what.rpartition(":")[2]


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        assert refused(url, read=0.2).what == f"{url} cannot be reached: no answer in time"


def test_a_certificate_that_nobody_vouches_for() -> None:
    with serving(CONTENT, tls=True) as server:
        problem = refused(server.url, seconds=60)
    assert problem.code == "network.unreachable"
    assert problem.what.startswith(f"{server.url} cannot be reached: ")
    assert "certificate verify failed: self-signed certificate" in problem.what
    assert problem.hint == (
        "check the clock of this machine (date) and the certificate of the server"
    )


def test_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    with serving(CONTENT, tls=True) as server:
        server.faults = [Fault(cut=700_000)]
        assert check(server.url).sha256 == DIGEST
        bad = SYSTEM + file(b"/etc/passwd") + file(b"noise", NOISE)
        server.always = Fault(content=bad, stall=CHUNK + 1000)
        begun = time.monotonic()
        assert refused(server.url, seconds=60, read=60).code == "payload.hostile"
        assert time.monotonic() - begun < 5


def test_circles(server: Serving) -> None:
    server.always = Fault(status=302, location=server.url)
    problem = refused(server.url, seconds=60)
    assert problem.what == f"{server.url} cannot be reached: the server redirects in circles"
    # the limit of requests, once
    assert len(server.asked) == 31


def test_secrets_are_never_shown(server: Serving) -> None:
    secret = server.url.replace("http://", "http://alice:hunter2@") + "?signature=abc"
    shown = server.url.replace("http://", "http://***@") + "?…"
    server.faults = [Fault(cut=700_000)]
    events: list[AnyEvent] = []
    assert check(secret, events=events).sha256 == DIGEST
    assert warnings(events)[0].startswith(f"{shown}: ")
    server.always = Fault(status=404)
    assert refused(secret).what == f"the server answered 404 for {shown}"
    server.always = Fault(status=500)
    problem = refused(secret)
    assert "hunter2" not in str(problem)
    assert "abc" not in str(problem)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    problem = refused(f"http://alice:hunter2@127.0.0.1:{port}/x?signature=abc")
    assert problem.what == f"http://***@127.0.0.1:{port}/x?… cannot be reached: Connection refused"


def test_the_first_cause_is_told_at_once_while_the_server_stalls(server: Serving) -> None:
    bad = SYSTEM + symlink(b"etc", b"/etc") + file(b"etc/passwd") + file(b"noise", NOISE)
    # the second piece never comes whole
    server.always = Fault(content=bad, stall=CHUNK + 1000)
    begun = time.monotonic()
    problem = refused(server.url, seconds=60, read=60)
    assert problem.code == "payload.hostile"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("packed", [False, True])
def test_a_lost_server_is_the_cause_not_the_cut_archive(server: Serving, packed: bool) -> None:
    if packed:
        server.content = gzip.compress(CONTENT)
    server.always = Fault(status=503)
    server.faults = [Fault(cut=1_000_000)]
    assert refused(server.url).code == "network.lost"
