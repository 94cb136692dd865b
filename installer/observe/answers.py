"""The answer file: found by what identifies this machine, read, and checked to its end."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from installer.model.answers import AnswerFile
from installer.model.errors import InstallError, Problem, fail
from installer.model.facts import Facts
from installer.model.units import format_bytes, format_seconds
from installer.model.urls import redacted
from installer.observe import documents
from installer.observe.payload import HEADERS, TIMEOUTS, TransientError, delays, is_final, reason

if TYPE_CHECKING:
    import requests

LARGEST = 1024 * 1024
"""Bytes of an answer file; anything larger is something else."""

SECONDS = 120.0
"""How long an unreachable server is asked again: a switch's port may need 50 s to forward."""

_REDIRECTS = 5


KIND = documents.Kind(AnswerFile, syntax="answers.syntax", field="answers.field")


def load(text: str, name: str) -> AnswerFile:
    """Read an answer file, JSON if its name or its first character says so, TOML otherwise.

    Raises:
        InstallError: `answers.syntax`, or all `answers.field` problems together, each with file,
            line, column and field.
    """
    return documents.load(KIND, text, name)


@dataclass(frozen=True)
class NfsLocation:
    """An answer file (or with the name "" a directory of them) on an NFS server.

    Whoever mounts `server`:`folder` reads it with `find(f"{mount_point}/{name}", facts)`.
    """

    server: str
    folder: str
    name: str


def nfs_location(location: str, facts: Facts | None = None) -> NfsLocation | None:
    """Understand `nfs:SERVER:/folder/file` (or `nfs://SERVER/folder/file`); None for others.

    Raises:
        InstallError: `arguments`, or `answers.not-found` for a placeholder without a value.
    """
    if not location.startswith("nfs:"):
        return None
    path = _substituted(location, facts, encode=str)
    match = re.fullmatch(r"nfs:(?://([^/:\s]+)|([^/:\s]+):)(/(?:[^\0\s]*/)?)([^/\0\s]*)", path)
    if match is None or ".." in match[3].split("/"):
        raise fail(
            "arguments",
            f"{location!r} is no place on an NFS server",
            hint="write nfs:SERVER:/folder/file.toml, or nfs:SERVER:/folder/ for a directory",
        )
    return NfsLocation(match[1] or match[2], match[3].rstrip("/") or "/", match[4])


def find(
    location: str,
    facts: Facts | None = None,
    on_retry: Callable[[str], None] = lambda _text: None,
    *,
    seconds: float = SECONDS,
    timeouts: tuple[float, float] = TIMEOUTS,
) -> tuple[str, str]:
    """Read the answer file for this machine.

    Args:
        location: an http(s) URL, `file:/path` or a path, with `{mac}`, `{uuid}`, `{serial}`,
            `{ip}` and `{hostname}` in it. A URL that ends in `/`, or a directory, is searched for
            a file named after one of these, in this order, then for `default`; each with .toml
            or .json at its end. Only a missing file makes the search go on.
        facts: what identifies this machine.
        on_retry: is told, in words, each time that a server is asked again.
        seconds: how long an unreachable server is asked again.
        timeouts: seconds to connect, and to wait for an answer.

    Returns:
        the text, and the name under which errors show it.

    Raises:
        InstallError: `answers.not-found`, `answers.syntax` (not UTF-8), `network.unreachable` or
            `arguments`.
    """
    if re.match(r"https?://", location, re.IGNORECASE):
        url = _substituted(location, facts, encode=partial(quote, safe=""))
        # requests takes seconds to import in an emulated machine
        import requests  # noqa: PLC0415

        with requests.Session() as session:
            session.max_redirects = _REDIRECTS
            web = _Web(session, on_retry, time.monotonic() + seconds, timeouts)
            names = _file_names(facts) if re.fullmatch(r"[^?#]*/", url) else None
            return _first(location, url, names, web.get, encode=partial(quote, safe=""))
    if location.startswith("nfs:"):
        raise fail(
            "answers.not-found",
            f"{location} is on an NFS server that is not mounted",
            hint="mount it, then give the path of the file",
        )
    path = re.sub(r"\Afile:(?://(?=/))?", "", location)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise fail(
            "arguments",
            f"{redacted(location)}: answer files come from http, https, nfs or a file",
            hint="write for example http://SERVER/answers/",
        )
    path = _substituted(path, facts, encode=str)
    if Path(path).is_dir() and not path.endswith("/"):
        path += "/"
    names = _file_names(facts) if path.endswith("/") else None
    return _first(location, path, names, _read_file, encode=str)


def _first(
    location: str,
    place: str,
    names: list[str] | None,
    get: Callable[[str], bytes | None],
    *,
    encode: Callable[[str], str],
) -> tuple[str, str]:
    """Read the first of the names that there is, or the place itself if it is no directory."""
    for name in names or [""]:
        content = get(place + encode(name))
        if content is not None:
            shown = redacted(place + encode(name))
            return decoded(content, shown), shown
    if names is None:
        raise fail(
            "answers.not-found",
            f"there is no {redacted(place)}",
            where=_from(location, place),
            hint="is the file there under exactly this name?",
        )
    raise fail(
        "answers.not-found",
        f"{redacted(place)} has no answer file for this machine; tried " + ", ".join(names),
        where=_from(location, place),
        hint="name a file after one of these, or make default.toml",
    )


