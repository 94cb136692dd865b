"""QEMU's monitor: commands, and the events that say how a machine ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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

    def wait_for_event(self, name: str, deadline_s: float) -> dict[str, Any]:
        """The next event of this name that nobody has waited for yet. Raises TimeoutError."""

        async def heard() -> dict[str, Any]:
            while True:
                event = await self._heard.get()
                if event["event"] == name:
                    return dict(event)

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
