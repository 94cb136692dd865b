"""QEMU's monitor: commands, and the events that say how a machine ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection
from typing import Any

from qemu.qmp import EventListener, QMPClient, QMPError, Runstate

from lab import background

_CONNECT_S = 20.0


class Qmp:
    """A synchronous face of the qemu.qmp library's client, on an already connected socket."""

    def __init__(self, name: str, line: socket.socket) -> None:
        self._line = line
        self._heard = EventListener()
        self._client = QMPClient(name)
        self._client.register_listener(self._heard)

    def connect(self) -> None:
        """Raises ConnectionError when QEMU hangs up, TimeoutError when it says nothing."""
        try:
            background.run(self._client.connect(self._line), _CONNECT_S, "QEMU's QMP greeting")
        except (QMPError, EOFError) as error:
            raise ConnectionError(f"QMP: {error}") from error

    def execute(
        self, command: str, arguments: dict[str, Any] | None = None, deadline_s: float = 60
    ) -> Any:
        """Run one command and return its result. Raises qemu.qmp.QMPError, TimeoutError."""
        return background.run(
            self._client.execute(command, arguments), deadline_s, f"QMP command {command}"
        )

    def send_descriptor(self, name: str, descriptor: int) -> None:
        """Give QEMU an open file under a name, for arguments like "fd:name"."""

        async def send() -> None:
            self._client.send_fd_scm(descriptor)
            await self._client.execute("getfd", {"fdname": name})

        background.run(send(), 10, "QEMU to take a file descriptor")

    def wait_for_event(
        self, name: str, deadline_s: float, **data: Collection[object]
    ) -> dict[str, Any]:
        """The next event of this name whose data has one of the given values in each field.

        Events that are passed over here are still in `events`. Raises TimeoutError.
        """

        async def heard() -> dict[str, Any]:
            while True:
                event: dict[str, Any] = dict(await self._heard.get())
                if event["event"] == name and all(
                    event["data"].get(field) in values for field, values in data.items()
                ):
                    return event

        return background.run(heard(), deadline_s, f"QMP event {name}")

    def events(self) -> list[dict[str, Any]]:
        """Everything heard so far."""
        return [dict(event) for event in self._heard.history]

    def wait_closed(self, deadline_s: float) -> None:
        """Wait until QEMU hung up and all that it had said is heard. Raises TimeoutError."""

        async def hung_up() -> None:
            while self._client.runstate is Runstate.RUNNING:
                await self._client.runstate_changed()

        background.run(hung_up(), deadline_s, "QMP to hang up")

    def close(self) -> None:
        """Hang up. May be called again."""
        with contextlib.suppress(QMPError, EOFError, OSError, asyncio.CancelledError):
            background.run(self._client.disconnect(), 10, "QMP to close")
        self._line.close()
