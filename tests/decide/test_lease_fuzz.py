"""Leases of every kind, sensible and mad: each is written as it is, or refused with a reason."""

import json
import re
import subprocess
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from deciding import saved
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from real_nix import evaluated
from real_nixos import judged

from installer.decide.networking import networking_module
from installer.model.facts import Facts, Lease, Lease6, Nic, Prefix, Route, Router
from installer.model.network import Network

LEASES = 10_000
CHILDREN = 10
"""How many leases come of two that were drawn."""

MAD = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        *("${builtins.abort 1}", '"; x = "', "''${a}", "\0", "\n}", "a b", "a..b", "-a", "a_b"),
        *("x" * 64, "x" * 254, "a.b.example.net", "A.Example", ".", "localhost", "*/", "#"),
    ]
)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join) | MAD
V4 = st.ip_addresses(v=4) | st.ip_addresses(v=4, network="10.0.0.0/16")
V6 = st.ip_addresses(v=6) | st.ip_addresses(v=6, network="2001:db8::/48")
NETWORKS = st.builds(
    lambda address, length: IPv4Network((int(address), length), strict=False),
    V4,
    st.integers(0, 32),
)
NETWORKS6 = st.builds(
    lambda address, length: IPv6Network((int(address), length), strict=False),
    V6,
    st.integers(0, 128),
)
MOMENTS = st.none() | st.datetimes(timezones=st.just(UTC))
SOURCES = st.sampled_from(["", "/run/net-eth0.conf"]) | MAD
MTUS = st.none() | st.integers(-1, 70000) | st.sampled_from([576, 1280, 1492, 1500, 9000])
LEASES4 = st.builds(
    Lease,
    interface=st.just("enp0s2"),
    address=st.builds(
        lambda address, length: IPv4Interface((int(address), length)), V4, st.integers(0, 32)
    ),
    gateway=st.none() | V4,
    further_routers=st.lists(V4, max_size=2).map(tuple),
    routes=st.lists(st.builds(Route, NETWORKS, st.none() | V4), max_size=3).map(tuple),
    nameservers=st.lists(V4, max_size=3).map(tuple),
    search=st.lists(NAMES, max_size=3).map(tuple),
    domain=st.none() | NAMES,
    hostname=st.none() | NAMES,
    fqdn=st.none() | NAMES,
    ntp=st.lists(V4, max_size=2).map(tuple),
    mtu=MTUS,
    server=st.none() | V4,
    root_path=st.none() | MAD,
    seconds=st.none() | st.integers(0, 2**32 - 1),
    taken=MOMENTS,
    source=SOURCES,
)
LEASES6 = st.builds(
    Lease6,
    interface=st.just("enp0s2"),
    addresses=st.lists(V6, max_size=2).map(tuple),
    slaac=st.lists(
        st.builds(lambda address, length: IPv6Interface((int(address), length)), V6,
                  st.integers(0, 128)),
        max_size=2,
    ).map(tuple),
    prefixes=st.lists(st.builds(Prefix, NETWORKS6, st.booleans()), max_size=2).map(tuple),
    routers=st.lists(st.builds(Router, V6), max_size=2).map(tuple),
    routes=st.lists(st.builds(Route, NETWORKS6, st.none() | V6), max_size=2).map(tuple),
    nameservers=st.lists(V6, max_size=3).map(tuple),
    search=st.lists(NAMES, max_size=2).map(tuple),
    fqdn=st.none() | NAMES,
    ntp=st.lists(V6, max_size=2).map(tuple),
    mtu=MTUS,
    taken=MOMENTS,
    source=SOURCES,
)  # fmt: skip
CARDS = st.builds(
    Nic,
    name=st.just("enp0s2"),
    mac=st.just("52:54:00:12:34:56"),
    permanent_mac=st.sampled_from(["52:54:00:12:34:56", None]),
    path=st.none() | st.just("pci-0000:00:02.0") | MAD,
    names=st.lists(st.sampled_from(["enp0s2", "ens2", "enx525400123456"]) | MAD, max_size=3).map(
        tuple
    ),
)
FORMS: list[dict[str, str]] = [
    {"mode": "dhcp"},
    *[{"mode": "static-from-lease", "backend": name} for name in ("networkd", "scripted")],
    {"staticInterfaceFromDHCP": "enp0s2"},
]


