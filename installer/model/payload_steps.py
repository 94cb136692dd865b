"""Steps that bring the system onto the disk, one or two for each source that there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PlainSerializer

from installer.model.steps import BaseStep
from installer.model.urls import redacted

Source = Annotated[str, PlainSerializer(redacted)]
"""A URL or path. It may hold a password, so it never leaves this process as it is."""


@dataclass(frozen=True)
class _FileStep(BaseStep):
    """Which file is read; `capacity` maps each mount point to the bytes that fit there."""

    source: Source
    sha256: str | None
    capacity: Mapping[str, int]
    toplevel: str | None
    retry_seconds: int


@dataclass(frozen=True)
class CheckPayload(_FileStep):
    """Read a whole tarball once and check it, before anything is destroyed."""

    kind: Literal["check-payload"] = "check-payload"

    @property
    def title(self) -> str:
        return f"check the payload {redacted(self.source)}"


@dataclass(frozen=True)
class UnpackPayload(_FileStep):
    """Stream a tarball into the target, checking hash, length and every member's path."""

    kind: Literal["unpack"] = "unpack"

    @property
    def title(self) -> str:
        return f"unpack {redacted(self.source)}"


@dataclass(frozen=True)
class UnpackFrames(BaseStep):
    """Fetch a packed payload in frames, from several places at once, and unpack each in parallel.

    `manifest` and `sha256` are the manifest's, which was verified when the machine was looked at;
    the hash is None in a plan for a machine that did not look. `mirrors` are folders with the same
    files, tried after the manifest's own. `capacity` maps each mount point to the bytes that fit
    there. No byte is used before the hash of its frame (or piece of 8 MiB) was compared.
    """

    manifest: Source
    mirrors: tuple[Source, ...]
    sha256: str | None
    capacity: Mapping[str, int]
    toplevel: str | None
    connections: int
    stall_seconds: int
    retry_seconds: int
    kind: Literal["unpack-frames"] = "unpack-frames"

    @property
    def title(self) -> str:
        return f"unpack {redacted(self.manifest).removesuffix('.json')}.tar.zst"


@dataclass(frozen=True)
class CheckSquashfs(_FileStep):
    """Read a squashfs that lies on a path and look through it, before anything is destroyed."""

    kind: Literal["check-squashfs"] = "check-squashfs"

    @property
    def title(self) -> str:
        return f"check the squashfs {redacted(self.source)}"


@dataclass(frozen=True)
class UnpackSquashfs(_FileStep):
    """Unpack a squashfs: the store of a netboot image, or a whole root."""

    kind: Literal["unpack-squashfs"] = "unpack-squashfs"

    @property
    def title(self) -> str:
        return f"unpack {redacted(self.source)}"


@dataclass(frozen=True)
class _ClosureStep(BaseStep):
    """Which system of which binary cache.

    Without `public_keys` signatures are not asked for. `configuration` and `channel` are store
    paths of the same cache; the first is copied to /etc/nixos.
    """

    cache: Source
    toplevel: str
    public_keys: tuple[str, ...]
    configuration: str | None
    channel: str | None
    capacity: Mapping[str, int]
    retry_seconds: int


@dataclass(frozen=True)
class CheckClosure(_ClosureStep):
    """Ask a binary cache for every store path, its size and its signature, before anything is
    destroyed."""

    kind: Literal["check-closure"] = "check-closure"

    @property
    def title(self) -> str:
        return f"check {self.toplevel} in {redacted(self.cache)}"


@dataclass(frozen=True)
class CopyClosure(_ClosureStep):
    """Let Nix copy a system from a binary cache into the target."""

    kind: Literal["copy-closure"] = "copy-closure"

    @property
    def title(self) -> str:
        return f"copy {self.toplevel} from {redacted(self.cache)}"
