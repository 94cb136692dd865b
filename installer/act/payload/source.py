"""The payload as bytes: from a file, or from a server that may go away and come back."""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from installer.model.errors import InstallError, fail
from installer.model.units import format_bytes, format_seconds
from installer.model.urls import redacted
from installer.observe.payload import (
    HEADERS,
    TIMEOUTS,
    TransientError,
    delays,
    is_final,
    length,
    look_at_file,
    reason,
    refused,
    unreachable,
)

if TYPE_CHECKING:
    import requests

CHUNK = 64 * 1024
"""Bytes read at once. When a server stalls within a piece, the piece is asked for again."""

_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: to connect and for the next bytes, and between retries.

    `stuck` is how long a program of the pipeline may take no data and give none.
    """

    timeouts: tuple[float, float] = TIMEOUTS
    first_delay: float = 0.5
    longest_delay: float = 15.0
    stuck: float = 600.0


class Source(Protocol):
    """Bytes that are read once. `total` is their number, None until it is known, if ever."""

    shown: str
    total: int | None

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes in order.

        Raises:
            InstallError: they could not all be had, or changed while they were read.
        """

    def stop(self) -> None:
        """Let `chunks` end soon, from another thread."""


def open_source(
    location: str, retry_seconds: float, patience: Patience, warn: Callable[[str], None]
) -> Source:
    """Make the source for a URL or the path of a file; `warn` is told each retry."""
    if location.startswith(("http://", "https://")):
        return HttpSource(location, retry_seconds, patience, warn)
    return FileSource(Path(location))


class FileSource:
    """A regular file; on a mounted share the kernel does the retries."""

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        self.total: int | None = None
        self._path = path
        self._stopped = False

    def chunks(self) -> Iterator[bytes]:
        """See `Source`; raises `payload.not-found`, `payload.changed` or `device.io`."""
        self.total = look_at_file(self._path).size
        done = 0
        with self._path.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            while not self._stopped:
                try:
                    chunk = stream.read(CHUNK)
                except OSError as error:
                    raise fail(
                        "device.io",
                        f"reading {self._path} failed: {error.strerror}",
                        where=f"after {done} of {self.total} bytes",
                        hint="check the share or disk that holds it; the kernel's log says more",
                    ) from None
                if not chunk:
                    break
                done += len(chunk)
                yield chunk
            after = os.fstat(stream.fileno())
        if not self._stopped and (
            done != before.st_size
            or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        ):
            raise _changed(
                self.shown,
                f"it had {before.st_size} bytes at first, "
                f"now {after.st_size}, and {done} could be read",
            )

    def stop(self) -> None:
        """See `Source`."""
        self._stopped = True


