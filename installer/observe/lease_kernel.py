"""The lease of a kernel that configured itself: `ip=`, admin-guide/nfs/nfsroot.rst.

/proc/net/pnp has what it was told; addresses and routes are asked of the interfaces themselves.
"""

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from installer.model.facts import Lease
from installer.observe import kernel
from installer.observe.lease_values import Values, interface_of, is_address, read

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


def from_kernel(root: Path, warnings: list[str]) -> Lease | None:
    """What the kernel's own DHCP, or the addresses on its command line, gave an interface."""
    arguments, _ = kernel.read(root)
    if arguments.ip is None:
        return None
    pnp = read(root / "proc/net/pnp")
    flat = dict(zip(_IP_FIELDS, arguments.ip.split(":"), strict=False))
    values = Values(flat, "ip= on the kernel command line", warnings)
    if ":" in arguments.ip and is_address(flat["client"]):
        return _static(root, values)
    if pnp.startswith("#PROTO"):
        return _configured_by_kernel(root, values, pnp)
    return None


def _static(root: Path, values: Values) -> Lease | None:
    ip = values.address("client")
    if ip is None:
        return None
    address = interface_of(ip, values.text("netmask"))
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


def _configured_by_kernel(root: Path, values: Values, pnp: str) -> Lease | None:
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
    hostname = read(root / "proc/sys/kernel/hostname").strip()
    if hostname not in ("(none)", "localhost"):
        flat["hostname"] = hostname
    pnp_values = Values(flat, "/proc/net/pnp", values.warnings)
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
    for line in read(root / "proc/net/route").splitlines()[1:]:
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
    for line in read(root / "proc/net/fib_trie").splitlines():
        if match := re.fullmatch(r"\s*\|-- ([0-9.]+)", line):
            last = match[1]
        elif re.fullmatch(r"\s*/32 host LOCAL", line) and is_address(last):
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
