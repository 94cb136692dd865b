"""Looking for a DHCP server on a network without taking a lease: `dhcpcd --test` (dhcpcd(8))."""

import re

from installer.act.run import Runner
from installer.model.errors import InstallError

SECONDS = 8
"""How long an answer is awaited. Servers ask around for up to 3 s whether an address is free."""

_SERVER = re.compile(r"new_dhcp_server_identifier=(\d{1,3}(?:\.\d{1,3}){3})")
_SILENCE = "timed out"


def find_server(interface: str) -> str | None:
    """Ask on an interface; return the address of the server that answers first, if one does.

    Nothing is configured, and no lease taken. Needs root.

    Raises:
        InstallError: `tool.missing`, `command.failed` or `command.timeout`.
    """
    said: list[str] = []
    try:
        Runner(said.append).run(
            [
                # it leaves processes of its privilege separation behind (dhcpcd 9.4): in a
                # namespace of their own they end with it
                *("unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"),
                # no configuration file: the usual one writes a DUID into /var/lib
                *("dhcpcd", "--test", "--ipv4only", "--noipv4ll", "--config", "/dev/null"),
                # env says what the client was told; the usual hooks write /etc/resolv.conf anew,
                # and empty, when the test ends
                *("--script", "/usr/bin/env"),
                *("--timeout", str(SECONDS), interface),
            ],
            timeout=SECONDS + 10,
            purpose=f"looking for a DHCP server on {interface}",
        )
    except InstallError:
        # silence is told by an exit code, too, and an offer can end in a signal (dhcpcd 9.4)
        if _SILENCE not in said and not any(_SERVER.fullmatch(line) for line in said):
            raise
    return next((found[1] for line in said if (found := _SERVER.fullmatch(line))), None)
