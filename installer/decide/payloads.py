"""Which steps bring the system onto the disk, and what a payload says that cannot work here."""

import re
from collections.abc import Iterator, Mapping, Sequence

from installer.model import trust
from installer.model.answers import AnswerFile
from installer.model.errors import Problem
from installer.model.facts import Facts, ManifestFacts
from installer.model.filesystems import FILESYSTEMS
from installer.model.payload import Closure, Payload
from installer.model.payload_steps import (
    CheckClosure,
    CheckPayload,
    CheckSquashfs,
    CopyClosure,
    UnpackFrames,
    UnpackPayload,
    UnpackSquashfs,
)
from installer.model.steps import BaseStep
from installer.model.units import format_bytes

_ALSO_RUNS = {"x86_64": ("i686",), "aarch64": ("armv7l",)}
"""Platforms whose programs a kernel of another runs as well."""


def checking(
    answers: AnswerFile, capacity: Mapping[str, int]
) -> Iterator[CheckPayload | CheckSquashfs | CheckClosure]:
    """The step that checks a payload before a disk is touched, where there is one."""
    payload, toplevel = answers.payload, answers.system.toplevel
    what = (payload.source, payload.sha256, capacity, toplevel, payload.retry_seconds)
    if payload.kind in ("url", "path") and payload.verify == "first":
        yield CheckPayload(*what)
    # one from a server has no place to be before there is a disk
    if payload.squashfs is not None and payload.squashfs.startswith("/"):
        yield CheckSquashfs(*what)
    if payload.closure is not None:
        yield CheckClosure(*_closure(payload, payload.closure, capacity))


def unpacking(
    answers: AnswerFile, capacity: Mapping[str, int], manifest: ManifestFacts | None
) -> UnpackPayload | UnpackFrames | UnpackSquashfs | CopyClosure:
    """The step that brings the system into the mounted target."""
    payload, toplevel = answers.payload, answers.system.toplevel
    what = (payload.source, payload.sha256, capacity, toplevel, payload.retry_seconds)
    if payload.manifest is not None:
        return UnpackFrames(
            payload.manifest,
            tuple(payload.mirrors),
            manifest.sha256 if manifest is not None else None,
            capacity,
            toplevel,
            payload.connections,
            payload.stall_seconds,
            payload.retry_seconds,
        )
    if payload.closure is not None:
        return CopyClosure(*_closure(payload, payload.closure, capacity))
    if payload.squashfs is not None:
        return UnpackSquashfs(*what)
    return UnpackPayload(*what)


def _closure(
    payload: Payload, closure: Closure, capacity: Mapping[str, int]
) -> tuple[str, str, tuple[str, ...], str | None, str | None, Mapping[str, int], int]:
    return (
        closure.cache,
        closure.toplevel,
        tuple(closure.public_keys),
        closure.configuration,
        closure.channel,
        capacity,
        payload.retry_seconds,
    )


def needs(step: BaseStep) -> Iterator[tuple[str, str, str]]:
    """The programs that a step needs: tool, Debian's package, purpose."""
    match step:
        case UnpackSquashfs():
            yield "unsquashfs", "squashfs-tools", "a squashfs as the payload"
        case CopyClosure():
            yield "nix", "nix-bin", "a closure as the payload (netinstall image build --nix)"


def brings_the_system(step: BaseStep) -> bool:
    """Say whether it is the step that `unpacking` returned."""
    return isinstance(step, UnpackPayload | UnpackFrames | UnpackSquashfs | CopyClosure)


def problems(
    facts: Facts,
    answers: AnswerFile,
    capacity: Mapping[str, int],
    inodes: Sequence[int | None],
    formatted: frozenset[str],
) -> Iterator[Problem]:
    """Say what of the payload cannot work on this machine, with this layout.

    Args:
        facts: of the machine; without a first look at the payload, only trust is judged.
        answers: the answer file.
        capacity: bytes that fit on each mount point, memory left out; empty if it is not known.
        inodes: how many files each of them can hold; None where there is no limit.
        formatted: the types of the layout's file systems.
    """
    yield from trust.problems(answers.payload, facts.image)
    seen = facts.payload
    if seen is None:
        return
    room = sum(capacity.values())
    if seen.manifest is not None:
        yield from _dated(seen.manifest, answers.payload)
        yield from _fitting(seen.manifest, facts, answers, formatted)
        yield from _too_large(seen.manifest, capacity)
        yield from _too_many(seen.manifest, inodes)
    elif seen.size is not None and capacity and seen.size > room:
        # compressed, it is never larger than what it unpacks to
        yield Problem(
            "payload.too-large",
            f"{seen.source} has {format_bytes(seen.size)}, "
            f"the file systems of the layout take {format_bytes(room)}",
            "disks",
            "give the system a larger disk, or make a smaller payload",
        )


