"""What a person, or a program (`--json`), reads of it: plain ASCII, whatever clients sent."""

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from queue import Full, Queue
from typing import Self

from installer.boot.serve.journey import Line

_LONGEST = 400
_WAITING_LINES = 2000
_CLOSE_SECONDS = 2.0


def plain(text: str) -> str:
    """Return text that does nothing to a terminal: printable ASCII, the rest as escapes."""
    shown = text.encode("unicode_escape").decode("ascii") if not _is_plain(text) else text
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "..."


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


class Show:
    """Writes lines to a file descriptor, as text or as one JSON object a line.

    In JSON each object has `kind`: `serving`, `note`, `boot`, `last` (at the end) or `problems`.
    A thread writes: a terminal that was stopped (Ctrl-S) must not stop the servers. Lines that
    do not fit into its backlog are counted instead. Its methods raise OSError when nobody reads
    any more.
    """

    def __init__(self, descriptor: int, *, as_json: bool) -> None:
        self._descriptor = descriptor
        self._json = as_json
        self._waiting: Queue[str | None] = Queue(_WAITING_LINES)
        self._lost = 0
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="show", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left, for a moment."""
        try:
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        except Full:
            return
        self._thread.join(_CLOSE_SECONDS)

    def serving(self, about: Mapping[str, object], text: Iterable[str]) -> None:
        """Say at the start what is served."""
        if self._json:
            self._object("serving", about)
            return
        for line in text:
            self._write(plain(line))

    def note(self, text: str) -> None:
        """Say something that is not about one machine's way."""
        if self._json:
            self._object("note", {"time": round(time.time(), 3), "text": text})
        else:
            self._write(f"{_clock(time.time())}  {plain(text)}")

    def boot(self, line: Line) -> None:
        """Say what a machine did."""
        if self._json:
            self._object("boot", line.__dict__ | {"time": round(line.time, 3)})
        else:
            self._write(f"{_clock(line.time)}  {_row(line)}")

    def last(self, lines: list[Line]) -> None:
        """Say at the end how far each machine came."""
        if self._json:
            for line in lines:
                self._object("last", line.__dict__ | {"time": round(line.time, 3)})
            return
        if lines:
            self._write("")
            self._write("How far each machine came:")
        for line in lines:
            self._write(f"{_clock(line.time)}  {_row(line)}")

    def problems(self, problems: Iterable[Mapping[str, str]]) -> None:
        """Say in JSON why it ended; a person is told on standard error."""
        if self._json:
            self._object("problems", {"problems": list(problems)})

    def _object(self, kind: str, about: Mapping[str, object]) -> None:
        self._write(json.dumps({"kind": kind, **about}))

    def _write(self, text: str) -> None:
        if self._error is not None:
            raise self._error
        try:
            if self._lost:
                self._waiting.put_nowait(self._gap())
                self._lost = 0
            self._waiting.put_nowait(text)
        except Full:
            self._lost += 1

    def _gap(self) -> str:
        text = f"{self._lost} lines are missing here: nobody read them in time"
        return json.dumps({"kind": "note", "text": text}) if self._json else text

    def _work(self) -> None:
        # not through a stream: a thread that holds its lock would hold up the end
        try:
            while (text := self._waiting.get()) is not None:
                left = f"{text}\n".encode("ascii")
                while left:
                    left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self._error = error


def _row(line: Line) -> str:
    who = f"{line.mac or line.ip:17}  {line.host or '-':10}"
    word = {"hangs": "HANGS: ", "failed": "FAILED: ", "refused": "refused: "}.get(line.state, "")
    return plain(f"{who} {line.step:8} {word}{line.text}")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
