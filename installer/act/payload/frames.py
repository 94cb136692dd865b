"""Unpacking a packed payload: fetched, verified, decompressed, vetted and given to several tars.

The stages overlap. Connections fetch parts ahead into a bounded memory; one worker per core takes
a frame, decompresses it piece by piece, vets each member and writes into the pipe of a tar of its
own. No byte is decompressed before the hash of its part was right.

Kinds of frames come one after the other, and each tar of a kind has ended before the next begins:
GNU tar makes symbolic links that lead out of the tree as empty files first, and turns them into
links when it ends (src/extract.c: create_placeholder_file); before that nothing may link to them.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, cast

from installer.act.narrator import Narrator, Progress
from installer.act.payload.fetching import Fetcher, StoppedError, in_order_of_use
from installer.act.payload.framed import Framed, odd
from installer.act.payload.mirrors import Mirror
from installer.act.payload.ring import Ring
from installer.act.payload.source import Patience
from installer.act.payload.tar import Tar
from installer.act.payload.vetting import Contents
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.events import Stage
from installer.model.manifest import KINDS, WINDOW, Kind, Manifest

WORKERS_LIMIT = 4
"""More tars than that do not make a file system faster, and each costs memory."""

_PIPE = 256 * 1024
_TICK = 0.25
_LEAVE_SECONDS = 15.0
_END_OF_ARCHIVE = bytes(1024)
_PARALLEL: Mapping[Kind, bool] = {
    "folders": False,
    "files": True,
    "links": True,
    "attributes": False,
}


@dataclass
class _Spent:
    """Seconds that workers spent on each stage."""

    waiting: float = 0.0
    decompressing: float = 0.0
    unpacking: float = 0.0


def unpack_frames(
    manifest: Manifest,
    mirrors: Sequence[Mirror],
    target: Path,
    *,
    capacity: Mapping[str, int],
    toplevel: str | None,
    connections: int,
    stall_seconds: float,
    retry_seconds: float,
    narrator: Narrator,
    runner: Runner,
    patience: Patience,
    workers: int | None = None,
) -> Contents:
    """Unpack all frames into `target`.

    Args:
        manifest: what to unpack; its signature was verified.
        mirrors: where the archive is, best first.
        target: the root of the new system.
        capacity: bytes that fit on each mount point.
        toplevel: the system that must be in it; None for the only one.
        connections, stall_seconds, retry_seconds: see `Fetcher`.
        narrator: is told the progress in compressed bytes.
        runner: `on_line` is told what the tars print.
        patience: how long to wait for what.
        workers: how many frames are unpacked at once; None for one per core.

    Raises:
        InstallError: the first cause of whatever went wrong; everything has ended.
    """
    told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    cores = workers or min(len(os.sched_getaffinity(0)), WORKERS_LIMIT)
    numbers = {
        kind: [number for number, frame in enumerate(manifest.frames) if frame.kind == kind]
        for kind in KINDS
    }
    tars = {kind: min(cores if _PARALLEL[kind] else 1, len(numbers[kind])) for kind in KINDS}
    parts = [
        part
        for kind in KINDS
        for part in in_order_of_use(
            ((number, manifest.frames[number]) for number in numbers[kind]), tars[kind]
        )
    ]
    parts_of: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        parts_of.setdefault(part.frame, []).append(index)
    fetcher = Fetcher(
        parts,
        mirrors,
        connections=connections,
        stall_seconds=stall_seconds,
        retry_seconds=retry_seconds,
        patience=patience,
        tell=lambda text: told.put(lambda: narrator.say(text, "warning")),
    )
    work = _Work(
        manifest=manifest,
        parts_of=parts_of,
        fetcher=fetcher,
        framed=Framed(manifest, capacity, toplevel),
        target=target,
        capacity=capacity,
        narrator=narrator,
        runner=replace(runner, on_line=lambda line: told.put(lambda: runner.on_line(line))),
        patience=patience,
        told=told,
        network=cast("Stage", mirrors[0].kind),
    )
    work.progress = narrator.progress(manifest.archive.size)
    # of every other folder the frames of folders set owner and mode, also of one that was there
    roots = manifest.archive.root_owned and _makes_roots(target)
    fetcher.start()
    try:
        for kind in KINDS:
            work.unpack(numbers[kind], tars[kind], roots=roots and kind == "files")
    finally:
        fetcher.stop()
        work.stop.set()
        fetcher.join(_LEAVE_SECONDS)
        work.tell()
    return work.framed.contents()


def _makes_roots(folder: Path) -> bool:
    """Say whether what this process makes in a folder belongs to root and its group (inode(7))."""
    return os.geteuid() == 0 == folder.stat().st_gid


@dataclass
class _Work:
    """What the caller's thread and the workers share; each worker writes its own `_Spent` only.

    `parts_of` has the fetcher's numbers for the parts of each frame.
    """

    manifest: Manifest
    parts_of: Mapping[int, Sequence[int]]
    fetcher: Fetcher
    framed: Framed
    target: Path
    capacity: Mapping[str, int]
    narrator: Narrator
    runner: Runner
    patience: Patience
    told: "queue.SimpleQueue[Callable[[], None]]"
    network: Stage
    stop: threading.Event = field(default_factory=threading.Event)
    spent: list[_Spent] = field(default_factory=list)
    progress: Progress | None = None

    def tell(self) -> None:
        """Pass on what the threads have to say."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.told.get_nowait()()
        if self.progress is not None:
            self.progress(self.fetcher.traffic.verified, self._bottleneck())

    def _bottleneck(self) -> Stage | None:
        """The stage that the others wait for: where the workers spend most of their time."""
        waiting = sum(one.waiting for one in self.spent)
        others: dict[Stage, float] = {
            "decompress": sum(one.decompressing for one in self.spent),
            "unpack": sum(one.unpacking for one in self.spent),
        }
        slowest = max(others, key=lambda stage: others[stage])
        if others[slowest] >= waiting:
            return slowest if others[slowest] else None
        # hashing is a part of what they wait for
        return "verify" if self.fetcher.traffic.hashing > waiting / 2 else self.network

    def unpack(self, frames: Sequence[int], count: int, *, roots: bool) -> None:
        """Unpack frames by so many tars; raises the first error of any worker.

        With `roots` nothing is given another owner than it was made with: a sixth of what tar and
        the kernel do for a file is changing its owner from root to root, and its mode after that.
        """
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in frames:
            numbers.put(number)
        options = ("--no-same-owner",) if roots else ()
        with ExitStack() as stack:
            workers = [_Worker(self, numbers, *self._open(stack, options)) for _ in range(count)]
            self.spent += [worker.spent for worker in workers]
            try:
                for worker in workers:
                    worker.start()
                while any(worker.is_alive() for worker in workers):
                    next(worker for worker in workers if worker.is_alive()).join(_TICK)
                    self.fetcher.tend()
                    self.tell()
                    if any(worker.error is not None for worker in workers):
                        self._give_up()
            finally:
                self._give_up_if(workers)
        self._raise(workers)

    def _open(self, stack: ExitStack, options: Sequence[str]) -> tuple[Tar, Ring]:
        """Start a tar, which ends with `stack`, and make the memory before it."""
        stuck = self.patience.stuck
        tar = Tar(self.target, *options, runner=self.runner, stuck=stuck, capacity=_PIPE)
        return stack.enter_context(tar), stack.enter_context(Ring(tar.end))

    def _give_up(self) -> None:
        self.stop.set()
        self.fetcher.stop()

    def _give_up_if(self, workers: "Sequence[_Worker]") -> None:
        """End all workers, after an error or an interruption; they look at `stop` often."""
        if any(worker.is_alive() for worker in workers):
            self._give_up()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))

    def _raise(self, workers: "Sequence[_Worker]") -> None:
        errors = [worker.error for worker in workers if worker.error is not None]
        if not errors:
            return
        # what a worker says that was stopped says nothing
        raise min(errors, key=lambda error: isinstance(error, StoppedError))