@dataclass(frozen=True)
class Case:
    """A lease, and what was written for it."""

    form: dict[str, str]
    lease: Lease | None
    lease6: Lease6 | None
    text: str
    warnings: list[str]


def _facts(
    lease: Lease | None, lease6: Lease6 | None, card: Nic, observed: datetime | None
) -> Facts:
    return replace(
        saved("virtio-vm"),
        nics=(card,),
        leases=(lease,) if lease is not None else (),
        leases6=(lease6,) if lease6 is not None else (),
        observed=observed,
    )


A = TypeVar("A", Lease, Lease6)


def _crossed(pick: Random, pair: tuple[A, A]) -> A | None:
    """A lease with fields of two others, or none: drawing one takes longer than all the rest."""
    if pick.random() < 0.15:
        return None
    return replace(
        pair[0], **{one.name: getattr(pick.choice(pair), one.name) for one in fields(pair[0])}
    )


def _decided() -> tuple[list[Case], int]:
    """What is written for as many leases as are wanted, and how many of them were refused."""
    cases: list[Case] = []
    refused = 0

    @settings(
        max_examples=LEASES // CHILDREN, database=None, phases=[Phase.explicit, Phase.generate]
    )
    @given(
        st.tuples(LEASES4, LEASES4),
        st.tuples(LEASES6, LEASES6),
        CARDS,
        MOMENTS,
        st.integers(0, 2**32),
    )
    def decide(
        leases: tuple[Lease, Lease],
        leases6: tuple[Lease6, Lease6],
        card: Nic,
        observed: datetime | None,
        seed: int,
    ) -> None:
        nonlocal refused
        pick = Random(seed)  # noqa: S311 - the same leases in every run
        for _ in range(CHILDREN):
            lease, lease6 = _crossed(pick, leases), _crossed(pick, leases6)
            form = pick.choice(FORMS)
            network = Network.model_validate(form)
            facts = _facts(lease, lease6, card, observed)
            made, warnings, problems = networking_module(network, facts)
            assert (made is None) == bool(problems)
            if made is not None:
                cases.append(Case(form, lease, lease6, made.text, warnings))
                continue
            refused += 1
            assert {problem.code for problem in problems} <= {"network.value", "network.no-lease"}
            assert all(problem.what and problem.where and problem.hint for problem in problems)

    decide()
    return cases, refused


def test_ten_thousand_leases_are_written_as_they_are_or_refused(tmp_path: Path) -> None:
    cases, refused = _decided()
    assert len(cases) + refused >= LEASES
    # neither of the two is the only thing that happens
    assert len(cases) > LEASES / 10
    assert refused > LEASES / 10
    values: list[Any] = []
    for start in range(0, len(cases), 1000):
        batch = cases[start : start + 1000]
        # a file of its own is what a system imports; a batch is one file, for the time's sake
        values += evaluated("[" + "".join(f"(({case.text}) {{ }})\n" for case in batch) + "]")
    for case, value in zip(cases, values, strict=True):
        _holds_what_was_given(case, value)
    _parses_alone(cases[0].text, tmp_path)
    # the whole module system takes a second for each, so it judges the most involved ones only
    hardest = sorted({case.text for case in cases}, key=len, reverse=True)[:12]
    for text, found in zip(hardest, judged(hardest), strict=True):
        assert (found["failed"], found["warnings"]) == ([], []), text


def _parses_alone(text: str, folder: Path) -> None:
    (folder / "networking.nix").write_text(text)
    subprocess.run(["nix-instantiate", "--parse", folder / "networking.nix"], check=True)


