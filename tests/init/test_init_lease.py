"""What init makes of the leases."""

from ipaddress import IPv4Address, IPv4Interface

from installer.init.lease import resolv_conf
from installer.model.facts import Lease


def _lease(*servers: str, search: tuple[str, ...] = (), domain: str | None = None) -> Lease:
    return Lease(
        interface="ens3",
        address=IPv4Interface("192.0.2.10/24"),
        nameservers=tuple(map(IPv4Address, servers)),
        search=search,
        domain=domain,
    )


def test_name_servers_and_search_domains() -> None:
    lease = _lease(
        "192.0.2.53", "192.0.2.54", search=("a.example", "b.example"), domain="c.example"
    )
    assert resolv_conf([lease]) == (
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch a.example b.example\n"
    )


def test_the_domain_is_searched_if_nothing_else_is() -> None:
    assert resolv_conf([_lease(domain="c.example")]) == "search c.example\n"


def test_several_leases_repeat_nothing_and_stop_at_three_servers() -> None:
    leases = [
        _lease("192.0.2.53", "192.0.2.54", domain="c.example"),
        _lease("192.0.2.53", "192.0.2.55", "192.0.2.56", domain="c.example"),
    ]
    assert resolv_conf(leases) == (
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 192.0.2.55\nsearch c.example\n"
    )


def test_without_a_lease() -> None:
    assert resolv_conf([]) == ""
