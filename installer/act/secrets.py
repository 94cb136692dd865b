"""Passphrases: read before anything is destroyed, kept in memory, handed on in memory.

No secret is ever an argument of a program, a part of its environment, or a file on a disk.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO

from installer.model.errors import InstallError, fail
from installer.model.units import format_seconds
from installer.model.urls import redacted
from installer.observe.payload import HEADERS, TIMEOUTS, TransientError, delays, is_final, reason

LARGEST = 64 * 1024
"""Bytes of a passphrase or key; cryptsetup(8) takes key files of up to 8 MiB."""

_SECONDS = 120.0


def read(place: str, say: Callable[[str], None]) -> bytes:
    """Read a passphrase from an http(s) URL or a file, without the line's end.

    Args:
        place: the URL, `file:` and a path, or a path.
        say: told why a server is asked again.

    Raises:
        InstallError: `secret.not-found` or `network.unreachable`.
    """
    if re.match(r"https?://", place):
        content = _fetch(place, say)
    else:
        path = re.sub(r"\Afile:(?://(?=/))?", "", place)
        try:
            with Path(path).open("rb") as stream:
                content = stream.read(LARGEST + 1)
        except OSError as error:
            raise _no_secret(path, error.strerror or str(error)) from None
    # an editor puts a line's end there, nobody types it at the boot
    secret = re.sub(rb"\r?\n\Z", b"", content)
    if not secret:
        raise _no_secret(redacted(place), "it is empty")
    if len(content) > LARGEST:
        raise _no_secret(redacted(place), f"it is longer than {LARGEST} bytes")
    return secret


def _no_secret(place: str, why: str) -> InstallError:
    return fail(
        "secret.not-found",
        f"the passphrase cannot be read from {place}: {why}",
        hint="it is one line of text; this machine must be able to read it",
    )


def _fetch(url: str, say: Callable[[str], None]) -> bytes:
    import requests  # noqa: PLC0415 - seconds in an emulated machine

    deadline = time.monotonic() + _SECONDS
    for delay in delays(first=0.5, longest=8.0):
        try:
            return _fetch_once(url)
        except (requests.RequestException, TransientError) as error:
            if is_final(error) or time.monotonic() + delay > deadline:
                raise fail(
                    "network.unreachable",
                    f"{redacted(url)} cannot be read: {reason(error)}",
                    where="the passphrase",
                    hint="check cable, address, gateway and name servers of this machine, "
                    "then the server",
                ) from None
            say(f"{redacted(url)}: {reason(error)}; trying again in {format_seconds(delay)}")
        time.sleep(delay)
    raise AssertionError("delays() does not end")


def _fetch_once(url: str) -> bytes:
    import requests  # noqa: PLC0415 - as above

    with requests.get(url, headers=HEADERS, timeout=TIMEOUTS, stream=True) as response:
        if response.status_code >= 500:
            raise TransientError(f"the server answered {response.status_code}")
        if response.status_code != 200:
            raise _no_secret(redacted(url), f"the server answered {response.status_code}")
        content = b""
        for chunk in response.iter_content(4096):
            content += chunk
            if len(content) > LARGEST:
                break
        return content


def random_secret() -> bytes:
    """Return a passphrase of 256 bits that nobody will ever see."""
    return token_hex(32).encode()


@contextmanager
def in_memory(secret: bytes) -> Iterator[IO[bytes]]:
    """Offer a secret as a file that has no name and lies in memory (memfd_create(2))."""
    descriptor = os.memfd_create("secret")
    with os.fdopen(descriptor, "w+b") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(secret)
        stream.flush()
        stream.seek(0)
        yield stream


def path_of(stream: IO[bytes]) -> str:
    """Return a path by which a child that runs as root can open a file of ours."""
    return f"/proc/{os.getpid()}/fd/{stream.fileno()}"
