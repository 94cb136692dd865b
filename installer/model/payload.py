"""The tables of the answer file that say where the system comes from and whom to trust for it."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from installer.model.fields import AbsolutePath, HttpUrl, Location, Strict
from installer.model.manifest import Sha256, StorePath, Time

# $ is the very end for pydantic's regex crate and for ECMA-262, which JSON Schema refers to; \z
# and \Z are unknown to one or the other.
MinisignKey = Annotated[str, StringConstraints(pattern=r"^RW[A-Za-z0-9+/]{54}$")]
"""The second line of minisign.pub: 42 bytes in base64."""

NixKey = Annotated[str, StringConstraints(pattern=r"^[^:\s]{1,128}:[A-Za-z0-9+/]{43}=$")]
"""A key of trusted-public-keys, nix.conf(5): its name, and 32 bytes in base64."""

Release = Annotated[str, StringConstraints(pattern=r"^[0-9]{2}\.[0-9]{2}(\.[0-9]{1,12})?$")]
"""A version of NixOS, `25.11`, or of a channel, `25.11.20251120`."""

SourceKind = Literal["url", "path", "manifest", "squashfs", "closure"]
_KINDS: tuple[SourceKind, ...] = ("url", "path", "manifest", "squashfs", "closure")


class Trust(Strict):
    """Which manifests are taken. No kernel argument and no DHCP option changes anything of it."""

    public_keys: list[MinisignKey] = Field(
        default=[], description="whose signature counts: the lines of minisign.pub that begin RW"
    )
    minimum_built: Time | None = Field(None, description="refuse what was built before")
    minimum_nixos: Release | None = Field(None, description="refuse an older NixOS")
    allow_unsigned: bool = Field(
        False, description="take a manifest without looking at its signature"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.public_keys and self.allow_unsigned:
            raise ValueError("public-keys and allow-unsigned = true contradict each other")
        return self


class Closure(Strict):
    """A system that Nix copies from a binary cache."""

    cache: Location = Field(
        alias="from", description="http(s) URL of a binary cache, or the path of its folder"
    )
    toplevel: StorePath = Field(description="the system: its whole closure is copied")
    public_keys: list[NixKey] = Field(
        default=[], description="keys that the cache signs with, as in nix.conf"
    )
    allow_unsigned: bool = Field(False, description="take store paths without a signature")
    configuration: StorePath | None = Field(
        None, description="a folder of the cache that becomes /etc/nixos"
    )
    channel: StorePath | None = Field(
        None, description="the nixpkgs of the cache that a rebuild takes"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.public_keys and not self.allow_unsigned:
            raise ValueError("give public-keys (or accept any content with allow-unsigned = true)")
        if self.public_keys and self.allow_unsigned:
            raise ValueError("public-keys and allow-unsigned = true contradict each other")
        return self


class Payload(Strict):
    """Where the system comes from, and how it is known to be the right one."""

    url: HttpUrl | None = Field(None, description="http(s) URL of a system tarball")
    path: AbsolutePath | None = Field(
        None, description="path of a system tarball in the boot environment (a mounted share)"
    )
    manifest: Location | None = Field(
        None, description="URL or path of the manifest NAME.json of a packed payload"
    )
    mirrors: list[Location] = Field(
        default=[], max_length=16, description="folders that hold the same packed payload"
    )
    squashfs: Location | None = Field(
        None, description="URL or path of a squashfs: a Nix store or a whole root"
    )
    closure: Closure | None = None
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file as it is served")
    unverified: bool = Field(
        False, description="install without a known SHA-256: anybody on the network can replace it"
    )
    trust: Trust = Field(default_factory=lambda: Trust.model_validate({}))
    verify: Literal["first", "stream"] = Field(
        "first",
        description="first: read the whole payload once and check it before any disk is touched; "
        "stream: check while unpacking (half the traffic, but the disk is erased by then)",
    )
    connections: int = Field(
        4, ge=1, le=16, description="how many parts of a packed payload are fetched at once"
    )
    stall_seconds: int = Field(
        20,
        ge=1,
        le=3600,
        description="a connection to a server of a packed payload that brings nothing for so long "
        "is replaced",
    )
    retry_seconds: int = Field(
        120,
        ge=0,
        le=86400,
        description="how long to keep trying after a download stopped making progress",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of url, path, manifest, squashfs and closure")
        # a manifest has the hash of every part, and Nix looks at signatures by itself
        own = self.kind in ("manifest", "closure")
        for field, fits in (
            ("sha256", not own),
            ("unverified", not own),
            ("verify", self.kind in ("url", "path")),
            ("mirrors", self.kind == "manifest"),
            ("trust", self.kind == "manifest"),
            ("connections", self.kind == "manifest"),
            ("stall_seconds", self.kind == "manifest"),
        ):
            if not fits and field in self.model_fields_set:
                name = field.replace("_", "-")
                raise ValueError(f"{name} says nothing about a {_NAMES[self.kind]}: take it out")
        if own:
            return self
        if self.sha256 is None and not self.unverified:
            raise ValueError("give sha256 (or accept any content with unverified = true)")
        if self.sha256 is not None and self.unverified:
            raise ValueError("sha256 and unverified = true contradict each other")
        return self

    @property
    def kind(self) -> SourceKind:
        """Which of the sources it is."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def source(self) -> str:
        """The URL or path of it, of a closure that of its cache."""
        if self.closure is not None:
            return self.closure.cache
        return self.url or self.path or self.manifest or self.squashfs or ""


_NAMES = {
    "url": "tarball",
    "path": "tarball",
    "manifest": "manifest",
    "squashfs": "squashfs",
    "closure": "closure",
}
