"""What an archive may do: every member is approved before GNU tar sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from installer.act.payload.archive import (
    COMPONENT_LIMIT,
    NAME_LIMIT,
    Member,
    Stream,
    StreamEndError,
    at,
    next_member,
    padding,
    show,
)
from installer.act.payload.names import LIMIT, FullError, Names
from installer.act.payload.system import System
from installer.model.errors import InstallError, fail
from installer.model.units import MIB, format_bytes

MEMBERS_LIMIT = 2 * LIMIT + 1_000_000
"""Members of an archive, of which folders may come twice: a few minutes, not a few days."""

_PADDING_LIMIT = 64 * MIB
"""Zeros after the end of an archive; a block of GNU tar has mostly 10 KiB."""

_FILE_BLOCK = 4096
_INLINE_TARGET = 59
"""ext4 keeps a symbolic link of up to 59 bytes in its inode (Documentation/filesystems/ext4)."""

_HINT = "do not use this archive; make it again with tar -C ROOT -c . (never with -P)"

_SLASH = ord("/")
_ODD = re.compile(rb"/[/.]")

_Kind = Literal["file", "symbolic link", "directory"]


@dataclass(frozen=True)
class Contents:
    """What a whole archive holds; sizes in bytes, `usage` by mount point."""

    unpacked_size: int
    entries: int
    usage: Mapping[str, int]
    toplevel: str


class Vetting:
    """Knows what the archive made so far, and refuses what may not follow."""

    def __init__(self, capacity: Mapping[str, int], *, count_on: bool) -> None:
        """Take bytes by mount point; with `count_on`, an archive that does not fit is read on
        to say by how much, until it is twice too large."""
        self.usage = dict.fromkeys(capacity, 0)
        self._capacity = dict(capacity)
        self._slack = 2 if count_on else 1
        self._mounts = sorted(
            ((mount.strip("/").encode(), mount) for mount in capacity),
            key=lambda row: len(row[0]),
            reverse=True,
        )
        self._below = {
            b"/".join(prefix.split(b"/")[:depth]): mount
            for prefix, mount in self._mounts
            for depth in range(1, prefix.count(b"/") + 2)
        }
        self._made = Names(get_args(_Kind))
        self._folder = b""
        self._folder_mount = self._mount_of(b"")

    def approve(self, member: Member) -> bytes:
        """Return the member's name without `./` and the like, or refuse it.

        Raises:
            InstallError: `payload.hostile`, `payload.format` or `payload.too-large`.
        """
        name = self._clean(member.name, member)
        self._approve(member, name, name.rpartition(b"/")[0], self._made.get(name))
        return name

    def _approve(self, member: Member, name: bytes, folder: bytes, before: str | None) -> None:
        """See `approve`; `name` is the clean one, `before` as what it was made."""
        if name and folder != self._folder:
            self._through(folder, member)
            self._folder, self._folder_mount = folder, self._mount_of(folder)
        kind = self._kind(member)
        if not name and kind != "directory":
            raise _hostile(member, "would replace the root of the system")
        if kind != "directory" and name in self._below:
            # tar would find a folder in its place, but only after the disk was erased
            raise _odd(member, f"is a {kind}, and a file system is mounted at {self._below[name]}")
        if before is not None:
            self._again(member, before, kind)
        self._put(name, kind, member)
        # a payload of ours names every folder twice: first to make it, last for its attributes
        if not before == kind == "directory":
            self._count(member, name)

    @staticmethod
    def _again(member: Member, before: str, kind: _Kind) -> None:
        said = f"comes a second time: first as {before}, now as {kind}"
        if "symbolic link" in (before, kind):
            raise _hostile(member, said)
        if before != kind:
            raise _odd(member, said)

    def too_large(self) -> InstallError | None:
        """Say what does not fit, if anything."""
        over = {
            mount: self.usage[mount] - limit
            for mount, limit in self._capacity.items()
            if self.usage[mount] > limit
        }
        if not over:
            return None
        return fail(
            "payload.too-large",
            "; ".join(
                f"the unpacked payload needs {format_bytes(self.usage[mount])} on {mount}, "
                f"which takes {format_bytes(self._capacity[mount])}: "
                f"{'' if self._complete else 'at least '}{format_bytes(count)} too much"
                for mount, count in over.items()
            ),
            where="disks",
            hint="make the file system larger, or the payload smaller",
        )

    _complete = False

    def complete(self) -> None:
        """Say that the whole archive was seen. Raises InstallError: `payload.too-large`."""
        self._complete = True
        if error := self.too_large():
            raise error

    def _clean(self, path: bytes, member: Member) -> bytes:
        if len(path) <= COMPONENT_LIMIT:
            name = path.removeprefix(b"./")
            if member.kind == "directory":
                name = name.removesuffix(b"/")
            # nearly all names are like this, and need not be taken apart
            if name and name[0] not in b"./" and name[-1] != _SLASH and not _ODD.search(name):
                return name
        if path.startswith(b"/"):
            raise _hostile(member, f"has the absolute path {show(path)}")
        if not path or len(path) > NAME_LIMIT:
            raise _odd(member, f"has a name of {len(path)} bytes (1 to {NAME_LIMIT} are possible)")
        if path.endswith(b"/") and member.kind != "directory":
            # BSD's old way to mark a folder, which GNU tar still follows
            raise _odd(member, f"is a {member.kind} with a slash at the end")
        parts = path.split(b"/")
        if b".." in parts:
            raise _hostile(member, f"leads through .. ({show(path)})")
        if b"" in parts or b"." in parts:
            parts = [part for part in parts if part not in (b"", b".")]
        if len(path) > COMPONENT_LIMIT and any(len(part) > COMPONENT_LIMIT for part in parts):
            raise _odd(member, f"has a part of more than {COMPONENT_LIMIT} bytes")
        return b"/".join(parts)

    def _put(self, name: bytes, kind: _Kind, member: Member) -> None:
        try:
            self._made.put(name, kind)
        except FullError:
            raise fail(
                "payload.too-large",
                f"the archive holds more than {LIMIT} names",
                where=at(member.offset),
                hint="leave out of the payload what the system does not need to boot",
            ) from None

    def _through(self, folder: bytes, member: Member) -> None:
        """Refuse a path that leads through a link; remember the folders that it implies."""
        known = self._folder + b"/"
        # what is above the folder of the member before was looked at then
        while folder and not known.startswith(folder + b"/"):
            kind = self._made.get(folder)
            if kind is None:
                self._put(folder, "directory", member)
            elif kind == "symbolic link":
                raise _hostile(
                    member, f"leads through {show(folder)}, a symbolic link of the archive"
                )
            elif kind != "directory":
                raise _odd(member, f"leads through {show(folder)}, a {kind} of the archive")
            folder = folder.rpartition(b"/")[0]

    def _kind(self, member: Member) -> _Kind:
        if member.kind == "hard link":
            target = self._clean(member.target, member)
            self._through(target.rpartition(b"/")[0], member)
            kind = self._made.get(target)
            # Nix's store optimiser links symbolic links too
            if kind is None or kind == "directory":
                raise _hostile(
                    member,
                    f"is a hard link to {show(member.target)}, which is no earlier file of "
                    "the archive",
                )
            return cast("_Kind", kind)
        if member.kind == "file" and member.mode & 0o6000:
            raise _hostile(
                member,
                "is a file with set-user-ID or set-group-ID "
                f"(mode {member.mode:04o}); a NixOS makes those at boot, in /run/wrappers, and has "
                "none on its disk",
            )
        if member.kind == "symbolic link" and (
            not member.target or len(member.target) > NAME_LIMIT
        ):
            raise _odd(member, f"is a symbolic link to {len(member.target)} bytes")
        return member.kind

    def _mount_of(self, name: bytes) -> str | None:
        for prefix, mount in self._mounts:
            if not prefix or name == prefix or name.startswith(prefix + b"/"):
                return mount
        return None

    def _count(self, member: Member, name: bytes) -> None:
        mount = self._folder_mount
        size = 0
        if member.kind == "file":
            size = member.stored + -member.stored % _FILE_BLOCK
        elif member.kind == "directory":
            size, mount = _FILE_BLOCK, self._mount_of(name)
        elif member.kind == "symbolic link" and len(member.target) > _INLINE_TARGET:
            size = _FILE_BLOCK
        if mount is None:
            return
        self.usage[mount] += size
        if self.usage[mount] > self._slack * self._capacity[mount]:
            error = self.too_large()
            assert error is not None  # noqa: S101 - for the type checker
            raise error


def vet(
    stream: Stream, capacity: Mapping[str, int], toplevel: str | None, *, count_on: bool
) -> Contents:
    """Read an archive to its end; forward each member after it was approved.

    Raises:
        InstallError: `payload.format`, `payload.truncated`, `payload.hostile`,
            `payload.too-large` or `payload.not-nixos`.
    """
    vetting = Vetting(capacity, count_on=count_on)
    system = System(toplevel)
    entries = unpacked = 0
    name = b""
    try:
        while (member := next_member(stream)) is not None:
            name = vetting.approve(member)
            system.saw(name, member.kind)
            entries += 1
            if entries > MEMBERS_LIMIT:
                raise fail(
                    "payload.too-large",
                    f"the archive holds more than {MEMBERS_LIMIT} members",
                    where=at(member.offset),
                    hint="make the archive again: many members of it have the same name",
                )
            unpacked += member.stored
            stream.approve()
            stream.skip(member.stored + padding(member.stored))
        stream.approve()
    except StreamEndError:
        raise fail(
            "payload.truncated",
            "the archive ends in the middle"
            + (f", in or after {show(name)}" if name else "")
            + ": its end-of-archive marker is missing",
            where=at(stream.offset),
            hint="make the archive again, or copy it to the server again",
        ) from None
    end = stream.offset
    while piece := stream.rest():
        if stream.offset - end > _PADDING_LIMIT:
            raise fail(
                "payload.format",
                f"more than {format_bytes(_PADDING_LIMIT)} of zeros follow the end of the archive",
                where=at(end),
                hint="make the archive again; compressed zeros can take hours to read",
            )
        if piece.strip(b"\0"):
            offset = stream.offset - len(piece.lstrip(b"\0"))
            raise fail(
                "payload.format",
                "something other than zeros follows the end of the archive "
                "(a second archive, or a damaged header)",
                where=at(offset),
                hint="make the archive again, in one piece",
            )
    vetting.complete()
    return Contents(unpacked, entries, vetting.usage, system.check())


def _hostile(member: Member, what: str) -> InstallError:
    return fail(
        "payload.hostile",
        f"the archive's member {show(member.name)} {what}",
        where=at(member.offset),
        hint=_HINT,
    )


def _odd(member: Member, what: str) -> InstallError:
    return fail(
        "payload.format",
        f"the archive's member {show(member.name)} {what}",
        where=at(member.offset),
        hint="make the archive again",
    )
