"""What will boot, and what must be built or fetched for it: said before anything is erased.

What is not in the manifest's facts, or that only Nix can tell, is said to be unknown.
"""

from collections.abc import Iterator

from installer.model.answers import AnswerFile
from installer.model.errors import Problem
from installer.model.facts import Facts, ManifestFacts
from installer.model.manifest import PROGRAMS

_CHANNEL = "<nixpkgs"


def sentences(facts: Facts, answers: AnswerFile) -> tuple[str, ...]:
    """Say in sentences what will boot, and what has to be built or fetched for that."""
    if answers.system.install == "prebuilt":
        return tuple(_prebuilt(_manifest(facts), answers))
    return tuple(_rebuilt(_manifest(facts), answers))


def problems(facts: Facts, answers: AnswerFile) -> Iterator[Problem]:
    """Say what cannot work with this payload, as far as its manifest or the answer file tells."""
    manifest = _manifest(facts)
    if manifest is not None and manifest.programs is not None:
        missing = [name for name in PROGRAMS if name not in manifest.programs]
        if missing:
            yield Problem(
                "payload.unfit",
                f"{manifest.name} lacks {' and '.join(missing)} in the sw/bin of its toplevel, "
                "and they are run in the target",
                "payload.manifest",
                "build the system with Nix and the installer's tools in it (nix.enable, "
                "system.tools.nixos-generate-config.enable)",
            )
    if answers.system.install == "rebuild" and _without_channel(manifest, answers):
        expression = answers.system.rebuild.expression
        yield Problem(
            "payload.unfit",
            f"the payload holds no channel, and {expression} is looked for in it",
            "system.rebuild.expression",
            "put a nixpkgs into the payload (docs/payload.md), name another expression, or say "
            'install = "prebuilt"',
        )


def warnings(facts: Facts, answers: AnswerFile) -> Iterator[str]:
    """Say what probably does not work."""
    manifest = _manifest(facts)
    if (
        answers.system.install == "rebuild"
        and not answers.system.rebuild.substitute
        and manifest is not None
        and manifest.rebuild is not None
        and not manifest.rebuild.stdenv
    ):
        yield (
            f"{manifest.name} holds no build tools (stdenv): a system of nixpkgs cannot be built "
            "from it without a binary cache, and that would be found out on an erased disk. Pack "
            "what its derivations are built with, or say substitute = true"
        )


def _manifest(facts: Facts) -> ManifestFacts | None:
    return facts.payload.manifest if facts.payload is not None else None


def _without_channel(manifest: ManifestFacts | None, answers: AnswerFile) -> bool:
    """Whether it is known that there is none where one is needed."""
    if not answers.system.rebuild.expression.startswith(_CHANNEL):
        return False
    if answers.payload.closure is not None:
        return answers.payload.closure.channel is None
    return (
        manifest is not None and manifest.rebuild is not None and manifest.rebuild.channel is None
    )


def _prebuilt(manifest: ManifestFacts | None, answers: AnswerFile) -> Iterator[str]:
    closure = answers.payload.closure
    toplevel = (
        answers.system.toplevel
        or (closure.toplevel if closure is not None else None)
        or (manifest.toplevel if manifest is not None else None)
        or "the system of the payload"
    )
    yield (
        f"prebuilt: {toplevel} boots as it is. Nothing is built, and nothing is fetched but the "
        "payload"
    )
    if manifest is None or manifest.programs is None:
        yield (
            "it must hold nix-store, nix-env and nixos-generate-config; whether it does is seen "
            "when they are run"
        )
    if manifest is not None and manifest.rebuild is not None and manifest.rebuild.channel is None:
        yield "it holds no channel: the first nixos-rebuild on the machine has to fetch one"


def _rebuilt(manifest: ManifestFacts | None, answers: AnswerFile) -> Iterator[str]:
    rebuild = answers.system.rebuild
    yield (
        f"rebuilt: {rebuild.attribute} of {rebuild.expression} is built in the target with the "
        "generated configuration"
    )
    yield (
        "to be built is what depends on this machine: fstab, initrd, units, network, boot entries "
        "and the toplevel itself, some twenty small derivations with an unchanged configuration. "
        "Their store paths are known only when Nix has evaluated it, in the target"
    )
    if rebuild.substitute:
        yield (
            "what the payload lacks is fetched from the binary caches that its nix.conf names: "
            "it needs a network that reaches them"
        )
    else:
        yield "no binary cache is asked: what they are built with must be in the payload"
    if manifest is None or manifest.rebuild is None:
        closure = answers.payload.closure
        channel = f" (channel: {closure.channel})" if closure is not None else ""
        yield f"what the payload holds of that is not known before it is unpacked{channel}"
        return
    seen = manifest.rebuild
    yield (
        f"the payload holds the channel {seen.channel or '(none)'}, "
        + ("the build tools of nixpkgs (stdenv)" if seen.stdenv else "no build tools (stdenv)")
        + (
            " and a configuration.nix"
            if seen.configuration
            else "; nixos-generate-config writes a new configuration.nix"
        )
    )
