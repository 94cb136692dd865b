"""The network's stage: parts of an archive, fetched over several connections, each verified.

Parts are fetched in the order in which they will be used, no more of them ahead than fit into a
bounded memory. A connection that breaks goes on where it broke, a stalled one is replaced. A place
that serves something wrong is dropped and named, and the others go on.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap

from installer.act.payload.mirrors import Mirror, NoRangesError, Reader, UnusableError
from installer.act.payload.source import Patience
from installer.model.errors import InstallError, Problem, fail
from installer.model.manifest import PIECE, Frame
from installer.model.units import MIB, format_seconds
from installer.observe.payload import TransientError, delays

AHEAD = 32 * MIB
"""Compressed bytes in memory: those that are being fetched, and those that wait to be used."""

_WRONG_LIMIT = 3
"""How often the last place may serve one part wrong: on the way a byte may change (TCP's checksum
has 16 bits), but a server that has another file will not get better."""


@dataclass(frozen=True)
class Part:
    """A frame, or 8 MiB of a longer one: what is fetched, verified and used as one."""

    frame: int
    offset: int
    length: int
    sha256: str


def parts_of(number: int, frame: Frame) -> Iterator[Part]:
    """Yield the parts of a frame in their order."""
    if frame.pieces is None:
        yield Part(number, frame.offset, frame.length, frame.sha256)
        return
    for index, digest in enumerate(frame.pieces):
        start = index * PIECE
        yield Part(number, frame.offset + start, min(PIECE, frame.length - start), digest)


def in_order_of_use(frames: Iterable[tuple[int, Frame]], workers: int) -> Iterator[Part]:
    """Yield the parts of all frames in the order in which so many workers will want them.

    Each worker takes the next frame when it is done with one, and its time is taken to grow with
    what the frame unpacks to: so whoever has a long frame does not keep the others waiting.

    Wherever one stops reading this, no more frames are begun and not ended than there are workers.
    So what fills a bounded memory never waits for workers that all wait for what is not in it, also
    if the rest is then read in the order of the file.
    """
    waiting = iter(frames)
    busy: list[tuple[float, int, Iterator[Part], float]] = []

    def begin(now: float) -> None:
        for number, frame in waiting:
            heappush(busy, (now, number, parts_of(number, frame), frame.unpacked / frame.length))
            break

    for _ in range(workers):
        begin(0.0)
    while busy:
        now, number, parts, effort = heappop(busy)
        part = next(parts, None)
        if part is None:
            begin(now)
            continue
        yield part
        heappush(busy, (now + part.length * effort, number, parts, effort))


@dataclass
class Traffic:
    """What was fetched so far: bytes that came, and those that were of use; seconds of hashing."""

    received: int = 0
    verified: int = 0
    hashing: float = 0.0


@dataclass
class _Place:
    """What is known of a mirror."""

    mirror: Mirror
    ranges: bool = True
    dropped: Problem | None = None
    rests_until: float = 0.0
    silent_since: float | None = None
    pauses: Iterator[float] | None = None
    last_words: str = ""
    streaming: "_Connection | None" = None


@dataclass
class _Job:
    """A part that is being fetched: `filled` bytes of `data` are there, from `sources`."""

    number: int
    part: Part
    data: mmap | None = None
    filled: int = 0
    wrong: int = 0
    alone: bool = False
    sources: set[int] = field(default_factory=set)


class Fetcher:
    """Fetches parts ahead of whoever takes them. One lock guards everything in it."""

    def __init__(
        self,
        parts: Sequence[Part],
        mirrors: Sequence[Mirror],
        *,
        connections: int,
        stall_seconds: float,
        retry_seconds: float,
        patience: Patience,
        tell: Callable[[str], None],
        ahead: int = AHEAD,
    ) -> None:
        """Prepare to fetch `parts`, in this order.

        Args:
            parts: what to fetch; each is taken once. See `in_order_of_use`.
            mirrors: where from, best first.
            connections: how many at once.
            stall_seconds: without progress, after which a connection is replaced.
            retry_seconds: without any byte from anywhere, after which it is given up.
            patience: pauses after failures.
            tell: is told, from any thread, what happens to mirrors.
            ahead: bytes to keep in memory at most (but always the next part).
        """
        self.traffic = Traffic()
        self._parts = parts
        self._places = [_Place(mirror) for mirror in mirrors]
        self._count = connections
        self._stall = stall_seconds
        self._retry = retry_seconds
        self._patience = patience
        self._tell = tell
        self._ahead = ahead
        self._lock = threading.Condition()
        # in order, so it is a heap; no two have the same number
        self._queue = [(number, _Job(number, part)) for number, part in enumerate(parts)]
        self._streaming = False
        self._held = 0
        self._ready: dict[int, mmap] = {}
        self._failure: BaseException | None = None
        self._stopped = False
        self._moved = time.monotonic()
        self._troubled = False
        self._connections: list[_Connection] = []

    def start(self) -> None:
        """Open the connections."""
        with self._lock:
            self._moved = time.monotonic()
            for _ in range(min(self._count, len(self._parts))):
                self._connect()

    def stop(self) -> None:
        """Let all connections end soon."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
            connections = list(self._connections)
        for connection in connections:
            connection.give_up()

    def join(self, seconds: float) -> None:
        """Wait for the connections' threads, at most so long in all."""
        deadline = time.monotonic() + seconds
        for connection in self._connections:
            connection.join(max(0.0, deadline - time.monotonic()))

    def take(self, number: int) -> mmap:
        """Wait for a part and return its verified bytes; `give_back` must follow.

        Raises:
            InstallError: it cannot be had.
        """
        with self._lock:
            while number not in self._ready:
                if self._failure is not None:
                    raise self._failure
                if self._stopped:
                    raise StoppedError
                self._lock.wait()
            return self._ready.pop(number)

    def give_back(self, number: int) -> None:
        """Say that a part was used, and its memory is free."""
        with self._lock:
            self._held -= self._parts[number].length
            self._lock.notify_all()

    def tend(self) -> None:
        """Replace stalled connections, and give up after too long. Call it now and then."""
        now = time.monotonic()
        with self._lock:
            for connection in list(self._connections):
                job = connection.job
                if job is None or now - connection.moved < self._stall:
                    continue
                self._replace(connection, job)
            idle = not any(self._active())
            if idle and (not self._queue or self._full(self._queue[0][1])):
                # a disk that is slow is no fault of the network
                self._moved = now
            if self._failure is None and self._troubled and now - self._moved > self._retry:
                self._fail(self._lost())

    def _full(self, job: _Job) -> bool:
        """Say whether a part has to wait for memory; what was begun has its memory already.

        All that is held is wanted before what is not: see `in_order_of_use`."""
        held = self._held
        return job.data is None and held > 0 and held + job.part.length > self._ahead

    def _connect(self) -> None:
        connection = _Connection(self)
        self._connections.append(connection)
        connection.start()

    def _replace(self, connection: "_Connection", job: _Job) -> None:
        """Leave a connection behind, with a copy of what it brought."""
        place = connection.place
        self._connections.remove(connection)
        connection.job = None
        connection.left = True
        if place is not None and place.streaming is connection:
            place.streaming = None
        # whoever is left behind may still write into its own memory
        again = _Job(job.number, job.part, _copied(job), job.filled, job.wrong, job.alone)
        again.sources = set(job.sources)
        self._put(again)
        shown = place.mirror.shown if place is not None else "a server"
        self._tell(
            f"{shown}: nothing came for {format_seconds(self._stall)}; the connection is replaced"
        )
        if place is not None:
            self._rest(place, "no answer in time")
        self._connect()
        self._lock.notify_all()
        threading.Thread(target=connection.give_up, name="stalled", daemon=True).start()

    # ---- for the connections ----

    def next_for(self, connection: "_Connection") -> tuple[_Job, _Place] | None:
        """Wait for something to do; None at the end."""
        with self._lock:
            while True:
                if self._stopped or self._failure is not None or connection.left:
                    return None
                if not self._queue and not any(one.job for one in self._connections):
                    return None
                found = self._choose(connection)
                if found is not None:
                    job, place = found
                    connection.job, connection.place = job, place
                    connection.moved = time.monotonic()
                    return job, place
                self._lock.wait(self._until_rested())

    def _choose(self, connection: "_Connection") -> tuple[_Job, _Place] | None:
        if not self._queue:
            return None
        place = self._usable(connection)
        if place is None:
            return None
        if not place.ranges and not self._streaming:
            # who sends a file from its beginning cannot send what comes before once more, so what
            # the others may put back has to be in the queue
            if any(self._active()):
                return None
            self._streaming = True
            self._queue = [(job.part.offset, job) for _, job in self._queue]
            heapify(self._queue)
        job = self._queue[0][1]
        if self._full(job):
            return None
        if job.data is None:
            self._held += job.part.length
            job.data = _memory(job.part.length)
        if job.alone and self._places.index(place) not in job.sources:
            job.filled = 0
            job.sources.clear()
        heappop(self._queue)
        if not place.ranges:
            place.streaming = connection
        return job, place

    def _put(self, job: _Job) -> None:
        heappush(self._queue, (job.part.offset if self._streaming else job.number, job))

    def _active(self) -> Iterator["_Connection"]:
        return (one for one in self._connections if one.job is not None)

    def _usable(self, connection: "_Connection") -> _Place | None:
        """The best place that can be asked now; one without ranges is the last resort."""
        now = time.monotonic()
        there = [place for place in self._places if place.dropped is None]
        # a place that rests may come back, but not after any time
        hopes = any(place.ranges and not self._is_silent(place, now) for place in there)
        for place in sorted(there, key=lambda place: not place.ranges):
            if not place.ranges and hopes:
                continue
            if place.rests_until > now:
                continue
            if not place.ranges and place.streaming not in (None, connection):
                continue
            return place
        return None

    def _is_silent(self, place: _Place, now: float) -> bool:
        patience = min(self._stall, self._retry / 2)
        return place.silent_since is not None and now - place.silent_since > patience

    def _until_rested(self) -> float | None:
        now = time.monotonic()
        times = [place.rests_until - now for place in self._places if place.rests_until > now]
        return max(0.001, min(times)) if times else None

    def came(self, connection: "_Connection", job: _Job, filled: int) -> None:
        """Take notice of bytes. Raises TransientError when nobody wants them any more."""
        with self._lock:
            if connection.left or self._stopped:
                raise TransientError("it was given up")
            self._moved = connection.moved = time.monotonic()
            self._troubled = False
            if filled > job.filled:
                self.traffic.received += filled - job.filled
                job.filled = filled
                place = connection.place
                if place is not None:
                    job.sources.add(self._places.index(place))
                    place.pauses = place.silent_since = None

    def finished(self, connection: "_Connection", job: _Job, place: _Place) -> None:
        """Verify a part that is whole, and hand it over."""
        begun = time.monotonic()
        if job.data is None:
            raise RuntimeError("a part without memory was fetched")
        digest = hashlib.sha256(job.data).hexdigest()
        seconds = time.monotonic() - begun
        with self._lock:
            if connection.left:
                return
            connection.job = None
            self.traffic.hashing += seconds
            if digest == job.part.sha256:
                self.traffic.verified += job.part.length
                # whoever waits for the next job still has this one in its hands
                self._ready[job.number], job.data = job.data, None
            else:
                self._wrong(job, place)
            self._lock.notify_all()

    def broke(self, connection: "_Connection", job: _Job, place: _Place, why: str) -> None:
        """Put a part back whose connection broke; what is there of it is kept."""
        with self._lock:
            if connection.left:
                return
            connection.job = None
            came = connection.came
            self._put(job)
            if not self._stopped:
                place.last_words = why
                self._troubled = True
                if not came:
                    self._rest(place, why)
                following = self._usable(connection) or place
                on = "there" if following is place else f"from {following.mirror.shown}"
                self._tell(
                    f"{place.mirror.shown}: {why} after {job.filled} of {job.part.length} bytes "
                    f"of frame {job.part.frame}; going on {on}"
                )
            self._lock.notify_all()

    def unusable(
        self, connection: "_Connection", job: _Job, place: _Place, error: UnusableError
    ) -> None:
        """Drop a place."""
        with self._lock:
            if connection.left:
                return
            connection.job = None
            self._put(job)
            self._drop(place, str(error), error.code)
            self._lock.notify_all()

    def no_ranges(self, connection: "_Connection", job: _Job, place: _Place) -> None:
        """Note that a place serves whole files only."""
        with self._lock:
            if connection.left:
                return
            connection.job = None
            self._put(job)
            if place.ranges:
                place.ranges = False
                self._tell(
                    f"{place.mirror.shown} does not serve parts of files: "
                    + (
                        "the other places are used"
                        if any(other.ranges and not other.dropped for other in self._places)
                        else "everything comes over one connection, in order"
                    )
                )
            self._lock.notify_all()

    def crashed(self, error: BaseException) -> None:
        """Take a mistake of ours from a thread."""
        with self._lock:
            self._fail(error)

    def _wrong(self, job: _Job, place: _Place) -> None:
        job.filled = 0
        job.wrong += 1
        sources, job.sources = job.sources, set()
        self._put(job)
        what = f"frame {job.part.frame} (bytes {job.part.offset} to "
        what += f"{job.part.offset + job.part.length - 1}) is not the one of the manifest"
        if len(sources) > 1 and not job.alone:
            # any of them may have been it: the next comes from one place alone
            job.alone = True
            self._tell(
                f"{place.mirror.shown}: {what}; it came from several places, and is fetched "
                "again from one"
            )
            return
        others = any(not other.dropped for other in self._places if other is not place)
        if others or job.wrong >= _WRONG_LIMIT:
            self._drop(place, what, "payload.hash")
        else:
            self._tell(f"{place.mirror.shown}: {what}; it is fetched again")

    def _drop(self, place: _Place, why: str, code: str) -> None:
        if place.dropped is not None:
            return
        place.dropped = Problem(
            code,
            f"{place.mirror.shown}: {why}",
            "payload.manifest",
            "copy archive and manifest of one packing to the server again",
        )
        if any(other.dropped is None for other in self._places):
            self._tell(f"{place.mirror.shown} is not used any more: {why}")
        else:
            self._fail(InstallError(each.dropped for each in self._places if each.dropped))

    def _rest(self, place: _Place, why: str) -> None:
        patience = self._patience
        place.last_words = why
        self._troubled = True
        if place.pauses is None:
            place.silent_since = time.monotonic()
            place.pauses = delays(first=patience.first_delay, longest=patience.longest_delay)
        place.rests_until = time.monotonic() + next(place.pauses)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._lock.notify_all()

    def _lost(self) -> InstallError:
        places = [place for place in self._places if place.dropped is None]
        said = "; ".join(
            f"{place.mirror.shown}: {place.last_words or 'no answer in time'}" for place in places
        )
        total = sum(part.length for part in self._parts)
        return fail(
            "network.lost" if self.traffic.received else "network.unreachable",
            f"{said} after {self.traffic.verified} of {total} bytes, and nothing more came in "
            f"{format_seconds(self._retry)}",
            where="payload.manifest",
            hint="check the server and the network, then start again; "
            "payload.retry-seconds sets how long to wait for it",
        )


