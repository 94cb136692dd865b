"""The manifest of a payload: NAME.json beside NAME.tar.zst; docs/payload-format.md has the format.

The field names are kebab-case in the file and snake_case here. `netinstall schema --manifest`
prints the JSON Schema. A manifest comes over the network, and with unsigned payloads allowed from
anybody: every count and size is bounded here, and the file itself by `MANIFEST_LIMIT`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from installer.model.fields import Strict
from installer.model.units import MIB

MANIFEST_LIMIT = 2 * MIB
"""Bytes of a manifest file: some 8,000 frames."""

FRAMES_LIMIT = 8192
"""128 GiB of small files, and any size of large ones."""

PIECE = 8 * MIB
"""Compressed bytes of one piece; the last of a frame may be shorter."""

PIECES_LIMIT = 16384

WINDOW = 8 * MIB
"""What a frame may look back (RFC 8878, 3.1.1.1.2): all that zstd's levels up to 19 ask for. The
memory is the agent's, once for each frame that it unpacks at a time."""

_MISTAKES_TOLD = 10
_MOST = 2**53 - 1  # what every reader of JSON takes as a whole number (RFC 8259, 6)

Kind = Literal["folders", "files", "links", "attributes"]
"""What a frame holds, in the order of the archive. All frames of one kind come before the next:

- `folders`: every folder, writable and without attributes; one frame after the other
- `files`: files and symbolic links; in any order, any number at once
- `links`: hard links to files of the frames before; in any order, any number at once
- `attributes`: every folder again, with owner, mode, times and attributes, inner ones first
"""
KINDS: tuple[Kind, ...] = ("folders", "files", "links", "attributes")


def _time(value: str) -> str:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value, re.ASCII):
            datetime.fromisoformat(value)
            return value
    except ValueError:
        pass
    raise ValueError("write a time in UTC like 2026-11-21T12:00:00Z")


def time_text(epoch: int) -> str:
    """Write seconds since 1970 as a manifest does. Raises ValueError, OverflowError."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, AfterValidator(_time)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(ge=1, le=_MOST)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]
Folder = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._+@-]{1,64}){1,2}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+~()-]{0,127}$")]
StorePath = Annotated[
    str, StringConstraints(pattern=r"^/nix/store/[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+._?=-]{1,207}$")
]


Program = Literal["nix-store", "nix-env", "nixos-generate-config"]
PROGRAMS: tuple[Program, ...] = ("nix-store", "nix-env", "nixos-generate-config")
"""What the installer runs in the target, from the `sw/bin` of its toplevel."""


class Rebuild(Strict):
    """What building the system again in the target finds in the payload."""

    channel: StorePath | None = Field(
        None, description="the nixpkgs that /nix/var/nix/profiles/per-user/root/channels holds"
    )
    configuration: bool = Field(description="whether it holds /etc/nixos/configuration.nix")
    stdenv: bool = Field(description="whether its store holds nixpkgs' build tools")


class System(Strict):
    """What the installer judges compatibility by; a fact that is not known is left out."""

    toplevel: StorePath = Field(description="the system's toplevel")
    nixos_version: Word | None = Field(None, description="of the toplevel's nixos-version")
    platform: Word | None = Field(None, description='for example "x86_64-linux"')
    kernel: Word | None = Field(None, description="the kernel's version, as uname -r says it")
    boot_modes: list[Literal["bios", "uefi"]] = Field(
        default=[], max_length=2, description="firmware that its boot loader is made for"
    )
    filesystems: list[Word] = Field(
        default=[], max_length=32, description="types that its /etc/fstab mounts"
    )
    programs: list[Program] | None = Field(
        None,
        max_length=len(PROGRAMS),
        description="which of the programs that the installer runs are in its sw/bin",
    )
    rebuild: Rebuild | None = None


class Archive(Strict):
    """NAME.tar.zst as a whole; sizes in bytes."""

    size: Positive
    sha256: Sha256
    unpacked: Positive = Field(description="of the tar")
    usage: Count = Field(description="on a file system with blocks of 4 KiB")
    entries: Count = Field(description="members of the tar, folders twice")
    root_owned: bool = Field(
        False, description="whether every member of the frames of files belongs to user and group 0"
    )
    folders: dict[Folder, Count] | None = Field(
        None, max_length=64, description="of `usage`, what lies below these folders"
    )


class Frame(Strict):
    """One zstd frame: `length` bytes from `offset` of NAME.tar.zst."""

    kind: Kind
    offset: Count
    length: Positive
    unpacked: Positive
    entries: Count
    sha256: Sha256
    pieces: list[Sha256] | None = Field(
        None,
        max_length=PIECES_LIMIT,
        fail_fast=True,
        description="SHA-256 of each 8 MiB, of a longer frame only",
    )


class Manifest(Strict):
    """A payload; see the module."""

    version: Literal[1]
    name: Name
    built: Time
    expires: Time | None = None
    system: System | None = None
    archive: Archive
    # the mistakes of 8,000 frames would take a hundred times the memory of the frames
    frames: list[Frame] = Field(min_length=2, max_length=FRAMES_LIMIT, fail_fast=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes: list[str] = []
        for mistake in self._mistakes():
            if len(mistakes) == _MISTAKES_TOLD:
                mistakes.append("and more")
                break
            mistakes.append(mistake)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        if self.expires is not None and self.expires <= self.built:
            yield f"`expires` ({self.expires}) is not after `built` ({self.built})"
        end = pieces = rank = 0
        for number, frame in enumerate(self.frames):
            said = f"frames[{number}]"
            if frame.offset != end:
                yield f"{said} begins at {frame.offset}, and the one before ends at {end}"
            end = frame.offset + frame.length
            if frame.unpacked % 512:
                yield f"{said} unpacks to {frame.unpacked} bytes, which are no whole tar blocks"
            if KINDS.index(frame.kind) < rank:
                yield f"{said} holds {frame.kind} and comes after one of {KINDS[rank]}"
            rank = max(rank, KINDS.index(frame.kind))
            wanted = -(-frame.length // PIECE) if frame.length > PIECE else None
            given = None if frame.pieces is None else len(frame.pieces)
            if given != wanted:
                yield f"{said} has {given or 'no'} pieces, and its length wants {wanted or 'none'}"
            pieces += given or 0
        if pieces > PIECES_LIMIT:
            yield f"the frames have {pieces} pieces, at most {PIECES_LIMIT} are possible"
        if self.frames[-1].kind != "attributes":
            yield f"the last frame holds {self.frames[-1].kind} instead of attributes"
        for what, total, counted in (
            ("size", self.archive.size, sum(frame.length for frame in self.frames)),
            ("unpacked", self.archive.unpacked, sum(frame.unpacked for frame in self.frames)),
            ("entries", self.archive.entries, sum(frame.entries for frame in self.frames)),
        ):
            if total != counted:
                yield f"`archive.{what}` is {total}, and the frames add up to {counted}"

    @property
    def archive_name(self) -> str:
        """The archive's file name, beside the manifest."""
        return f"{self.name}.tar.zst"


def to_text(manifest: Manifest) -> str:
    """Write the file: always the same text for the same manifest, a line for each frame."""
    document = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    frames = ",\n".join("    " + json.dumps(frame) for frame in document.pop("frames"))
    head = json.dumps(document, indent=2).removesuffix("\n}")
    return f'{head},\n  "frames": [\n{frames}\n  ]\n}}\n'


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the manifest."""
    schema = Manifest.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
