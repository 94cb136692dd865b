"""Answer files as Nix options, judged by the real Nix and read by the real `netinstall check`.

The module system is the sample system's stand-in, which has the interface of NixOS's; with
NETINSTALL_NIXPKGS, a nixpkgs tree, also NixOS's own.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from nix_files import NIXPKGS, ROOT, SAMPLE_LIB, instantiate

from installer.model.errors import InstallError
from installer.observe.answers import load

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
LIBS = [SAMPLE_LIB, *([Path(NIXPKGS, "lib")] if NIXPKGS else [])]
MINIMAL = """{
  payload.url = "http://192.0.2.1/system.tar.zst";
  payload.sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
  disks = [
    { match.serial = "S3Z2NB0K123456X"; partitions = [ { size = "rest"; mount = "/"; } ]; }
  ];
}"""

pytestmark = pytest.mark.parametrize("lib", LIBS, ids=["sample", "nixpkgs"][: len(LIBS)])


def _evaluate(lib: Path, *definitions: str, kind: str = "answerFile") -> Any:
    """Return what goes into the file, or what Nix says."""
    modules = " ".join(f"{{ netinstall.answers = {definition}; }}" for definition in definitions)
    done = instantiate(
        *("--eval", "--strict", "--json", "--expr"),
        f"""
        let
          lib = import {lib};
          schema = import {ROOT}/nix/schema.nix {{ inherit lib; }};
        in
        schema.given (lib.evalModules {{
          modules = [
            {{ options.netinstall.answers = lib.mkOption {{ type = schema.{kind} {{ }}; }}; }}
            {modules}
          ];
        }}).config.netinstall.answers
        """,
    )
    # a value that was already printed may stand before the error
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def _nix(value: Any) -> str:
    """Write a value in Nix."""
    if isinstance(value, dict):
        inner = " ".join(f"{json.dumps(key)} = {_nix(each)};" for key, each in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[ {' '.join(f'({_nix(each)})' for each in value)} ]"
    if isinstance(value, str):
        return json.dumps(value).replace("${", "\\${")
    return json.dumps(value)


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_comes_out_as_it_went_in(lib: Path, example: Path) -> None:
    given = tomllib.loads(example.read_text())
    found = _evaluate(lib, _nix(given))
    assert found == given
    load(json.dumps(found), "answers.json")


def test_values_of_several_modules_become_one_file(lib: Path) -> None:
    found = _evaluate(
        lib,
        MINIMAL,
        '{ finish.on-success = "poweroff"; payload.verify = "stream"; }',
        '{ disks = [ { match.serial = "B"; '
        'partitions = [ { size = "1 GiB"; mount = "/srv"; } ]; } ]; }',
    )
    assert len(found["disks"]) == 2
    # what was not given is left to the agent, and the version to the schema
    assert set(found) == {"version", "payload", "disks", "finish"}
    read = load(json.dumps(found), "answers.json")
    assert read.finish.on_success == "poweroff"
    assert read.payload.verify == "stream"


@pytest.mark.parametrize(
    ("definition", "option"),
    [
        ('{ system.install = "rebuid"; }', "netinstall.answers.system.install"),
        ("{ disk = [ ]; }", "netinstall.answers.disk"),
        ('{ finish.on-sucess = "reboot"; }', "netinstall.answers.finish.on-sucess"),
        ('{ payload.retry-seconds = "long"; }', "netinstall.answers.payload.retry-seconds"),
        ("{ payload.retry-seconds = 90000; }", "netinstall.answers.payload.retry-seconds"),
        ('{ raid = [ { name = "a"; level = 3; members = [ "b" ]; } ]; }', "raid.1.level"),
        ('{ raid = [ { name = "a"; level = 1; members = [ ]; } ]; }', "raid.1.members"),
        ('{ raid = [ { level = 1; members = [ "b" ]; } ]; }', "raid.1.name"),
        ('{ lvm = [ { name = "no blank"; members = [ "b" ]; } ]; }', "lvm.1.name"),
        ("{ tmpfs = [ { } ]; }", "tmpfs.1.mount"),
        ("{ disks = [ { match.serial = 5; } ]; }", "disks"),
        ('{ payload.sha256 = "9f86"; }', "payload.sha256"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(
    lib: Path, definition: str, option: str
) -> None:
    said = _evaluate(lib, MINIMAL, definition)
    assert isinstance(said, str), said
    # an element of a list is .[1] here and "[definition 2-entry 1]" there
    where = re.sub(r'\.\[1\]|\."\[definition \d-entry 1\]"', ".1", said)
    assert f"{option}' " in where or f"{option}." in where, said
    assert re.search(
        r"is not of type|does not exist|has no value defined|conflicting definition", said
    ), said


@pytest.mark.parametrize(
    "definition",
    ['{ url = "http://a/"; path = "/b"; unverified = true; }', '{ url = "http://a/"; }'],
    ids=["url-and-path", "unknown-hash"],
)
def test_what_a_schema_cannot_say_is_left_to_check(lib: Path, definition: str) -> None:
    """The file is built by a derivation that runs `netinstall check`."""
    found = _evaluate(
        lib,
        f'{{ payload = {definition}; disks = [ {{ match.serial = "A"; '
        'partitions = [ { size = "rest"; mount = "/"; } ]; } ]; }',
    )
    with pytest.raises(InstallError):
        load(json.dumps(found), "answers.json")


def test_a_site_file_is_an_option_too(lib: Path) -> None:
    given = tomllib.loads((ROOT / "examples/sites/small.toml").read_text())
    assert _evaluate(lib, _nix(given), kind="siteFile") == given
    wrong = {**given, "dhcp": {**given["dhcp"], "mode": "prxy"}}
    assert "netinstall.answers.dhcp.mode'" in _evaluate(lib, _nix(wrong), kind="siteFile")
