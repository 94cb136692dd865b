"""A squashfs: fetched to the target's disk if need be, hashed, looked through, then unpacked.

Two kinds are known by what lies at their root: a whole root file system (`nix/`), and a Nix store
as netboot images have it (`HASH-name` and `nix-path-registration`; nixpkgs,
nixos/lib/make-squashfs.nix).

Superblock: <https://dr-emann.github.io/squashfs/squashfs.html>, 2.
"""

import contextlib
import errno
import hashlib
import os
import re
import select
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from installer.act.holders import mounted_from
from installer.act.narrator import Narrator
from installer.act.payload import Inventory
from installer.act.payload.archive import show
from installer.act.payload.source import Patience, open_source
from installer.act.payload.system import installed_system
from installer.act.run import Program, Runner
from installer.act.trouble import full, hopeless, no_room
from installer.model.errors import InstallError, fail
from installer.model.payload_steps import CheckSquashfs, UnpackSquashfs
from installer.model.plan import PAYLOAD_REGISTRATION
from installer.model.units import format_bytes, format_seconds

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQ")
_COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

_LINE = re.compile(
    rb"([-dlcbps])([-r][-w][-xsS][-r][-w][-xsS][-r][-w][-xtT]) \S+ .*? "
    rb"\d{4,}-\d\d-\d\d \d\d:\d\d squashfs-root(?:/(.*))?",
    re.DOTALL,
)
_STORE_NAME = re.compile(rb"[0-9a-df-np-sv-z]{32}-[^/]+")
_SPECIAL = {
    b"c": "a character device",
    b"b": "a block device",
    b"p": "a FIFO",
    b"s": "a socket",
}
_DOWNLOAD = ".netinstall-download"
_LIST_SECONDS = 600.0
_PIECE = 64 * 1024
_TICK = 0.25
_DAMAGED = re.compile("corrupt|compress|read|superblock", re.IGNORECASE)

_Kind = Literal["root", "store"]


@dataclass(frozen=True)
class _Superblock:
    inodes: int
    used: int
    compression: str


def check(
    step: CheckSquashfs, narrator: Narrator, runner: Runner, *, patience: Patience | None = None
) -> None:
    """Read a squashfs that lies on a path, and look through it; nothing is written.

    Raises:
        InstallError: see `unpack`.
    """
    work = _Work(step, Path("/"), runner, narrator, patience or Patience())
    with work.image() as (path, _, size):
        work.superblock(path, size)
        work.look_through(path)


def unpack(
    step: UnpackSquashfs,
    target: Path,
    runner: Runner,
    narrator: Narrator,
    *,
    patience: Patience | None = None,
) -> Inventory:
    """Unpack a squashfs into the target with all processors.

    Args:
        step: what to unpack.
        target: the root of the new system, with its file systems mounted below.
        runner: `on_line` is told what unsquashfs says.
        narrator: is told the progress: half of it is reading the file, half is unpacking it.
        patience: for tests.

    Raises:
        InstallError: `payload.not-found`, `payload.hash`, `payload.truncated`, `payload.format`,
            `payload.hostile`, `payload.too-large`, `payload.changed`, `payload.not-nixos`,
            `network.…`, `device.io`, `tool.missing`, `command.failed`, `command.timeout`.
    """
    work = _Work(step, target, runner, narrator, patience or Patience())
    with work.image() as (path, sha256, size):
        before = path.stat()
        superblock = work.superblock(path, size)
        kind = work.look_through(path)
        work.unpack(path, superblock, size, kind)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise fail(
                "payload.changed",
                f"{work.shown} changed while it was being unpacked",
                where="payload.squashfs",
                hint="start again; give each version of a payload a name of its own",
            )
    if kind == "store":
        _settle(target)
    toplevel = installed_system(target, step.toplevel)
    return Inventory(sha256, size, 0, superblock.inodes, {}, toplevel)


