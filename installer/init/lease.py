"""Host name and name servers from the lease, and what the DHCP client is to ask for.

Imported by a child of PID 1 only, for what it imports itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from installer.init import dhcp
from installer.model.facts import Lease, Lease6
from installer.observe.lease import boot_leases, by_hand, look
from installer.observe.lease_values import read


def apply(root: Path = Path("/")) -> None:
    """Set host name and /etc/resolv.conf. Raises OSError."""
    leases = look(root)
    names = [lease.hostname for lease in leases.v4 if lease.hostname]
    if names:
        Path("/proc/sys/kernel/hostname").write_text(names[0].partition(".")[0])
    new = Path("/etc/resolv.conf.new")
    new.write_text(resolv_conf([*leases.v4, *leases.v6]))
    # it may be a link to somewhere that does not exist here
    new.replace("/etc/resolv.conf")


def prepare_client() -> None:
    """Write the configuration of the DHCP client. Raises OSError."""
    # its helper, which is not root, writes the log
    dhcp.FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    dhcp.CONFIG.write_text(dhcp.config(list(client_lines())))


def client_lines(root: Path = Path("/")) -> Iterator[str]:
    """Say of each interface that booted what dhcpcd is to ask for: the same again.

    A server knows its clients by an identifier (RFC 2131, 4.2), or by the hardware address where
    they send none. klibc and the kernel send none; udhcpc sends type and address.
    """
    for lease in boot_leases(root):
        yield f"interface {lease.interface}"
        if by_hand(lease, root):
            yield "nodhcp"
            continue
        yield f"request {lease.address.ip}"
        if "CLIENT='udhcpc'" in read(root / f"run/net-{lease.interface}.conf"):
            yield "clientid"


def resolv_conf(leases: Sequence[Lease | Lease6]) -> str:
    """Return resolv.conf(5) for these leases; libc reads three servers at most."""
    servers = [str(server) for lease in leases for server in lease.nameservers]
    domains = [
        name
        for lease in leases
        for name in lease.search or ((lease.domain,) if isinstance(lease, Lease) else ())
        if name
    ]
    lines = [f"nameserver {server}" for server in dict.fromkeys(servers)][:3]
    if domains:
        lines.append("search " + " ".join(dict.fromkeys(domains)))
    return "".join(f"{line}\n" for line in lines)