class _Worker(threading.Thread):
    """Unpacks frames, one after the other, with a tar of its own."""

    def __init__(
        self, work: _Work, numbers: "queue.SimpleQueue[int]", tar: Tar, ring: Ring
    ) -> None:
        super().__init__(name="payload", daemon=True)
        self.spent = _Spent()
        self.error: BaseException | None = None
        self._work = work
        self._numbers = numbers
        self._tar = tar
        self._ring = ring

    def run(self) -> None:
        """Do it; `error` says what went wrong."""
        try:
            with contextlib.suppress(queue.Empty):
                while not self._work.stop.is_set():
                    self._frame(self._numbers.get_nowait())
            if not self._work.stop.is_set():
                self._finish()
        except BrokenPipeError:
            self.error = self._tars_error()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.error = error

    def _frame(self, number: int) -> None:
        # packing payloads and the agent share it; other verbs do without
        import zstandard  # noqa: PLC0415

        source = _Parts(self._work.fetcher, iter(self._work.parts_of[number]), self.spent)
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        try:
            with decompressor.stream_reader(
                cast("IO[bytes]", source), read_across_frames=True
            ) as reader:

                def read() -> memoryview:
                    begun, waited = time.monotonic(), self.spent.waiting
                    piece = self._ring.fill(reader.readinto)
                    waited = self.spent.waiting - waited
                    self.spent.decompressing += time.monotonic() - begun - waited
                    return piece

                self._work.framed.vet(number, read, self._write)
        except zstandard.ZstdError as error:
            raise odd(number, f"cannot be decompressed: {error}") from None
        finally:
            source.close()

    def _write(self, data: memoryview) -> None:
        begun = time.monotonic()
        self._tar.write(data, self._ring.write, self._look_around)
        self.spent.unpacking += time.monotonic() - begun

    def _look_around(self) -> None:
        if self._work.stop.is_set():
            raise StoppedError

    def _finish(self) -> None:
        """End the archive, and wait for tar."""
        self._write(memoryview(_END_OF_ARCHIVE))
        begun = time.monotonic()
        self._tar.finish()
        self.spent.unpacking += time.monotonic() - begun
        if (warning := self._tar.warning) is not None:
            self._work.told.put(lambda: self._work.narrator.say(warning, "warning"))

    def _tars_error(self) -> InstallError:
        work = self._work
        return self._tar.error(
            work.capacity,
            f"after {work.fetcher.traffic.verified} of {work.manifest.archive.size} bytes",
        )


class _Parts:
    """The verified bytes of a frame, part by part, as a file to read from."""

    def __init__(self, fetcher: Fetcher, numbers: Iterator[int], spent: _Spent) -> None:
        self._fetcher = fetcher
        self._numbers = numbers
        self._spent = spent
        self._number: int | None = None
        self._data = memoryview(b"")

    def read(self, size: int) -> memoryview | bytes:
        """Return the next bytes, b"" at the end. Raises InstallError, StoppedError."""
        if not self._data:
            self.close()
            number = next(self._numbers, None)
            if number is None:
                return b""
            begun = time.monotonic()
            self._data = memoryview(self._fetcher.take(number))
            self._number = number
            self._spent.waiting += time.monotonic() - begun
        piece = self._data[:size]
        self._data = self._data[size:]
        return piece

    def close(self) -> None:
        """Give back what is held."""
        self._data = memoryview(b"")
        if self._number is not None:
            self._fetcher.give_back(self._number)
            self._number = None
