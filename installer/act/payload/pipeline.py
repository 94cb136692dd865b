"""The pipeline: source → hash → decompressor → vetting → tar, and who failed first.

A thread reads the source, hashes it and feeds the decompressor; the caller's thread vets what
comes out of it and feeds tar; both programs run beside them. Kernel pipes between the four are
the only buffers, so memory does not grow with the payload. Everything is told to the narrator by
the caller's thread alone.
"""

import contextlib
import hashlib
import io
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from installer.act.narrator import Narrator
from installer.act.payload.archive import Stream
from installer.act.payload.compression import HEAD, Format, damaged, recognise
from installer.act.payload.source import Patience, Source, open_source
from installer.act.payload.tar import Tar, pipe
from installer.act.payload.vetting import Contents, vet
from installer.act.run import Program, Runner
from installer.model.errors import InstallError, Problem, fail
from installer.model.units import format_bytes, format_seconds

_PIECE = 256 * 1024
_TICK = 0.25
_LEAVE_SECONDS = 15.0


@dataclass(frozen=True)
class Reading:
    """What one reading of the payload found."""

    sha256: str
    compressed_size: int
    contents: Contents


@dataclass(frozen=True)
class Rules:
    """What the payload must be: see `CheckPayload`; `before` is an earlier reading of it."""

    capacity: Mapping[str, int]
    toplevel: str | None
    sha256: str | None
    before: tuple[str, int] | None = None


def read_payload(
    location: str,
    rules: Rules,
    *,
    retry_seconds: float,
    narrator: Narrator,
    runner: Runner,
    target: Path | None,
    patience: Patience,
) -> Reading:
    """Read the payload once from its beginning to its end; unpack it into `target` if given.

    Raises:
        InstallError: the first cause of whatever went wrong; all parts of the pipeline have ended.
    """
    told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    queued = replace(runner, on_line=lambda line: told.put(lambda: runner.on_line(line)))
    source = open_source(
        location,
        retry_seconds,
        patience,
        lambda text: told.put(lambda: narrator.say(text, "warning")),
    )
    entry, feed_end = pipe()
    feed = _Feed(source, feed_end)
    work = _Work(feed, entry, told, narrator, patience)
    with contextlib.ExitStack() as stack:
        # last out: the feeder, which may be blocked in its pipe until the pipe's reader is gone
        stack.callback(feed.stop)
        stack.enter_context(entry)
        feed.start()
        head = work.head()
        if rules.before is not None and source.total not in (None, rules.before[1]):
            raise _changed_since(source, f"it had {rules.before[1]} bytes, now {source.total}")
        work.known = recognise(head, source.shown)
        if work.known is not None:
            work.plain, out = pipe()
            stack.enter_context(work.plain)
            with out, entry:
                work.decompressor = stack.enter_context(
                    queued.start(
                        work.known.argv,
                        stdin=entry.fileno(),
                        stdout=out.fileno(),
                        purpose=f"decompressing {source.shown}",
                    )
                )
        if target is not None:
            # a folder's time is set after everything in it is there, in whatever order it comes;
            # that compares every folder with all before it
            option = "--delay-directory-restore"
            work.tar = stack.enter_context(Tar(target, option, runner=queued, stuck=patience.stuck))
        try:
            return work.run(rules)
        finally:
            work.tell()


class _Feed(threading.Thread):
    """Reads the source, hashes it and writes it into a pipe.

    `first` gets the first bytes, b"" if there are none or an error came before them. `done`
    counts bytes, `reading` is true while the source is waited for (which ends by itself).
    """

    def __init__(self, source: Source, end: io.FileIO) -> None:
        super().__init__(name="payload", daemon=True)
        self.source = source
        self.done = 0
        self.reading = True
        self.digest: str | None = None
        self.error: BaseException | None = None
        self.first: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._end = end

    def run(self) -> None:
        sha256 = hashlib.sha256()
        head = b""
        try:
            with self._end:
                for chunk in self.source.chunks():
                    self.reading = False
                    sha256.update(chunk)
                    if len(head) < HEAD:
                        head += chunk[:HEAD]
                        if len(head) >= HEAD:
                            self.first.put(head)
                    _write(self._end, chunk)
                    self.done += len(chunk)
                    self.reading = True
                self.digest = sha256.hexdigest()
        except BrokenPipeError:
            # whoever reads has stopped, and says why
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.error = error
        finally:
            self.reading = False
            if len(head) < HEAD:
                self.first.put(head)

    def stop(self) -> None:
        """End it; nobody reads from its pipe any more."""
        self.source.stop()
        if self.is_alive():
            self.join(_LEAVE_SECONDS)


