"""A router of a Namespace that nobody may touch: it announces itself, and may give addresses."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Self

from lab import process
from lab.network import Namespace


class Router:
    """A machine of its own at 192.0.2.254. Needs root.

    With `dhcp` it gives 192.0.2.200 to 192.0.2.219, itself as gateway and name server, and knows
    nothing of booting. Its router advertisements save iPXE 13 s of waiting for one.
    """

    address = "192.0.2.254"

    def __init__(self, network: Namespace, folder: Path, *, dhcp: bool) -> None:
        self.name = f"{network.name}-router"
        self._network = network
        self._folder = folder
        self._dhcp = dhcp
        self.server: process.Server | None = None

    def __enter__(self) -> Self:
        process.run(["ip", "netns", "add", self.name])
        try:
            self._connect()
            self.server = process.Server(
                "router",
                self._argv(),
                self._folder / "router.log",
                ready="started, version",
                prefix=("ip", "netns", "exec", self.name),
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it. May be called again."""
        if self.server:
            self.server.stop()
            self.server = None
        with contextlib.suppress(process.ProcessError):
            process.run(["ip", "netns", "delete", self.name])

    def _connect(self) -> None:
        inside, outside = ["ip", "-netns", self.name], ["ip", "-netns", self._network.name]
        ends = ["router", "type", "veth", "peer", "name", "lan0", "netns", self.name]
        process.run([*outside, "link", "add", *ends])
        process.run([*outside, "link", "set", "router", "master", "br0", "up"])
        process.run([*inside, "address", "add", f"{self.address}/24", "dev", "lan0"])
        process.run([*inside, "address", "add", "fd77::254/64", "dev", "lan0", "nodad"])
        process.run([*inside, "link", "set", "lan0", "up"])

    def _argv(self) -> list[str]:
        addresses = ["--dhcp-range=192.0.2.200,192.0.2.219,255.255.255.0,1h", "--no-ping"]
        return [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file"),
            *("--log-facility=-", "--user=root", "--no-resolv", "--no-hosts"),
            *("--interface=lan0", "--bind-interfaces", "--enable-ra"),
            *("--dhcp-range=fd77::,ra-only", "--log-dhcp"),
            f"--dhcp-leasefile={self._folder / 'router.leases'}",
            *(addresses if self._dhcp else []),
        ]
