"""A first look at where the payload comes from: is it there, how large is it."""

import random
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from installer.model.errors import InstallError, fail
from installer.model.facts import PayloadFacts
from installer.model.payload import Payload
from installer.model.units import format_seconds
from installer.model.urls import is_url, redacted

if TYPE_CHECKING:
    import requests

LOOK_SECONDS = 20.0
"""How long a first look keeps trying to reach the server."""

TIMEOUTS = (10.0, 30.0)
"""Seconds until a connection must stand, and until the next bytes must come."""

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "netinstall"}
"""The bytes that were announced and hashed are those of the file, not of a transfer coding."""


def look(
    payload: Payload,
    on_retry: Callable[[str], None] = lambda _text: None,
    *,
    seconds: float = LOOK_SECONDS,
    timeouts: tuple[float, float] = TIMEOUTS,
) -> PayloadFacts:
    """Ask for the payload's size without reading it.

    Args:
        payload: where it is.
        on_retry: is told, in words, each time that the server is asked again.
        seconds: how long an unreachable server is asked again.
        timeouts: seconds to connect, and to wait for an answer.

    Raises:
        InstallError: `payload.not-found` or `network.unreachable`.
    """
    url = payload.source
    if not is_url(url):
        return look_at_file(Path(url), f"payload.{payload.kind}")
    # requests takes seconds to import in an emulated machine, and a dry run may not need it
    import requests  # noqa: PLC0415

    deadline = time.monotonic() + seconds
    with requests.Session() as session:
        for delay in delays(first=0.5, longest=5.0):
            try:
                return _look_at_url(session, url, timeouts, f"payload.{payload.kind}")
            except (requests.RequestException, TransientError) as error:
                if is_final(error) or time.monotonic() + delay > deadline:
                    raise unreachable(url, error) from None
                on_retry(
                    f"{redacted(url)}: {reason(error)}; trying again in {format_seconds(delay)}"
                )
            time.sleep(delay)
    raise AssertionError("delays() does not end")


class TransientError(Exception):
    """The server answered, but with an error that may pass (RFC 9110, 15.6; RFC 6585, 4)."""


def look_at_file(path: Path, field: str = "payload.path") -> PayloadFacts:
    """Ask the file system. Raises InstallError: `payload.not-found`."""
    hint = f"is the share mounted in the boot environment, and {field} right?"
    try:
        status = path.stat()
    except OSError as error:
        raise fail(
            "payload.not-found", f"{path}: {error.strerror}", where=field, hint=hint
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise fail("payload.not-found", f"{path} is no regular file", where=field, hint=hint)
    return PayloadFacts(str(path), status.st_size, ranges=True)


def _look_at_url(
    session: "requests.Session", url: str, timeouts: tuple[float, float], field: str
) -> PayloadFacts:
    shown = redacted(url)
    with session.head(url, headers=HEADERS, timeout=timeouts, allow_redirects=True) as response:
        if response.status_code == 200:
            ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
            return PayloadFacts(shown, length(response.headers.get("Content-Length")), ranges)
        error = refused(url, response.status_code, field)
        if response.status_code in (404, 410) or isinstance(error, TransientError):
            raise error
    # some servers refuse HEAD, and a signed URL may be signed for GET only
    with session.get(
        url, headers={**HEADERS, "Range": "bytes=0-0"}, timeout=timeouts, stream=True
    ) as response:
        if response.status_code == 206:
            size = length(response.headers.get("Content-Range", "").rpartition("/")[2])
            return PayloadFacts(shown, size, ranges=True)
        if response.status_code == 200:
            return PayloadFacts(shown, length(response.headers.get("Content-Length")))
        if response.status_code == 416:
            return PayloadFacts(shown, 0)
        raise refused(url, response.status_code, field)


def refused(url: str, status: int, field: str = "payload.url") -> Exception:
    """Say what an HTTP status means for a payload: an `InstallError`, or `TransientError`.

    `field` is what names it in the answer file.
    """
    if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        return TransientError(f"the server answered {status}")
    hints = {
        401: "the server wants a user and a password: https://user:password@host/…",
        403: "the server forbids it: check the file's permissions there, or an expired signature",
        404: f"check {field}: is the file there under exactly this name?",
        410: f"the file was removed from the server: point {field} to its successor",
        407: "a proxy wants a user and a password",
    }
    return fail(
        "payload.not-found",
        f"the server answered {status} for {redacted(url)}",
        where=field,
        hint=hints.get(status, f"try it by hand: curl -I '{redacted(url)}'"),
    )


def unreachable(url: str, error: Exception) -> InstallError:
    """Say that a server could not be reached, and why."""
    what = reason(error)
    if "certificate" in what.lower():
        hint = "check the clock of this machine (date) and the certificate of the server"
    elif isinstance(error, TransientError):
        hint = "the server is there but not well: look at its log"
    else:
        hint = "check cable, address, gateway and name servers of this machine, then the server"
    return fail(
        "network.unreachable",
        f"{redacted(url)} cannot be reached: {what}",
        where="payload.url",
        hint=hint,
    )


def length(text: str | None) -> int | None:
    """Read a Content-Length (RFC 9110, 8.6) or the size in a Content-Range; None for neither."""
    return int(text) if text and text.isascii() and text.isdigit() else None


def is_final(error: Exception) -> bool:
    """Say whether asking again cannot help: a bad certificate, a URL that is none."""
    import requests  # noqa: PLC0415 - see look()

    return isinstance(
        error,
        requests.exceptions.SSLError
        | requests.exceptions.InvalidURL
        | requests.exceptions.InvalidSchema
        | requests.exceptions.TooManyRedirects,
    )


def reason(error: BaseException) -> str:
    """Say in a few words why a connection failed.

    The texts of requests and urllib3 are long and repeat the URL with everything secret in it, so
    the innermost error of the operating system speaks where there is one.
    """
    import requests  # noqa: PLC0415 - see look()

    if isinstance(error, TransientError):
        return str(error)
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "the server redirects in circles"
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return "this is no http(s) URL"
    inner = [part for part in _chain(error) if isinstance(part, OSError) and part.strerror]
    if any(isinstance(part, TimeoutError) for part in _chain(error)) or isinstance(
        error, requests.exceptions.Timeout
    ):
        return "no answer in time"
    if inner:
        return str(inner[-1].strerror)
    return "the connection was closed"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """All errors that one error wraps: urllib3 keeps them in `reason` and in `args`."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop(0)
        if not isinstance(part, BaseException) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]


def delays(*, first: float, longest: float) -> Iterator[float]:
    """Yield seconds to wait before each retry, for ever: doubled each time, with jitter.

    Jitter keeps a rack of machines that lost the same server from asking it all at once.
    """
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        delay = min(delay * 2, longest)
