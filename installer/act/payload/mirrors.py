"""Places that have the archive of a packed payload, and reading parts of it from them.

Who reads a part cannot tell whether it is right; that is for `fetching`, which has the hashes. What
a place does wrong is told by the error: `TransientError` may pass, `UnusableError` does not.
"""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from installer.model.errors import InstallError
from installer.model.urls import is_url, redacted
from installer.observe.payload import HEADERS, TransientError, is_final, length, reason, refused

if TYPE_CHECKING:
    import requests

Progress = Callable[[int], None]
"""Is told how many bytes of a part are there so far; it may raise, to end the reading."""

_REDIRECTS = 5
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_SMALLEST, _LARGEST = 16 * 1024, 256 * 1024
_QUICK, _SLOW = 0.05, 0.5


class UnusableError(Exception):
    """This place cannot serve the archive; its words say why. `code` is the error's."""

    def __init__(self, why: str, code: str = "payload.not-found") -> None:
        super().__init__(why)
        self.code = code


class NoRangesError(Exception):
    """The server answers with the whole file, whatever part is asked for (RFC 9110, 14.2)."""


class Reader(Protocol):
    """What one connection reads with; one thread has it."""

    def read(self, offset: int, into: memoryview, progress: Progress) -> None:
        """Fill `into` with the archive's bytes from `offset`.

        Raises:
            TransientError: it broke off; what was told to `progress` is there.
            UnusableError, NoRangesError: this place cannot.
        """

    def interrupt(self) -> None:
        """Let a `read` that waits end soon, from another thread."""

    def close(self) -> None:
        """Give everything back."""


class Mirror(Protocol):
    """A place; `shown` is what people may see of it."""

    shown: str
    kind: str

    def reader(self, *, ranges: bool) -> Reader:
        """Return what a new connection reads with; without `ranges` it reads in order only."""


def open_mirror(location: str, size: int, timeouts: tuple[float, float]) -> Mirror:
    """Make the mirror for the URL or path of an archive.

    Args:
        location: of NAME.tar.zst.
        size: bytes that the archive must have.
        timeouts: seconds to connect, and to wait for the next bytes.
    """
    if is_url(location):
        return HttpMirror(location, size, timeouts)
    return FileMirror(location, size)


class FileMirror:
    """An archive in a file system; on a mounted share the kernel does the retries."""

    kind = "reading"

    def __init__(self, path: str, size: int) -> None:
        self.shown = path
        self._path = Path(path)
        self._size = size

    def reader(self, *, ranges: bool) -> "Reader":  # noqa: ARG002 - a file always has them
        """See `Mirror`."""
        return _FileReader(self._path, self._size)


