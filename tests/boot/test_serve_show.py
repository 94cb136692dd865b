"""What boot serve writes: one line for each thing, and nothing that does anything to a terminal."""

import json
import os
import re

from installer.boot.serve.journey import Line
from installer.boot.serve.show import Show

HOSTILE = "a\x1b[31m\x9b2J\nb\x07\u202e"
LINE = Line(1.5, "52:54:00:00:00:07", "192.0.2.7", HOSTILE, "dhcp", "hangs", HOSTILE, HOSTILE, 5)


def _written(*, as_json: bool) -> str:
    read, write = os.pipe()
    with Show(write, as_json=as_json) as show:
        show.serving({"http": "http://192.0.2.1"}, ["HTTP     http://192.0.2.1"])
        show.note(HOSTILE)
        show.boot(LINE)
        show.note("x" * 1000)
        show.last([LINE])
        show.problems([{"code": "serve.dhcp"}])
    os.close(write)
    with os.fdopen(read, encoding="utf-8", newline="") as stream:
        return stream.read()


def test_text_is_plain() -> None:
    text = _written(as_json=False)
    assert set(text) <= {"\n", *map(chr, range(32, 127))}
    shown = r"a\x1b[31m\x9b2J\nb\x07\u202e"
    row = rf"{re.escape('52:54:00:00:00:07  ' + shown)} dhcp     HANGS: {re.escape(shown)}"
    first, note, line, long, _, title, last = text.splitlines()
    assert first == "HTTP     http://192.0.2.1"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {re.escape(shown)}", note)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {row}", line)
    assert long.endswith("x...")
    assert len(long) < 500
    assert (title, last) == ("How far each machine came:", line)


def test_json_is_one_object_a_line() -> None:
    text = _written(as_json=True)
    assert set(text) <= {"\n", *map(chr, range(32, 127))}
    found = [json.loads(line) for line in text.splitlines()]
    assert [one["kind"] for one in found] == [
        *("serving", "note", "boot", "note", "last", "problems"),
    ]
    assert found[2] == {"kind": "boot", **LINE.__dict__}
    assert found[5]["problems"] == [{"code": "serve.dhcp"}]
