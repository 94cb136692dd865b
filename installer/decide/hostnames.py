"""Host name and domain of the installed system: chosen, or from a lease that may hold anything."""

import re
from dataclasses import dataclass

from installer.model.facts import Lease, Lease6
from installer.model.network import DOMAIN, LABEL, Network

_NO_LABEL = re.compile(r"[^A-Za-z0-9-]+")
_LONGEST = 63


@dataclass(frozen=True)
class Names:
    """networking.hostName (without dots) and networking.domain; None leaves the payload's."""

    host: str | None
    domain: str | None
    source: str = ""


def names(network: Network, lease: Lease | None, lease6: Lease6 | None) -> tuple[Names, list[str]]:
    """Choose the names; return them and warnings.

    The answer file's, else the full name of the lease (option 81; 39 in DHCPv6), else its host
    name (option 12), which may have a domain in it.
    """
    leased = lease.domain if lease is not None else None
    if network.hostname is not None:
        chosen, _, own = network.hostname.partition(".")
        return Names(chosen, network.domain or own or leased, "the answer file"), []
    given = (lease.fqdn or lease.hostname) if lease is not None else None
    if not given and lease6 is not None:
        given = lease6.fqdn
    if not given:
        return Names(None, network.domain or leased), []
    first, _, rest = given.partition(".")
    domain = network.domain or (rest if DOMAIN.fullmatch(rest) else leased)
    host = valid_label(first)
    if host is None:
        becomes = "nothing of it can be kept, and the payload's stays"
    elif host == first.lower():
        return Names(host, domain, "the lease"), []
    else:
        becomes = f"it becomes {host}"
    warning = (
        f"the lease's host name {given!r} is none that NixOS takes: {becomes} "
        "(set network.hostname to choose one)"
    )
    return Names(host, domain, "the lease" if host is not None else ""), [warning]


def valid_label(text: str) -> str | None:
    """Make a host name of a text: what may not be in one becomes a hyphen. None: nothing is left.

    NixOS itself would take an underscore, and warns of what comes of it.
    """
    label = _NO_LABEL.sub("-", text).strip("-").lower()[:_LONGEST].rstrip("-")
    return label if LABEL.fullmatch(label) else None
