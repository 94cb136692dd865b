"""An existing tarball in the order of a payload: read twice, never unpacked, never held whole."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile

from installer.act.payload.archive import Member, Stream, StreamEndError, next_member, padding, show
from installer.act.payload.compression import HEAD, recognise
from installer.act.payload.vetting import Vetting
from installer.act.run import Runner
from installer.model.errors import fail
from installer.model.units import MIB
from installer.pack.cutter import END
from installer.pack.tree import leads_out, made_folder, parent, started

_PIECE = MIB
_IN_MEMORY = 64 * MIB


class Tarball:
    """Members of a tarball by kind. The first reading finds folders and checks everything."""

    def __init__(self, path: Path, runner: Runner) -> None:
        """Read it once.

        Raises:
            InstallError: `payload.source`, `payload.format`, `payload.hostile`,
                `payload.truncated`, `command.failed` or `tool.missing`.
        """
        self._path = path
        self._runner = runner
        self.newest = int(path.stat().st_mtime)
        self.size = 0
        self._folders: dict[bytes, tuple[int, int]] = {}
        self._implied: set[bytes] = set()
        self._late: dict[bytes, tuple[int, int, int]] = {}
        self._raw = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - lives as long as this
        self._scan()

    @property
    def folders(self) -> list[bytes]:
        """Every folder, also those that are only implied, outer ones first; `.` is the root."""
        return sorted(name or b"." for name in {*self._folders, *self._implied})

    def files(self) -> Generator[bytes, None, None]:
        """Yield a tar of files and symbolic links, then of hard links, as they are written."""
        with SpooledTemporaryFile(_IN_MEMORY) as links, self._open() as read:
            late = {offset for offset, _, _ in self._late.values()}
            pieces: list[bytes] = []
            stream = Stream(read, lambda data: pieces.append(bytes(data)))
            while (member := self._next(stream)) is not None:
                stream.approve()
                stream.flush()
                left = member.stored + padding(member.stored)
                while True:
                    if member.kind == "hard link":
                        links.write(b"".join(pieces))
                    elif member.kind != "directory" and member.offset not in late:
                        yield b"".join(pieces)
                    pieces.clear()
                    if not left:
                        break
                    step = min(left, _PIECE)
                    stream.skip(step)
                    stream.flush()
                    left -= step
            links.seek(0)
            while piece := links.read(_PIECE):
                yield piece
        yield END

    def attributes(self) -> Iterator[bytes]:
        """Yield a tar of the folders from the inside out, as they are written."""
        for name in reversed(self.folders):
            place = self._folders.get(b"" if name == b"." else name)
            yield self._copy(place) if place else made_folder(name, self.newest)
            if late := self._late.get(name):
                yield self._copy((late[1], late[2]))
        yield END

    def _scan(self) -> None:
        vetting = Vetting({"/": 2**62}, count_on=False)
        seen: set[int] = set()
        candidates: dict[bytes, list[tuple[bytes, tuple[int, int, int]]]] = {}
        linked: set[bytes] = set()
        with self._open() as read:
            pieces: list[bytes] = []
            stream = Stream(read, lambda data: pieces.append(bytes(data)))
            while (member := self._next(stream)) is not None:
                name = vetting.approve(member)
                stream.approve()
                stream.flush()
                if member.kind == "directory":
                    self._folders[name] = self._keep(pieces)
                elif hash(name) in seen:
                    raise fail(
                        "payload.source",
                        f"{show(name)} comes twice in {self._path}, and frames have no order",
                        where=str(self._path),
                        hint="unpack the archive as root, and pack the folder",
                    )
                else:
                    seen.add(hash(name))
                    if member.kind == "hard link":
                        linked.add(clean(member.target))
                    elif member.kind == "symbolic link" and leads_out(member.target):
                        found = (name, (member.offset, *self._keep(pieces)))
                        candidates.setdefault(parent(name), []).append(found)
                self._implied.update(_parents(name))
                pieces.clear()
                self.size += member.stored
                whole = member.stored + padding(member.stored)
                while whole:
                    stream.skip(step := min(whole, _PIECE))
                    stream.flush()
                    pieces.clear()
                    whole -= step
        for folder, links in candidates.items():
            # what hard links lead to must be there before them
            for name, place in links:
                if name not in linked:
                    self._late[folder] = place
                    break

    def _keep(self, pieces: list[bytes]) -> tuple[int, int]:
        place = self._raw.tell()
        return place, self._raw.write(b"".join(pieces))

    def _copy(self, place: tuple[int, int]) -> bytes:
        self._raw.seek(place[0])
        return self._raw.read(place[1])

    def _next(self, stream: Stream) -> Member | None:
        try:
            member = next_member(stream)
        except StreamEndError:
            raise fail(
                "payload.truncated",
                f"{self._path} ends in the middle",
                where=str(self._path),
                hint="make the archive again, or copy it again",
            ) from None
        if member is None:
            while piece := stream.rest():
                if piece.strip(b"\0"):
                    raise fail(
                        "payload.format",
                        f"something other than zeros follows the end of {self._path}",
                        where=str(self._path),
                        hint="make the archive again, in one piece",
                    )
        return member

    @contextmanager
    def _open(self) -> Iterator[Callable[[], bytes]]:
        with self._path.open("rb", buffering=0) as file:
            known = recognise(file.read(HEAD), str(self._path))
            file.seek(0)
            if known is None:
                yield lambda: file.read(_PIECE)
            else:
                purpose = f"decompressing {self._path}"
                with started(self._runner, list(known.argv), file, purpose) as read:
                    yield read


def clean(path: bytes) -> bytes:
    """Return a name without `./` and the like, as vetting does."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _parents(name: bytes) -> Iterator[bytes]:
    while b"/" in name:
        name = name.rpartition(b"/")[0]
        yield name
