"""A DHCP server and this project's DHCP client, each in a network namespace. Needs root.

The client is what init starts in the boot environment: the same dhcpcd, arguments, configuration
and hook. Namespaces have a /proc/net of their own, which is copied to where the agent looks.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import daemons

from installer.init import dhcp
from installer.init.lease import client_lines
from installer.observe import lease
from installer.observe.lease import Leases

SERVER = "192.0.2.1"
SERVER_MAC, CLIENT_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
ROUTER = "fe80::5054:ff:fe00:1"
"""The link-local address that the kernel makes of SERVER_MAC."""

_SECONDS = 30.0


def run(*argv: str | Path) -> str:
    """Run a program to its end; return what it printed."""
    return subprocess.run(
        list(map(str, argv)), check=True, stdout=subprocess.PIPE, text=True, timeout=60
    ).stdout


def until(found: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that only files tell."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"no {what} in {seconds:g} s"
        time.sleep(0.05)


@dataclass
class Lab:
    """Two namespaces; the server's lan0 has SERVER and fd77::1, the client's eth0 nothing."""

    folder: Path
    server: str
    client: str
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Where the agent looks, as if it were the client's `/`."""
        return self.folder / "root"

    @property
    def kept(self) -> Path:
        """What the hook writes."""
        return self.root / "run/netinstall/dhcp"

    def boot_left(self, address: str, *lines: str, name: str = "net-eth0.conf") -> None:
        """What the initrd left behind: a lease of klibc's, and its address on the interface."""
        text = ["DEVICE='eth0'", "PROTO='dhcp'", f"IPV4ADDR='{address}'", *lines]
        text.append("IPV4NETMASK='255.255.255.0'")
        (self.root / "run").mkdir(parents=True, exist_ok=True)
        (self.root / "run" / name).write_text("".join(f"{line}\n" for line in text))
        run("ip", "-n", self.client, "address", "add", f"{address}/24", "dev", "eth0")

    def start(self, name: str, argv: Sequence[str | Path], namespace: str) -> int:
        """Start a program in a namespace; its output goes to NAME.log. Returns its process ID."""
        with (self.folder / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *map(str, argv)], stdout=log, stderr=log
            )
        self._running.append(started)
        return started.pid

    def stop(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """End a program that was started here, without a farewell."""
        (one,) = (one for one in self._running if one.pid == pid)
        one.send_signal(number)
        one.wait(30)
        self._running.remove(one)

    def dnsmasq(self, *lines: str, name: str = "dnsmasq", namespace: str = "") -> int:
        """Start dnsmasq, which is a router of IPv6 as well."""
        config = self.folder / f"{name}.conf"
        always = ("no-resolv", "no-hosts", "no-ping", "log-dhcp", "dhcp-authoritative")
        config.write_text("".join(f"{line}\n" for line in (*always, *lines)))
        argv = ["dnsmasq", "--keep-in-foreground", "--pid-file=", f"--conf-file={config}"]
        argv += ["--log-facility=-", "--user=root", "--interface=lan0", "--bind-interfaces"]
        argv += [f"--dhcp-leasefile={self.folder / f'{name}.leases'}", "--port=0"]
        return self.start(name, argv, namespace or self.server)

    def dhcpd(self, text: str) -> int:
        """Start ISC dhcpd."""
        config = self.folder / "dhcpd.conf"
        config.write_text(text)
        (self.folder / "dhcpd.leases").touch()
        program = daemons.unpacked() / "usr/sbin/dhcpd"
        argv: list[str | Path] = [program, "-4", "-d", "-f", "-cf", config]
        argv += ["-lf", self.folder / "dhcpd.leases", "-pf", self.folder / "dhcpd.pid", "lan0"]
        return self.start("dhcpd", argv, self.server)

    def kea(self, subnet: dict[str, Any], **more: Any) -> int:
        """Start Kea for one subnet."""
        settings = {
            "interfaces-config": {"interfaces": ["lan0"]},
            "lease-database": {"type": "memfile", "persist": False},
            "authoritative": True,
            "subnet4": [{"id": 1, "subnet": "192.0.2.0/24", **subnet}],
            **more,
        }
        config = self.folder / "kea.json"
        config.write_text(json.dumps({"Dhcp4": settings}))
        libraries = daemons.unpacked() / "usr/lib/x86_64-linux-gnu"
        program = daemons.unpacked() / "usr/sbin/kea-dhcp4"
        argv: list[str | Path] = ["env", f"LD_LIBRARY_PATH={libraries}"]
        argv += [f"KEA_PIDFILE_DIR={self.folder}", "KEA_LOCKFILE_DIR=none", program, "-c", config]
        return self.start("kea", argv, self.server)

    def ask(self) -> int:
        """Start the client as init does; return its process ID."""
        self.kept.mkdir(parents=True)
        config = self.kept / "dhcpcd.conf"
        config.write_text(dhcp.config(list(client_lines(self.root)), self.kept))
        argv = [*dhcp.argv(config), "--env", f"NETINSTALL_DHCP={self.kept}"]
        # it keeps leases and a socket at places of its own
        places = "".join(
            f"mkdir -p {place} && mount -t tmpfs none {place} && "
            for place in ("/var/lib/dhcpcd", "/run/dhcpcd")
        )
        pid = self.start("dhcpcd", ["sh", "-c", f'{places}exec "$@"', "sh", *argv], self.client)
        up = time.clock_gettime(time.CLOCK_BOOTTIME)
        (self.kept / "started").write_text(f"{up:.2f} {pid}\n")
        return pid

    def answered(self, protocol: str = "dhcp", seconds: float = _SECONDS) -> dict[str, str]:
        """Wait for an answer; return what the hook kept."""
        until(
            lambda: "new_" in self._state(protocol) or "nd1_" in self._state(protocol),
            seconds,
            f"answer of {protocol}",
        )
        pairs = (pair.partition("=") for pair in self._state(protocol).split("\0"))
        return {name: value for name, _, value in pairs}

    def _state(self, protocol: str) -> str:
        path = self.kept / f"{protocol}-eth0"
        return path.read_text() if path.exists() else ""

    def look(self) -> Leases:
        """What the agent sees in the client's place; when it was said differs from run to run."""
        net = self.root / "proc/net"
        net.mkdir(parents=True, exist_ok=True)
        for name in ("if_inet6", "ipv6_route", "route", "fib_trie"):
            said = run("ip", "netns", "exec", self.client, "cat", f"/proc/net/{name}")
            (net / name).write_text(said)
        found = lease.look(self.root)
        assert all(one.taken is not None for one in found.v4)
        return Leases(
            tuple(replace(one, taken=None) for one in found.v4),
            tuple(replace(one, taken=None, server=_timeless(one.server)) for one in found.v6),
            found.warnings,
        )

    def close(self) -> None:
        """End all programs."""
        for one in reversed(self._running):
            one.terminate()
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait(10)


def _timeless(duid: str | None) -> str | None:
    """A DUID-LLT without the time at which it was made (RFC 8415, 11.2)."""
    if duid is None or not duid.startswith("00010001"):
        return duid
    return f"{duid[:8]}{0:08x}{duid[16:]}"


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Make the namespaces, and remove them with all that runs in them."""
    made = Lab(folder, f"netinstall-ls{os.getpid()}", f"netinstall-lc{os.getpid()}")
    made.root.mkdir()
    try:
        for name in (made.server, made.client):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        ends = ("address", SERVER_MAC, "type", "veth", "peer", "name", "eth0")
        peer = ("address", CLIENT_MAC, "netns", made.client)
        run("ip", "-n", made.server, "link", "add", "lan0", *ends, *peer)
        run("ip", "-n", made.server, "link", "set", "lan0", "up")
        run("ip", "-n", made.client, "link", "set", "eth0", "up")
        run("ip", "-n", made.server, "address", "add", f"{SERVER}/24", "dev", "lan0")
        run("ip", "-n", made.server, "address", "add", "fd77::1/64", "dev", "lan0", "nodad")
        yield made
    finally:
        made.close()
        for name in (made.server, made.client):
            # helpers of what had to be killed; dhcpcd has four
            for pid in run("ip", "netns", "pids", name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], check=False)
