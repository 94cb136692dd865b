"""What DHCP servers, routers and the command line gave the interfaces, from whoever asked them.

Every value comes from a stranger on the network: it is parsed, never sourced, and one that does not
fit its grammar is left out with a warning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from installer.model.facts import Lease, Lease6
from installer.observe import dhcpcd, ipv6, networkd
from installer.observe.lease_files import from_json, from_klibc
from installer.observe.lease_kernel import from_kernel
from installer.observe.lease_values import read

_NEVER_COMPLETED = {"interface", "address", "taken", "source"}


@dataclass(frozen=True)
class Leases:
    """One lease for each interface and family that has one, and what was left out and why."""

    v4: tuple[Lease, ...]
    v6: tuple[Lease6, ...]
    warnings: tuple[str, ...]


def look(root: Path = Path("/"), said: Mapping[str, str] | None = None) -> Leases:
    """Read every place where a boot or a DHCP client may have left a lease, the best first:

    - what dhcpcd of our own init keeps (`installer.observe.dhcpcd`): all options, renewed
    - /run/netinstall/lease-*.json, an object with the fields of `Lease`, of other initrds
    - /run/net-*.conf of klibc's ipconfig and of our initrd hooks
    - systemd-networkd's (`installer.observe.networkd`)
    - what a running dhcpcd says: `said` maps interfaces to the output of `dhcpcd -4 -U INTERFACE`
    - the kernel that configured itself (`installer.observe.lease_kernel`)

    The first that knows an interface counts. Others complete it where they know of the same
    address; where they know another, a warning says so.
    """
    warnings: list[str] = []
    leases: dict[str, Lease] = {}
    for lease in _found(root, said or {}, warnings):
        known = leases.setdefault(lease.interface, lease)
        if known is lease:
            continue
        if known.address.ip == lease.address.ip:
            leases[lease.interface] = _completed(known, lease)
        else:
            warnings.append(
                f"{known.source}: {lease.interface} has the address {lease.address.ip} from "
                f"{lease.source}, but is given {known.address.ip} now, which counts"
            )
    return Leases(tuple(leases.values()), _of_ipv6(root, warnings), tuple(warnings))


def read_leases(root: Path = Path("/")) -> tuple[Lease, ...]:
    """Return the leases of IPv4; see `look`."""
    return look(root).v4


def read_leases_with_warnings(root: Path = Path("/")) -> tuple[tuple[Lease, ...], tuple[str, ...]]:
    """Return the leases of IPv4, and what was left out and why; see `look`."""
    found = look(root)
    return found.v4, found.warnings


def boot_leases(root: Path = Path("/")) -> tuple[Lease, ...]:
    """Return what the boot left, without what a client of ours was told since."""
    leases: dict[str, Lease] = {}
    kernels = from_kernel(root, [])
    for lease in (*_of_boot(root, []), *((kernels,) if kernels is not None else ())):
        leases.setdefault(lease.interface, lease)
    return tuple(leases.values())


def by_hand(lease: Lease, root: Path = Path("/")) -> bool:
    """Say whether somebody wrote this address on the command line: no server is to be asked."""
    kept = read(root / f"run/net-{lease.interface}.conf")
    return lease.source.startswith("ip=") or "PROTO='none'" in kept


def _found(root: Path, said: Mapping[str, str], warnings: list[str]) -> Iterator[Lease]:
    for state in dhcpcd.states(root):
        if state.protocol == "dhcp":
            lease = dhcpcd.lease(state, "dhcpcd", warnings)
            if lease is not None:
                yield lease
    yield from _of_boot(root, warnings)
    yield from networkd.leases(root, warnings)
    for interface, text in sorted(said.items()):
        source = f"dhcpcd -4 -U {interface}"
        lease = dhcpcd.from_dump(interface, text, source, warnings)
        if lease is not None:
            yield lease
    kernels = from_kernel(root, warnings)
    if kernels is not None:
        yield kernels


def _of_boot(root: Path, warnings: list[str]) -> Iterator[Lease]:
    for folder, pattern, reader in (
        ("run/netinstall", "lease-*.json", from_json),
        ("run", "net-*.conf", from_klibc),
    ):
        for path in sorted((root / folder).glob(pattern)):
            lease = reader(path, f"/{path.relative_to(root)}", warnings)
            if lease is not None:
                yield lease


def _completed(known: Lease, other: Lease) -> Lease:
    """Fill in what is not known from another report of the same lease."""
    missing = {
        one.name: getattr(other, one.name)
        for one in fields(Lease)
        if one.name not in _NEVER_COMPLETED and getattr(known, one.name) in (None, ())
    }
    return replace(known, **missing)


def _of_ipv6(root: Path, warnings: list[str]) -> tuple[Lease6, ...]:
    leases = {lease.interface: lease for lease in ipv6.leases(root)}
    kept = {(state.interface, state.protocol): state for state in dhcpcd.states(root)}
    for interface in sorted({name for name, _ in kept}):
        lease = dhcpcd.lease6(
            kept.get((interface, "ra")), kept.get((interface, "dhcp6")), "dhcpcd", warnings
        )
        if lease is None:
            continue
        seen = leases.get(interface, Lease6(interface))
        leases[interface] = replace(
            lease,
            slaac=seen.slaac,
            # route information is the kernel's alone: dhcpcd does not read it
            routes=seen.routes,
            routers=lease.routers or seen.routers,
            prefixes=lease.prefixes or seen.prefixes,
        )
    return tuple(leases[name] for name in sorted(leases))
