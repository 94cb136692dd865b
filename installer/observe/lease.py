"""What the DHCP server (or the command line) gave the interfaces, from whoever asked it.

Three sources, the best first: files of our own initrd hooks, those of klibc's ipconfig, and the
kernel itself. Every value comes from a stranger on the network: it is parsed, never sourced, and
one that does not fit its grammar is left out with a warning.
"""

import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from installer.model.facts import Lease
from installer.observe import kernel

_INTERFACE = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:@-]{1,15}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253
_LONGEST_FILE = 65536
_SHOWN = 80


def read_leases(root: Path = Path("/")) -> tuple[Lease, ...]:
    """Return one lease for each interface that has one; see `read_leases_with_warnings`."""
    return read_leases_with_warnings(root)[0]


def read_leases_with_warnings(
    root: Path = Path("/"),
) -> tuple[tuple[Lease, ...], tuple[str, ...]]:
    """Return one lease for each interface that has one, and what was left out and why.

    Read are /run/netinstall/lease-*.json (an object with the fields of `Lease`),
    /run/net-*.conf (klibc, usr/kinit/ipconfig/main.c) and, for a kernel that configured itself
    (`ip=`, Documentation/admin-guide/nfs/nfsroot.rst), /proc/net/pnp, route and fib_trie.
    """
    warnings: list[str] = []
    leases: dict[str, Lease] = {}
    for path in sorted((root / "run/netinstall").glob("lease-*.json")):
        _add(leases, _from_json(path, _shown(path, root), warnings))
    for path in sorted((root / "run").glob("net-*.conf")):
        _add(leases, _from_klibc(path, _shown(path, root), warnings))
    _add(leases, _from_kernel(root, warnings))
    return tuple(leases.values()), tuple(warnings)


def _add(leases: dict[str, Lease], lease: Lease | None) -> None:
    if lease is not None:
        leases.setdefault(lease.interface, lease)