@dataclass
class _Work:
    """The caller's side of the pipeline; `plain` is where the unpacked archive comes out."""

    feed: _Feed
    plain: io.FileIO
    told: "queue.SimpleQueue[Callable[[], None]]"
    narrator: Narrator
    patience: Patience
    known: Format | None = None
    decompressor: Program | None = None
    tar: Tar | None = None
    unpacked: int = 0
    progress: Callable[[int], None] | None = None

    def tell(self) -> None:
        """Pass on what the other threads have to say."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.told.get_nowait()()
        if self.progress is not None:
            self.progress(self.feed.done)

    def head(self) -> bytes:
        """Wait for the first bytes; the source's patience bounds it."""
        head: bytes | None = None
        while head is None:
            with contextlib.suppress(queue.Empty):
                head = self.feed.first.get(timeout=_TICK)
            self.tell()
        if self.feed.error is not None:
            raise self.feed.error
        self.progress = self.narrator.progress(self.feed.source.total)
        return head

    def run(self, rules: Rules) -> Reading:
        """Vet everything, then see that every part ended well."""
        tar = self.tar
        write = None if tar is None else lambda data: tar.write(data, tar.end.write, self.tell)
        try:
            contents = vet(
                Stream(self.read, write), rules.capacity, rules.toplevel, count_on=tar is None
            )
        except BrokenPipeError:
            raise self._tars_error(rules) from None
        except InstallError as error:
            raise self._cause(error, rules) from None
        if problem := self._upstream():
            raise problem
        if self.feed.digest is None:
            raise RuntimeError("the archive is whole, but its source was not read to its end")
        if mismatch := self._mismatch(rules):
            raise InstallError([mismatch])
        if tar is not None:
            try:
                tar.finish()
            except BrokenPipeError:
                raise self._tars_error(rules) from None
            if tar.warning is not None:
                self.narrator.say(tar.warning, "warning")
        return Reading(self.feed.digest, self.feed.done, contents)

    def read(self) -> bytes:
        """Read the next piece of the unpacked archive."""
        begun, seen = time.monotonic(), self.feed.done
        poll = select.poll()
        poll.register(self.plain, select.POLLIN)
        while not poll.poll(_TICK * 1000):
            self.tell()
            if self.feed.reading or self.feed.done != seen:
                begun, seen = time.monotonic(), self.feed.done
            elif time.monotonic() - begun > self.patience.stuck:
                raise fail(
                    "command.timeout",
                    f"the decompressor gave no data for {format_seconds(self.patience.stuck)}",
                    where=f"after {self.unpacked} bytes of the unpacked archive",
                    hint="the kernel's log (dmesg) tells of a disk that does not answer",
                )
        self.tell()
        piece = self.plain.read(_PIECE)
        self.unpacked += len(piece)
        return piece

    def _cause(self, error: InstallError, rules: Rules) -> BaseException:
        """Find what caused what the vetting saw: an end is mostly somebody else's end."""
        if any(problem.code == "payload.truncated" for problem in error.problems) and (
            cause := self._upstream()
        ):
            return cause
        if self.feed.error is not None:
            return self.feed.error
        # the whole file was read: then it can be said whether it is the announced one
        if self.feed.digest is not None and (mismatch := self._mismatch(rules)):
            return InstallError([*error.problems, mismatch])
        return error

    def _upstream(self) -> BaseException | None:
        """Wait for source and decompressor, whose stream has ended; return what went wrong."""
        code = 0
        if self.decompressor is not None:
            code = self.decompressor.end(self.patience.stuck)
        self.feed.join(_LEAVE_SECONDS)
        if self.feed.error is not None:
            return self.feed.error
        if code == 0 or self.decompressor is None or self.known is None:
            return None
        words = self.decompressor.last_words
        return damaged(self.known, code, words, self.feed.done, self.unpacked)

    def _mismatch(self, rules: Rules) -> Problem | None:
        digest = self.feed.digest
        shown = self.feed.source.shown
        if rules.before is not None and digest != rules.before[0]:
            return _changed_since(
                self.feed.source,
                f"it had the SHA-256 {rules.before[0]}, now {digest}",
            ).problems[0]
        if rules.sha256 is not None and digest != rules.sha256:
            return Problem(
                "payload.hash",
                f"{shown} is not the announced payload: its SHA-256 is {digest}, "
                f"announced was {rules.sha256} ({self.feed.done} bytes were read)",
                "payload.sha256",
                "announce the SHA-256 of this file (sha256sum), or serve the file that was meant",
            )
        return None

    def _tars_error(self, rules: Rules) -> InstallError:
        if self.tar is None:
            raise RuntimeError("nothing was being unpacked")
        return self.tar.error(
            rules.capacity, f"after {format_bytes(self.unpacked)} of the unpacked archive"
        )


def _changed_since(source: Source, how: str) -> InstallError:
    return fail(
        "payload.changed",
        f"{source.shown} changed after it had been checked: {how}",
        where="payload",
        hint="start again; give each version of a payload a name of its own on the server",
    )


def _write(end: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[end.write(view) :]
