"""One grammar for each kind of value that a stranger on the network may say.

What does not fit is left out with a warning; nothing is ever sourced, expanded or guessed at.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
)
from pathlib import Path

from installer.model.facts import Route

_INTERFACE = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:@-]{1,15}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253
_LONGEST_FILE = 65536
SHOWN = 80
"""Characters of a refused value that a warning repeats."""

FOR_EVER = 0xFFFFFFFF
"""All ones in 32 bits: RFC 2131, 3.3; RFC 4861, 4.6.2; RFC 8415, 7.7."""


def read(path: Path) -> str:
    """Return the text of a file, at most 64 KiB; "" if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def moment(path: Path) -> datetime | None:
    """When a file was written last, which is when what it holds was said."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return None


def is_interface(text: str) -> bool:
    """Say whether the kernel could have an interface of this name (dev_valid_name, and no more)."""
    return _INTERFACE.fullmatch(text) is not None


class Values:
    """Strings from a stranger by name, taken out through one grammar each."""

    def __init__(self, values: Mapping[str, str], source: str, warnings: list[str]) -> None:
        self.values = values
        self.source = source
        self.warnings = warnings

    def drop(self, name: str, value: object, why: str) -> None:
        """Leave a value out, and say why."""
        text = repr(value)
        short = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        self.warnings.append(f"{self.source}: {name} {short} is left out: {why}")

    def text(self, name: str) -> str:
        """A value as it was said; "" if it was not."""
        return self.values.get(name, "")

    def address(self, name: str) -> IPv4Address | None:
        """An IPv4 address."""
        return self._ipv4(name, self.text(name))

    def _ipv4(self, name: str, text: str) -> IPv4Address | None:
        try:
            address = IPv4Address(text) if text else IPv4Address(0)
        except AddressValueError:
            self.drop(name, text, "it is no IPv4 address")
            return None
        # ipconfig and the kernel write 0.0.0.0 for "not given"
        return None if address == IPv4Address(0) else address

    def address_list(self, name: str) -> tuple[IPv4Address, ...]:
        """IPv4 addresses with blanks between, each once."""
        found = [self._ipv4(name, word) for word in self.text(name).split()]
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def address6(self, name: str) -> IPv6Address | None:
        """An IPv6 address; the interface that dhcpcd puts behind a % is left away."""
        return next(iter(self.address6_list(name)), None)

    def address6_list(self, name: str) -> tuple[IPv6Address, ...]:
        """IPv6 addresses with blanks between, each once."""
        found = []
        for word in self.text(name).split():
            try:
                found.append(IPv6Address(word.partition("%")[0]))
            except AddressValueError:
                self.drop(name, word, "it is no IPv6 address")
        return tuple(address for address in dict.fromkeys(found) if int(address))

    def routes(self, name: str, parted_by: str = " ") -> tuple[Route, ...]:
        """NETWORK/BITS and GATEWAY, a list; a gateway of 0.0.0.0 is the link (RFC 3442)."""
        words = self.text(name).replace(parted_by, " ").split()
        found = []
        for index in range(0, len(words), 2):
            shown = " ".join(words[index : index + 2])
            try:
                # RFC 3442 sends no bits behind the mask, but people write some for servers
                destination = IPv4Network(words[index], strict=False)
                gateway = IPv4Address(words[index + 1])
            except (ValueError, IndexError):
                self.drop(name, shown, "it is no network with a gateway")
                continue
            found.append(Route(destination, gateway if int(gateway) else None))
        return tuple(dict.fromkeys(found))

    def number(self, name: str, low: int, high: int, what: str) -> int | None:
        """A number between bounds."""
        text = self.text(name)
        if re.fullmatch(r"[0-9]{1,10}", text) and low <= int(text) <= high:
            return int(text)
        if text and text != "0":
            self.drop(name, text, f"it is no {what}")
        return None

    def mtu(self, name: str) -> int | None:
        """A maximum transmission unit in bytes: 68 at least (RFC 2132, 5.1)."""
        return self.number(name, 68, 65535, "MTU")

    def lifetime(self, name: str) -> int | None:
        """A lifetime of IPv6 in seconds, None for ever."""
        value = self.number(name, 0, FOR_EVER, "number of seconds")
        return None if value == FOR_EVER else value

    def addresses(self, names: Iterable[str]) -> tuple[IPv4Address, ...]:
        """The IPv4 addresses of several values, each once."""
        found = [self.address(name) for name in names]
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def name(self, name: str) -> str | None:
        """A host or domain name, without the dot at its end."""
        text = self.text(name).rstrip(".")
        if not text:
            return None
        if is_host_name(text):
            return text
        self.drop(name, self.text(name), "it is no host or domain name")
        return None

    def hostname(self, name: str) -> str | None:
        """A host name."""
        # the kernel and klibc put the address there when no name was given
        return None if is_address(self.text(name)) else self.name(name)

    def names(self, name: str) -> tuple[str, ...]:
        """Domain names with blanks between, each once."""
        found = []
        for word in self.text(name).split():
            if is_host_name(word.rstrip(".")):
                found.append(word.rstrip("."))
            else:
                self.drop(name, word, "it is no domain name")
        return tuple(dict.fromkeys(found))

    def printable(self, name: str) -> str | None:
        """A text without control characters."""
        text = self.text(name)
        if text.isprintable() and "\ufffd" not in text:
            return text or None
        self.drop(name, text, "it holds control characters")
        return None

    def seconds(self, name: str) -> int | None:
        """A time; all ones is for ever (RFC 2131, 3.3)."""
        text = self.text(name)
        if re.fullmatch(r"[0-9]{1,10}", text):
            # 0 is "not given"
            return int(text) or None
        if text:
            self.drop(name, text, "it is no number of seconds")
        return None

    def interface(self, name: str) -> str | None:
        """The name of an interface."""
        text = self.text(name)
        if is_interface(text):
            return text
        self.drop(name, text, "it is no name of an interface")
        return None


def is_host_name(text: str) -> bool:
    """Say whether labels of letters, digits, - and _ are joined by dots (RFC 1123, 2.1).

    The underscore is against the RFC but in use; whoever writes the name decides about it.
    """
    return len(text) <= _LONGEST_NAME and all(_NAME.fullmatch(part) for part in text.split("."))


def is_address(text: str) -> bool:
    """Say whether a text is an IPv4 address."""
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def interface_of(address: IPv4Address, netmask: str) -> IPv4Interface | None:
    """Put address and netmask together; without a mask, by the old classes (nfsroot.rst)."""
    if netmask in ("", "0.0.0.0"):  # noqa: S104 - "not given"
        bits = 8 if int(address) >> 31 == 0 else 16 if int(address) >> 30 == 2 else 24
        return IPv4Interface(f"{address}/{bits}")
    try:
        mask = int(IPv4Address(netmask))
    except AddressValueError:
        return None
    bits = mask.bit_count()
    if mask != (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF:
        return None
    return IPv4Interface(f"{address}/{bits}")
