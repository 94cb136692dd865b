"""Waiting for the DHCP client of the boot environment, and telling when a lease is lost.

The client runs beside us (installer/init/dhcp.py); its hook leaves files, which are looked at: the
hook must never wait for a reader.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Literal

from installer.model.units import format_seconds
from installer.observe import dhcpcd, kernel
from installer.observe.lease import boot_leases, by_hand

ANSWER_SECONDS = 30.0
"""How long is waited where the boot left a lease, from the client's start."""

_FIRST_SECONDS = 180.0
"""Where there is no lease at all: what netinstall.network-timeout= is without being given."""

ROUTER_SECONDS = 6.0
"""RFC 4861, 10: three solicitations, 4 s apart; routers answer the first within 0.5 s."""

_SERVER_SECONDS = 5.0
_BOTH_SECONDS = 15.0
_LOOK_SECONDS = 0.1

Say = Callable[[str, Literal["info", "warning"]], None]


def wait(say: Say, root: Path = Path("/"), *, answer_seconds: float = ANSWER_SECONDS) -> None:
    """Wait until the client has been answered where the boot had a lease.

    Returns at once where init started no client. IPv6 routers, which most networks have not, are
    waited for a little, a DHCPv6 server where a router says that there is one.
    """
    begun = _started(root)
    if begun is None:
        return
    leases = boot_leases(root)
    boot = {lease.interface: not by_hand(lease, root) for lease in leases}
    limit = answer_seconds if boot else _first_seconds(root)
    told = False
    while missing := _missing(root, boot, time.clock_gettime(time.CLOCK_BOOTTIME) - begun):
        waited = time.clock_gettime(time.CLOCK_BOOTTIME) - begun
        if waited > limit:
            kept = "what the boot was told counts" if boot else "there is no lease"
            say(
                f"no DHCP server answered on {missing} within {format_seconds(limit)}: {kept}. "
                "The client goes on asking",
                "warning",
            )
            return
        if not told and waited > ROUTER_SECONDS:
            told = True
            say(f"waiting up to {format_seconds(limit)} for a DHCP server on {missing}", "info")
        time.sleep(_LOOK_SECONDS)


def _missing(root: Path, boot: Mapping[str, bool], waited: float) -> str:
    """Who has not answered yet, in words; "" if nobody is waited for any more.

    `boot` maps the interfaces that have an address of the boot to whether a server is asked there.
    """
    states = {(state.interface, state.protocol): state for state in dhcpcd.states(root)}

    def good(interface: str, protocol: str) -> bool:
        state = states.get((interface, protocol))
        return state is not None and state.good

    if boot:
        silent = [name for name, asked in boot.items() if asked and not good(name, "dhcp")]
    else:
        leased = any(good(interface, "dhcp") for interface, _ in states)
        routed = any(good(interface, "ra") for interface, _ in states)
        # a router answers before a DHCP server does, which may be there as well
        silent = [] if leased or (routed and waited > _BOTH_SECONDS) else ["any interface"]
    if silent:
        return ", ".join(silent)
    for (name, protocol), state in states.items():
        # another card with a cable: its lease may be the one that the answer file names
        linked = protocol == "link" and state.values.get("ifcarrier") == "up" and name not in boot
        if linked and not good(name, "dhcp") and waited < ROUTER_SECONDS:
            return name
    for name in boot or sorted({interface for interface, _ in states}):
        if not good(name, "ra"):
            if waited < ROUTER_SECONDS:
                return name
            continue
        flags = states[name, "ra"].values.get("nd1_flags", "")
        promised = "M" in flags or "O" in flags
        if promised and not good(name, "dhcp6") and waited < ROUTER_SECONDS + _SERVER_SECONDS:
            return name
    return ""


def _first_seconds(root: Path) -> float:
    arguments, _ = kernel.read(root)
    text = arguments.others.get("network-timeout", "")
    return float(text) if re.fullmatch(r"[0-9]{1,5}", text) else _FIRST_SECONDS


def _started(root: Path) -> float | None:
    """The uptime at which init started the client, None if it did not."""
    return _client(root)[0]


def _client(root: Path) -> tuple[float | None, int]:
    try:
        words = (root / dhcpcd.FOLDER / "started").read_text().split()
        return float(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return None, 0


_WHY: Mapping[str, str] = {
    "EXPIRE": "it ran out, and no server renewed it",
    "EXPIRE6": "it ran out, and no server renewed it",
    "NAK": "the server took it back",
    "NOCARRIER": "the link is gone",
    "NOCARRIER6": "the link is gone",
    "STOP": "the client was stopped",
    "STOP6": "the client was stopped",
}

_ADDRESS = {"dhcp": "ip_address", "dhcp6": "dhcp6_ia_na1_ia_addr1"}


@dataclass
class LeaseWatch:
    """Tells, from `start` to `stop`, when a lease is lost, comes back or changes.

    The address stays on the interface whatever happens: connections, and an NFS root, live on for
    as long as nobody else is given it.
    """

    say: Say
    root: Path = Path("/")
    every: float = 1.0
    _known: dict[tuple[str, str], str] = field(default_factory=dict)
    _lost: set[tuple[str, str]] = field(default_factory=set)
    _stop: Event = field(default_factory=Event)
    _thread: Thread | None = None
    _pid: int = 0

    def start(self) -> None:
        """Remember what the client says now, and look every second from here on."""
        _, self._pid = _client(self.root)
        if self._pid:
            self.look()
            self._thread = Thread(target=self._watch, name="leases", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Tell nothing more. May be called without a start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            self.look()
            if self._pid and not Path(f"/proc/{self._pid}").exists():
                self._pid = 0
                self.say("the DHCP client has ended: nobody renews the lease any more", "warning")

    def look(self) -> None:
        """Compare what the client says now with what it said the last time."""
        for state in dhcpcd.states(self.root):
            option = _ADDRESS.get(state.protocol)
            if option is None:
                continue
            key = (state.interface, state.protocol)
            # a stranger's word: it goes to consoles
            address = state.values.get(f"new_{option}", "")
            if not all(char in "0123456789abcdefABCDEF.:" for char in address):
                continue
            self._compare(key, address, state)

    def _compare(self, key: tuple[str, str], address: str, state: dhcpcd.State) -> None:
        name, known = f"{'DHCP' if key[1] == 'dhcp' else 'DHCPv6'} lease", self._known.get(key)
        if not state.good:
            if known is not None and key not in self._lost:
                self._lost.add(key)
                why = _WHY.get(state.reason, f"dhcpcd says {state.reason[:20]!r}")
                self.say(
                    f"{key[0]} lost its {name} of {known}: {why}. The address stays in use, but "
                    "another machine may be given it",
                    "warning",
                )
            return
        if not address:
            return
        if known is not None and known != address:
            self.say(f"{key[0]} has a {name} of {address} now, no longer of {known}", "warning")
        elif key in self._lost:
            self.say(f"{key[0]} has its {name} of {address} again", "info")
        self._lost.discard(key)
        self._known[key] = address
