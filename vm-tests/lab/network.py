"""What a machine's NIC is plugged into: QEMU's user network, or a namespace with real DHCP."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from lab import process

_CLONE_NEWNET = 0x40000000
# A bridge that learns first drops what firmware sends in its first 15 s (STP's two delays).
_BRIDGE = ("type", "bridge", "stp_state", "0", "forward_delay", "0")
_numbers = itertools.count(1)


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


PxeClient = Literal["ipxe", "bios", "uefi", "http"]

# RFC 4578, section 2.1, and the IANA registry "Processor Architecture Types"; 175 is iPXE's own.
_CLIENTS: dict[PxeClient, tuple[str, str]] = {
    "ipxe": ("dhcp-match=set:ipxe,175", "tag:ipxe"),
    "bios": ("dhcp-match=set:bios,option:client-arch,0", "tag:!ipxe,tag:bios"),
    "uefi": ("dhcp-match=set:uefi,option:client-arch,7", "tag:!ipxe,tag:uefi"),
    "http": ("dhcp-match=set:http,option:client-arch,16", "tag:!ipxe,tag:http"),
}


@dataclass(frozen=True)
class Host:
    """A machine that the DHCP server knows: fixed address and, in option 12, its name."""

    mac: str
    address: str
    hostname: str | None = None


@dataclass(frozen=True)
class Dhcp:
    """What the DHCP server of a Namespace says.

    `boot` names the boot file (option 67) for each kind of client: a URL for iPXE and for UEFI
    HTTP boot, a file below `tftp` for plain PXE. `options` are number and value in dnsmasq's
    syntax and override its own: 3 router, 6 name server, 15 domain, 17 root path, 42 NTP, 66.
    """

    boot: tuple[tuple[PxeClient, str], ...] = ()
    tftp: Path | None = None
    hosts: tuple[Host, ...] = ()
    domain: str | None = "lab.test"
    options: tuple[tuple[int, str], ...] = ()
    lease_s: int = 3600
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tap:
    """A port of a Namespace's bridge."""

    namespace: str
    interface: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)

    def netdev(self, identity: str) -> str:
        return options("tap", id=identity, ifname=self.interface, script="no", downscript="no")


