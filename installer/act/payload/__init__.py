"""The payload: read, verified, vetted and unpacked as one stream that is never stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from installer.act.narrator import Narrator
from installer.act.payload.frames import unpack_frames
from installer.act.payload.mirrors import open_mirror
from installer.act.payload.pipeline import Reading, Rules, read_payload
from installer.act.payload.source import Patience
from installer.act.run import Runner
from installer.model.manifest import Manifest
from installer.model.payload_steps import CheckPayload, UnpackFrames, UnpackPayload
from installer.model.urls import beside, inside

_PATIENT = Patience()


@dataclass(frozen=True)
class Inventory:
    """What the payload is; sizes in bytes.

    `unpacked_size` counts the contents of all files, `usage` what they take on each mount point
    of the plan in blocks of 4 KiB; `toplevel` is the system's absolute store path.
    """

    sha256: str
    compressed_size: int
    unpacked_size: int
    entries: int
    usage: Mapping[str, int]
    toplevel: str


def check(step: CheckPayload, narrator: Narrator, *, patience: Patience = _PATIENT) -> Inventory:
    """Read the whole payload and check everything about it; nothing is written.

    Raises:
        InstallError: a `payload.…` or `network.…` problem, `device.io`, `tool.missing`.
    """
    reading = read_payload(
        step.source,
        Rules(step.capacity, step.toplevel, step.sha256),
        retry_seconds=step.retry_seconds,
        narrator=narrator,
        runner=Runner(on_line=narrator.output),
        target=None,
        patience=patience,
    )
    return _inventory(reading)


def unpack(
    step: UnpackPayload,
    target: Path,
    runner: Runner,
    narrator: Narrator,
    expected: Inventory | None,
    *,
    patience: Patience = _PATIENT,
) -> Inventory:
    """Read the payload and unpack each member into `target` after it was checked.

    Args:
        step: what to unpack.
        target: the root of the new system, with its file systems mounted below.
        runner: `on_line` is told what tar prints.
        narrator: is told the progress in compressed bytes, and each retry.
        expected: what `check` found: this must be the same file.
        patience: for tests.

    Raises:
        InstallError: see `check`; also `command.failed` with tar's words, and `payload.changed`.
    """
    reading = read_payload(
        step.source,
        Rules(
            step.capacity,
            step.toplevel,
            step.sha256,
            (expected.sha256, expected.compressed_size) if expected is not None else None,
        ),
        retry_seconds=step.retry_seconds,
        narrator=narrator,
        runner=runner,
        target=target,
        patience=patience,
    )
    return _inventory(reading)


def unpack_packed(
    step: UnpackFrames,
    manifest: Manifest,
    target: Path,
    runner: Runner,
    narrator: Narrator,
    *,
    patience: Patience = _PATIENT,
) -> Inventory:
    """Unpack a packed payload into `target`: frame by frame, several at once.

    Args:
        step: what to unpack, and from where.
        manifest: the one that was verified when the machine was looked at.
        target: the root of the new system, with its file systems mounted below.
        runner: `on_line` is told what the tars print.
        narrator: is told the progress in compressed bytes, and what happens to mirrors.
        patience: for tests.

    Raises:
        InstallError: a `payload.…` or `network.…` problem, `device.io`, `command.failed`.
    """
    name = manifest.archive_name
    size = manifest.archive.size
    places = [beside(step.manifest, name), *(inside(mirror, name) for mirror in step.mirrors)]
    connect = patience.timeouts[0]
    contents = unpack_frames(
        manifest,
        [open_mirror(place, size, (connect, float(step.stall_seconds))) for place in places],
        target,
        capacity=step.capacity,
        toplevel=step.toplevel,
        connections=step.connections,
        stall_seconds=step.stall_seconds,
        retry_seconds=step.retry_seconds,
        narrator=narrator,
        runner=runner,
        patience=patience,
    )
    return Inventory(
        manifest.archive.sha256,
        size,
        contents.unpacked_size,
        contents.entries,
        contents.usage,
        contents.toplevel,
    )


def _inventory(reading: Reading) -> Inventory:
    contents = reading.contents
    return Inventory(
        reading.sha256,
        reading.compressed_size,
        contents.unpacked_size,
        contents.entries,
        contents.usage,
        contents.toplevel,
    )
