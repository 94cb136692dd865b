"""The HTTP server: rendered scripts, Pixiecore's API, files, and the agent's reports."""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from installer.boot.serve import files, neighbours, published, reports
from installer.boot.serve.files import NotPublishedError
from installer.boot.serve.journey import Event, Reported, Transfer
from installer.boot.serve.published import Published, Text

_ACKNOWLEDGED = struct.Struct("=Q")
_ACKNOWLEDGED_AT = 120
"""tcpi_bytes_acked in struct tcp_info (linux/tcp.h)."""

_TICK_SECONDS = 1.0


@dataclass
class _Sending:
    """A file on its way; `before` is what the connection had delivered for earlier requests."""

    transfer: Transfer
    connection: socket.socket
    before: int
    began: float

    def delivered(self) -> int:
        """Bytes that the client has acknowledged; headers count, so no more than the size."""
        return max(0, min(_acknowledged(self.connection) - self.before, self.transfer.size or 0))


class _OpenedFile(web.FileResponse):
    """A file that is sent while it is held open, before the handler returns.

    aiohttp prepares what a handler returns, and a FileResponse would look at its file again.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await web.StreamResponse.prepare(self, request)
        return await super().prepare(request)


class Server:
    """Answers requests.

    Args:
        what: what is served.
        tell: is told what happens; called in the event loop.
        complain: is told what should not happen, for a person.
    """

    def __init__(
        self, what: Published, tell: Callable[[Event], None], complain: Callable[[str], None]
    ) -> None:
        self._what = what
        self._tell = tell
        self._complain = complain
        self._prefix = urlsplit(what.site.file.http.url).path + "/"
        self._transfers: dict[int, _Sending] = {}
        self._batches: dict[str, tuple[str, bytes]] = {}

    @asynccontextmanager
    async def listening(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer on a bound socket until the context is left."""
        app = web.Application(client_max_size=reports.LIMIT, middlewares=[self._guard])
        app.router.add_route("*", "/{path:.*}", self._answer)
        # its complaints quote clients: ours are said through `complain`
        quiet = logging.getLogger("netinstall.serve")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        runner = web.AppRunner(app, access_log=None, logger=quiet, shutdown_timeout=1.0)
        await runner.setup()
        watch = asyncio.create_task(self._watch())
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            watch.cancel()
            await runner.cleanup()

    async def _watch(self) -> None:
        """Tell how far the files are that are on their way."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for sending in list(self._transfers.values()):
                done = sending.delivered()
                self._tell(replace(sending.transfer, state="moved", done=done))

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - one request must not be the server's end
            self._complain(f"a mistake of this program: {error!r} at {request.raw_path!r}")
            raise web.HTTPInternalServerError from None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        ip = request.remote or ""
        if not path.startswith(self._prefix):
            raise web.HTTPNotFound
        try:
            name = files.name_of(path[len(self._prefix) - 1 :])
        except NotPublishedError as error:
            self._complain(f"{ip} asked for {path!r}: {error}")
            raise web.HTTPNotFound from None
        if name == published.REPORT:
            return await self._report(request, ip)
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
        step, host = self._what.about(name)
        transfer = Transfer(ip, neighbours.mac_at(ip), step, name, "HTTP", "done", host=host)
        text = self._what.text(name)
        if text is not None:
            return self._send_text(request, text, transfer)
        try:
            return await self._send_file(request, name, transfer)
        except NotPublishedError as error:
            if not self._what.is_asked_for_by_pixiecore(name):
                self._tell(replace(transfer, state="missing"))
            if error.remarkable:
                self._complain(f"{ip} asked for {name!r}: {error}")
            raise web.HTTPNotFound from None

    def _send_text(
        self, request: web.Request, text: Text, transfer: Transfer
    ) -> web.StreamResponse:
        size = len(text.content)
        # Pixiecore asks for a machine, from an address of its own
        whose = replace(transfer, ip="", mac=text.mac) if text.mac else transfer
        if request.method == "GET":
            self._tell(replace(whose, done=size, size=size))
        return web.Response(body=text.content, content_type=text.kind, charset="utf-8")

    async def _send_file(
        self, request: web.Request, name: str, transfer: Transfer
    ) -> web.StreamResponse:
        root = self._what.root
        if loader := self._what.loaders.get(name):
            # Debian has links there
            root, name = loader.resolve().parent, loader.resolve().name
        with files.opened(root, name) as descriptor:
            response = _OpenedFile(f"/proc/self/fd/{descriptor}")
            response.content_type = "application/octet-stream"
            request = _with_honest_range(request, os.fstat(descriptor))
            connection = _connection(request)
            if request.method == "HEAD" or connection is None:
                await response.prepare(request)
                return response
            size = os.fstat(descriptor).st_size
            sending = _Sending(
                replace(transfer, state="begun", size=size),
                connection,
                _acknowledged(connection),
                time.monotonic(),
            )
            self._transfers[id(sending)] = sending
            self._tell(sending.transfer)
            try:
                await response.prepare(request)
            except (ConnectionError, asyncio.CancelledError):
                done = sending.delivered()
                self._tell(replace(sending.transfer, state="broken", done=done))
                raise
            finally:
                del self._transfers[id(sending)]
        sent = response.content_length or 0
        took = time.monotonic() - sending.began
        state: Literal["done", "unneeded"] = "done" if response.status in (200, 206) else "unneeded"
        self._tell(replace(sending.transfer, state=state, done=sent, seconds=took))
        return response

    async def _report(self, request: web.Request, ip: str) -> web.StreamResponse:
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        body = await request.read()
        mac = neighbours.mac_at(ip) or published.mac_of(request.headers.get("Netinstall-MAC", ""))
        batch = request.headers.get("Netinstall-Batch", "")
        # sent again when the answer was lost (docs/reports.md)
        if batch and self._batches.get(ip) == (batch, body[:1000]):
            return web.Response(status=204)
        try:
            events = reports.parse(body)
        except ValueError as error:
            self._complain(f"{ip} sent a report that is none: {error}")
            raise web.HTTPBadRequest from None
        self._batches[ip] = (batch, body[:1000])
        for event in events:
            self._tell(Reported(ip, mac, event))
        return web.Response(status=204)


def _with_honest_range(request: web.Request, status: os.stat_result) -> web.Request:
    """Drop the range of a request whose If-Range names another ETag (RFC 9110, 13.1.5).

    aiohttp compares dates only, and would answer with a part of a file that has changed.
    """
    condition = request.headers.get("If-Range", "")
    if '"' not in condition or condition == f'"{status.st_mtime_ns:x}-{status.st_size:x}"':
        return request
    headers = request.headers.copy()
    headers.popall("Range", None)
    return request.clone(headers=headers)


def _connection(request: web.Request) -> socket.socket | None:
    transport = request.transport
    return None if transport is None else transport.get_extra_info("socket")


def _acknowledged(connection: socket.socket) -> int:
    """Bytes of a TCP connection that have arrived; 0 where it is closed."""
    try:
        info = connection.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED_AT + _ACKNOWLEDGED.size
        )
    except OSError:
        return 0
    if len(info) < _ACKNOWLEDGED_AT + _ACKNOWLEDGED.size:
        return 0
    return int(_ACKNOWLEDGED.unpack_from(info, _ACKNOWLEDGED_AT)[0])
