"""The manifest of a packed payload, from the first place that has a right one.

A place is a folder with NAME.json, NAME.json.minisig and NAME.tar.zst: that of the manifest, then
the mirrors. Nobody has to trust a mirror: what it serves counts only if the signature is right.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from installer.model.errors import InstallError, Problem, fail
from installer.model.facts import ImageFacts, ManifestFacts, PayloadFacts, RebuildFacts
from installer.model.manifest import MANIFEST_LIMIT, Manifest, time_text
from installer.model.minisign import SIGNATURE_LIMIT
from installer.model.payload import Payload
from installer.model.trust import Trusted, trusted, verified
from installer.model.units import format_bytes, format_seconds
from installer.model.urls import beside, file_name, inside, is_url, redacted
from installer.observe import manifest as manifests
from installer.observe.payload import (
    HEADERS,
    LOOK_SECONDS,
    TIMEOUTS,
    TransientError,
    delays,
    is_final,
    reason,
    refused,
)
from installer.observe.payload import look as look_at_tarball

_CHUNK = 64 * 1024
_READ_SECONDS = 60.0
"""How long a file of 2 MiB may take to come, however slowly a server sends it."""


@dataclass(frozen=True)
class Packed:
    """A manifest whose signature was verified (if one was asked for), and what it says."""

    manifest: Manifest
    facts: PayloadFacts


@dataclass(frozen=True)
class _Limits:
    seconds: float
    timeouts: tuple[float, float]
    read_seconds: float


def manifests_of(payload: Payload) -> list[str]:
    """Return where the manifest may be, in the order in which it is looked for."""
    if payload.manifest is None:
        raise ValueError("this payload has no manifest")
    name = file_name(payload.manifest)
    return [payload.manifest, *(inside(mirror, name) for mirror in payload.mirrors)]


def look_at(
    payload: Payload, image: ImageFacts, tell: Callable[[str], None]
) -> tuple[PayloadFacts | None, Manifest | None]:
    """Look at a payload of any kind; the manifest is that of a packed one, verified.

    Raises:
        InstallError: see `look` here and in `observe.payload`.
    """
    if payload.kind == "manifest":
        packed = look(payload, image, tell)
        return packed.facts, packed.manifest
    if payload.kind in ("url", "path", "squashfs"):
        return look_at_tarball(payload, tell), None
    return None, None


def look(
    payload: Payload,
    image: ImageFacts,
    tell: Callable[[str], None] = lambda _text: None,
    *,
    seconds: float = LOOK_SECONDS,
    timeouts: tuple[float, float] = TIMEOUTS,
    read_seconds: float = _READ_SECONDS,
    now: float | None = None,
) -> Packed:
    """Fetch manifest and signature, and verify them.

    Args:
        payload: where they are, and whose signature counts.
        image: what the boot image trusts, and its date.
        tell: is told, in words, each place that does not have them, and each retry.
        seconds: how long places that cannot be reached are asked again.
        timeouts: seconds to connect, and to wait for the next bytes.
        read_seconds: within which each of the two files must be there.
        now: seconds since 1970; None asks the clock.

    Raises:
        InstallError: `payload.signature`, `payload.key`, `payload.manifest`, `payload.not-found` or
            `network.unreachable`; what is wrong with each place.
    """
    trust = trusted(payload, image)
    limits = _Limits(seconds, timeouts, read_seconds)
    deadline = time.monotonic() + seconds
    places = manifests_of(payload)
    wrong: dict[str, tuple[Problem, ...]] = {}
    for delay in delays(first=0.5, longest=5.0):
        passing: dict[str, Problem] = {}
        for place in places:
            if place in wrong:
                continue
            try:
                data, manifest, signer = _verified(place, trust, limits)
            except InstallError as error:
                wrong[place] = error.problems
                if len(places) > 1:
                    tell(f"{redacted(place)} is passed over: {error.problems[0].what}")
            except TransientError as error:
                passing[place] = _unreachable(place, error)
            else:
                facts = _facts(data, manifest, signer, image, time.time() if now is None else now)
                return Packed(manifest, PayloadFacts(redacted(place), facts.size, manifest=facts))
        if not passing or time.monotonic() + delay > deadline:
            raise InstallError(
                problem
                for place in places
                for problem in (*wrong.get(place, ()), *_one(passing.get(place)))
            )
        for problem in passing.values():
            tell(f"{problem.what}; trying again in {format_seconds(delay)}")
        time.sleep(delay)
    raise AssertionError("delays() does not end")


def _one(problem: Problem | None) -> Iterator[Problem]:
    if problem is not None:
        yield problem


def _verified(place: str, trust: Trusted, limits: _Limits) -> tuple[bytes, Manifest, str | None]:
    """Return a manifest's bytes, the manifest and the number of the key that signed it.

    Raises:
        InstallError: it is not there, or not right.
        TransientError: the place may have it later.
    """
    shown = redacted(place)
    data = read(place, MANIFEST_LIMIT, "payload.manifest", limits)
    signer = None
    if not trust.unsigned:
        where = beside(place, f"{file_name(place)}.minisig")
        signature = read(where, SIGNATURE_LIMIT, "payload.signature", limits)
        signer = verified(data, signature, trust.keys, redacted(where))
    return data, manifests.load(data, shown), signer


def _facts(
    data: bytes, manifest: Manifest, signer: str | None, image: ImageFacts, now: float
) -> ManifestFacts:
    system = manifest.system
    return ManifestFacts(
        name=manifest.name,
        sha256=sha256(data).hexdigest(),
        built=manifest.built,
        # a machine whose clock lost its battery wakes up in 1970, or on the day it was made
        judged=max(_clock(now), image.built or ""),
        size=manifest.archive.size,
        usage=manifest.archive.usage,
        frames=len(manifest.frames),
        entries=manifest.archive.entries,
        # links have no inodes, and the frames of attributes name folders again
        files=sum(frame.entries for frame in manifest.frames if frame.kind in ("folders", "files")),
        expires=manifest.expires,
        signed_by=signer,
        toplevel=system.toplevel if system else None,
        nixos_version=system.nixos_version if system else None,
        platform=system.platform if system else None,
        kernel=system.kernel if system else None,
        boot_modes=tuple(system.boot_modes) if system else (),
        filesystems=tuple(system.filesystems) if system else (),
        folders=manifest.archive.folders or {},
        programs=tuple(system.programs) if system and system.programs is not None else None,
        rebuild=RebuildFacts(**system.rebuild.model_dump()) if system and system.rebuild else None,
    )


def _clock(now: float) -> str:
    try:
        return time_text(int(now))
    except (ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(place: str, limit: int, code: str, limits: _Limits) -> bytes:
    """Read a small file from a URL or path, within `limits.read_seconds`.

    Raises:
        InstallError: `payload.not-found`, or `code` where it is larger than `limit`.
        TransientError: the server may have it later.
    """
    answers: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(
                _read_url(place, limit, limits) if is_url(place) else _read_file(place, limit)
            )
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            answers.put(error)

    # no timeout of a socket ends a server that sends a header byte by byte, a name server that is
    # silent, or an NFS server that went away: whoever waits for them is left behind
    threading.Thread(target=run, name="manifest", daemon=True).start()
    try:
        answer = answers.get(timeout=limits.read_seconds)
    except queue.Empty:
        raise TransientError("it comes too slowly") from None
    if isinstance(answer, BaseException):
        raise answer
    if len(answer) > limit:
        raise fail(
            code,
            f"it has more than {format_bytes(limit)}",
            where=redacted(place),
            hint="is this the file that netinstall payload pack wrote?",
        )
    return answer


def _read_file(path: str, limit: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise fail(
            "payload.not-found",
            f"{path}: {error.strerror}",
            where="payload.manifest",
            hint="is the share mounted in the boot environment, and the path right?",
        ) from None


def _read_url(url: str, limit: int, limits: _Limits) -> bytes:
    # requests takes seconds to import in an emulated machine
    import requests  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with requests

    deadline = time.monotonic() + limits.read_seconds
    try:
        with requests.get(url, headers=HEADERS, timeout=limits.timeouts, stream=True) as response:
            if response.status_code != 200:
                raise refused(url, response.status_code, field="payload.manifest")
            wanted = response.headers.get("Content-Length")
            data = b""
            while len(data) <= limit and time.monotonic() < deadline:
                chunk = response.raw.read(_CHUNK, decode_content=False)
                if not chunk:
                    break
                data += chunk
            if wanted is not None and wanted.isdigit() and len(data) < min(int(wanted), limit):
                raise TransientError("the connection was closed")
            return data
    except (requests.RequestException, HTTPError, OSError) as error:
        if is_final(error):
            raise InstallError([_unreachable(url, error)]) from None
        raise TransientError(reason(error)) from None


def _unreachable(place: str, error: Exception) -> Problem:
    return Problem(
        "network.unreachable",
        f"{redacted(place)} cannot be read: {reason(error)}",
        "payload.manifest",
        "check cable, address, gateway and name servers of this machine, then the server",
    )