@dataclass(frozen=True)
class _Version:
    """What tells one version of a resource from another (RFC 9110, 8.8)."""

    etag: str | None
    modified: str | None
    size: int | None

    @property
    def condition(self) -> str | None:
        """The value of If-Range, which must be a strong validator (RFC 9110, 13.1.5)."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def differs(self, other: "_Version") -> str | None:
        """Say in what another version differs, None if there is no sign that it does."""
        for name, mine, its in (
            ("length", self.size, other.size),
            ("ETag", self.etag, other.etag),
            ("Last-Modified", self.modified, other.modified),
        ):
            if mine is not None and its is not None and mine != its:
                return f"its {name} was {mine}, now it is {its}"
        return None


class HttpSource:
    """A resource of an HTTP server, resumed where the connection broke."""

    def __init__(
        self, url: str, retry_seconds: float, patience: Patience, warn: Callable[[str], None]
    ) -> None:
        self.shown = redacted(url)
        self.total: int | None = None
        self._url = url
        self._retry_seconds = retry_seconds
        self._patience = patience
        self._warn = warn
        self._done = 0
        self._version: _Version | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def chunks(self) -> Iterator[bytes]:
        """See `Source`.

        Raises:
            InstallError: `payload.not-found`, `payload.changed`, `network.unreachable` (never
                reached within `retry_seconds`), `network.lost` (reached, then no byte more).
        """
        # requests takes seconds to import in an emulated machine
        import requests  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with requests

        moved = time.monotonic()
        retries = 0
        pauses = self._pauses()
        with requests.Session() as session:
            while not self._stopped.is_set():
                try:
                    for chunk in self._attempt(session):
                        self._done += len(chunk)
                        yield chunk
                        moved = time.monotonic()
                        if retries:
                            retries, pauses = 0, self._pauses()
                except (requests.RequestException, HTTPError, OSError, TransientError) as error:
                    if self._stopped.is_set():
                        return
                    pause = next(pauses)
                    left = moved + self._retry_seconds - time.monotonic()
                    if is_final(error) or left <= 0:
                        raise self._lost(error, retries) from None
                    pause = min(pause, left)
                    retries += 1
                    self._warn(
                        f"{self.shown}: {reason(error)} after {self._progress()}; "
                        f"retry {retries} in {format_seconds(pause)}"
                    )
                else:
                    return
                self._stopped.wait(pause)

    def stop(self) -> None:
        """See `Source`; wakes a read that waits for the server."""
        self._stopped.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _pauses(self) -> Iterator[float]:
        return delays(first=self._patience.first_delay, longest=self._patience.longest_delay)

    def _attempt(self, session: "requests.Session") -> Iterator[bytes]:
        """Yield what is missing, as far as one connection brings it."""
        headers = dict(HEADERS)
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._version is not None and self._version.condition is not None:
                headers["If-Range"] = self._version.condition
        with session.get(
            self._url, headers=headers, timeout=self._patience.timeouts, stream=True
        ) as response:
            skip = self._begin(response)
            with self._interruptible(response):
                while True:
                    chunk = response.raw.read(CHUNK, decode_content=False)
                    if not chunk:
                        break
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    yield chunk[skip:] if skip else chunk
                    skip = 0
            # neither Python 3.11's HTTPResponse.read(n) nor urllib3 before its version 2 notice
            # that a body ended too early
            if skip or self.total not in (None, self._done):
                raise TransientError("the connection was closed")

    def _begin(self, response: "requests.Response") -> int:
        """Check the head of an answer; return how many bytes of its body are known already."""
        status = response.status_code
        said = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        size = length(response.headers.get("Content-Length"))
        if status == 206:
            size = length(said[2]) if said else None
        version = _Version(
            response.headers.get("ETag"), response.headers.get("Last-Modified"), size
        )
        if self._version is not None:
            if status in (404, 410, 416):
                raise _changed(self.shown, f"after {self._progress()} the server answers {status}")
            if status in (200, 206) and (difference := self._version.differs(version)):
                raise _changed(self.shown, difference)
        if status == 206 and self._done and said and int(said[1]) == self._done:
            return 0
        if status == 200:
            if self._version is None:
                self._version, self.total = version, size
            return self._done
        if status == 206:
            raise TransientError("the server answered with a range that nobody asked for")
        raise refused(self._url, status)

    @contextlib.contextmanager
    def _interruptible(self, response: "requests.Response") -> Iterator[None]:
        try:
            handle = socket.socket(fileno=os.dup(response.raw.fileno()))
        except (OSError, ValueError):
            # an empty body: urllib3 has closed it already
            yield
            return
        with handle:
            with self._lock:
                self._socket = handle
            try:
                yield
            finally:
                with self._lock:
                    self._socket = None

    def _progress(self) -> str:
        if self.total is None:
            return f"{self._done} bytes"
        return f"{self._done} of {self.total} bytes"

    def _lost(self, error: Exception, retries: int) -> InstallError:
        if self._version is None:
            return unreachable(self._url, error)
        return fail(
            "network.lost",
            f"{self.shown}: {reason(error)} after {self._progress()}"
            + (f" ({format_bytes(self._done)} of {format_bytes(self.total)})" if self.total else "")
            + f", and nothing more came in {format_seconds(self._retry_seconds)} "
            f"({retries} retries)",
            where="payload.url",
            hint="check the server and the network, then start again; "
            "payload.retry-seconds sets how long to wait for it",
        )


def _changed(shown: str, how: str) -> InstallError:
    return fail(
        "payload.changed",
        f"{shown} changed while it was being read: {how}",
        where="payload",
        hint="start again; give each version of a payload a name of its own on the server",
    )