def _holds_what_was_given(case: Case, value: Any) -> None:
    """Compare with the lease itself, not with what was made of it on the way."""
    assert value.keys() <= {"networking", "systemd", "boot"}, case
    comment, _, rest = case.text.partition("{ ... }:\n")
    assert all(line.startswith("#") for line in comment.splitlines()), case
    assert rest.isprintable() or "\n" in rest, case
    networking = value["networking"]
    _names_are_right(case, networking)
    if case.form.get("mode") == "dhcp":
        assert networking.keys() <= {"hostName", "domain", "useNetworkd", "useDHCP"}
        assert networking["useDHCP"] is True
        return
    assert networking["useDHCP"] is False
    found = _networkd(value) if "networks" in json.dumps(value) else _scripted(value)
    lease = case.lease
    if lease is None:
        assert all(":" in address for address in found["addresses"]), case
        return
    assert found["addresses"][0] == str(lease.address), case
    given = {(str(route.destination), _text(route.gateway)) for route in lease.effective_routes}
    defaults = {route for route in given if route[0] == "0.0.0.0/0" and route[1] is not None}
    written = {route for route in found["routes"] if ":" not in route[0]}
    assert written <= given, case
    for destination, gateway in given - written:
        what = f"route to {destination} "
        if (destination, gateway) in defaults:
            # only the first default gateway must be right
            assert not lease.routes, case
            assert gateway != str(lease.gateway), case
            what = f"router {gateway} "
        assert _is_left_out(case, what), case
    for name, what, values in (
        ("dns", "name server", lease.nameservers),
        ("ntp", "time server", lease.ntp),
    ):
        four = [server for server in found[name] if ":" not in server]
        for server in map(str, values):
            assert (server in four) != _is_left_out(case, f"{what} {server} "), case
        assert set(four) <= set(map(str, values)), case
    for domain in lease.search:
        assert (domain in found["domains"]) != _is_left_out(case, f"domain {domain!r} "), case


def _names_are_right(case: Case, networking: Any) -> None:
    lease, lease6 = case.lease, case.lease6
    given = ((lease.fqdn or lease.hostname) if lease else None) or (lease6.fqdn if lease6 else None)
    if not given:
        assert "hostName" not in networking, case
        return
    first = given.partition(".")[0]
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", first):
        assert networking["hostName"] == first.lower(), case
        return
    assert any(f"host name {given!r}" in warning for warning in case.warnings), case
    if "hostName" in networking:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", networking["hostName"]), case


def _is_left_out(case: Case, what: str) -> bool:
    return any(what in warning and "left out" in warning for warning in case.warnings)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _networkd(value: Any) -> Any:
    (unit,) = value["systemd"]["network"]["networks"].values()
    return {
        "addresses": unit.get("address", []),
        "routes": [(_everywhere(route), route.get("Gateway")) for route in unit.get("routes", [])],
        "dns": unit.get("dns", []),
        "domains": unit.get("domains", []),
        "ntp": unit.get("ntp", []),
    }


def _everywhere(route: Any) -> str:
    default = "::/0" if ":" in route.get("Gateway", "") else "0.0.0.0/0"
    return str(route.get("Destination", default))


def _scripted(value: Any) -> Any:
    networking = value["networking"]
    (interface,) = networking["interfaces"].values()
    families = [interface.get(name, {}) for name in ("ipv4", "ipv6")]
    routes = [
        (f"{route['address']}/{route['prefixLength']}", route.get("via"))
        for family in families
        for route in family.get("routes", [])
    ]
    if "defaultGateway" in networking:
        routes.append(("0.0.0.0/0", networking["defaultGateway"]["address"]))
    return {
        "addresses": [
            f"{address['address']}/{address['prefixLength']}"
            for family in families
            for address in family.get("addresses", [])
        ],
        "routes": routes,
        "dns": networking.get("nameservers", []),
        "domains": networking.get("search", []),
        "ntp": networking.get("timeServers", []),
    }