def decoded(content: bytes, name: str) -> str:
    """Return the text of an answer file. Raises InstallError: `answers.syntax`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise fail(
            "answers.syntax",
            f"byte {error.start} is not UTF-8",
            where=name,
            hint="save the file as UTF-8",
        ) from None


def _from(location: str, place: str) -> str:
    return "" if location == place else redacted(location)


def _identities(facts: Facts | None) -> Iterator[tuple[str, str]]:
    """What identifies this machine, most specific first; the first of a kind is its best."""
    if facts is None:
        return
    nic = facts.boot_nic
    if facts.boot_mac is not None:
        yield "mac", facts.boot_mac
    elif nic is not None:
        yield "mac", nic.mac
    else:
        for other in facts.nics:
            yield "mac", other.mac
    if facts.dmi.uuid:
        yield "uuid", facts.dmi.uuid.lower()
    if facts.dmi.serial:
        yield "serial", facts.dmi.serial
    leases = [lease] if nic and (lease := facts.lease_of(nic)) else facts.leases
    for lease in leases if len(leases) == 1 else ():
        yield "ip", str(lease.address.ip)
        if lease.hostname:
            yield "hostname", lease.hostname


def _file_names(facts: Facts | None) -> list[str]:
    stems: list[str] = []
    for kind, value in _identities(facts):
        if not _stays(value):
            continue
        stems.append(value)
        if kind == "mac":
            # a colon cannot be part of a name everywhere
            stems.append(value.replace(":", "-"))
        elif kind == "hostname":
            stems.append(value.partition(".")[0])
    unique = dict.fromkeys([*stems, "default"])
    return [f"{stem}.{ending}" for stem in unique for ending in ("toml", "json")]


def _stays(value: str) -> bool:
    """Say whether a foreign value is one plain name: no separator, nothing hidden, no `..`."""
    return bool(value) and value.isprintable() and not re.search(r"\A\.|[/\\]", value)


_PLACEHOLDERS = ("mac", "uuid", "serial", "hostname", "ip")


def _substituted(location: str, facts: Facts | None, *, encode: Callable[[str], str]) -> str:
    values: dict[str, str] = {}
    for kind, value in _identities(facts):
        values.setdefault(kind, value)
    problems: list[Problem] = []

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in _PLACEHOLDERS:
            problems.append(
                Problem(
                    "arguments",
                    f"{match[0]} is not known",
                    redacted(location),
                    "known are " + ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS),
                )
            )
        elif name not in values:
            problems.append(
                Problem(
                    "answers.not-found",
                    f"this machine does not say its {name}",
                    redacted(location),
                    "use a directory, in which the most specific file wins",
                )
            )
        elif not _stays(values[name]):
            problems.append(
                Problem(
                    "answers.not-found",
                    f"this machine's {name} {values[name]!r} cannot be a part of an address",
                    redacted(location),
                    "use another placeholder",
                )
            )
        return encode(values.get(name, ""))

    text = re.sub(r"\{([^{}]*)\}", replaced, location)
    if problems:
        raise InstallError(problems)
    return text


def _read_file(path: str) -> bytes | None:
    """Read a file; None if there is none."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise fail(
            "answers.not-found",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            hint="the installer must be able to read it",
        ) from None
    return _not_too_large(content, path)


def _not_too_large(content: bytes, name: str) -> bytes:
    if len(content) > LARGEST:
        raise fail(
            "answers.not-found",
            f"{name} is larger than {format_bytes(LARGEST)}: it is no answer file",
            hint="check the address",
        )
    return content


@dataclass(frozen=True)
class _Web:
    """Reads answer files by HTTP; `deadline` (monotonic) is that of all requests together."""

    session: "requests.Session"
    on_retry: Callable[[str], None]
    deadline: float
    timeouts: tuple[float, float]

    def get(self, url: str) -> bytes | None:
        """Read a URL, asking again after what may pass; None if the server has no such file."""
        import requests  # noqa: PLC0415 - see find()

        for delay in delays(first=0.5, longest=8.0):
            try:
                return self._get_once(url)
            except (requests.RequestException, TransientError) as error:
                if is_final(error) or time.monotonic() + delay > self.deadline:
                    raise fail(
                        "network.unreachable",
                        f"{redacted(url)} cannot be read: {reason(error)}",
                        where="the answer file",
                        hint="check cable, address, gateway and name servers of this machine, "
                        "then the server",
                    ) from None
                self.on_retry(
                    f"{redacted(url)}: {reason(error)}; trying again in {format_seconds(delay)}"
                )
            time.sleep(delay)
        raise AssertionError("delays() does not end")

    def _get_once(self, url: str) -> bytes | None:
        with self.session.get(url, headers=HEADERS, timeout=self.timeouts, stream=True) as response:
            status = response.status_code
            if status in (404, 410):
                return None
            if status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
                raise TransientError(f"the server answered {status}")
            if status != 200:
                # a refusal may hide a file that is meant for this machine: a less specific one
                # must not be taken in its place
                raise fail(
                    "answers.not-found",
                    f"the server answered {status} for {redacted(url)}",
                    hint="a server must answer 404 for files that it does not have, "
                    "and let this machine read the others",
                )
            content = b""
            for chunk in response.iter_content(65536):
                content += chunk
                if len(content) > LARGEST or time.monotonic() > self.deadline:
                    break
            else:
                return content
        _not_too_large(content, redacted(url))
        raise TransientError("it comes too slowly")
