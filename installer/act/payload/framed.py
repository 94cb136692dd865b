"""What the frames of a packed payload may do: each vetted on its own, with what all have made.

Frames of one kind are unpacked at the same time and in any order, so what one of them may do must
not depend on the others of its kind: every name comes once, and folders are there before.
"""

import threading
from collections.abc import Callable, Mapping

from installer.act.payload.archive import (
    Member,
    Piece,
    Stream,
    StreamEndError,
    next_member,
    padding,
    show,
)
from installer.act.payload.names import Names
from installer.act.payload.system import System
from installer.act.payload.vetting import MEMBERS_LIMIT, Contents, Vetting
from installer.model.errors import InstallError, fail
from installer.model.manifest import Frame, Kind, Manifest

_HINT = "pack it again with netinstall payload pack"


class Framed:
    """What all frames made so far; `vet` is called by several threads at once."""

    def __init__(self, manifest: Manifest, capacity: Mapping[str, int], toplevel: str | None):
        """Raises InstallError: `payload.too-large`."""
        if manifest.archive.entries > MEMBERS_LIMIT:
            raise fail(
                "payload.too-large",
                f"the manifest announces {manifest.archive.entries} members, at most "
                f"{MEMBERS_LIMIT} are possible",
                where="payload.manifest",
                hint="make the payload smaller",
            )
        self._manifest = manifest
        self._capacity = capacity
        self._system = System(toplevel)
        self._lock = threading.Lock()
        self._first = _Shared(capacity, None)
        self._linked = Names(("file",))
        self._unpacked = 0

    def vet(
        self, number: int, read: Callable[[], Piece], forward: Callable[[memoryview], object]
    ) -> None:
        """Read the unpacked bytes of a frame; forward each member after it was approved.

        Raises:
            InstallError: `payload.format`, `payload.hostile` or `payload.too-large`.
        """
        frames = self._manifest.frames
        frame, last = frames[number], number == len(frames) - 1
        vetting = _Shared(self._capacity, self._first)
        stream = Stream(_Counted(read, frame, number).read, forward)
        # what is made in a folder with set-group-ID has the folder's group (inode(7))
        owned = self._manifest.archive.root_owned and frame.kind in ("folders", "files")
        entries = contents = 0
        ended = False
        while stream.offset < frame.unpacked:
            try:
                member = next_member(stream)
                if member is None:
                    ended = True
                    break
                whole = member.stored + padding(member.stored)
                if stream.offset + whole > frame.unpacked:
                    raise odd(number, f"ends in the middle of {show(member.name)}")
                if not fits(member, frame.kind):
                    raise odd(number, f"holds {show(member.name)}, a {member.kind}")
                if owned and not (member.of_root and member.mode & 0o2000 == 0):
                    raise odd(
                        number,
                        f"holds {show(member.name)}, which would not belong to root and its group",
                    )
                with self._lock:
                    self._approve(vetting, frame.kind, number, member)
                entries += 1
                contents += member.stored
                stream.approve()
                stream.skip(whole)
            except StreamEndError:
                raise odd(number, "ends in the middle of a member") from None
        if ended != last or stream.offset != frame.unpacked:
            raise odd(number, "has the end of the archive in it" if ended else "lacks its end")
        stream.approve()
        if stream.rest():
            raise odd(number, "goes on after its end")
        if entries != frame.entries:
            raise odd(number, f"holds {entries} members, announced are {frame.entries}")
        with self._lock:
            self._unpacked += contents

    def contents(self) -> Contents:
        """Say what all frames held, after the last. Raises InstallError: `payload.not-nixos`."""
        return Contents(
            self._unpacked,
            self._manifest.archive.entries,
            self._first.usage,
            self._system.check(),
        )

    def _approve(self, vetting: "_Shared", kind: Kind, number: int, member: Member) -> None:
        name = vetting.approve_in(kind, number, member)
        if kind == "links":
            # which of two links is there first is a matter of luck
            if self._linked.get(vetting.target(member)) is not None:
                raise odd(number, f"links {show(member.name)} to what is a link itself")
            self._linked.put(name, "file")
        self._system.saw(name, member.kind)


class _Shared(Vetting):
    """A thread's view of what all have made; `approve_in` is called with the lock held."""

    def __init__(self, capacity: Mapping[str, int], first: "_Shared | None") -> None:
        super().__init__(capacity, count_on=False)
        if first is not None:
            self._made, self.usage = first._made, first.usage  # noqa: SLF001 - the same class

    def approve_in(self, kind: Kind, number: int, member: Member) -> bytes:
        """Approve a member of a frame of this kind, and return its name; see `Vetting.approve`."""
        name = self._clean(member.name, member)
        before = self._made.get(name)
        if kind == "attributes" and member.kind == "directory":
            if name and before != "directory":
                raise odd(number, f"holds {show(name)}, which no frame of folders made")
        elif before is not None and kind != "folders":
            raise odd(number, f"holds {show(name)} a second time")
        folder = name.rpartition(b"/")[0]
        # the folder of the member before was looked at then
        if kind != "folders" and folder not in (b"", self._folder) and not self._made.get(folder):
            raise odd(number, f"holds {show(name)} in a folder that no frame of folders made")
        self._approve(member, name, folder, before)
        return name

    def target(self, member: Member) -> bytes:
        """The name that a hard link leads to, without `./` and the like."""
        return self._clean(member.target, member)


class _Counted:
    """The unpacked bytes of a frame, and never more than were announced."""

    def __init__(self, read: Callable[[], Piece], frame: Frame, number: int) -> None:
        self._read = read
        self._left = frame.unpacked
        self._number = number

    def read(self) -> Piece:
        piece = self._read()
        self._left -= len(piece)
        if self._left < 0 or (not piece and self._left):
            raise odd(
                self._number,
                "unpacks to " + ("more" if self._left < 0 else "less") + " than was announced",
            )
        return piece


def fits(member: Member, kind: Kind) -> bool:
    """Say whether a member may be in a frame of this kind."""
    match member.kind:
        case "directory":
            return kind in ("folders", "attributes")
        case "hard link":
            return kind == "links"
        case "symbolic link":
            return kind in ("files", "attributes")
        case _:
            return kind == "files"


def odd(number: int, what: str) -> InstallError:
    """Make the error for a frame whose contents are not what the manifest says."""
    return fail(
        "payload.format",
        f"the archive is not what its manifest says: frame {number} {what}",
        where="payload.manifest",
        hint=_HINT,
    )
