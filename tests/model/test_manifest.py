"""Manifests: what is one, and all mistakes of one that is none."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from installer.model.errors import InstallError
from installer.model.manifest import FRAMES_LIMIT, MANIFEST_LIMIT, PIECE, json_schema, to_text
from installer.model.units import MIB
from installer.observe.manifest import load

SUM = "0" * 64


def frame(kind: str, offset: int, length: int = 100, **more: Any) -> dict[str, Any]:
    said = {"kind": kind, "offset": offset, "length": length, "unpacked": 1024, "entries": 1}
    return {**said, "sha256": SUM, **more}


GOOD: dict[str, Any] = {
    "version": 1,
    "name": "demo",
    "built": "2026-11-21T12:00:00Z",
    "archive": {
        "size": 200,
        "sha256": SUM,
        "unpacked": 2048,
        "usage": 0,
        "entries": 2,
        "root-owned": True,
    },
    "frames": [frame("folders", 0), frame("attributes", 100)],
}


def problems(document: Any) -> list[str]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InstallError) as caught:
        load(data, "demo.json")
    assert {problem.code for problem in caught.value.problems} == {"payload.manifest"}
    return [problem.what for problem in caught.value.problems]


def test_a_good_one_and_its_text() -> None:
    manifest = load(json.dumps(GOOD).encode(), "demo.json")
    text = to_text(manifest)
    assert json.loads(text) == GOOD
    assert load(text.encode(), "demo.json") == manifest
    Draft202012Validator(json_schema()).validate(json.loads(text))


def test_all_mistakes_are_told() -> None:
    wrong = deepcopy(GOOD)
    wrong["version"] = 2
    wrong["name"] = "../x"
    wrong["built"] = "yesterday"
    wrong["frames"][0]["sha256"] = "x"
    wrong["frames"][1]["legnth"] = 1
    wrong["frames"][0]["kind"] = "devices"
    said = problems(wrong)
    # of the frames only the first that is wrong
    assert len(said) == 5
    assert not any("legnth" in what for what in said)
    wrong["frames"][0] = GOOD["frames"][0]
    assert "unknown field `legnth`; did you mean `length`?" in problems(wrong)


def test_all_contradictions_are_told() -> None:
    wrong = deepcopy(GOOD)
    wrong["expires"] = "2026-11-21T11:00:00Z"
    wrong["archive"]["size"] = 7
    wrong["frames"] = [
        frame("attributes", 1, unpacked=1000),
        frame("files", 102, PIECE + 1, pieces=[SUM]),
    ]
    assert problems(wrong) == [
        "`expires` (2026-11-21T11:00:00Z) is not after `built` (2026-11-21T12:00:00Z); "  # noqa: ISC004
        "frames[0] begins at 1, and the one before ends at 0; "
        "frames[0] unpacks to 1000 bytes, which are no whole tar blocks; "
        "frames[1] begins at 102, and the one before ends at 101; "
        "frames[1] holds files and comes after one of attributes; "
        "frames[1] has 1 pieces, and its length wants 2; "
        "the last frame holds files instead of attributes; "
        "`archive.size` is 7, and the frames add up to 8388709; "
        "`archive.unpacked` is 2048, and the frames add up to 2024"
    ]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("name",), "a/b"),
        (("name",), "a\n"),
        (("name",), ""),
        (("built",), "2026-13-01T00:00:00Z"),
        (("built",), "2026-11-21T12:00:00+01:00"),
        (("built",), 1),
        (("archive", "size"), -1),
        (("archive", "size"), 1.0),
        (("archive", "size"), "200"),
        (("archive", "entries"), True),
        (("frames", 0, "offset"), 2**53),
        (("frames", 0, "length"), 0),
        (("frames", 0, "kind"), "devices"),
        (("frames", 0, "sha256"), SUM + "\n"),
        (("frames",), []),
        (("frames",), {}),
        (("system",), {"toplevel": "/nix/store/../x"}),
        (("system",), {"toplevel": f"/nix/store/{SUM[:32]}-x", "boot-modes": ["mbr"]}),
    ],
)
def test_values_that_are_none(place: tuple[Any, ...], value: Any) -> None:
    wrong: Any = deepcopy(GOOD)
    inner = wrong
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    assert problems(wrong)


def _filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((MANIFEST_LIMIT - len(head) - len(tail)) // len(unit)) + tail


def _frames(count: int, text: bytes) -> bytes:
    return b'{"frames":[' + b",".join([text] * count) + b"]}"


_FRAME = b'{"kind":"files","offset":7,"length":1,"unpacked":512,"entries":1,"sha256":"%b"%b}'
MANY = f"it has more values than {FRAMES_LIMIT} frames have"
MISSING = "`version` is missing"
HOSTILE = {
    "numbers": (_filled(b'{"frames":[0', b",0", b"]}"), MANY),
    "objects": (_filled(b'{"frames":[{}', b",{}", b"]}"), MANY),
    "nested lists": (_filled(b'{"frames":[0', b",[[[[[[]]]]]]", b"]}"), MANY),
    "deep": (b"[" * MANIFEST_LIMIT, MANY),
    "deep, just": (b'{"frames":' + b"[" * 900 + b"]" * 900 + b"}", MISSING),
    "escapes": (_filled(b'{"name":"', rb"\ud83d\ude00", b'"}'), MANY),
    "wide characters": (_filled(b'{"name":"', "\U0001f600".encode(), b'"}'), MISSING),
    "digits": (
        _filled(b'{"version":1', b"1", b"}"),
        f"this is not JSON: a number has {MANIFEST_LIMIT - 12} digits, 40 are possible",
    ),
    "a long name": (
        _filled(b'{"', b"x", b'":1}'),
        f"this is not JSON: a name has {MANIFEST_LIMIT - 6} characters, 1000 are possible",
    ),
    "names": (
        b"{" + b",".join(b'"%x":0' % number for number in range(60_000)) + b"}",
        "this is not JSON: an object has 60000 names, 64 are possible",
    ),
    "empty lines": (_filled(b'{"frames":[0', b"\n", b"]}"), MISSING),
    "wrong frames": (_frames(FRAMES_LIMIT, b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}'), MISSING),
    "wrong pieces": (
        _frames(FRAMES_LIMIT, _FRAME % (SUM.encode(), b',"pieces":["x"]')),
        MISSING,
    ),
    "contradictions": (
        b'{"version":1,"name":"d","built":"2026-11-21T12:00:00Z","archive":{"size":1,"sha256":"%b",'
        b'"unpacked":1,"usage":1,"entries":1},'
        % SUM.encode()
        + _frames(FRAMES_LIMIT, _FRAME % (SUM.encode(), b""))[1:],
        "frames[0] begins at 7, and the one before ends at 0; ",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_memory_is_bounded_whatever_comes(tmp_path: Path, case: str) -> None:
    data, said = HOSTILE[case]
    assert len(data) <= MANIFEST_LIMIT
    (tmp_path / "demo.json").write_bytes(data)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from installer.model.errors import InstallError\n"
        "from installer.observe.manifest import load\n"
        "try:\n"
        "    load(Path(sys.argv[1]).read_bytes(), 'demo.json')\n"
        "except InstallError as error:\n"
        "    print(error.problems[0].what[:200])\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "demo.json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    what, peak = done.stdout.splitlines()
    assert what.startswith(said)
    assert int(peak) * 1024 < 100 * MIB


def test_a_large_one_is_read_and_its_mistake_placed() -> None:
    large = deepcopy(GOOD)
    large["frames"] = [frame("attributes", number * 100) for number in range(3000)]
    large["archive"] |= {"size": 300_000, "unpacked": 3000 * 1024, "entries": 3000}
    data = json.dumps(large, indent=1).encode()
    assert load(data, "demo.json").frames[-1].offset == 299_900
    large["frames"][2000]["kind"] = "devices"
    text = json.dumps(large, indent=1)
    line = text[: text.index("devices")].count("\n") + 1
    with pytest.raises(InstallError) as caught:
        load(text.encode(), "demo.json")
    (problem,) = caught.value.problems
    assert problem.where == f"demo.json:{line}:4: frames[2000].kind"


def test_what_is_no_manifest_at_all() -> None:
    assert problems(b"\xff") == ["byte 0 is not UTF-8"]
    assert problems(b" " * (MANIFEST_LIMIT + 1)) == ["it has more than 2.00 MiB"]
    assert problems(b"[" * 100_000)
    assert problems(b'{"version": 1, "version": 1}') == [
        "this is not JSON: `version` is given twice in one object"
    ]
