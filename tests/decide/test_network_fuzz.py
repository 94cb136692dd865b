"""Described networks of every kind: a mistake is told, and what is written NixOS can read."""

import json
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from real_nix import evaluated
from real_nixos import judged
from test_network_links import IPV6, LEASE, three

from installer.decide.networking import networking_module
from installer.model.network import Network

ROOT = Path(__file__).parents[2]

REFERENCES = st.sampled_from(
    [
        *("boot", "eth0", "enp0s4", "52:54:00:00:00:03", "eth9"),
        *("bond0", "br0", "vlan5", "vlan6", "lan.7"),
    ]
)
NAMES = st.sampled_from(["bond0", "br0", "lan.7", "x_y-z"])
ADDRESSES = st.lists(
    st.sampled_from(["192.0.2.57/24", "10.0.0.9/8", "10.0.0.10/8", "2001:db8::9/64", "fd00::1/48"]),
    max_size=2,
)
ROUTES = st.lists(
    st.sampled_from(
        [
            {"destination": "default", "gateway": "10.0.0.1"},
            {"destination": "default", "gateway": "fe80::1", "metric": 7},
            {"destination": "198.51.100.0/24", "gateway": "172.16.0.1", "on-link": True},
            {"destination": "203.0.113.0/24"},
        ]
    ),
    max_size=2,
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "ipv4": st.booleans(),
    "ipv6": st.sampled_from(["auto", "slaac", "dhcpv6", "static", "static-from-lease", "off"]),
    "lease": st.sampled_from(["eth1", "eth2", "boot"]),
    "addresses": ADDRESSES,
    "gateway": st.sampled_from(["10.0.0.1", "192.0.2.1"]),
    "gateway6": st.sampled_from(["fe80::1", "2001:db8::1"]),
    "routes": ROUTES,
    "nameservers": st.just(["9.9.9.9"]),
    "mtu": st.sampled_from([576, 1500, 9000]),
}
MODES = st.sampled_from(["dhcp", "static-from-lease", "static", "off"])


def _tables(**own: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    # most fields are missing most of the time, as in what people write
    some = {name: st.none() | st.none() | value for name, value in COMMON.items()}
    table = st.fixed_dictionaries({"mode": MODES, **own, **some})
    return st.lists(
        table.map(lambda all_: {key: value for key, value in all_.items() if value is not None}),
        max_size=2,
    )


NETWORKS = st.fixed_dictionaries(
    {
        "backend": st.sampled_from(["networkd", "scripted"]),
        "others": st.sampled_from(["off", "dhcp"]),
        "interfaces": _tables(interface=REFERENCES),
        "bonds": _tables(
            name=NAMES,
            interfaces=st.lists(REFERENCES, min_size=1, max_size=2),
            **{"bond-mode": st.sampled_from(["802.3ad", "active-backup"])},
        ),
        "vlans": _tables(id=st.integers(5, 6), on=REFERENCES),
        "bridges": _tables(name=NAMES, interfaces=st.lists(REFERENCES, max_size=2)),
    }
)


def test_any_description_is_written_or_refused() -> None:
    written: list[str] = []
    counts = {"invalid": 0, "refused": 0}

    @settings(max_examples=1500, database=None)
    @given(NETWORKS)
    def decide(document: dict[str, Any]) -> None:
        try:
            network = Network.model_validate(document)
        except ValidationError:
            counts["invalid"] += 1
            return
        made, _, problems = networking_module(network, three(LEASE, IPV6))
        assert (made is None) == bool(problems)
        if made is None:
            counts["refused"] += 1
            assert {problem.code for problem in problems} <= {
                *("network.described", "network.no-interface", "network.no-lease"),
            }
            assert all(problem.where.startswith("network.") for problem in problems)
        else:
            written.append(made.text)

    decide()
    # none of the three is the only thing that happens
    assert min(*counts.values(), len(written)) > 10, (counts, len(written))
    values = evaluated("[" + "".join(f"(({text}) {{ }})\n" for text in written) + "]")
    assert len(values) == len(written)
    hardest = sorted(set(written), key=len, reverse=True)[:12]
    for text, found in zip(hardest, judged(hardest), strict=True):
        assert (found["failed"], found["warnings"]) == ([], []), text


def test_every_saved_module_is_one_of_nixos() -> None:
    texts = {}
    for path in sorted((ROOT / "tests/cases").glob("*/*.json")):
        plan = json.loads(path.read_text())
        for step in plan.get("steps", ()):
            if step.get("path") == "/etc/nixos/networking.nix":
                texts[str(path)] = step["content"]
    for name in ("bond-vlan", "ipv6-only", "static-from-lease"):
        given_ = tomllib.loads((ROOT / f"examples/{name}.toml").read_text())["network"]
        text = json.dumps(given_)
        # the cards of the example, on the machine of these tests
        text = text.replace("b8:ce:f6:11:22:30", "52:54:00:00:00:01")
        text = text.replace("b8:ce:f6:11:22:31", "52:54:00:00:00:02")
        made, _, problems = networking_module(
            Network.model_validate(json.loads(text)), three(LEASE)
        )
        assert made is not None, problems
        texts[name] = made.text
    assert len(texts) > 10
    for name, found in zip(texts, judged(list(texts.values())), strict=True):
        assert (found["failed"], found["warnings"]) == ([], []), name