def _memory(size: int) -> mmap:
    """Not from malloc, which keeps and scatters what threads give back to it."""
    memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    # a page of 4 KiB at a time costs as much as fetching does; a kernel may have no others
    with contextlib.suppress(OSError):
        memory.madvise(MADV_HUGEPAGE)
    return memory


def _copied(job: _Job) -> mmap:
    data = _memory(job.part.length)
    if job.data is not None:
        data[: job.filled] = job.data[: job.filled]
    return data


class StoppedError(Exception):
    """Somebody else failed, and says why."""


class _Connection(threading.Thread):
    """A thread with a connection of its own to each place that it was sent to.

    `job` is what it does now, `moved` when it last made progress; the fetcher's lock guards them.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        super().__init__(name="payload", daemon=True)
        self.job: _Job | None = None
        self.place: _Place | None = None
        self.moved = 0.0
        self.left = False
        self.came = False
        self._fetcher = fetcher
        self._readers: dict[tuple[int, bool], Reader] = {}

    def give_up(self) -> None:
        """Wake it if it waits for a server."""
        for reader in list(self._readers.values()):
            reader.interrupt()

    def run(self) -> None:
        """Fetch until there is nothing more to fetch."""
        try:
            while (found := self._fetcher.next_for(self)) is not None:
                self._fetch(*found)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._fetcher.crashed(error)
        finally:
            for reader in self._readers.values():
                reader.close()

    def _fetch(self, job: _Job, place: _Place) -> None:
        key = (id(place), place.ranges)
        ranges = place.ranges
        if key not in self._readers:
            self._readers[key] = place.mirror.reader(ranges=ranges)
        start, self.came = job.filled, False
        if job.data is None:
            raise RuntimeError("a part without memory is fetched")
        with memoryview(job.data) as data:

            def told(count: int) -> None:
                self.came = self.came or count > 0
                self._fetcher.came(self, job, start + count)

            try:
                self._readers[key].read(job.part.offset + start, data[start:], told)
            except TransientError as error:
                self._fetcher.broke(self, job, place, str(error))
                return
            except UnusableError as error:
                self._fetcher.unusable(self, job, place, error)
                return
            except NoRangesError:
                self._fetcher.no_ranges(self, job, place)
                return
        self._fetcher.finished(self, job, place)