class _Work:
    def __init__(
        self,
        step: UnpackSquashfs | CheckSquashfs,
        target: Path,
        runner: Runner,
        narrator: Narrator,
        patience: Patience,
    ) -> None:
        self._step = step
        self._target = target
        self._runner = runner
        self._narrator = narrator
        self._patience = patience
        self._source = open_source(
            step.source,
            step.retry_seconds,
            patience,
            lambda text: narrator.say(text, "warning"),
        )
        self._progress: Callable[[int], None] | None = None
        self.shown = self._source.shown

    @contextlib.contextmanager
    def image(self) -> Iterator[tuple[Path, str, int]]:
        """Give the verified file, its SHA-256 and its size; what was downloaded is removed."""
        if self._step.source.startswith("/"):
            path = Path(self._step.source)
            yield path, *self._read(None)
            return
        folder = _roomiest(self._step.capacity, self._target) / _DOWNLOAD
        folder.mkdir(mode=0o700)
        try:
            path = folder / "image"
            with path.open("xb") as out:
                try:
                    found = self._read(out.write)
                    out.flush()
                except OSError as error:
                    raise self._io(error, folder) from None
            yield path, *found
        finally:
            shutil.rmtree(folder)

    def _read(self, write: Callable[[bytes], object] | None) -> tuple[str, int]:
        """Read it once to its end, and keep it if asked to; compare the hash."""
        sha256, done = hashlib.sha256(), 0
        for chunk in self._source.chunks():
            if self._progress is None:
                total = self._source.total
                # unpacking is the other half
                twice = 2 if isinstance(self._step, UnpackSquashfs) else 1
                self._progress = self._narrator.progress(None if total is None else twice * total)
            sha256.update(chunk)
            if write is not None:
                write(chunk)
            done += len(chunk)
            self._progress(done)
        digest = sha256.hexdigest()
        if self._step.sha256 not in (None, digest):
            raise fail(
                "payload.hash",
                f"{self.shown} is not the announced payload: its SHA-256 is {digest}, announced "
                f"was {self._step.sha256} ({done} bytes were read)",
                where="payload.sha256",
                hint="announce the SHA-256 of this file (sha256sum), or serve the file that was "
                "meant",
            )
        return digest, done

    def superblock(self, path: Path, size: int) -> _Superblock:
        """Read what the image says of itself."""
        with path.open("rb") as file:
            data = file.read(_SUPERBLOCK.size)
        magic = data[:4]
        if magic != b"hsqs" or len(data) < _SUPERBLOCK.size:
            raise fail(
                "payload.format",
                f"{self.shown} is no squashfs: it begins with {show(data[:16])!r}",
                where="payload.squashfs",
                hint="a tarball is given as url or path; a squashfs is made by mksquashfs 4.0 or "
                "newer",
            )
        _, inodes, _, _, _, compression, _, _, _, major, _, _, used = _SUPERBLOCK.unpack(data)
        if major != 4:
            raise fail(
                "payload.format",
                f"{self.shown} is a squashfs of version {major}, only 4 is understood",
                where="payload.squashfs",
                hint="make it again with a mksquashfs of this century",
            )
        if used > size:
            raise fail(
                "payload.truncated",
                f"{self.shown} has {size} bytes, and its superblock says {used}",
                where="payload.squashfs",
                hint="copy the squashfs to the server again",
            )
        return _Superblock(inodes, used, _COMPRESSIONS.get(compression, f"number {compression}"))

    def look_through(self, path: Path) -> _Kind:
        """Look at all names before anything is written.

        A name may hold line breaks and so pretend to be another entry, but a real one always
        begins a line: nothing hides, and who pretends is refused.
        """
        whole_root = store = False
        for line in self._lines(["unsquashfs", "-llnumeric", str(path)], "looking through"):
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            name = match[3] or b""
            if match[1] in _SPECIAL:
                raise self._hostile(name, f"is {_SPECIAL[match[1]]}")
            if match[1] == b"-" and set(match[2]) & set(b"sS"):
                raise self._hostile(
                    name,
                    "is a file with set-user-ID or set-group-ID; a NixOS makes those at boot, in "
                    "/run/wrappers, and has none on its disk",
                )
            whole_root = whole_root or (match[1] == b"d" and name == b"nix")
            store = store or _STORE_NAME.fullmatch(name) is not None
        if not whole_root and not store:
            raise fail(
                "payload.not-nixos",
                f"{self.shown} holds neither a folder nix nor store paths at its root",
                where="payload.squashfs",
                hint="give the nix-store.squashfs of a netboot image, or one of a whole root",
            )
        return "root" if whole_root else "store"

    def unpack(self, path: Path, superblock: _Superblock, size: int, kind: _Kind) -> None:
        """Run unsquashfs; the number of names that it tells says how far it is."""
        place = self._target / "nix/store" if kind == "store" else self._target
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        # it takes as much memory as it finds otherwise; these are MiB
        memory = ("-data-queue", "64", "-frag-queue", "64")
        argv = ["unsquashfs", "-no-progress", "-info", "-strict-errors", "-force", *memory]
        count = 0
        for _ in self._lines([*argv, "-dest", str(place), str(path)], "unpacking", place):
            count = min(count + 1, superblock.inodes)
            if self._progress is not None and count % 64 == 0:
                self._progress(size + size * count // max(superblock.inodes, 1))
        if self._progress is not None:
            self._progress(2 * size)

    def _lines(self, argv: list[str], purpose: str, place: Path | None = None) -> Iterator[bytes]:
        """Yield the lines that a program prints; it must end well, and go on until then."""
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as out:
            try:
                program = self._runner.start(argv, stdout=writer, purpose=f"{purpose} {self.shown}")
            finally:
                os.close(writer)
            with program:
                rest = b""
                while piece := self._piece(out.fileno(), place, purpose):
                    *lines, rest = (rest + piece).split(b"\n")
                    yield from lines
                    # no entry has a longer name; what goes on without a line break is no entry
                    rest = rest[-_PIECE:]
                code = program.end(self._patience.stuck)
                if code:
                    raise self._failure(program, code)

    def _piece(self, descriptor: int, place: Path | None, purpose: str) -> bytes:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        begun, free = time.monotonic(), _free(place)
        while not poll.poll(_TICK * 1000):
            # one large file is one line at its beginning
            if _free(place) != free:
                begun, free = time.monotonic(), _free(place)
            elif time.monotonic() - begun > self._patience.stuck:
                raise fail(
                    "command.timeout",
                    f"unsquashfs did nothing for {format_seconds(self._patience.stuck)}",
                    where=f"{purpose} {self.shown}",
                    hint="the kernel's log (dmesg) tells of a disk that does not answer",
                )
        return os.read(descriptor, _PIECE)

    def _failure(self, program: Program, code: int) -> InstallError:
        words = " ".join(program.last_words)
        if full(program.last_words):
            return no_room(
                self._target,
                self._step.capacity,
                program.last_words,
                where=f"unpacking {self.shown}"
                + ("" if self._step.source.startswith("/") else ", which lies there meanwhile"),
            )
        # what cannot be written is not the image's fault: "Read-only file system"
        if code == 1 and not hopeless(program.last_words) and _DAMAGED.search(words):
            return fail(
                "payload.format",
                f"{self.shown} is damaged, or of a kind that unsquashfs does not know: {words}",
                where="payload.squashfs",
                hint="make the squashfs again, or copy it to the server again",
            )
        return program.failure(code)

    def _hostile(self, name: bytes, what: str) -> InstallError:
        return fail(
            "payload.hostile",
            f"{show(name)} of {self.shown} {what}",
            where="payload.squashfs",
            hint="leave out what is no file, folder or link (mksquashfs … -e dev run)",
        )

    def _io(self, error: OSError, folder: Path) -> InstallError:
        if error.errno == errno.ENOSPC:
            size = self._source.total
            return fail(
                "payload.too-large",
                f"no space left for the download of {self.shown}"
                + (f" ({format_bytes(size)})" if size else ""),
                where=f"{folder.parent} ({mounted_from(folder.parent) or 'no disk'})",
                hint="make the file system larger; a downloaded squashfs needs room beside what "
                "it unpacks to",
            )
        return fail(
            "device.io",
            f"writing {folder} failed: {error.strerror}",
            where=self.shown,
            hint="the kernel's log (dmesg) says more",
        )


def _settle(target: Path) -> None:
    """Bring a store into the shape that a payload's is: the registration at the root."""
    store = target / "nix/store"
    registration = store / PAYLOAD_REGISTRATION
    if registration.is_file() and not registration.is_symlink():
        shutil.move(registration, target / PAYLOAD_REGISTRATION)
    # the image's root is its own, and no folder of a system
    store.chmod(0o755)
    os.chown(store, 0, 0)
    os.utime(store, (1, 1))


def _free(place: Path | None) -> int:
    return 0 if place is None else os.statvfs(place).f_bfree


def _roomiest(capacity: Mapping[str, int], target: Path) -> Path:
    """The folder of the target's disks with the most room; what is in memory is none."""
    in_memory = set()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        # proc_pid_mountinfo(5)
        fields, _, after = line.partition(" - ")
        if after.split()[0] in ("tmpfs", "ramfs"):
            in_memory.add(fields.split()[2])
    best, most = target, -1
    for mount in capacity:
        place = target / mount.lstrip("/")
        status = place.stat()
        room = os.statvfs(place)
        if f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" in in_memory:
            continue
        if room.f_bavail * room.f_frsize > most:
            best, most = place, room.f_bavail * room.f_frsize
    return best
