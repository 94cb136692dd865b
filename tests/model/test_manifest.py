"""Manifests: what is one, and all mistakes of one that is none."""

import json
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from installer.model.errors import InstallError
from installer.model.manifest import MANIFEST_LIMIT, PIECE, json_schema, to_text
from installer.observe.manifest import load

SUM = "0" * 64


def frame(kind: str, offset: int, length: int = 100, **more: Any) -> dict[str, Any]:
    said = {"kind": kind, "offset": offset, "length": length, "unpacked": 1024, "entries": 1}
    return {**said, "sha256": SUM, **more}


GOOD: dict[str, Any] = {
    "version": 1,
    "name": "demo",
    "built": "2026-11-21T12:00:00Z",
    "archive": {"size": 200, "sha256": SUM, "unpacked": 2048, "usage": 0, "entries": 2},
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
    assert len(problems(wrong)) == 5


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


def test_what_is_no_manifest_at_all() -> None:
    assert problems(b"\xff") == ["byte 0 is not UTF-8"]
    assert problems(b" " * (MANIFEST_LIMIT + 1)) == ["it has more than 2.00 MiB"]
    assert problems(b"[" * 100_000)
    assert problems(b'{"version": 1, "version": 1}') == [
        "this is not JSON: `version` is given twice in one object"
    ]