class _FileReader:
    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._file: int | None = None

    def read(self, offset: int, into: memoryview, progress: Progress) -> None:
        """See `Reader`."""
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.fstat(self._file).st_size
            if found != self._size:
                raise UnusableError(
                    f"it has {found} bytes, and the manifest says {self._size}", "payload.hash"
                )
            done = 0
            while done < len(into):
                count = os.preadv(self._file, [into[done : done + _LARGEST]], offset + done)
                if not count:
                    raise UnusableError("it became shorter while it was read", "payload.changed")
                done += count
                progress(done)
        except OSError as error:
            code = "payload.not-found" if isinstance(error, FileNotFoundError) else "device.io"
            raise UnusableError(error.strerror or str(error), code) from None

    def interrupt(self) -> None:
        """See `Reader`; a read of a file cannot be interrupted."""

    def close(self) -> None:
        """See `Reader`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class HttpMirror:
    """An archive on an HTTP server."""

    kind = "network"

    def __init__(self, url: str, size: int, timeouts: tuple[float, float]) -> None:
        self.shown = redacted(url)
        self._url = url
        self._size = size
        self._timeouts = timeouts

    def reader(self, *, ranges: bool) -> "Reader":
        """See `Mirror`."""
        return _HttpReader(self._url, self._size, self._timeouts, ranges=ranges)


class _HttpReader:
    """One kept-alive connection. Without ranges it holds the answer open, and skips in it."""

    def __init__(self, url: str, size: int, timeouts: tuple[float, float], *, ranges: bool) -> None:
        # requests takes seconds to import in an emulated machine
        import requests  # noqa: PLC0415

        self._url = url
        self._size = size
        self._timeouts = timeouts
        self._ranges = ranges
        self._session = requests.Session()
        self._session.max_redirects = _REDIRECTS
        self._whole: requests.Response | None = None
        self._position = 0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._interrupted = False

    def read(self, offset: int, into: memoryview, progress: Progress) -> None:
        """See `Reader`."""
        import requests  # noqa: PLC0415 - see __init__
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with requests

        try:
            if self._ranges:
                self._read_range(offset, into, progress)
            else:
                self._read_on(offset, into, progress)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # ValueError: a file that `interrupt` closed
            self._forget()
            if is_final(error):
                raise UnusableError(reason(error), "network.unreachable") from None
            raise TransientError(reason(error)) from None
        except TransientError:
            self._forget()
            raise

    def interrupt(self) -> None:
        """See `Reader`."""
        self._interrupted = True
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See `Reader`."""
        self._forget()
        self._session.close()

    def _read_range(self, offset: int, into: memoryview, progress: Progress) -> None:
        last = offset + len(into) - 1
        with self._get({"Range": f"bytes={offset}-{last}"}) as response:
            if response.status_code == 200:
                raise NoRangesError
            if response.status_code == 416:
                raise UnusableError("it is shorter than the manifest says", "payload.hash")
            if response.status_code != 206:
                raise _refused(self._url, response.status_code)
            said = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if said is not None and said[3] not in ("*", str(self._size)):
                raise UnusableError(
                    f"it has {said[3]} bytes, and the manifest says {self._size}", "payload.hash"
                )
            # a server may send less of a range than was asked for, but no other
            if said is None or int(said[1]) != offset or not offset <= int(said[2]) <= last:
                raise UnusableError("it answered with a range that nobody asked for")
            self._hold(response)
            count = int(said[2]) - offset + 1
            _fill(response, into[:count], progress)
            if count < len(into):
                raise TransientError("the server sent less than it was asked for")
            # only after this does urllib3 know that the connection can be used again
            if response.raw.read(1, decode_content=False):
                raise TransientError("the server sent more than it was asked for")

    def _read_on(self, offset: int, into: memoryview, progress: Progress) -> None:
        if self._whole is not None and self._position > offset:
            self._forget()
        if self._whole is None:
            response = self._get({})
            self._whole, self._position = response, 0
            if response.status_code != 200:
                raise _refused(self._url, response.status_code)
            size = length(response.headers.get("Content-Length"))
            if size not in (None, self._size):
                raise UnusableError(
                    f"it has {size} bytes, and the manifest says {self._size}", "payload.hash"
                )
            self._hold(response)
        scratch = memoryview(bytearray(_LARGEST))
        while self._position < offset:
            skipped = scratch[: min(len(scratch), offset - self._position)]
            _fill(self._whole, skipped, lambda _: progress(0))
            self._position += len(skipped)
        before = self._position

        def told(done: int) -> None:
            self._position = before + done
            progress(done)

        _fill(self._whole, into, told)

    def _get(self, headers: dict[str, str]) -> "requests.Response":
        if self._interrupted:
            raise TransientError("it was given up")
        return self._session.get(
            self._url, headers={**HEADERS, **headers}, timeout=self._timeouts, stream=True
        )

    def _hold(self, response: "requests.Response") -> None:
        """Remember the socket, so that `interrupt` can wake whoever waits for it."""
        try:
            handle = socket.socket(fileno=os.dup(response.raw.fileno()))
        except (OSError, ValueError):
            return
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = handle

    def _forget(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
        if self._whole is not None:
            self._whole.close()
            self._whole = None


def _refused(url: str, status: int) -> Exception:
    error = refused(url, status, field="payload.manifest")
    if isinstance(error, InstallError):
        return UnusableError(f"the server answered {status}", error.problems[0].code)
    return error


def _fill(response: "requests.Response", into: memoryview, progress: Progress) -> None:
    """Read until `into` is full. Raises TransientError: the body ended before."""
    done, step = 0, 4 * _SMALLEST
    while done < len(into):
        begun = time.monotonic()
        # a read returns only when all of its bytes are there: small ones show progress on slow
        # links, large ones cost less
        count = response.raw.readinto(into[done : done + step])
        if not count:
            # neither Python 3.11's HTTPResponse.read(n) nor urllib3 before its version 2 notice
            raise TransientError("the connection was closed")
        done += count
        progress(done)
        seconds = time.monotonic() - begun
        if seconds < _QUICK and count == step:
            step = min(2 * step, _LARGEST)
        elif seconds > _SLOW:
            step = max(step // 2, _SMALLEST)
