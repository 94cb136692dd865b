"""Events over HTTP: POSTed as JSON lines, in batches, by a thread that nobody waits for."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from installer.model.codec import to_json
from installer.model.events import AnyEvent, Message
from installer.model.urls import redacted
from installer.report.backlog import Backlog
from installer.report.lines import ascii_only, neutral
from installer.report.sinks import LossError

if TYPE_CHECKING:
    import requests

_BATCH = 200
_REDIRECTS = 3


@dataclass(frozen=True)
class Patience:
    """How long the sink waits, in seconds.

    `gather` is how long it waits for more events after the first, so that a rack of machines does
    not make thousands of small requests. After the n-th failure in a row it waits
    `first_pause` x 2^n, at most `longest_pause`, of which up to a half is left to chance, so that
    the rack does not come back all at once.
    """

    connect: float = 3.0
    answer: float = 5.0
    gather: float = 0.5
    first_pause: float = 1.0
    longest_pause: float = 30.0

    def pause(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        longest = min(self.first_pause * 2.0 ** min(failures, 16), self.longest_pause)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret depends on it


_PATIENCE = Patience()


@dataclass(frozen=True)
class _Problem:
    """Why a batch did not get through; `final` means that it never will."""

    what: str
    final: bool = False


class HttpSink:
    """POSTs events to a URL (application/x-ndjson).

    Each request has `Netinstall-Batch`, which counts from 1 and stays the same when a batch is
    sent again because its answer was lost, and the headers in `machine`. What does not fit into
    the backlog is dropped, progress first, and the next batch begins with a warning that says how
    much. A batch that the server refuses (4xx other than 408 and 429) is dropped as well.

    Redirects are followed to the same host and port only (or from http to https there). User
    name, password and query of the URL are sent, but told nowhere.

    Args:
        url: http or https; a user and password in it are sent as basic authentication.
        machine: headers that say who is talking: `Netinstall-MAC`, `Netinstall-UUID`, ...
        limit: how many events wait at most.
        patience: how long the sink waits for its server.
    """

    def __init__(
        self,
        url: str,
        machine: Mapping[str, str],
        *,
        limit: int = 2000,
        patience: Patience = _PATIENCE,
    ) -> None:
        self.name = f"the report to {redacted(url)}"
        self._url = url
        self._headers = {
            **{name: ascii_only(neutral(value)).strip() for name, value in machine.items()},
            "Content-Type": "application/x-ndjson",
            "User-Agent": "netinstall",
        }
        self._backlog = Backlog(limit)
        self._patience = patience
        self._until: float | None = None
        self._news = ""
        self._told = False
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def emit(self, event: AnyEvent) -> None:
        """Keep the event for the thread.

        Raises:
            LossError: the first time that something did not get through.
        """
        self._backlog.put(event)
        news, self._news = self._news, ""
        if news:
            raise LossError(news)

    def close(self, deadline_s: float) -> None:
        """Send what is left, and give up after `deadline_s` seconds."""
        self._until = time.monotonic() + deadline_s
        self._backlog.finish()
        self._thread.join(deadline_s)

    def _work(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # noqa: BLE001 - its text may hold the URL: only the type is told
            self._tell(f"stopped because of a mistake of this program ({type(error).__name__})")

    def _send_all(self) -> None:
        # seconds on a slow machine, and nobody needs it before the first batch
        import requests  # noqa: PLC0415

        batch = lost = 0
        with requests.Session() as session:
            while True:
                events, dropped = self._backlog.take(_BATCH, self._patience.gather)
                if not events:
                    return
                batch += 1
                lost += dropped
                problem = self._deliver(session, _body(events, lost), batch)
                lost = lost + len(events) if problem else 0

    def _deliver(self, session: "requests.Session", body: bytes, batch: int) -> _Problem | None:
        """Send a batch until it gets through, is refused, or the time is over."""
        failures = 0
        while True:
            problem = self._post(session, body, batch)
            if problem is None:
                return None
            self._tell(problem.what)
            left = self._seconds_left()
            if problem.final or left <= 0:
                return problem
            pause = self._patience.pause(failures)
            failures += 1
            if self._backlog.finished:
                time.sleep(min(pause, left, 0.2))
            else:
                self._backlog.pause(pause)

    def _post(self, session: "requests.Session", body: bytes, batch: int) -> _Problem | None:
        url, auth = _without_credentials(self._url)
        headers = {**self._headers, "Netinstall-Batch": str(batch)}
        for _ in range(_REDIRECTS + 1):
            try:
                status, location = self._exchange(session, url, auth, headers, body)
            except OSError as error:
                return _Problem(_in_words(error))
            if 200 <= status < 300:
                return None
            if not (300 <= status < 400 and location):
                refused = 400 <= status < 500 and status not in (408, 429)
                return _Problem(f"the server answers {status}", final=refused)
            url, before = urljoin(url, location), url
            if not _same_server(before, url):
                return _Problem("the server redirects to another one", final=True)
        return _Problem("the server redirects without end", final=True)

    def _exchange(
        self,
        session: "requests.Session",
        url: str,
        auth: tuple[str, str] | None,
        headers: Mapping[str, str],
        body: bytes,
    ) -> tuple[int, str | None]:
        """POST once; return status and Location. `requests.RequestException` is an `OSError`."""
        left = max(0.05, self._seconds_left())
        with session.post(
            url,
            data=body,
            headers=dict(headers),
            auth=auth,
            timeout=(min(self._patience.connect, left), min(self._patience.answer, left)),
            allow_redirects=False,
            # the answer's body is of no use, and could be endless: it is not read
            stream=True,
        ) as answer:
            return answer.status_code, answer.headers.get("Location")

    def _seconds_left(self) -> float:
        return float("inf") if self._until is None else self._until - time.monotonic()

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._news = f"{self.name} does not get through: {what}"


def _in_words(error: OSError) -> str:
    """Say what went wrong without the text of the error, which holds the URL."""
    from requests import exceptions  # noqa: PLC0415

    match error:
        case exceptions.SSLError():
            return "its certificate is not accepted"
        case exceptions.Timeout():
            return "no answer in time"
        case exceptions.ConnectionError():
            return "no connection"
    return f"no valid exchange ({type(error).__name__})"


def _body(events: Sequence[AnyEvent], lost: int) -> bytes:
    if lost:
        first = events[0]
        text = f"{lost} events before this one were dropped on their way to this report"
        warning = Message(time=first.time, uptime=first.uptime, level="warning", text=text)
        events = [warning, *events]
    lines = "".join(to_json(event) + "\n" for event in events)
    # a lone surrogate (a file name that is no UTF-8) becomes \udcXX, which JSON allows
    return lines.encode("utf-8", "backslashreplace")


def _without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))


def _same_server(before: str, after: str) -> bool:
    old, new = urlsplit(before), urlsplit(after)
    if (old.scheme, new.scheme) == ("http", "https"):
        return old.hostname == new.hostname
    return (old.scheme, old.netloc) == (new.scheme, new.netloc)
