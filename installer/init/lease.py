"""Host name and name servers from the lease.

Imported by a child of PID 1 only, for what it imports itself.
"""

from collections.abc import Sequence
from pathlib import Path

from installer.model.facts import Lease
from installer.observe.lease import read_leases


def apply() -> None:
    """Set host name and /etc/resolv.conf. Raises OSError."""
    leases = read_leases()
    names = [lease.hostname for lease in leases if lease.hostname]
    if names:
        Path("/proc/sys/kernel/hostname").write_text(names[0].partition(".")[0])
    new = Path("/etc/resolv.conf.new")
    new.write_text(resolv_conf(leases))
    # it may be a link to somewhere that does not exist here
    new.replace("/etc/resolv.conf")


def resolv_conf(leases: Sequence[Lease]) -> str:
    """Return resolv.conf(5) for these leases; libc reads three servers at most."""
    servers = [str(server) for lease in leases for server in lease.nameservers]
    domains = [name for lease in leases for name in lease.search or (lease.domain,) if name]
    lines = [f"nameserver {server}" for server in dict.fromkeys(servers)][:3]
    if domains:
        lines.append("search " + " ".join(dict.fromkeys(domains)))
    return "".join(f"{line}\n" for line in lines)
