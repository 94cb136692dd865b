"""Packed payloads of many small frames, made by hand: any members in any frame."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from tars import END, TOPLEVEL, file, folder, hard_link, symlink

from installer.model.manifest import PIECE, Manifest
from installer.observe.manifest import load

STORE = TOPLEVEL.removeprefix("/").encode()
FOLDERS = (b"nix", b"nix/store", STORE, STORE + b"/bin", b"data")


@dataclass
class Payload:
    """A manifest, its text, and the archive; `files` is what must come of it."""

    manifest: Manifest
    text: bytes
    archive: bytes
    files: Mapping[bytes, bytes] = field(default_factory=dict)


def payload(
    frames: Sequence[tuple[str, Sequence[bytes]]],
    files: Mapping[bytes, bytes] | None = None,
    **changes: Any,
) -> Payload:
    """Make a payload of frames: each a kind and its members. The end of the archive is added."""
    archive = bytearray()
    described: list[dict[str, Any]] = []
    for number, (kind, members) in enumerate(frames):
        plain = b"".join(members) + (END if number == len(frames) - 1 else b"")
        data = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(plain)
        described.append(
            {
                "kind": kind,
                "offset": len(archive),
                "length": len(data),
                "unpacked": len(plain),
                "entries": len(members),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        if len(data) > PIECE:
            described[-1]["pieces"] = [
                hashlib.sha256(data[start : start + PIECE]).hexdigest()
                for start in range(0, len(data), PIECE)
            ]
        archive += data
    archive_changes = changes.pop("archive", {})
    document = {
        "version": 1,
        "name": "demo",
        "built": "2026-11-01T00:00:00Z",
        "system": {"toplevel": TOPLEVEL},
        "archive": {
            "size": len(archive),
            "sha256": hashlib.sha256(archive).hexdigest(),
            "unpacked": sum(frame["unpacked"] for frame in described),
            "usage": 4096,
            "entries": sum(frame["entries"] for frame in described),
            **archive_changes,
        },
        "frames": described,
        **changes,
    }
    text = json.dumps(document).encode()
    return Payload(load(text, "demo.json"), text, bytes(archive), files or {})


def noise(seed: int, size: int) -> bytes:
    """Bytes that cannot be compressed, always the same."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same each time


def system_files() -> dict[bytes, bytes]:
    """What makes it a NixOS."""
    return {
        b"nix-path-registration": b"registered\n",
        STORE + b"/init": b"#!/bin/sh\n",
        STORE + b"/nixos-version": b"26.05",
        STORE + b"/bin/switch-to-configuration": b"#!/bin/sh\n",
    }


def plain_frames(files: Mapping[bytes, bytes], per_frame: int = 1) -> list[tuple[str, list[bytes]]]:
    """The frames of an honest payload that holds these files, and a link of each kind."""
    members = [file(name, data) for name, data in files.items()]
    grouped = [members[start : start + per_frame] for start in range(0, len(members), per_frame)]
    return [
        ("folders", [folder(name) for name in FOLDERS]),
        *(("files", group) for group in grouped),
        ("files", [symlink(b"data/link", b"/nix/store/somewhere")]),
        ("links", [hard_link(b"data/hard", next(iter(files)))]),
        ("links", [hard_link(b"data/hard-link", b"data/link")]),
        ("attributes", [folder(name) for name in reversed(FOLDERS)]),
    ]


def many(count: int, size: int = 20_000) -> Payload:
    """A payload of so many frames with a file each."""
    files = system_files()
    files |= {b"data/%04d" % number: noise(number, size + number % 7) for number in range(count)}
    return payload(plain_frames(files), files)
