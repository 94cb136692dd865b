"""The lab's HTTP server: serves exactly what a test published, and breaks where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

from lab import background
from lab.network import Network

Found = TypeVar("Found")

REPORT_PATH = "/report"
_CHUNK = 64 * 1024
_FAR = 10.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a path, for the next `times` requests (None: for all).

    `status` answers with that code. `cut_after` sends so many bytes of the body (Content-Length
    still says all), then closes the connection; with `reset` it is torn down (RST) instead.
    `stall_after` sends so many bytes and then nothing more. `ignore_range` answers a range
    request with the whole file, which RFC 9110, section 14.2, allows every server.
    """

    status: int | None = None
    cut_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    ignore_range: bool = False
    times: int | None = None


@dataclass
class Request:
    """One request as the log keeps it; `sent` counts body bytes and grows during a transfer."""

    method: str
    path: str
    query: str
    range: str | None
    agent: str
    began: float
    status: int = 0
    sent: int = 0
    done: bool = False
    complete: bool = False


@dataclass
class _State:
    content: dict[str, Path | bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    rate: float | None = None


class HttpServer:
    """Serves on a network's server address; `rate` paces each transfer, in bytes a second.

    May be used as a context manager. All methods may be called from any thread.
    """

    def __init__(self, network: Network, *, port: int = 0, rate: float | None = None) -> None:
        """Start it; port 0 takes a free one."""
        self._network = network
        self._state = _State(rate=rate)
        self._changed = threading.Condition()
        self._healed: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None
        self._started = time.monotonic()
        self.port = port
        self.start()

    @property
    def base(self) -> str:
        """The URL as guests see it, without a slash at the end."""
        return f"http://{self._network.server_address}:{self.port}"

    def url(self, path: str) -> str:
        """The URL of a path as guests see it."""
        return self.base + path

    def publish(self, path: str, content: Path | str | bytes) -> str:
        """Serve a file or a text under exactly this path; returns its URL.

        Raises FileNotFoundError for a file that does not exist.
        """
        if isinstance(content, Path) and not content.is_file():
            raise FileNotFoundError(content)
        with self._changed:
            self._state.content[path] = content.encode() if isinstance(content, str) else content
        return self.url(path)

    def publish_folder(self, prefix: str, folder: Path) -> str:
        """Serve every file below `folder` under `prefix`; returns the prefix's URL."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.publish(f"{prefix}/{file.relative_to(folder).as_posix()}", file)
        return self.url(prefix)

    def fail(self, path: str, fault: Fault) -> None:
        """Let a path fail from now on; replaces what was said about it before."""
        with self._changed:
            self._state.faults[path] = fault

    def heal(self, path: str) -> None:
        """Let a path work again; a transfer that stalls goes on."""
        with self._changed:
            self._state.faults.pop(path, None)

        def wake() -> None:
            if stalled := self._healed.pop(path, None):
                stalled.set()

        background.loop().call_soon_threadsafe(wake)

    def pace(self, rate: float | None) -> None:
        """Bytes a second for each transfer from now on; None lifts the limit."""
        with self._changed:
            self._state.rate = rate

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order, as they stand now."""
        with self._changed:
            return [replace(one) for one in self._state.requests]

    @property
    def reports(self) -> list[dict[str, Any]]:
        """All events that were posted to /report, in order of arrival."""
        with self._changed:
            return list(self._state.reports)

    def describe(self, last: int = 40) -> str:
        """The last requests for people, one a line, with seconds since the server was made."""
        return "\n".join(
            f"  {one.began:8.3f} s {one.method} {one.path} {one.range or ''} "
            f"-> {one.status}, {one.sent} bytes" + ("" if one.done else " …")
            for one in self.requests[-last:]
        )

    def wait_for_request(
        self,
        path: str,
        deadline_s: float,
        *,
        sent: int = 0,
        complete: bool = False,
        done: bool = False,
        method: str | None = None,
        skip: int = 0,
    ) -> Request:
        """The first request for `path` (a regex that matches all of it), already made or awaited.

        `sent` waits until so many body bytes went out, `complete` for all of them, `done` for the
        end of the transfer, good or bad. The first `skip` requests for it are passed over.
        Raises TimeoutError, which lists what was asked for instead.
        """

        def find() -> Request | None:
            asked = (
                one
                for one in self._state.requests
                if re.fullmatch(path, one.path) and method in (None, one.method)
            )
            return next(
                (
                    replace(one)
                    for one in itertools.islice(asked, skip, None)
                    if one.sent >= sent
                    and (one.complete or not complete)
                    and (one.done or not done)
                ),
                None,
            )

        wanted = f"a request for {path}" + (f" with {sent} bytes sent" if sent else "")
        wanted += ", complete" if complete else ", done" if done else ""
        return self._wait(find, deadline_s, wanted)

    def wait_for_report(
        self, match: Callable[[dict[str, Any]], bool], deadline_s: float
    ) -> dict[str, Any]:
        """The first reported event that `match` accepts. Raises TimeoutError."""

        def find() -> dict[str, Any] | None:
            return next((one for one in self._state.reports if match(one)), None)

        return self._wait(find, deadline_s, "a matching event report")

    def start(self) -> None:
        """Serve (again), on the port that the server had before. Raises OSError."""
        if self._runner is None:
            listening = self._network.listen(self.port)
            self.port = listening.getsockname()[1]
            background.run(self._start(web_socket=listening), _FAR, "the HTTP server to start")

    def stop(self) -> None:
        """Die abruptly: the port is closed and every connection reset."""
        if self._runner is not None:
            background.run(self._stop(self._runner), _FAR, "the HTTP server to stop")
            self._runner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def _wait(self, find: Callable[[], Found | None], deadline_s: float, wanted: str) -> Found:
        with self._changed:
            if self._changed.wait_for(lambda: find() is not None, deadline_s):
                found = find()
                assert found is not None
                return found
        raise TimeoutError(
            f"waited {deadline_s:g} s for {wanted}; requests so far:\n{self.describe()}"
        )

    async def _start(self, web_socket: Any) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=0,
            # A stalled transfer ends when its client leaves.
            handler_cancellation=True,
        )
        await runner.setup()
        await web.SockSite(runner, web_socket).start()
        self._runner = runner

    async def _stop(self, runner: web.AppRunner) -> None:
        server = runner.server
        for connection in list(server.connections) if server else []:
            transport = connection.transport
            if isinstance(transport, asyncio.Transport):
                _reset(transport)
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        entry = Request(
            method=request.method,
            path=request.path,
            query=request.query_string,
            range=request.headers.get("Range"),
            agent=request.headers.get("User-Agent", ""),
            began=time.monotonic() - self._started,
        )
        with self._changed:
            self._state.requests.append(entry)
            self._changed.notify_all()
        try:
            return await self._serve(request, entry)
        finally:
            self._note(entry, done=True)

    async def _serve(self, request: web.Request, entry: Request) -> web.StreamResponse:
        fault = self._fault(request.path)
        if fault.status is not None:
            return self._plain(entry, fault.status)
        if request.method == "POST" and request.path == REPORT_PATH:
            return await self._receive(request, entry)
        with self._changed:
            content = self._state.content.get(request.path)
        if content is None:
            return self._plain(entry, 404)
        if request.method not in ("GET", "HEAD"):
            return self._plain(entry, 405)
        return await self._send(request, entry, content, fault)

    def _plain(self, entry: Request, status: int) -> web.Response:
        self._note(entry, status=status)
        return web.Response(status=status, text=f"{status}: {entry.path}\n")

    async def _receive(self, request: web.Request, entry: Request) -> web.Response:
        lines = (await request.read()).splitlines()
        try:
            events = [json.loads(line) for line in lines if line.strip()]
        except ValueError:
            return self._plain(entry, 400)
        with self._changed:
            for event in events:
                self._state.reports += event if isinstance(event, list) else [event]
        self._note(entry, status=204)
        return web.Response(status=204)

    async def _send(
        self, request: web.Request, entry: Request, content: Path | bytes, fault: Fault
    ) -> web.StreamResponse:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        start, stop, status = 0, size, 200
        if entry.range and not fault.ignore_range:
            try:
                start, stop, _ = request.http_range.indices(size)
            except ValueError:
                start, stop = size, size
            if start >= stop:
                response = self._plain(entry, 416)
                response.headers["Content-Range"] = f"bytes */{size}"
                return response
            status = 206
        response_headers = {"Content-Type": "application/octet-stream"}
        if not fault.ignore_range:
            response_headers["Accept-Ranges"] = "bytes"
        if status == 206:
            response_headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        answer = web.StreamResponse(status=status, headers=response_headers)
        answer.content_length = stop - start
        self._note(entry, status=status)
        # A client that goes away in the middle is the client's affair, and the log shows it.
        with contextlib.suppress(ConnectionError):
            await answer.prepare(request)
            if request.method == "GET":
                await self._body(
                    request, answer, content, range(start, stop), entry=entry, fault=fault
                )
            if request.transport and not request.transport.is_closing():
                await answer.write_eof()
                self._note(entry, complete=True)
        return answer

    async def _body(
        self,
        request: web.Request,
        answer: web.StreamResponse,
        content: Path | bytes,
        part: range,
        *,
        entry: Request,
        fault: Fault,
    ) -> None:
        began = time.monotonic()
        limits = [limit for limit in (fault.cut_after, fault.stall_after) if limit is not None]
        limit = min([len(part), *limits])
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(content.open("rb")) if isinstance(content, Path) else None
            if file:
                file.seek(part.start)
            while entry.sent < len(part):
                if entry.sent >= limit:
                    if fault.cut_after is not None:
                        await self._cut(request, fault)
                        return
                    await self._stalled(request.path)
                    limit = len(part)
                with self._changed:
                    rate = self._state.rate
                # Paced transfers go out in tenths of a second, so that they look like a slow line.
                chunk = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / 10)))
                chunk = min(chunk, limit - entry.sent)
                if isinstance(content, bytes):
                    offset = part.start + entry.sent
                    data = content[offset : offset + chunk]
                else:
                    assert file is not None
                    data = file.read(chunk)
                await answer.write(data)
                self._note(entry, sent=entry.sent + len(data))
                if rate is not None:
                    await asyncio.sleep(max(0.0, began + entry.sent / rate - time.monotonic()))

    async def _cut(self, request: web.Request, fault: Fault) -> None:
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return
        if fault.reset:
            _reset(transport)
            return
        transport.close()

    async def _stalled(self, path: str) -> None:
        healed = self._healed.setdefault(path, asyncio.Event())
        await healed.wait()

    def _fault(self, path: str) -> Fault:
        with self._changed:
            fault = self._state.faults.get(path)
            if fault is None:
                return Fault()
            if fault.times is not None:
                if fault.times <= 0:
                    return Fault()
                self._state.faults[path] = replace(fault, times=fault.times - 1)
            return fault

    def _note(self, entry: Request, **changes: Any) -> None:
        with self._changed:
            for name, value in changes.items():
                setattr(entry, name, value)
            self._changed.notify_all()


def _reset(transport: asyncio.Transport) -> None:
    # Closing sends RST, and drops what was not yet sent, only without lingering (socket(7)).
    line: socket.socket = transport.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
