"""What a folder or a store holds, in the order of the archive, and GNU tar that reads it."""

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from installer.act.payload.archive import show
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.pack.cutter import END

_PIECE = 1024 * 1024
_END_SECONDS = 60.0

_TAR = (
    *("tar", "--create", "--file=-", "--blocking-factor=256", "--no-recursion"),
    # the default name of an extended header holds the process id; these times change by reading
    *("--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"),
    *("--numeric-owner", "--null", "--verbatim-files-from"),
)
_AS_IT_IS = ("--sparse", "--xattrs", "--xattrs-include=*")
# What a store path is has no owner, time or attribute (Nix manual, "Store object"), and how its
# files are linked or laid out differs from one store to the next.
_AS_A_STORE = ("--owner=0", "--group=0", "--mtime=@1", "--hard-dereference")


@dataclass
class Tree:
    """Names relative to `root`, `.` for itself, as bytes; `links` are second names of `files`.

    `late` has for some folders one symbolic link in it, which comes with the folder's attributes:
    GNU tar makes links that lead out of the tree at its very end, and sets the times of a folder
    once more after that only if such a link follows the folder in the archive
    (src/extract.c: create_placeholder_file).
    """

    root: Path
    store: bool = False
    folders: list[bytes] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    late: dict[bytes, bytes] = field(default_factory=dict)
    left_out: list[tuple[bytes, str]] = field(default_factory=list)
    size: int = 0
    newest: int = 0

    def look(self, top: Iterable[bytes] = (b".",)) -> None:
        """Find everything in and below these names.

        Raises:
            InstallError: `payload.source`.
        """
        try:
            self._look(top)
        except OSError as error:
            shown = os.fsencode(error.filename or self.root)
            raise fail(
                "payload.source",
                f"{show(shown)} cannot be read: {error.strerror}",
                where=str(self.root),
                hint="run this as root: a system holds files that only root reads",
            ) from None
        for names in (self.folders, self.files, self.links):
            names.sort()
        taken = set(self.late.values())
        self.files = [name for name in self.files if name not in taken]

    def _look(self, top: Iterable[bytes]) -> None:
        base = os.fsencode(self.root)
        device = os.stat(base).st_dev  # noqa: PTH116 - bytes
        linked: dict[tuple[int, int], list[bytes]] = {}
        waiting = []
        for name in top:
            status = os.lstat(os.path.join(base, name))  # noqa: PTH118 - bytes
            waiting += self._note(name, status, device, linked)
        while waiting:
            folder = waiting.pop()
            prefix = b"" if folder == b"." else folder + b"/"
            with os.scandir(os.path.join(base, folder)) as entries:  # noqa: PTH118
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    waiting += self._note(prefix + entry.name, status, device, linked)
        for names in linked.values():
            names.sort()
            self.files.append(names[0])
            self.links += names[1:]

    def _note(
        self,
        name: bytes,
        status: os.stat_result,
        device: int,
        linked: dict[tuple[int, int], list[bytes]],
    ) -> list[bytes]:
        """Put a name where it belongs; return it if it is to be looked into."""
        mode = status.st_mode
        kind = _LEFT_OUT.get(stat.S_IFMT(mode))
        if kind is not None:
            self.left_out.append((name, kind))
            return []
        self.newest = max(self.newest, int(status.st_mtime))
        if stat.S_ISDIR(mode):
            self.folders.append(name)
            if status.st_dev == device:
                return [name]
            self.left_out.append((name, "what another file system holds there"))
            return []
        if status.st_nlink > 1 and not self.store:
            identity = (status.st_dev, status.st_ino)
            if identity not in linked:
                self.size += status.st_size
            linked.setdefault(identity, []).append(name)
        else:
            if stat.S_ISLNK(mode):
                self._look_at_link(name)
            self.files.append(name)
            self.size += status.st_size
        return []

    def _look_at_link(self, name: bytes) -> None:
        folder = parent(name)
        if (folder not in self.late or name < self.late[folder]) and leads_out(
            os.readlink(os.path.join(os.fsencode(self.root), name))  # noqa: PTH115, PTH118
        ):
            self.late[folder] = name

    @contextmanager
    def read(self, runner: Runner) -> Iterator[Callable[[], bytes]]:
        """Let GNU tar read files, links and then folders from the inside out.

        Raises:
            InstallError: `payload.changed`, `command.failed` or `tool.missing`.
        """
        with TemporaryFile() as names:
            for group in (self.files, self.links):
                names.writelines(b"./%b\0" % name for name in group)
            for name in reversed(self.folders):
                names.write(b"./%b\0" % name if name != b"." else b".\0")
                if name in self.late:
                    names.write(b"./%b\0" % self.late[name])
            names.seek(0)
            argv = [
                *_TAR,
                *(_AS_A_STORE if self.store else _AS_IT_IS),
                f"--directory={self.root}",
                "--files-from=-",
            ]
            with started(runner, argv, names, f"reading {self.root}") as read:
                yield read


