"""dnsmasq's log (with --log-dhcp) as events: src/rfc2131.c and src/tftp.c of dnsmasq 2.90.

It is text that was made for people, with names in it that clients choose: what does not match a
pattern to its end is no event.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

from installer.boot.serve.journey import (
    Client,
    Event,
    Leased,
    Offered,
    Proxied,
    Refused,
    Step,
    Transfer,
)

_IP = r"(?P<ip>\d{1,3}(?:\.\d{1,3}){3})"
_MAC = r"(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5})"
_REST = r"(?: (?P<rest>.*))?"
_DHCP = re.compile(r"dnsmasq-dhcp\[\d+\]: (?:(?P<xid>\d+) )?(?P<text>.*)")
_TAGS = re.compile(r"tags: (?P<tags>[A-Za-z0-9_., -]+)")
_NO_ADDRESS = re.compile(rf"DHCPDISCOVER\([^)]*\) (?:{_IP} )?{_MAC} no address available")
_OFFERED = re.compile(rf"DHCPOFFER\([^)]*\) {_IP} {_MAC}{_REST}")
_LEASED = re.compile(rf"(?:DHCPACK|BOOTP)\([^)]*\) {_IP} {_MAC}{_REST}")
_REFUSED = re.compile(rf"DHCPNAK\([^)]*\) {_IP} {_MAC}{_REST}")
_PROXIED = re.compile(rf"PXE\([^)]*\) (?:{_IP} )?{_MAC}{_REST}")
_TFTP = re.compile(r"dnsmasq-tftp\[\d+\]: (?P<text>.*)")
_SENT = re.compile(rf"sent (?P<file>.+) to {_IP}")
_MISSING = re.compile(rf"file (?P<file>.+) not found for {_IP}")
_FAILED = re.compile(rf"failed sending (?P<file>.+) to {_IP}")
_ABORTED = re.compile(rf"error \d+ .* ?received from {_IP}")
_IGNORED = "proxy-ignored"
_CONVERSATIONS = 256


class Reader:
    """Reads one line after the other.

    Args:
        root: the TFTP root.
        about: what a file below it is for, and the name of the host that it is made for.
    """

    def __init__(self, root: Path, about: Callable[[str], tuple[Step, str]]) -> None:
        self._root = f"{root}/"
        self._about = about
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._proxied: tuple[str, Proxied] | None = None
        self._aborted: set[str] = set()

    def read(self, line: str) -> Event | None:
        """Return what a line says, or None for the many that say nothing about a boot."""
        if found := _DHCP.fullmatch(line):
            return self._dhcp(found["xid"] or "", found["text"])
        if found := _TFTP.fullmatch(line):
            return self._tftp(found["text"])
        return None

    def _dhcp(self, xid: str, text: str) -> Event | None:
        if found := _TAGS.fullmatch(text):
            return self._tagged(xid, _client(found["tags"].split(", ")))
        client = self._clients.get(xid, "other")
        event: Event | None = None
        if found := _NO_ADDRESS.fullmatch(text):
            event = Refused(found["mac"], "no address is free: make dhcp.range larger")
        elif found := _OFFERED.fullmatch(text):
            # at DHCPDISCOVER, it is not said yet who asks
            event = Offered(found["mac"], client)
        elif found := _LEASED.fullmatch(text):
            event = Leased(found["mac"], found["ip"], client, found["rest"] or "")
        elif found := _REFUSED.fullmatch(text):
            event = Refused(found["mac"], f"{found['ip']} is refused: {found['rest']}")
        elif (found := _PROXIED.fullmatch(text)) and found["rest"] != _IGNORED:
            self._proxied = (xid, Proxied(found["mac"], "other", found["ip"] or ""))
        return event

    def _tagged(self, xid: str, client: Client) -> Event | None:
        """Tags are said before an answer, once for each packet, but after that of a proxy."""
        self._clients[xid] = client
        self._clients.move_to_end(xid)
        if len(self._clients) > _CONVERSATIONS:
            self._clients.popitem(last=False)
        proxied, self._proxied = self._proxied, None
        if proxied is not None and proxied[0] == xid:
            return replace(proxied[1], client=client)
        return None

    def _tftp(self, text: str) -> Event | None:
        if found := _ABORTED.fullmatch(text):
            # firmware and GRUB ask for the size first and hang up; "sent" is said all the same
            self._aborted.add(found["ip"])
            return None
        if found := _SENT.fullmatch(text):
            if found["ip"] in self._aborted:
                self._aborted.discard(found["ip"])
                return None
            return self._transfer(found, "done")
        if found := _MISSING.fullmatch(text):
            return self._transfer(found, "missing")
        if found := _FAILED.fullmatch(text):
            return self._transfer(found, "broken")
        return None

    def _transfer(
        self, found: re.Match[str], state: Literal["done", "missing", "broken"]
    ) -> Transfer:
        name = found["file"].removeprefix(self._root)
        step, host = self._about(name)
        return Transfer(found["ip"], "", step, name, "TFTP", state, host=host)


def _client(tags: Collection[str]) -> Client:
    """The tags are those of boot/dialects/dnsmasq.py."""
    if "ipxe" in tags:
        return "iPXE"
    if "httpclient" in tags:
        return "UEFI HTTP"
    if "uefi" in tags:
        return "UEFI"
    return "BIOS" if "bios" in tags else "other"
