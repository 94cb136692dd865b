"""What will boot and what must be built for it is said before a disk is touched."""

from dataclasses import replace
from typing import Any

import pytest
from deciding import answers, machine, plan, refusal
from test_payloads import MANIFEST, TOPLEVEL, given, seen

from installer.model.facts import RebuildFacts
from installer.report.text import plan_text

CHANNEL = "/nix/store/4123456789abcdfghijklmnpqrsvwxyz-nixos-26.05"
WHOLE = RebuildFacts(CHANNEL, configuration=True, stdenv=True)
ALL = ("nix-store", "nix-env", "nixos-generate-config")


def rebuilt(**rebuild: Any) -> Any:
    return given(system={"install": "rebuild", "rebuild": rebuild})


def test_prebuilt() -> None:
    said = plan(seen(programs=ALL, rebuild=WHOLE), given()).system
    assert said == (
        (
            f"prebuilt: {TOPLEVEL} boots as it is. Nothing is built, and nothing is fetched but "
            "the payload"
        ),
    )
    said = plan(seen(rebuild=replace(WHOLE, channel=None)), given()).system
    assert said[1:] == (
        (
            "it must hold nix-store, nix-env and nixos-generate-config; whether it does is seen "
            "when they are run"
        ),
        "it holds no channel: the first nixos-rebuild on the machine has to fetch one",
    )
    # a tarball tells nothing before it is read
    assert (
        plan(machine(), answers())
        .system[0]
        .startswith("prebuilt: the system of the payload boots as it is.")
    )


def test_rebuilt_without_a_network() -> None:
    made = plan(seen(programs=ALL, rebuild=WHOLE), rebuilt())
    assert made.warnings == ()
    first, second, third, fourth = made.system
    assert first == (
        "rebuilt: system of <nixpkgs/nixos> is built in the target with the generated configuration"
    )
    assert "known only when Nix has evaluated it" in second
    assert third == ("no binary cache is asked: what they are built with must be in the payload")
    assert fourth == (
        f"the payload holds the channel {CHANNEL}, the build tools of nixpkgs (stdenv) and a "
        "configuration.nix"
    )
    text = "\n".join(line.text for line in plan_text(made))
    assert "\nTHE SYSTEM\n  rebuilt: system of <nixpkgs/nixos> is built in the target" in text
    assert text.index("THE SYSTEM") < text.index("STEPS")


def test_build_tools_that_are_missing_are_a_warning() -> None:
    facts = seen(programs=ALL, rebuild=RebuildFacts(CHANNEL, configuration=False, stdenv=False))
    made = plan(facts, rebuilt())
    assert made.warnings == (
        (
            "web holds no build tools (stdenv): a system of nixpkgs cannot be built from it "
            "without a binary cache, and that would be found out on an erased disk. Pack what its "
            "derivations are built with, or say substitute = true"
        ),
    )
    assert made.system[-1] == (
        f"the payload holds the channel {CHANNEL}, no build tools (stdenv); nixos-generate-config "
        "writes a new configuration.nix"
    )
    made = plan(facts, rebuilt(substitute=True))
    assert made.warnings == ()
    assert "what the payload lacks is fetched from the binary caches" in made.system[2]


def test_what_cannot_be_rebuilt_is_refused_before_a_disk_is_erased() -> None:
    text = (
        "error[payload.unfit]: the payload holds no channel, and <nixpkgs/nixos> is looked for in "
        "it\n"
        "  where: answers.toml: system.rebuild.expression\n"
        "  try:   put a nixpkgs into the payload (docs/payload.md), name another expression, or "
        'say install = "prebuilt"'
    )
    without = replace(WHOLE, channel=None)
    assert refusal(seen(programs=ALL, rebuild=without), rebuilt()) == text
    assert plan(seen(programs=ALL, rebuild=without), rebuilt(expression="/etc/nixos/x.nix"))
    # a manifest of an older packer says nothing of it
    assert MANIFEST.rebuild is None
    made = plan(seen(), rebuilt())
    assert made.system[-1] == ("what the payload holds of that is not known before it is unpacked")
    tools = {**machine().tools, "nix": "/usr/bin/nix"}
    closure = {"from": "/cache", "toplevel": TOPLEVEL, "allow-unsigned": True}
    system = {"install": "rebuild"}
    facts = machine(tools=tools)
    assert refusal(facts, answers(payload={"closure": closure}, system=system)) == text
    closure["channel"] = CHANNEL
    made = plan(facts, answers(payload={"closure": closure}, system=system))
    assert made.system[-1].endswith(f"before it is unpacked (channel: {CHANNEL})")


@pytest.mark.parametrize(
    ("programs", "missing"),
    [
        (("nix-store", "nix-env"), "nixos-generate-config"),
        ((), "nix-store and nix-env and nixos-generate-config"),
    ],
)
def test_programs_that_are_missing_are_an_error(programs: tuple[str, ...], missing: str) -> None:
    assert refusal(seen(programs=programs), given()) == (
        f"error[payload.unfit]: web lacks {missing} in the sw/bin of its toplevel, and they are "
        "run in the target\n"
        "  where: answers.toml: payload.manifest\n"
        "  try:   build the system with Nix and the installer's tools in it (nix.enable, "
        "system.tools.nixos-generate-config.enable)"
    )
