"""Reading a console: the test plays the machine at the other end of a socket."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.console import Cleaner, Console, ConsoleError


@dataclass(frozen=True)
class Wire:
    console: Console
    machine: socket.socket
    seen: list[bytes]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []
    console = Console("box", ours, tmp_path / "box.log", on_bytes=seen.append)
    with theirs:
        yield Wire(console, theirs, seen)
        console.close()


def test_matches_are_consumed_in_order(wire: Wire) -> None:
    wire.machine.sendall(b"one 1\r\none 2\r\n")
    assert wire.console.expect(r"one (\d)", 5)[1] == "1"
    assert wire.console.expect(r"^one (\d)$", 5)[1] == "2"
    with pytest.raises(ConsoleError, match=r"box: waited for 'one', but 0\.01 s passed"):
        wire.console.expect("one", 0.01)


def test_a_line_counts_when_it_is_finished(wire: Wire) -> None:
    wire.machine.sendall(b"address 192.0")
    with pytest.raises(ConsoleError, match="s passed"):
        wire.console.expect("address .*", 0.05)
    timer = threading.Timer(0.05, wire.machine.sendall, [b".2.10\r\nlogin: "])
    timer.start()
    assert wire.console.expect("address (.*)", 5)[1] == "192.0.2.10"
    wire.console.expect_prompt("login: $", 5)
    wire.console.send_line("root")
    assert wire.machine.recv(100) == b"root\r"
    wire.console.send(b"\x03")
    assert wire.machine.recv(100) == b"\x03"


def test_a_panic_ends_the_wait_at_once(wire: Wire) -> None:
    wire.machine.sendall(b"[ 1.0] Kernel panic - not syncing: VFS: no root\r\nlater: ready\r\n")
    with pytest.raises(ConsoleError, match="but it said: Kernel panic - not syncing: VFS: no root"):
        wire.console.expect("ready", 60)
    wire.console.expect("later: ready", 5)


def test_what_is_said_before_a_failure_still_counts(wire: Wire) -> None:
    wire.machine.sendall(b"ready\r\nERROR 7\r\n")
    wire.console.expect("ready", 5, fail_on=[r"ERROR \d"])
    with pytest.raises(ConsoleError, match="but it said: ERROR 7"):
        wire.console.expect("ready", 5, fail_on=[r"ERROR \d"])


def test_the_end_of_the_machine_ends_the_wait(wire: Wire) -> None:
    wire.machine.sendall(b"last words")
    wire.machine.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConsoleError, match="but it ended"):
        wire.console.expect("never", 60)
    assert wire.console.closed
    wire.console.expect("last words", 5)


def test_an_error_shows_the_tail_and_names_the_log(wire: Wire, tmp_path: Path) -> None:
    wire.machine.sendall(b"".join(b"line %d\r\n" % number for number in range(100)))
    wire.console.expect("line 99", 5)
    with pytest.raises(ConsoleError) as caught:
        wire.console.expect("line 100", 0.01)
    shown = str(caught.value)
    assert f"all of it: {tmp_path / 'box.log'}" in shown
    assert "line 60\n" in shown
    assert "line 59\n" not in shown


def test_the_log_has_every_line_with_its_time(wire: Wire) -> None:
    wire.machine.sendall(b"\x1b[1mbold\x1b[0m\r\nunfinished")
    wire.console.expect_prompt("unfinished", 5)
    wire.console.close()
    lines = wire.console.log.read_text().splitlines()
    assert [re.sub(r"\d", "0", line) for line in lines] == [
        "[    0.000] bold",
        "[    0.000] unfinished",
    ]
    assert b"".join(wire.seen) == b"\x1b[1mbold\x1b[0m\r\nunfinished"


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("a\r\nb\r\r\nc\n", "a\nb\nc\n"),
        ("10 %\r20 %\r\n", "10 %\n20 %\n"),
        ("\x1b[1;31mred\x1b[0m \x1b[?25l\x1b[2Kx", "red x"),
        ("here\x1b[05;10Hthere", "here\nthere"),
        ("\x1b]0;title\x07shell", "shell"),
        ("\x1b(B\x1b=\x1bMkeys", "keys"),
        ("bell\x07 back\x08space\x00", "bell backspace"),
        ("progress ██ 50 %", "progress ██ 50 %"),
    ],
)
def test_terminal_output_becomes_lines_however_it_is_cut(raw: str, plain: str) -> None:
    for cut in range(len(raw) + 1):
        cleaner = Cleaner()
        assert cleaner.feed(raw[:cut]) + cleaner.feed(raw[cut:]) + cleaner.finish() == plain


def test_utf8_is_decoded_across_chunks(wire: Wire) -> None:
    for byte in "größe █\r\n".encode() + b"\xff\r\n":
        wire.machine.sendall(bytes([byte]))
    wire.console.expect("^größe █$", 5)
    wire.console.expect("^\ufffd$", 5)
