"""What a machine's NIC is plugged into."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol


class Network(Protocol):
    """Where the lab's servers listen and guests find them."""

    @property
    def server_address(self) -> str:
        """The lab's servers as a guest addresses them."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before an argv so that the process runs inside this network."""

    def listen(self, port: int = 0) -> socket.socket:
        """A listening TCP socket for the lab's servers; port 0 takes a free one."""


class Attachment(Protocol):
    """One NIC's end of a network."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """See Network.prefix: QEMU itself has to run there."""

    def netdev(self, identity: str) -> str:
        """The value of QEMU's -netdev."""


def options(kind: str, **values: str | int | None) -> str:
    """A value in QEMU's option syntax (qemu(1)): a comma inside a value is doubled."""
    pairs = [
        f",{name.replace('_', '-')}={str(value).replace(',', ',,')}"
        for name, value in values.items()
        if value is not None
    ]
    return kind + "".join(pairs)


@dataclass(frozen=True)
class UserNetwork:
    """QEMU's user-mode network: no privileges, own DHCP; the host's loopback is 10.0.2.2.

    Its DHCP server sends address, router, name server and, when given, `bootfile` (option 67, a
    URL for iPXE or UEFI HTTP boot), `hostname` (12) and `search` domains (119), never 17, 42, 43
    or 60. Each machine has a network of its own: guests do not see each other.
    """

    bootfile: str | None = None
    hostname: str | None = None
    search: tuple[str, ...] = ()

    @property
    def server_address(self) -> str:
        return "10.0.2.2"

    @property
    def prefix(self) -> tuple[str, ...]:
        return ()

    def listen(self, port: int = 0) -> socket.socket:
        return socket.create_server(("127.0.0.1", port))

    def netdev(self, identity: str) -> str:
        value = options("user", id=identity, bootfile=self.bootfile, hostname=self.hostname)
        return value + "".join(options("", dnssearch=domain) for domain in self.search)
