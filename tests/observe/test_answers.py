"""Answer files: read, and every mistake said in its place."""

import json
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer.model.errors import ExitCode, InstallError
from installer.model.units import Rest
from installer.observe.answers import load
from installer.observe.places import places

GOOD = """\
version = 1

[payload]
url = "http://boot.example.net/system.tar.zst"
sha256 = "{sha256}"

[[disks]]
match = {{ serial = "S3Z2*" }}  # the SSD

[[disks.partitions]]
type = "esp"
size = "512 MiB"

[[disks.partitions]]
size = "rest"
mount = "/"
filesystem = "xfs"
""".format(sha256="0" * 64)


_LOOK = '  try:   look at the line and the one before: text needs "quotes", a table [brackets]'


def _said(text: str, name: str = "answers.toml") -> str:
    with pytest.raises(InstallError) as caught:
        load(text, name)
    assert caught.value.exit_code == ExitCode.ANSWERS
    return str(caught.value)


def test_toml() -> None:
    answers = load(GOOD, "answers.toml")
    assert answers.payload.url == "http://boot.example.net/system.tar.zst"
    assert answers.disks[0].partitions[1].size == Rest()


def test_json() -> None:
    document = {
        "version": 1,
        "payload": {"path": "/media/system.tar.xz", "unverified": True},
        "disks": [{"match": {"by-id": "nvme-*"}, "partitions": [{"size": "25 %", "mount": "/"}]}],
        "network": {"mode": "static-from-lease", "hostname": "db7"},
    }
    text = json.dumps(document)
    assert load(text, "a.json") == load(text, "http://h/answers?for=me")
    assert load(text, "a.json").network.hostname == "db7"


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert load("\ufeff" + GOOD, "answers.toml") == load(GOOD, "answers.toml")


def test_three_mistakes_in_toml() -> None:
    text = (
        GOOD.replace('"esp"', '"efi"').replace("sha256 =", "sha265 =").replace('"rest"', '"lots"')
    )
    assert _said(text) == dedent("""\
        error[answers.field]: unknown field `sha265`; did you mean `sha256`?
          where: answers.toml:5:1: payload.sha265
        error[answers.field]: `type` must be 'linux', 'esp', 'bios-boot' or 'swap', not 'efi'
          where: answers.toml:11:1: disks[0].partitions[0].type
        error[answers.field]: 'lots' is not a size; write for example 512 MiB, 25 % or rest
          where: answers.toml:15:1: disks[0].partitions[1].size""")


def test_three_mistakes_in_json() -> None:
    text = """\
{
  "version": 1,
  "payload": {"url": "http://b/ä", "unverified": "yes"},
  "disks": [
    {"match": {"serial": "X"}, "partitions": [
      {"size": "rest", "mount": "/"},
      {"mount": "/home"}
    ], "chose": "largest"}
  ]
}
"""
    assert _said(text, "rack.json") == dedent("""\
        error[answers.field]: `unverified` must be true or false, not 'yes'
          where: rack.json:3:36: payload.unverified
        error[answers.field]: say its size, or which partition to keep
          where: rack.json:7:7: disks[0].partitions[1]
        error[answers.field]: unknown field `chose`; did you mean `choose`?
          where: rack.json:8:8: disks[0].chose""")


