"""Consoles on real terminals: pseudo terminals that somebody reads, that nobody reads, and that
hang up."""

import fcntl
import io
import os
import select
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from report_samples import LOST, PLAN, failed, installation, message, progress
from test_sinks import Memory

from installer.model.events import StepFinished, StepStarted
from installer.report.console import ConsoleSink, can_be_live
from installer.report.consoles import open_console, open_consoles, terminal
from installer.report.lines import show
from installer.report.sinks import Fanout
from installer.report.text import plan_text

DEADLINE = 10.0


class Terminal:
    """A pseudo terminal of 100 columns; `path` is what programs open, we hold the other end."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.path = Path(os.ttyname(self.slave))
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def read_until(self, wanted: bytes) -> bytes:
        """Read what programs print until it has `wanted`."""
        text = b""
        until = time.monotonic() + DEADLINE
        while wanted not in text:
            left = max(0.0, until - time.monotonic())
            assert select.select([self.master], [], [], left)[0], (
                f"no {wanted!r} in {text[-300:]!r}"
            )
            text += os.read(self.master, 65536)
        return text

    def close(self) -> None:
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1


@pytest.fixture
def pty() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


@pytest.fixture
def second_pty() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


@pytest.mark.parametrize("raw", [True, False])
def test_lines_end_in_one_cr_lf_on_any_line(pty: Terminal, raw: bool) -> None:
    if raw:
        tty.setraw(pty.slave)
    sink = open_console(pty.path)
    sink.emit(message("one\ntwo"))
    assert pty.read_until(b"two\r\n") == b"one\r\ntwo\r\n"
    sink.close(DEADLINE)


def test_a_kernel_console_gets_no_escape_sequence_whatever_is_told(pty: Terminal) -> None:
    tty.setraw(pty.slave)
    sink = open_console(pty.path, verbose=True, log="/run/log.txt")
    for event in installation(until=8):
        sink.emit(event)
    sink.emit(message("\x1b[2Jhostile\x9b\x07", "output"))
    sink.emit(failed(LOST, step="unpack"))
    text = pty.read_until(b"/run/log.txt")
    assert set(text) <= {*b"\r\n", *range(32, 127)}
    sink.close(DEADLINE)


def test_a_console_that_nobody_reads_blocks_nothing_and_hears_what_it_missed(
    pty: Terminal, second_pty: Terminal
) -> None:
    sinks, problems = open_consoles([pty.path, second_pty.path, pty.path])
    assert len(sinks) == 2
    assert problems == []
    fanout = Fanout(sinks)
    begun = time.monotonic()
    for number in range(3000):
        fanout.emit(message(f"line {number} " + "x" * 60))
    assert time.monotonic() - begun < DEADLINE
    fanout.emit(message("the end"))
    second = second_pty.read_until(b"the end\r\n")
    assert b" lines were dropped here\r\n" in second
    # nobody ever reads the first: closing gives it up
    begun = time.monotonic()
    fanout.close(0.2)
    assert time.monotonic() - begun < DEADLINE


def test_a_stopped_console_goes_on_where_it_was(pty: Terminal) -> None:
    termios.tcflow(pty.slave, termios.TCOOFF)
    sink = open_console(pty.path)
    for number in range(500):
        sink.emit(message(f"line {number}"))
    termios.tcflow(pty.slave, termios.TCOON)
    sink.emit(message("the end"))
    assert b"line 499\r\n" in pty.read_until(b"the end\r\n")
    sink.close(DEADLINE)


def test_giving_up_a_console_ends_its_thread(pty: Terminal) -> None:
    sink = open_console(pty.path)
    for _ in range(300):
        sink.emit(message("x" * 70))
    sink.close(0.05)
    for thread in threading.enumerate():
        if thread.name == sink.name:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "the writer still waits for a terminal that was given up"


def test_a_console_that_hangs_up_is_dropped_with_a_warning(pty: Terminal) -> None:
    sink = open_console(pty.path)
    others = Memory()
    fanout = Fanout([sink, others])
    os.close(pty.master)
    pty.master = -1
    fanout.emit(message("one"))
    sink.close(DEADLINE)
    fanout.emit(message("two"))
    assert others.texts[2:] == [f"{sink.name} is not used any more: Input/output error"]


def test_a_console_that_does_not_exist_is_named() -> None:
    sinks, problems = open_consoles([Path("/dev/ttyNONE7")])
    assert sinks == []
    assert problems == ["the console /dev/ttyNONE7 cannot be used: No such file or directory"]


def _opened(pty: Terminal) -> TextIO:
    return os.fdopen(os.dup(pty.slave), "w", encoding="utf-8")


def test_a_pseudo_terminal_with_a_known_term_can_be_live(pty: Terminal) -> None:
    with _opened(pty) as stream:
        assert can_be_live(stream, {"TERM": "xterm-256color"})
        assert not can_be_live(stream, {"TERM": "dumb"})
        assert not can_be_live(stream, {})
        assert not can_be_live(stream, {"TERM": "xterm", "CI": "true"})


def test_a_live_terminal_shows_progress_in_place_and_keeps_what_is_done(pty: Terminal) -> None:
    with _opened(pty) as stream:
        sink = ConsoleSink(stream, live=True)
        sink.emit(
            StepStarted(time=0, uptime=0, step="a", title="unpack [bold]it", number=3, count=17)
        )
        sink.emit(message("\x1b]0;owned\x07[red]ok", "output", step="a"))
        sink.emit(progress("a", 24 * 1024**2, 48 * 1024**2, at=1))
        text = pty.read_until(b"2 s left")
        assert b"[ 3/17] unpack [bold]it" in text
        assert b"24.0 of 48.0 MiB" in text
        assert b"| \\x1b]0;owned\\x07[red]ok" in text
        assert b"owned\x07" not in text
        sink.emit(StepFinished(time=0, uptime=4, step="a", seconds=4.0))
        assert b"4.0 s" in pty.read_until(b"4.0 s")
        sink.close(1)
        # the cursor, hidden while the bar moved, is back (DECTCEM, xterm's ctlseqs)
        pty.read_until(b"\x1b[?25h")


def test_a_live_terminal_shows_the_whole_of_an_installation_and_of_a_failure(
    pty: Terminal,
) -> None:
    reader = _Reader(pty)
    with _opened(pty) as stream:
        sink = terminal(stream, live=True, log="/run/log.txt")
        for event in installation():
            sink.emit(event)
        sink.emit(failed(LOST))
        sink.close(DEADLINE)
    text = reader.stop()
    for wanted in ("WILL BE DESTROYED", "[12/12]", "INSTALLED in 38 s", "/run/log.txt"):
        assert wanted in text
    assert text.count("\x1b[?25h") >= 1


class _Reader:
    """Somebody who looks at a terminal."""

    def __init__(self, pty: Terminal) -> None:
        self._pty = pty
        self._text = b""
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready = select.select([self._pty.master, self._stop], [], [])[0]
            if self._pty.master in ready:
                self._text += os.read(self._pty.master, 65536)
            else:
                return

    def stop(self) -> str:
        os.close(self._stopper)
        self._thread.join(DEADLINE)
        os.close(self._stop)
        return self._text.decode()


def test_a_terminal_stopped_by_its_user_stops_nobody(pty: Terminal) -> None:
    with _opened(pty) as stream:
        termios.tcflow(pty.slave, termios.TCOOFF)
        sink = terminal(stream, live=False)
        for number in range(2000):
            sink.emit(message(f"line {number} " + "x" * 60))
        termios.tcflow(pty.slave, termios.TCOON)
        reader = _Reader(pty)
        sink.emit(message("the end"))
        sink.close(DEADLINE)
    assert "the end" in reader.stop()


@pytest.mark.parametrize("live", [True, False])
def test_a_program_can_end_while_its_terminal_is_stopped(pty: Terminal, live: bool) -> None:
    termios.tcflow(pty.slave, termios.TCOOFF)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from report_samples import installation
from installer.report.consoles import terminal
sink = terminal(sys.stdout, live={live})
for event in installation(until=8):
    sink.emit(event)
sink.close(0.2)
sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=pty.slave,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr.decode()) == (7, "")


def test_a_plan_is_coloured_on_a_terminal(pty: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with _opened(pty) as stream:
        show(plan_text(PLAN)[:3], stream)
    assert b"\x1b[1;31m!!! WILL BE DESTROYED" in pty.read_until(b"\x1b[0m")


def test_a_stream_that_is_no_file_is_plain() -> None:
    stream = io.StringIO()
    ConsoleSink(stream).emit(message("one"))
    assert stream.getvalue() == "one\n"
