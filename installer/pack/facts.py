"""What the archive's members tell of the system in them, seen as they pass."""

import re
from typing import Literal

from installer.act.payload.archive import Member
from installer.act.payload.system import System as Toplevels
from installer.model import manifest
from installer.model.errors import InstallError

WANTED_LIMIT = 64 * 1024
"""Bytes of a file that is looked into."""

_PATH = rb"nix/store/[0-9a-df-np-sv-z]{32}-[^/]+"
_SYSTEM = re.compile(rb"nix/store/[0-9a-df-np-sv-z]{32}-nixos-system-[^/]+/([^/]+)")
_FSTAB = re.compile(rb"nix/store/[0-9a-df-np-sv-z]{32}-etc-fstab")
_ETC_FSTAB = re.compile(_PATH + rb"/etc/fstab")
_MODULES = re.compile(rb"(" + _PATH + rb")/lib/modules/([^/]+)")
_INSTALLER = re.compile(
    rb"nix/store/[0-9a-df-np-sv-z]{32}-(systemd-boot|grub-install|install-grub|grub-)[^/]*"
)
_PROGRAM = re.compile(
    rb"(" + _PATH + rb")/bin/(" + b"|".join(name.encode() for name in manifest.PROGRAMS) + rb")"
)
_BIN = re.compile(rb"(" + _PATH + rb")/bin")
_STDENV = re.compile(rb"nix/store/[0-9a-df-np-sv-z]{32}-stdenv-[^/]+")
_CHANNELS = b"nix/var/nix/profiles/per-user/root/channels"
_CHANNEL_LINK = re.compile(
    rb"nix/var/nix/profiles/per-user/root/[^/]+(?:/nixos)?"
    rb"|nix/store/[0-9a-df-np-sv-z]{32}-user-environment/nixos"
)
_STEPS = 8
"""Links that one name leads through."""

_TEXTS = ("nixos-version", "system")
_LINKS = ("kernel-modules", "etc", "sw")
BOOT_MODES: tuple[Literal["bios", "uefi"], ...] = ("bios", "uefi")
_NO_DISK = {"none", "auto", "swap", "tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "bind"}


class Observer:
    """Sees every member; what it keeps is bounded by what a store holds of it."""

    def __init__(self, toplevel: str | None) -> None:
        self._toplevels = Toplevels(toplevel)
        self._texts: dict[bytes, bytes] = {}
        self._links: dict[bytes, bytes] = {}
        self._kernels: dict[bytes, set[bytes]] = {}
        self._modes: set[str] = set()
        self._programs: dict[bytes, set[str]] = {}
        self._bins: set[bytes] = set()
        self._stdenv = False
        self._configuration = False

    def wants(self, name: bytes) -> bool:
        """Say whether a file's contents tell something."""
        match = _SYSTEM.fullmatch(name)
        return (match is not None and match[1].decode("latin-1") in _TEXTS) or bool(
            _FSTAB.fullmatch(name)
        )

    def saw(self, name: bytes, member: Member, data: bytes) -> None:
        """Take notice of a member; `data` is a small file's that is wanted."""
        self._toplevels.saw(name, member.kind)
        if member.kind == "symbolic link" and _CHANNEL_LINK.fullmatch(name):
            self._links[name] = member.target
        if not name.startswith(b"nix/store/"):
            self._configuration |= name == b"etc/nixos/configuration.nix"
            return
        if match := _PROGRAM.fullmatch(name):
            self._programs.setdefault(match[1], set()).add(match[2].decode())
        elif member.kind == "directory":
            self._stdenv |= _STDENV.fullmatch(name) is not None
            if match := _BIN.fullmatch(name):
                self._bins.add(match[1])
        if data:
            self._texts[name] = data
        elif member.kind == "symbolic link":
            match = _SYSTEM.fullmatch(name)
            if (match and match[1].decode("latin-1") in _LINKS) or _ETC_FSTAB.fullmatch(name):
                self._links[name] = member.target.removeprefix(b"/")
        elif member.kind == "directory" and (match := _MODULES.fullmatch(name)):
            self._kernels.setdefault(match[1], set()).add(match[2])
        if match := _INSTALLER.match(name):
            self._modes.add("uefi" if match[1] == b"systemd-boot" else "bios")

    def system(self) -> tuple[manifest.System | None, str]:
        """Return what is known, or None and why the installer would refuse it."""
        try:
            toplevel = self._toplevels.check()
        except InstallError as error:
            return None, error.problems[0].what
        path = toplevel.removeprefix("/").encode()
        return manifest.System.model_construct(
            toplevel=toplevel,
            nixos_version=self._text(path + b"/nixos-version"),
            platform=self._text(path + b"/system"),
            kernel=self._kernel(path),
            boot_modes=[mode for mode in BOOT_MODES if mode in self._modes],
            filesystems=self._filesystems(path),
            programs=self._programs_of(self._links.get(path + b"/sw", b"")),
            rebuild=manifest.Rebuild.model_construct(
                channel=self._channel(), configuration=self._configuration, stdenv=self._stdenv
            ),
        ), ""

    def _programs_of(self, profile: bytes) -> list[manifest.Program] | None:
        if profile not in self._bins:
            # bin may be a link to the one package that has any: then it is not known
            return None
        found = self._programs.get(profile, set())
        return [name for name in manifest.PROGRAMS if name in found]

    def _channel(self) -> str | None:
        """Follow the links of the profile to the store path of its `nixos`."""
        name = _CHANNELS
        for _ in range(_STEPS):
            if name + b"/nixos" in self._links:
                name += b"/nixos"
            target = self._links.get(name)
            if target is None:
                break
            folder = name.rpartition(b"/")[0]
            name = target.lstrip(b"/") if target.startswith(b"/") else folder + b"/" + target
        match = re.match(_PATH, name)
        # in an environment it is a folder of the channel, otherwise the store path itself
        return "/" + match[0].decode() if match and _word_of_store(match[0]) else None

    def _text(self, name: bytes) -> str | None:
        return _word(self._texts.get(name, b"").strip())

    def _kernel(self, path: bytes) -> str | None:
        modules = self._links.get(path + b"/kernel-modules", b"")
        found = self._kernels.get(modules, set())
        return _word(min(found)) if len(found) == 1 else None

    def _filesystems(self, path: bytes) -> list[str]:
        etc = self._links.get(path + b"/etc", b"")
        text = self._texts.get(self._links.get(etc + b"/fstab", b""), b"")
        kinds = set()
        for line in text.decode("utf-8", "replace").splitlines():
            cells = line.split()
            if len(cells) >= 3 and not cells[0].startswith("#") and cells[2] not in _NO_DISK:
                kinds.add(cells[2])
        return sorted(kind for kind in kinds if _word(kind.encode()))[:32]


def _word_of_store(path: bytes) -> bool:
    return re.fullmatch(rb"nix/store/[a-z0-9]{32}-[A-Za-z0-9+._?=-]{1,207}", path) is not None


def _word(data: bytes) -> str | None:
    """A value that a manifest can hold; a fact that it cannot hold is not known."""
    text = data.decode("ascii", "replace")
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+~()-]{0,127}", text) else None