_LEFT_OUT = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
}


@contextmanager
def started(
    runner: Runner, argv: list[str], stdin: BinaryIO, purpose: str
) -> Iterator[Callable[[], bytes]]:
    """Run a program and give what reads its output; it must end well.

    Raises:
        InstallError: `payload.changed`, `command.failed` or `tool.missing`.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as out:
        try:
            program = runner.start(argv, stdin=stdin.fileno(), stdout=writer, purpose=purpose)
        finally:
            os.close(writer)
        with program:
            try:
                yield lambda: out.read(_PIECE)
            except InstallError as error:
                # what it was given is the cause of what came out
                if error.problems[0].code == "payload.truncated" and (code := program.end(1.0)):
                    raise program.failure(code) from None
                raise
            code = program.end(_END_SECONDS)
            words = "\n".join(program.last_words)
            if code == 1 and argv[0] == "tar":
                raise fail(
                    "payload.changed",
                    f"something changed while it was being packed: {words}",
                    where=purpose,
                    hint="pack a copy or a snapshot that nobody writes to",
                )
            if code:
                raise program.failure(code)


def folders_tar(names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a tar of folders that whoever unpacks can write into, and nobody else sees."""
    for name in names:
        yield _member(name, tarfile.DIRTYPE, 0o700, 0)
    yield END


def made_folder(name: bytes, mtime: int) -> bytes:
    """Return the member for a folder that the source does not have but implies: 0755, of root."""
    return _member(name, tarfile.DIRTYPE, 0o755, mtime)


def store_link(name: bytes, target: bytes) -> bytes:
    """Return the member for a symbolic link as it is in a store."""
    return _member(name, tarfile.SYMTYPE, 0o777, 1, target=target)


def parent(name: bytes) -> bytes:
    """Return the folder that holds a name; `.` is the root."""
    return name.rpartition(b"/")[0] or b"."


def leads_out(target: bytes) -> bool:
    """Say whether GNU tar makes a symbolic link to this at its end only."""
    return target.startswith(b"/") or b".." in target.split(b"/")


def file_header(name: bytes, size: int) -> bytes:
    """Return the header of a file of root, 0644, with the time of a store."""
    return _member(name, tarfile.REGTYPE, 0o644, 1, size)


def _member(  # noqa: PLR0917 - in the order of a header
    name: bytes, kind: bytes, mode: int, mtime: int, size: int = 0, target: bytes = b""
) -> bytes:
    # all names alike: GNU tar compares those of folders and of links in them
    path = os.fsdecode(b"./" + name if name != b"." else name)
    info = tarfile.TarInfo(path + ("/" if kind == tarfile.DIRTYPE else ""))
    info.linkname = os.fsdecode(target)
    info.type, info.mode, info.mtime, info.size = kind, mode, mtime, size
    # GNU's long names are bytes; pax has to announce what is no UTF-8, and GNU tar warns of that
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def reader(parts: Iterator[bytes]) -> Callable[[], bytes]:
    """Read from parts; b"" at the end."""
    return lambda: next((part for part in parts if part), b"")
