"""Network namespaces with a cable between them. Needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

SERVER, CLIENT = "192.0.2.1", "192.0.2.250"


class Pair(NamedTuple):
    """The names of two namespaces: the server's has lan0 with SERVER, the client's lan1 with
    CLIENT."""

    server: str
    client: str


@contextmanager
def pair() -> Iterator[Pair]:
    """Make two namespaces, and remove them at the end."""
    names = Pair(f"netinstall-s{os.getpid()}", f"netinstall-c{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
        ends = ("lan0", "type", "veth", "peer", "name", "lan1", "netns", names.client)
        ip("-n", names.server, "link", "add", *ends)
        for name, device, address in (
            (names.server, "lan0", SERVER),
            (names.client, "lan1", CLIENT),
        ):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def ip(*arguments: str) -> str:
    """Run ip(8); return what it printed."""
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def inside(namespace: str) -> tuple[str, ...]:
    """What to put before a command so that it runs there."""
    return ("ip", "netns", "exec", namespace)