class Namespace:
    """A network namespace with a bridge, taps for machines, and dnsmasq. Needs root.

    The lab's servers in it have the address 192.0.2.1 (and fd77::1); guests get 192.0.2.100 and
    up. Leaving the context removes it; what a crashed run left goes when the next one starts.
    """

    server_address = "192.0.2.1"

    def __init__(self, folder: Path) -> None:
        """Logs and leases are kept in `folder`."""
        self.name = f"lab-{os.getpid()}-{next(_numbers)}"
        self.folder = folder
        self._taps = itertools.count()
        self._dnsmasq: process.Server | None = None
        self._servers: list[process.Server] = []

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def __enter__(self) -> Self:
        _remove_stale()
        process.run(["ip", "netns", "add", self.name])
        try:
            self._ip("link", "set", "lo", "up")
            self._ip("link", "add", "br0", *_BRIDGE)
            self._ip("address", "add", f"{self.server_address}/24", "dev", "br0")
            self._ip("address", "add", "fd77::1/64", "dev", "br0", "nodad")
            self._ip("link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespace. May be called again."""
        if self._dnsmasq:
            self._dnsmasq.stop()
            self._dnsmasq = None
        while self._servers:
            self._servers.pop().stop()
        with contextlib.suppress(process.ProcessError):
            process.run(["ip", "netns", "delete", self.name])

    def tap(self) -> Tap:
        """A new port for one NIC of one machine, which keeps it from boot to boot."""
        interface = f"tap{next(self._taps)}"
        self._ip("tuntap", "add", "dev", interface, "mode", "tap")
        self._ip("link", "set", interface, "master", "br0", "up")
        return Tap(self.name, interface)

    def listen(self, port: int = 0) -> socket.socket:
        def inside() -> socket.socket:
            _enter(self.name)
            return socket.create_server((self.server_address, port))

        # setns moves the calling thread only, and that for good: this one ends right after.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(inside).result()

    def dhcp(self, dhcp: Dhcp) -> process.Server:
        """Start the DHCP (and TFTP and DNS) server, or replace the one that runs."""
        return self.dnsmasq(dnsmasq_config(dhcp))

    def dnsmasq(self, config: str) -> process.Server:
        """Start dnsmasq with a configuration of its own; the lab adds where it runs and logs."""
        if self._dnsmasq:
            self._dnsmasq.stop()
        file = self.folder / "dnsmasq.conf"
        file.write_text(config)
        self._dnsmasq = process.Server(
            "dnsmasq",
            [
                *("dnsmasq", "--keep-in-foreground", f"--conf-file={file}", "--log-facility=-"),
                *("--user=root", "--pid-file", "--interface=br0", "--bind-interfaces"),
                f"--dhcp-leasefile={self.folder / 'dnsmasq.leases'}",
            ],
            self.folder / "dnsmasq.log",
            ready="started, version",
            prefix=self.prefix,
        )
        return self._dnsmasq

    def own_dnsmasq(self, config: Path) -> process.Server:
        """Start dnsmasq with a whole configuration: nothing is added but where it logs."""
        return self.server(
            "dnsmasq",
            [
                *("dnsmasq", "--keep-in-foreground", f"--conf-file={config}", "--pid-file"),
                *("--log-facility=-", "--log-dhcp"),
                f"--dhcp-leasefile={self.folder / 'dnsmasq.leases'}",
            ],
            ready="started, version",
        )

    def server(self, name: str, argv: Sequence[str], *, ready: str) -> process.Server:
        """Start another server inside the namespace; it ends with the namespace."""
        log = self.folder / f"{name}.log"
        started = process.Server(name, argv, log, ready=ready, prefix=self.prefix)
        self._servers.append(started)
        return started

    def _ip(self, *arguments: str) -> None:
        process.run(["ip", "-netns", self.name, *arguments])


def dnsmasq_config(dhcp: Dhcp) -> str:
    """dnsmasq's configuration file (dnsmasq(8)) for the address plan of a Namespace."""
    lines = [
        "no-resolv",
        "no-hosts",
        "log-dhcp",
        f"dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,{dhcp.lease_s}",
        # Without a router advertisement iPXE waits 13 s for one.
        "enable-ra",
        "dhcp-range=fd77::,ra-only",
        # Answers without asking around first whether an address is taken: 3 s a lease.
        "no-ping",
        "dhcp-authoritative",
    ]
    if dhcp.domain:
        lines += [f"domain={dhcp.domain}", f"host-record=server.{dhcp.domain},192.0.2.1,fd77::1"]
    if dhcp.tftp:
        lines += ["enable-tftp", f"tftp-root={dhcp.tftp}"]
    for client, file in dhcp.boot:
        match, tags = _CLIENTS[client]
        lines += [match, f"dhcp-boot={tags},{file}"]
        if client == "http":
            # UEFI 2.10, section 24.7.2: the client takes no offer without this class.
            lines.append("dhcp-option-force=tag:http,60,HTTPClient")
    if dhcp.boot and "ipxe" not in dict(dhcp.boot):
        lines.append(_CLIENTS["ipxe"][0])
    lines += [
        f"dhcp-host={','.join(filter(None, (host.mac, host.address, host.hostname)))}"
        for host in dhcp.hosts
    ]
    lines += [f"dhcp-option-force={number},{value}" for number, value in dhcp.options]
    return "".join(f"{line}\n" for line in (*lines, *dhcp.extra))


def _enter(namespace: str) -> None:
    # os.setns exists from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")


def _remove_stale() -> None:
    for line in process.run(["ip", "netns", "list"]).decode().splitlines():
        name = line.split()[0]
        owner = name.split("-")[1] if name.startswith("lab-") else None
        if owner and not Path("/proc", owner).exists():
            # Another worker may do the same at the same time.
            with contextlib.suppress(process.ProcessError):
                process.run(["ip", "netns", "delete", name])