def _shown(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


class _Values:
    """Strings from a stranger by name, taken out through one grammar each."""

    def __init__(self, values: Mapping[str, str], source: str, warnings: list[str]) -> None:
        self.values = values
        self.source = source
        self.warnings = warnings

    def drop(self, name: str, value: object, why: str) -> None:
        text = repr(value)
        short = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        self.warnings.append(f"{self.source}: {name} {short} is left out: {why}")

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def address(self, name: str) -> IPv4Address | None:
        text = self.text(name)
        try:
            address = IPv4Address(text) if text else IPv4Address(0)
        except AddressValueError:
            self.drop(name, text, "it is no IPv4 address")
            return None
        # ipconfig and the kernel write 0.0.0.0 for "not given"
        return None if address == IPv4Address(0) else address

    def addresses(self, names: Iterable[str]) -> tuple[IPv4Address, ...]:
        found = [self.address(name) for name in names]
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def name(self, name: str) -> str | None:
        text = self.text(name).rstrip(".")
        if not text:
            return None
        if is_host_name(text):
            return text
        self.drop(name, self.text(name), "it is no host or domain name")
        return None

    def hostname(self, name: str) -> str | None:
        # the kernel and klibc put the address there when no name was given
        return None if _is_address(self.text(name)) else self.name(name)

    def names(self, name: str) -> tuple[str, ...]:
        found = []
        for word in self.text(name).split():
            if is_host_name(word.rstrip(".")):
                found.append(word.rstrip("."))
            else:
                self.drop(name, word, "it is no domain name")
        return tuple(dict.fromkeys(found))

    def printable(self, name: str) -> str | None:
        text = self.text(name)
        if text.isprintable() and "\ufffd" not in text:
            return text or None
        self.drop(name, text, "it holds control characters")
        return None

    def seconds(self, name: str) -> int | None:
        text = self.text(name)
        if re.fullmatch(r"[0-9]{1,10}", text):
            # all ones is a lease for ever (RFC 2131, 3.3); 0 is "not given"
            return int(text) or None
        if text:
            self.drop(name, text, "it is no number of seconds")
        return None

    def interface(self, name: str) -> str | None:
        text = self.text(name)
        if _INTERFACE.fullmatch(text):
            return text
        self.drop(name, text, "it is no name of an interface")
        return None


def is_host_name(text: str) -> bool:
    """Say whether labels of letters, digits, - and _ are joined by dots (RFC 1123, 2.1).

    The underscore is against the RFC but in use; whoever writes the name decides about it.
    """
    return len(text) <= _LONGEST_NAME and all(_NAME.fullmatch(part) for part in text.split("."))


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _interface(address: IPv4Address, netmask: str) -> IPv4Interface | None:
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


def _from_json(path: Path, source: str, warnings: list[str]) -> Lease | None:
    try:
        document = json.loads(_read(path))
    except (ValueError, RecursionError):
        warnings.append(f"{source}: left out: it is not JSON")
        return None
    if not isinstance(document, dict):
        warnings.append(f"{source}: left out: it is no JSON object")
        return None
    flat: dict[str, str] = {}
    values = _Values(flat, source, warnings)
    for name, value in document.items():
        match value:
            case None:
                continue
            case str():
                flat[name] = value
            case int() if not isinstance(value, bool):
                flat[name] = str(value)
            case list() if all(isinstance(part, str) for part in value):
                flat[name] = " ".join(value)
                flat |= {f"{name}[{index}]": part for index, part in enumerate(value)}
            case _:
                values.drop(name, value, "it is neither a text, a number nor a list of texts")
    interface = values.interface("interface")
    try:
        address = IPv4Interface(values.text("address"))
    except ValueError:
        values.drop("address", values.text("address"), "it is no IPv4 address with a prefix")
        return None
    if interface is None:
        return None
    return Lease(
        interface=interface,
        address=address,
        gateway=values.address("gateway"),
        nameservers=values.addresses(name for name in flat if name.startswith("nameservers[")),
        search=values.names("search"),
        domain=values.name("domain"),
        hostname=values.hostname("hostname"),
        server=values.address("server"),
        root_path=values.printable("root_path"),
        seconds=values.seconds("seconds"),
        source=values.printable("source") or source,
    )


_ASSIGNMENT = re.compile(
    r"""([A-Za-z_][A-Za-z0-9_]*)=      # a name and no blanks
        ((?: '[^']*'                   # single quotes hold everything, newlines too
           | \\[^\n]                   # ipconfig writes a quote as '\''
           | "[^"\\$`]*"
           | [A-Za-z0-9_.,:/@%+~-]
         )*)
        (?:[ \t\r]*(?:\n|\Z))""",
    re.VERBOSE,
)
_PIECE = re.compile(r"""'([^']*)'|\\(.)|"([^"]*)"|([^'"\\]+)""", re.DOTALL)


def _assignments(text: str, source: str, warnings: list[str]) -> dict[str, str]:
    """Read `NAME='value'` lines, the part of a shell's language that ipconfig writes."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ASSIGNMENT.match(text, position)
        if match is not None:
            found[match[1]] = "".join("".join(piece) for piece in _PIECE.findall(match[2]))
            position = match.end()
            continue
        end = text.find("\n", position)
        line = text[position : len(text) if end < 0 else end]
        if line.strip() and not line.lstrip().startswith("#"):
            warnings.append(f"{source}: {line[:_SHOWN]!r} is left out: it is no NAME='value'")
        position = len(text) if end < 0 else end + 1
    return found


def _from_klibc(path: Path, source: str, warnings: list[str]) -> Lease | None:
    flat = _assignments(_read(path), source, warnings)
    values = _Values(flat, source, warnings)
    interface = values.interface("DEVICE")
    ip = values.address("IPV4ADDR")
    if interface is None or ip is None:
        return None
    address = _interface(ip, values.text("IPV4NETMASK"))
    if address is None:
        values.drop("IPV4NETMASK", values.text("IPV4NETMASK"), "it is no netmask")
        return None
    gateway = values.address("IPV4GATEWAY")
    for name, subnet in flat.items():
        # classless routes (RFC 3442) take the place of the gateway in newer versions of klibc
        match = re.fullmatch(r"IPV4ROUTE([0-9]+)SUBNET", name)
        if match is not None and subnet == "0.0.0.0/0":
            gateway = values.address(f"IPV4ROUTE{match[1]}GATEWAY") or gateway
    return Lease(
        interface=interface,
        address=address,
        gateway=gateway,
        nameservers=values.addresses(("IPV4DNS0", "IPV4DNS1")),
        search=values.names("DOMAINSEARCH"),
        domain=values.name("DNSDOMAIN"),
        hostname=values.hostname("HOSTNAME"),
        server=values.address("ROOTSERVER"),
        root_path=values.printable("ROOTPATH"),
        seconds=values.seconds("DHCPLEASETIME"),
        source=source,
    )


_IP_FIELDS = (
    "client",
    "server",
    "gateway",
    "netmask",
    "hostname",
    "device",
    "autoconf",
    "dns0",
    "dns1",
    "ntp0",
)


def _from_kernel(root: Path, warnings: list[str]) -> Lease | None:
    arguments, _ = kernel.read(root)
    if arguments.ip is None:
        return None
    pnp = _read(root / "proc/net/pnp")
    flat = dict(zip(_IP_FIELDS, arguments.ip.split(":"), strict=False))
    values = _Values(flat, "ip= on the kernel command line", warnings)
    if ":" in arguments.ip and _is_address(flat["client"]):
        return _static(root, values)
    if pnp.startswith("#PROTO"):
        return _configured_by_kernel(root, values, pnp)
    return None


def _static(root: Path, values: _Values) -> Lease | None:
    ip = values.address("client")
    if ip is None:
        return None
    address = _interface(ip, values.text("netmask"))
    if address is None:
        values.drop("netmask", values.text("netmask"), "it is no netmask")
        return None
    device = values.interface("device") if values.text("device") else None
    if device is None:
        device = next((name for name, own in _configured(root) if own.ip == ip), None)
    if device is None:
        values.drop("client", str(ip), "it is not known which interface has it")
        return None
    hostname = values.hostname("hostname")
    first, _, domain = (hostname or "").partition(".")
    return Lease(
        interface=device,
        address=address,
        gateway=values.address("gateway"),
        nameservers=values.addresses(("dns0", "dns1")),
        hostname=first or None,
        domain=domain or None,
        server=values.address("server"),
        source=values.source,
    )


def _configured_by_kernel(root: Path, values: _Values, pnp: str) -> Lease | None:
    """What the kernel kept of its own DHCP: addresses are asked of the interface itself."""
    configured = _configured(root)
    wanted = values.text("device")
    found = [(name, own) for name, own in configured if wanted in ("", name)]
    if len(found) != 1:
        return None
    device, address = found[0]
    lines = [line.split(None, 1) for line in pnp.splitlines() if not line.startswith("#")]
    said = [(line[0], line[1]) for line in lines if len(line) == 2]
    flat = {name: value for name, value in said if name in ("domain", "bootserver")}
    flat |= {
        f"nameserver[{index}]": value
        for index, (name, value) in enumerate(said)
        if name == "nameserver"
    }
    hostname = _read(root / "proc/sys/kernel/hostname").strip()
    if hostname not in ("(none)", "localhost"):
        flat["hostname"] = hostname
    pnp_values = _Values(flat, "/proc/net/pnp", values.warnings)
    return Lease(
        interface=device,
        address=address,
        gateway=next((way for name, way in _gateways(root) if name == device), None),
        nameservers=pnp_values.addresses(name for name in flat if name.startswith("nameserver[")),
        domain=pnp_values.name("domain"),
        hostname=pnp_values.hostname("hostname"),
        server=pnp_values.address("bootserver"),
        source=pnp_values.source,
    )


def _routes(root: Path) -> list[tuple[str, int, int, int]]:
    """Interface, destination, gateway and mask of /proc/net/route (addresses in host order)."""
    found = []
    for line in _read(root / "proc/net/route").splitlines()[1:]:
        words = line.split()
        try:
            numbers = [int.from_bytes(bytes.fromhex(words[index]), "little") for index in (1, 2, 7)]
        except (ValueError, IndexError):
            continue
        found.append((words[0], numbers[0], numbers[1], numbers[2]))
    return found


def _gateways(root: Path) -> list[tuple[str, IPv4Address]]:
    return [
        (name, IPv4Address(gateway))
        for name, destination, gateway, mask in _routes(root)
        if destination == 0 and mask == 0 and gateway != 0
    ]


def _configured(root: Path) -> list[tuple[str, IPv4Interface]]:
    """Interfaces and their addresses: /proc/net/route has the nets, fib_trie the addresses."""
    local = set()
    last = ""
    for line in _read(root / "proc/net/fib_trie").splitlines():
        if match := re.fullmatch(r"\s*\|-- ([0-9.]+)", line):
            last = match[1]
        elif re.fullmatch(r"\s*/32 host LOCAL", line) and _is_address(last):
            local.add(IPv4Address(last))
    found = []
    for name, destination, gateway, mask in _routes(root):
        if gateway != 0 or mask == 0:
            continue
        network = IPv4Network((destination, mask.bit_count()), strict=False)
        found += [
            (name, IPv4Interface((int(address), network.prefixlen)))
            for address in sorted(local)
            if address in network
        ]
    return found
