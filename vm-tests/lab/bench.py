"""A scenario's workbench: machines, servers and disks that are cleaned up together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lab import disk
from lab.http import HttpServer
from lab.network import Namespace, Network, UserNetwork
from lab.nfs import NfsServer
from lab.router import Router
from lab.vm import Disk, Machine, Vm


class Bench:
    """Everything one scenario uses; `folder` keeps its logs and images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.machines: list[Machine] = []
        self.servers: list[HttpServer] = []
        self._stack = ExitStack()
        self._disks = 0

    @cached_property
    def web(self) -> HttpServer:
        """An HTTP server on the host's loopback, for machines on a UserNetwork."""
        return self.web_on(UserNetwork())

    def web_on(self, network: Network, port: int = 0) -> HttpServer:
        """An HTTP server on another network; port 0 takes a free one."""
        server = self._stack.enter_context(HttpServer(network, port=port))
        self.servers.append(server)
        return server

    def nfs(self, directory: Path, network: Network) -> NfsServer:
        """An NFS server for a directory, on the given network."""
        return self._stack.enter_context(NfsServer(network, directory, self.folder))

    def namespace(self) -> Namespace:
        """A network namespace with a bridge; its DHCP server is started by `dhcp`."""
        return self._stack.enter_context(Namespace(self.folder))

    def router(self, network: Namespace, *, dhcp: bool) -> Router:
        """A router on a Namespace's network; see there."""
        return self._stack.enter_context(Router(network, self.folder, dhcp=dhcp))

    def disk(self, size: str = "4G", *, canary: bool = False, **seen_as: Any) -> Disk:
        """A new blank disk; `seen_as` are Disk's fields (bus, sector, serial, …)."""
        self._disks += 1
        image = disk.create(self.folder / f"disk{self._disks}.img", size, canary=canary)
        return Disk(image, **seen_as)

    def boot(
        self,
        vm: Vm,
        *,
        on_bytes: Callable[[bytes], None] | None = None,
        state: Path | None = None,
    ) -> Machine:
        """Switch a machine on; it is killed when the bench is left, if it still runs."""
        machine = Machine(vm, self.folder, on_bytes=on_bytes, state=state)
        self.machines.append(machine)
        return self._stack.enter_context(machine)

    def findings(self) -> Iterator[tuple[str, str]]:
        """Title and text of all that helps to understand a failure."""
        for machine in self.machines:
            yield f"QEMU of {machine.vm.name} ({machine.qemu_log})", machine.said()
            for console in machine.consoles:
                yield f"{console.name} ({console.log})", console.tail()
        for server in self.servers:
            yield f"requests to {server.base}", server.describe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stack.close()