def _dated(manifest: ManifestFacts, payload: Payload) -> Iterator[Problem]:
    if manifest.expires is not None and manifest.expires <= manifest.judged:
        yield Problem(
            "payload.expired",
            f"{manifest.name} is valid until {manifest.expires}, and now it is {manifest.judged}",
            "payload.manifest",
            "pack and sign it again; if the time is wrong, set this machine's clock",
        )
    wanted = payload.trust.minimum_built
    if wanted is not None and manifest.built < wanted:
        yield Problem(
            "payload.old",
            f"{manifest.name} was built {manifest.built}, wanted is {wanted} or later",
            "payload.trust.minimum-built",
            "serve the newer payload: an old one with a right signature may be somebody's attack",
        )
    release = payload.trust.minimum_nixos
    if release is not None and (
        manifest.nixos_version is None or _numbers(manifest.nixos_version) < _numbers(release)
    ):
        version = manifest.nixos_version or "of an unknown version"
        yield Problem(
            "payload.old",
            f"{manifest.name} is NixOS {version}, wanted is {release} or newer",
            "payload.trust.minimum-nixos",
            "serve the newer payload: an old one with a right signature may be somebody's attack",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of 26.05.20261120.abcdef, 26.05pre-git or 26.05."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _fitting(
    manifest: ManifestFacts, facts: Facts, answers: AnswerFile, formatted: frozenset[str]
) -> Iterator[Problem]:
    if manifest.toplevel is None:
        yield Problem(
            "payload.not-nixos",
            f"{manifest.name} holds no NixOS system",
            "payload.manifest",
            "pack a system's toplevel, or a folder or tarball with one in its store",
        )
    elif answers.system.toplevel not in (None, manifest.toplevel):
        yield Problem(
            "payload.not-nixos",
            f"{manifest.name} holds {manifest.toplevel}, not {answers.system.toplevel}",
            "system.toplevel",
            "take `toplevel` out: a packed payload holds one system",
        )
    architecture = facts.architecture
    fits = {f"{name}-linux" for name in (architecture, *_ALSO_RUNS.get(architecture, ()))}
    if manifest.platform is not None and manifest.platform not in fits:
        yield _unfit(
            f"{manifest.name} is made for {manifest.platform}, this machine is {architecture}",
            "serve a payload for this machine",
        )
    if manifest.boot_modes and facts.firmware not in manifest.boot_modes:
        modes = " and ".join(mode.upper() for mode in manifest.boot_modes)
        yield _unfit(
            f"the boot loader of {manifest.name} is for {modes}, this machine booted in "
            f"{facts.firmware.upper()} mode",
            "switch the mode in the firmware's setup, or serve a payload for this one",
        )
    # others (nfs, overlay) are not the layout's; a rebuild writes a new fstab
    missing = (set(manifest.filesystems) & FILESYSTEMS.keys()) - formatted
    if answers.system.install == "prebuilt" and formatted and missing:
        yield _unfit(
            f"the /etc/fstab of {manifest.name} mounts {', '.join(sorted(missing))}, and the "
            f"layout makes only {', '.join(sorted(formatted))}: as it is, it would not boot",
            'make the file systems that it mounts, or say install = "rebuild"',
            where="disks",
        )


def _unfit(what: str, hint: str, *, where: str = "payload.manifest") -> Problem:
    return Problem("payload.unfit", what, where, hint)


def _too_large(manifest: ManifestFacts, capacity: Mapping[str, int]) -> Iterator[Problem]:
    """Compare by mount point: what lies in a folder is on the innermost mount point above it."""
    if not capacity:
        return
    usage = dict.fromkeys(capacity, 0)
    rest = manifest.usage - sum(manifest.folders.values())
    for folder, size in (*manifest.folders.items(), ("/", rest)):
        inner = [mount for mount in capacity if _below(mount, folder) and mount != folder]
        above = [mount for mount in capacity if _below(folder, mount)]
        # a file system deeper than what the manifest tells apart may take all of a folder
        if above and not inner:
            usage[max(above, key=len)] += size
    over = {mount: size for mount, size in usage.items() if size > capacity[mount]}
    if not over and "/" in capacity and manifest.usage > sum(capacity.values()):
        over = {"the whole layout": manifest.usage}
        capacity = {"the whole layout": sum(capacity.values())}
    if over:
        yield Problem(
            "payload.too-large",
            "; ".join(
                f"{manifest.name} needs {format_bytes(size)} on {mount}, "
                f"which takes {format_bytes(capacity[mount])}"
                for mount, size in over.items()
            ),
            "disks",
            "make the file system larger, or the payload smaller",
        )


def _too_many(manifest: ManifestFacts, inodes: Sequence[int | None]) -> Iterator[Problem]:
    """What lies where is not known by number, so only the whole layout can be compared."""
    limited = [count for count in inodes if count is not None]
    if not limited or len(limited) < len(inodes) or manifest.files <= sum(limited):
        return
    yield Problem(
        "payload.too-large",
        f"{manifest.name} holds {manifest.files} files, folders and links, and the ext4 of the "
        f"layout has inodes for {sum(limited)}",
        "disks",
        'give the file system more of them, for example mkfs-options = ["-i", "4096"], make it '
        "larger, or take another type",
    )


def _below(path: str, folder: str) -> bool:
    return folder in ("/", path) or path.startswith(f"{folder}/")