_UNKNOWN_HERE = (
    "known here: `disks`, `raid`, `lvm`, `btrfs`, `zfs`, `tmpfs`, `swap-files`, `version`, "
    "`payload`, `system`, `network`, `boot`, `finish`, `report`"
)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "version = 1",
            "version = 2",
            "error[answers.field]: `version` must be 1, not 2\n  where: answers.toml:1:1: version",
        ),
        (
            "[payload]",
            "frob = 1\n[payload]",
            (
                f"error[answers.field]: unknown field `frob`\n  where: answers.toml:3:1: frob\n"
                f"  try:   {_UNKNOWN_HERE}"
            ),
        ),
        (
            "0" * 64,
            "ABC",
            (
                "error[answers.field]: `sha256` has not the right form: 'ABC'\n"
                "  where: answers.toml:5:1: payload.sha256\n"
                "  try:   a SHA-256 is 64 hexadecimal digits in lower case; "
                "sha256sum FILE prints it"
            ),
        ),
        (
            '{ serial = "S3Z2*" }',
            "{}",
            (
                "error[answers.field]: say at least one thing about the disk: "
                "no disk is a default\n"
                "  where: answers.toml:8:1: disks[0].match"
            ),
        ),
        (
            '{ serial = "S3Z2*" }',
            '{ serial = 7, size.min = "1 GB", by_id = "x" }',
            (
                'error[answers.field]: `serial` must be text in quotes, "like this", not 7\n'
                "  where: answers.toml:8:11: disks[0].match.serial\n"
                "error[answers.field]: unknown field `by_id`; did you mean `by-id`?\n"
                "  where: answers.toml:8:42: disks[0].match.by_id"
            ),
        ),
        (
            '"/"',
            '"/data"',
            (
                'error[answers.field]: exactly one file system must have mount = "/"\n'
                "  where: answers.toml"
            ),
        ),
        (
            'filesystem = "xfs"',
            'filesystem = "xfs"\n[finish]\nfailure-delay-seconds = -1\n[network]\ninterface = ""',
            (
                "error[answers.field]: `failure-delay-seconds` must be at least 0, not -1\n"
                "  where: answers.toml:19:1: finish.failure-delay-seconds\n"
                "error[answers.field]: `interface` is empty\n"
                "  where: answers.toml:21:1: network.interface"
            ),
        ),
        (
            "[payload]",
            'disks = "all"\n[payload]',
            (
                "error[answers.syntax]: this is not TOML: this name was given before, "
                "or is a table in one place and a value in another\n"
                "  where: answers.toml:8:8\n" + _LOOK
            ),
        ),
    ],
    ids=["literal", "unknown", "pattern", "model", "nested", "root", "limits", "twice"],
)
def test_one_mistake(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert _said(GOOD.replace(old, new)) == expected


def test_an_empty_file() -> None:
    assert _said("") == dedent("""\
        error[answers.field]: `disks` is missing
          where: answers.toml: disks
        error[answers.field]: `version` is missing
          where: answers.toml: version
          try:   version of this format: write version = 1
        error[answers.field]: `payload` is missing
          where: answers.toml: payload""")


@pytest.mark.parametrize(
    "value",
    [
        "ftp://user:geheim@host/x",
        "user:geheim@host/x",
        "http//user:geheim@host",
        "http:// user:geheim@host",
    ],
)
def test_a_password_in_a_url_is_not_repeated(value: str) -> None:
    said = _said(GOOD.replace("http://boot.example.net/system.tar.zst", value))
    assert "geheim" not in said
    assert said == (
        "error[answers.field]: write a URL that starts with http:// or https://\n"
        "  where: answers.toml:4:1: payload.url"
    )


def test_an_unknown_field_may_hold_a_secret() -> None:
    assert "geheim" not in _said(GOOD + 'password = "geheim"\n')
    assert "geheim" not in _said(GOOD.replace('"esp"', '"https://u:geheim@h/"'))


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        (
            GOOD.replace('"rest"', "rest"),
            "answers.toml",
            (
                "error[answers.syntax]: this is not TOML: Invalid value\n"
                "  where: answers.toml:15:8\n" + _LOOK
            ),
        ),
        (
            GOOD + 'label = "x',
            "answers.toml",
            (
                "error[answers.syntax]: this is not TOML: Unterminated string\n"
                "  where: answers.toml:18:11\n" + _LOOK
            ),
        ),
        (
            "<!doctype html>\n<h1>Welcome</h1>",
            "http://h/default.toml",
            (
                "error[answers.syntax]: this is not TOML: Invalid statement\n"
                "  where: http://h/default.toml:1:1\n"
                "  try:   this looks like a web page: "
                "does the server answer every address with one?"
            ),
        ),
        (
            '{"version": 1,\n "payload": {,}}',
            "a.json",
            (
                "error[answers.syntax]: this is not JSON: "
                "Expecting property name enclosed in double quotes\n  where: a.json:2:14"
            ),
        ),
        (
            '{"version": 1, "version": 1}',
            "a.json",
            (
                "error[answers.syntax]: this is not JSON: `version` is given twice in one object\n"
                "  where: a.json"
            ),
        ),
        (
            '{"version": NaN}',
            "a.json",
            "error[answers.syntax]: this is not JSON: NaN is no number\n  where: a.json",
        ),
        (
            "[" * 100_000,
            "a.json",
            "error[answers.syntax]: this is not JSON: it is nested too deeply\n  where: a.json",
        ),
        (
            "a = " + "[" * 100_000,
            "a.toml",
            (
                "error[answers.syntax]: this is not TOML: it is nested too deeply\n"
                "  where: a.toml\n" + _LOOK
            ),
        ),
        (
            "[1]",
            "a.json",
            "error[answers.field]: `the file` must be a table, not a list\n  where: a.json",
        ),
    ],
)
def test_syntax(text: str, name: str, expected: str) -> None:
    assert _said(text, name) == expected


def test_places_in_toml() -> None:
    text = dedent("""\
        # ä
        a.b = 1
        "quoted key" = { x = [1, # one
          { y = 2 }] }
        [[t]]
        [t.inner]
        k = 1
        [[t]]
        inner.k = 2
        [[t.deep]]
        [[t.deep]]
        ü = 1
        """)
    found = places(text, "toml")
    assert found["a",] == (2, 1)
    assert found["a", "b"] == (2, 3)
    assert found["quoted key", "x", 1] == (4, 3)
    assert found["quoted key", "x", 1, "y"] == (4, 5)
    assert found["t", 0, "inner", "k"] == (7, 1)
    assert found["t", 1, "inner", "k"] == (9, 7)
    assert found["t", 1, "deep", 1] == (11, 5)
    assert found["t", 1, "deep", 0] == (10, 5)


def test_columns_count_characters() -> None:
    assert places('{"ä": 1, "b": [true]}', "json") == {
        ("ä",): (1, 2),
        ("b",): (1, 10),
        ("b", 0): (1, 16),
    }


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("rest"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["version", "payload", "url", "disks", "match", "partitions", "size", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_json_is_read_or_refused(document: object) -> None:
    try:
        load(json.dumps(document), "a.json")
    except InstallError as error:
        assert str(error)  # noqa: PT017 - what it says depends on the document


@given(st.text(alphabet="[]{}=\"'ab.1,#\n\\u \x00é", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_toml_is_read_or_refused(text: str) -> None:
    with pytest.raises(InstallError):
        load(text, "a.toml")


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("version = " + "1" * 5000, "a.toml", "TOML: a number has thousands of digits"),
        ('{"version": ' + "1" * 5000 + "}", "a.json", "JSON: a number has 5000 digits, 40 are"),
        ('{"' + "x" * 5000 + '": 1}', "a.json", "JSON: a name has 5000 characters, 1000 are"),
    ],
)
def test_what_python_itself_would_stumble_over(text: str, name: str, why: str) -> None:
    with pytest.raises(InstallError) as caught:
        load(text, name)
    (problem,) = caught.value.problems
    assert problem.code == "answers.syntax"
    assert problem.what.startswith(f"this is not {why}")
