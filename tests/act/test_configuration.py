"""What is written beside configuration.nix is read by Nix, and imported."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer.act import configuration
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError
from installer.model.events import AnyEvent, Message
from installer.model.plan import WriteFile

TOPLEVEL = "/nix/store/11111111111111111111111111111111-nixos"
WARNING = (
    "/etc/nixos/configuration.nix does not import ./networking.nix: "
    "what it says has no effect until it does"
)
ADDED = (
    "/etc/nixos/configuration.nix did not import ./networking.nix: it does now, and the "
    "payload's own is /etc/nixos/configuration-of-payload.nix"
)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A system without a Nix."""
    (tmp_path / "root/etc/nixos").mkdir(parents=True)
    return Target(tmp_path / "root", Runner())


@pytest.fixture
def with_nix(target: Target) -> Iterator[Target]:
    """A system in which this machine's Nix can be started, by links as NixOS has them."""
    store = target.root / f"nix/store/{TOPLEVEL.rpartition('/')[2]}"
    (target.root / "nix/store/sw/bin").mkdir(parents=True)
    store.mkdir()
    (store / "sw").symlink_to("/nix/store/sw")
    (target.root / "nix/store/sw/bin/nix-instantiate").symlink_to("/usr/bin/nix-instantiate")
    mounted = []
    for name in ("usr", "proc"):
        (target.root / name).mkdir()
        subprocess.run(["mount", "--bind", f"/{name}", target.root / name], check=True)
        mounted.append(target.root / name)
    for name in ("bin", "lib", "lib64"):
        (target.root / name).symlink_to(f"usr/{name}")
    yield target
    for place in reversed(mounted):
        subprocess.run(["umount", place], check=True)


def _written(
    target: Target,
    given: str | None,
    *,
    add: bool = False,
    name: str = "networking",
    text: str = "{ }\n",
) -> list[str]:
    """Write a file beside a configuration; return what was said."""
    if given is not None:
        (target.root / "etc/nixos/configuration.nix").write_text(given)
    events: list[AnyEvent] = []
    step = WriteFile(f"/etc/nixos/{name}.nix", text, 0o600, add_import=add)
    configuration.write_file(step, target, target.runner, Narrator(events.append), TOPLEVEL)
    assert (target.root / step.path[1:]).stat().st_mode & 0o777 == 0o600
    return [event.text for event in events if isinstance(event, Message)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, [WARNING]),
        ("{ }", [WARNING]),
        ("{ imports = [ ./networking.nix ]; }", []),
    ],
)
def test_a_file_that_nothing_imports_is_warned_about(
    target: Target, given: str | None, said: list[str]
) -> None:
    assert _written(target, given) == said


@pytest.mark.root
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{ imports = [ ./networking.nix ]; }", []),
        ("{ imports = [ /etc/nixos/networking.nix ]; }", []),
        ("{ imports = [ ./others ]; }", []),
        ("{ imports = [ (import ./others/default.nix) ]; }", []),
        ("# ./networking.nix\n{ imports = [ ]; }", [WARNING]),
        ('{ x = "/etc/nixos/networking.nix"; }', [WARNING]),
        ("{ imports = [ ./networking.nix.old ]; }", [WARNING]),
        ("{ imports = [ ./configuration.nix ]; }", [WARNING]),
        ("{ this is no Nix", [WARNING]),
    ],
)
def test_nix_says_what_is_imported(with_nix: Target, given: str, said: list[str]) -> None:
    others = with_nix.root / "etc/nixos/others"
    others.mkdir()
    (others / "default.nix").write_text("{ imports = [ ../networking.nix ]; }")
    assert _written(with_nix, given) == said


@pytest.mark.root
@pytest.mark.parametrize(
    "given",
    [
        "{ x = 1; }",
        "{ config, ... }: { x = 1; }",
        "let x = { imports = [ ]; }; in { imports = [ ]; x = 1; }",
    ],
)
def test_an_import_is_added_where_that_is_allowed(with_nix: Target, given: str) -> None:
    folder = with_nix.root / "etc/nixos"
    assert _written(with_nix, given, add=True) == [ADDED]
    assert (folder / "configuration-of-payload.nix").read_text() == given
    assert _written(with_nix, None, add=True) == []
    (said,) = _written(with_nix, None, add=True, name="storage")
    assert said.startswith("/etc/nixos/configuration.nix did not import ./storage.nix: it does now")
    assert (folder / "configuration.nix").read_text() == (
        "# Written by netinstall: the payload's own configuration, and what it did not import.\n"
        "{ ... }:\n"
        "{\n"
        "  imports = [\n"
        "    ./configuration-of-payload.nix\n"
        "    ./networking.nix\n"
        "    ./storage.nix\n"
        "  ];\n"
        "}\n"
    )
    found = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--store", "dummy://", "--expr",
         f"map baseNameOf (import {folder}/configuration.nix {{ }}).imports"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.strip() == (
        '[ "configuration-of-payload.nix" "networking.nix" "storage.nix" ]'
    )


def test_an_import_is_not_added_over_a_file_of_the_payload(target: Target) -> None:
    own = target.root / "etc/nixos/configuration-of-payload.nix"
    own.write_text("precious")
    assert _written(target, "{ }", add=True) == [WARNING]
    assert own.read_text() == "precious"
    (target.root / "etc/nixos/configuration.nix").unlink()
    assert _written(target, None, add=True) == [WARNING]


@pytest.mark.root
def test_what_nix_cannot_read_is_our_mistake(with_nix: Target) -> None:
    with pytest.raises(InstallError) as caught:
        _written(with_nix, "{ }", text="{ x = ; }\n")
    assert str(caught.value) == (
        "error[internal]: Nix cannot read /etc/nixos/networking.nix, which this program wrote\n"
        "  where: writing /etc/nixos/networking.nix\n"
        "  try:   report this with the log and the facts (netinstall probe --json)"
    )


def test_links_are_read_as_the_installed_system_reads_them(target: Target) -> None:
    assert not target.has("/nix/x")
    (target.root / "a/b").mkdir(parents=True)
    (target.root / "a/b/file").touch()
    (target.root / "up").symlink_to("/a/../a/b/./")
    (target.root / "a/relative").symlink_to("b/file")
    (target.root / "circle").symlink_to("/circle")
    (target.root / "out").symlink_to("../../../../../../usr")
    assert target.has("/up/file")
    assert target.has("a/relative")
    assert not target.has("/circle")
    assert os.path.lexists("/usr/bin/env")
    assert not target.has("/out/bin/env")
