"""What makes an archive a NixOS system: a registration of its store paths, and one toplevel."""

import os
import re
from pathlib import Path

from installer.model.errors import InstallError, fail
from installer.model.plan import PAYLOAD_REGISTRATION

PARTS = ("init", "nixos-version", "bin/switch-to-configuration")
"""What a toplevel holds (nixpkgs, nixos/modules/system/activation/top-level.nix)."""

_LIMIT = 10_000

_PART = re.compile(
    rb"(nix/store/[0-9a-df-np-sv-z]{32}-[^/]+)/(init|nixos-version|bin/switch-to-configuration)"
)
_ENDS = tuple(b"/" + part.encode() for part in PARTS)
_TOPLEVEL = re.compile(rb"nix/store/[0-9a-df-np-sv-z]{32}-nixos-system-[^/]+")


class System:
    """Sees the members pass and says at the end which system they are."""

    def __init__(self, wanted: str | None) -> None:
        """Take the toplevel that must be there, or None for the only one."""
        self._wanted = wanted
        self._registration = False
        self._store = False
        self._found: dict[bytes, set[str]] = {}

    def saw(self, name: bytes, kind: str) -> None:
        """Take notice of a member; `name` is relative to the root."""
        if not name.startswith(b"nix/store/"):
            if name == PAYLOAD_REGISTRATION.encode() and kind in ("file", "hard link"):
                self._registration = True
            return
        self._store = True
        if kind == "directory":
            if _TOPLEVEL.fullmatch(name):
                self._parts(name)
        elif name.endswith(_ENDS) and (match := _PART.fullmatch(name)):
            self._parts(match[1]).add(match[2].decode())

    def _parts(self, path: bytes) -> set[str]:
        if path not in self._found and len(self._found) == _LIMIT:
            raise _no_system(f"it holds more than {_LIMIT} paths that look like a system")
        return self._found.setdefault(path, set())

    def check(self) -> str:
        """Return the toplevel as an absolute path.

        Raises:
            InstallError: `payload.not-nixos`, saying what is missing or which ones there are.
        """
        if not self._store:
            raise _no_system(
                f"it holds no store (nix/store) and "
                f"{'only ' if self._registration else 'no '}{PAYLOAD_REGISTRATION}"
            )
        if not self._registration:
            raise _no_system(f"it holds no {PAYLOAD_REGISTRATION} at its root")
        whole = {
            "/" + path.decode("utf-8", "backslashreplace"): sorted(set(PARTS) - parts)
            for path, parts in self._found.items()
            if self._wanted is not None or _TOPLEVEL.fullmatch(path)
        }
        if self._wanted is not None:
            if self._wanted not in whole:
                systems = sorted(path for path in whole if "-nixos-system-" in path)
                raise _no_system(
                    f"it does not hold {self._wanted}" + _listed("; it holds", systems),
                    where="system.toplevel",
                )
            whole = {self._wanted: whole[self._wanted]}
        complete = sorted(path for path, missing in whole.items() if not missing)
        if len(complete) == 1:
            return complete[0]
        if complete:
            raise fail(
                "payload.not-nixos",
                f"the payload holds {len(complete)} NixOS systems:" + _listed("", complete),
                where="system.toplevel",
                hint='say which one: toplevel = "…" below [system]',
            )
        if not whole:
            raise _no_system("it holds no toplevel (/nix/store/…-nixos-system-…)")
        path, missing = min(whole.items(), key=lambda item: len(item[1]))
        raise _no_system(f"{path} lacks {', '.join(missing)}")


def installed_system(root: Path, wanted: str | None, *, registered: bool = False) -> str:
    """Return the toplevel of a system that lies unpacked below `root`, as an absolute path.

    Args:
        root: of the new system.
        wanted: the toplevel that must be there, or None for the only one.
        registered: Nix's database knows the store paths already.

    Raises:
        InstallError: `payload.not-nixos`, or `payload.hostile` if the store is behind a link.
    """
    system = System(wanted)
    registration = root / PAYLOAD_REGISTRATION
    if registered or (registration.is_file() and not registration.is_symlink()):
        system.saw(PAYLOAD_REGISTRATION.encode(), "file")
    for folder in ("nix", "nix/store"):
        if (root / folder).is_symlink():
            raise fail(
                "payload.hostile",
                f"{folder} is a symbolic link in the payload",
                where=f"{root / folder} (it leads to {(root / folder).readlink()})",
                hint="the payload must hold a plain folder there",
            )
    store = root / "nix/store"
    names = sorted(os.listdir(os.fsencode(store))) if store.is_dir() else []  # noqa: PTH208
    for name in names:
        inside = b"nix/store/" + name
        path = os.fsencode(root) + b"/" + inside
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - bytes
            system.saw(inside, "directory")
            for part in PARTS:
                if os.path.lexists(path + b"/" + part.encode()):
                    system.saw(inside + b"/" + part.encode(), "file")
        else:
            system.saw(inside, "file")
    return system.check()


def _listed(lead: str, paths: list[str]) -> str:
    return lead + "".join(f"\n    {path}" for path in paths) if paths else ""


def _no_system(what: str, *, where: str = "payload") -> InstallError:
    return fail(
        "payload.not-nixos",
        f"the payload is no NixOS system: {what}",
        where=where,
        hint="make it of a system's closure and its registration "
        "(nix-store --dump-db, or closureInfo's registration)",
    )
