"""Described networks: what NixOS's module system makes of them, and what is said about mistakes."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any

import pytest
from deciding import answers, machine, plan, refusal, saved
from real_nixos import NIXPKGS, judged

from installer.decide.networking import networking_module
from installer.model.facts import Facts, Lease, Lease6, Nic, Prefix, Route, Router
from installer.model.network import Network
from installer.report.text import plan_text

MACS = tuple(f"52:54:00:00:00:0{number}" for number in range(1, 4))
EVERYWHERE = str(IPv4Address(0))
LEASE = Lease(
    "eth1",
    IPv4Interface("192.0.2.57/24"),
    gateway=IPv4Address("192.0.2.1"),
    nameservers=(IPv4Address("192.0.2.53"),),
    domain="example.net",
    hostname="node7",
    server=IPv4Address("192.0.2.2"),
    taken=datetime(2026, 11, 21, 13, 0, 5, tzinfo=UTC),
    source="/run/netinstall/lease-eth1.json",
)
IPV6 = Lease6(
    "eth1",
    addresses=(IPv6Address("2001:db8::57"),),
    slaac=(IPv6Interface("2001:db8::5054:ff:fe00:2/64"),),
    prefixes=(Prefix(IPv6Network("2001:db8::/64")),),
    routers=(Router(IPv6Address("fe80::1")),),
    managed=True,
    nameservers=(IPv6Address("2001:db8::53"),),
    search=("six.example.net",),
    source="DHCPv6",
)
SLAAC = replace(IPV6, addresses=(), managed=False)


def three(*leases: Lease | Lease6, **changes: Any) -> Facts:
    """A machine whose three cards the boot environment calls eth0 to eth2; the second booted."""
    return machine(
        nics=tuple(
            Nic(f"eth{n}", mac, mac, "virtio_net", f"pci-0000:00:0{n + 3}.0", carrier=True,
                names=(f"enp0s{n + 3}", f"enx{mac.replace(':', '')}"))
            for n, mac in enumerate(MACS)
        ),
        leases=tuple(one for one in leases if isinstance(one, Lease)),
        leases6=tuple(one for one in leases if isinstance(one, Lease6)),
        boot_mac=MACS[1],
        observed=datetime(2026, 11, 21, 13, 5, tzinfo=UTC),
        **changes,
    )  # fmt: skip


def module(toml: str, facts: Facts, warnings: tuple[str, ...] = ()) -> str:
    """The text of networking.nix."""
    made, said, problems = networking_module(Network.model_validate(tomllib.loads(toml)), facts)
    assert not problems, problems
    assert tuple(said) == warnings
    assert made is not None
    return made.text


def systems(toml: str, facts: Facts) -> tuple[Any, Any]:
    """What networkd and the scripted back end make of the same description, in NixOS's words."""
    texts = [module(f'backend = "{name}"\n{toml}', facts) for name in ("networkd", "scripted")]
    networkd, scripted = judged(texts)
    for found in (networkd, scripted):
        assert (found["failed"], found["warnings"]) == ([], [])
    return networkd, scripted


def told(toml: str, facts: Facts) -> str:
    """The text of the error."""
    return refusal(facts, answers(network=tomllib.loads(toml)))


def test_the_header_says_when_and_from_what() -> None:
    text = module('mode = "static-from-lease"', three(LEASE))
    assert text.startswith(
        "# Written by netinstall on 2026-11-21 13:05:00 UTC.\n"
        "# enp0s4: the DHCP lease of eth1 (52:54:00:00:00:02), made static, given by 192.0.2.2 on\n"
        "#   2026-11-21 13:00:05 UTC, read from /run/netinstall/lease-eth1.json.\n"
        "{ ... }:\n"
    )


def test_the_second_of_three_cards_booted_and_has_another_name_here() -> None:
    networkd, scripted = systems('mode = "static-from-lease"', three(LEASE))
    assert networkd["networks"] == {
        "10-netinstall-enp0s4": {
            "matchConfig": {"PermanentMACAddress": MACS[1]},
            "address": ["192.0.2.57/24"],
            "routes": [{"Gateway": "192.0.2.1"}],
            "dns": ["192.0.2.53"],
            "domains": ["example.net"],
            **_shown(Domains="example.net"),
            "linkConfig": {"RequiredForOnline": "routable"},
        }
    }
    assert scripted["networking"]["interfaces"] == {
        "enp0s4": {"ipv4": {"addresses": [{"address": "192.0.2.57", "prefixLength": 24}]}}
    }
    assert scripted["networking"]["defaultGateway"] == {
        "address": "192.0.2.1",
        "interface": "enp0s4",
    }
    assert scripted["links"]["10-netinstall-enp0s4"]["matchConfig"] == {
        "PermanentMACAddress": MACS[1]
    }
    assert scripted["links"]["10-netinstall-enp0s4"]["linkConfig"]["Name"] == "enp0s4"
    if NIXPKGS:
        script = scripted["scripts"]["network-addresses-enp0s4"]
        assert 'ip addr replace "192.0.2.57/24" dev "enp0s4"' in script


def _shown(**words: str) -> dict[str, Any]:
    """What only NixOS's own modules make of other settings, in networkConfig."""
    return {"networkConfig": words} if NIXPKGS else {}


def test_a_lease_with_everything() -> None:
    facts = three(
        replace(
            LEASE,
            address=IPv4Interface("203.0.113.9/32"),
            routes=(
                Route(IPv4Network("10.255.255.1/32")),
                Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.255.255.1")),
                Route(IPv4Network("198.51.100.0/24"), IPv4Address("203.0.113.9")),
                Route(IPv4Network("198.51.100.0/25"), IPv4Address("10.255.255.2")),
            ),
            search=("a.example", "b.example"),
            fqdn="Node_7.dc.example.net",
            ntp=(IPv4Address("192.0.2.123"),),
            mtu=9000,
        )
    )
    text = 'mode = "static-from-lease"'
    warning = (
        "the lease's host name 'Node_7.dc.example.net' is none that NixOS takes: it becomes "
        "node-7 (set network.hostname to choose one)"
    )
    networkd, scripted = judged(
        [
            module(f'backend = "{one}"\n{text}', facts, (warning,))
            for one in ("networkd", "scripted")
        ]
    )
    unit = networkd["networks"]["10-netinstall-enp0s4"]
    assert networkd["networking"]["hostName"] == "node-7"
    assert networkd["networking"]["domain"] == "dc.example.net"
    # option 3 (192.0.2.1) does not count beside option 121
    assert unit["routes"] == [
        {"Gateway": "10.255.255.1", "GatewayOnLink": True},
        {"Destination": "10.255.255.1/32"},
        {"Destination": "198.51.100.0/24", "Gateway": "203.0.113.9"},
        {"Destination": "198.51.100.0/25", "Gateway": "10.255.255.2", "GatewayOnLink": True},
    ]
    assert unit["linkConfig"] == {"MTUBytes": "9000", "RequiredForOnline": "routable"}
    assert unit["ntp"] == ["192.0.2.123"]
    assert unit["domains"] == ["a.example", "b.example"]
    networking = scripted["networking"]
    assert networking["timeServers"] == ["192.0.2.123"]
    assert networking["defaultGateway"]["address"] == "10.255.255.1"
    assert networking["interfaces"]["enp0s4"]["mtu"] == 9000
    assert networking["interfaces"]["enp0s4"]["ipv4"]["routes"] == [
        {"address": "10.255.255.1", "prefixLength": 32},
        {"address": "198.51.100.0", "prefixLength": 24, "via": "203.0.113.9"},
        {
            "address": "198.51.100.0",
            "prefixLength": 25,
            "via": "10.255.255.2",
            "options": {"onlink": ""},
        },
    ]
    # udev reads the .link file that names the card, and no other
    assert scripted["links"]["10-netinstall-enp0s4"]["linkConfig"]["MTUBytes"] == "9000"


def test_several_routers_are_default_routes_of_growing_metric() -> None:
    facts = three(
        replace(LEASE, further_routers=(IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")))
    )
    networkd, scripted = systems('mode = "static-from-lease"', facts)
    assert networkd["networks"]["10-netinstall-enp0s4"]["routes"] == [
        {"Gateway": "192.0.2.1"},
        {"Gateway": "192.0.2.2", "Metric": 1025},
        {"Gateway": "192.0.2.3", "Metric": 1026},
    ]
    assert scripted["networking"]["defaultGateway"]["address"] == "192.0.2.1"
    assert scripted["networking"]["interfaces"]["enp0s4"]["ipv4"]["routes"] == [
        {"address": EVERYWHERE, "prefixLength": 0, "via": f"192.0.2.{n}",
         "options": {"metric": str(1023 + n)}}
        for n in (2, 3)
    ]  # fmt: skip


BOND = f"""
[[bonds]]
name = "bond0"
interfaces = ["eth0", "{MACS[1]}"]
bond-mode = "802.3ad"
lacp-rate = "fast"
hash-policy = "layer3+4"
min-links = 1
up-delay-ms = 200
mode = "off"
mtu = 9000

[[vlans]]
id = 10
on = "bond0"
mode = "static-from-lease"

[[vlans]]
id = 20
on = "bond0"
name = "storage"
mode = "static"
addresses = ["198.51.100.7/24", "2001:db8:20::7/64"]
routes = [{{ destination = "10.0.0.0/8", gateway = "198.51.100.1", metric = 50 }}]
mtu = 9000
"""


def test_a_bond_with_vlans() -> None:
    networkd, scripted = systems(BOND, three(LEASE))
    assert networkd["netdevs"] == {
        "10-netinstall-bond0": {
            "netdevConfig": {
                "Name": "bond0",
                "Kind": "bond",
                # that of the card that booted: the DHCP server knows the machine by it
                "MACAddress": MACS[1],
                "MTUBytes": "9000",
            },
            "bondConfig": {
                "Mode": "802.3ad",
                "MIIMonitorSec": "100ms",
                "UpDelaySec": "200ms",
                "LACPTransmitRate": "fast",
                "TransmitHashPolicy": "layer3+4",
                "MinLinks": 1,
            },
        },
        "10-netinstall-vlan10": {
            "netdevConfig": {"Name": "vlan10", "Kind": "vlan"},
            "vlanConfig": {"Id": 10},
        },
        "10-netinstall-storage": {
            "netdevConfig": {"Name": "storage", "Kind": "vlan", "MTUBytes": "9000"},
            "vlanConfig": {"Id": 20},
        },
    }
    networks = networkd["networks"]
    for number in (0, 1):
        assert networks[f"10-netinstall-enp0s{number + 3}"] == {
            "matchConfig": {"PermanentMACAddress": MACS[number]},
            "networkConfig": {"Bond": "bond0"},
            "linkConfig": {"MTUBytes": "9000", "RequiredForOnline": "enslaved"},
        }
    assert networks["10-netinstall-bond0"]["vlan"] == ["vlan10", "storage"]
    assert networks["10-netinstall-bond0"]["linkConfig"]["RequiredForOnline"] == "carrier"
    assert networks["10-netinstall-vlan10"]["address"] == ["192.0.2.57/24"]
    assert networks["10-netinstall-storage"]["address"] == ["198.51.100.7/24", "2001:db8:20::7/64"]
    assert networks["10-netinstall-storage"]["routes"] == [
        {"Destination": "10.0.0.0/8", "Gateway": "198.51.100.1", "Metric": 50}
    ]
    # an address without a gateway: routes as the routers say, and no second address
    assert networks["10-netinstall-storage"]["ipv6AcceptRAConfig"] == {
        "DHCPv6Client": False,
        "UseAutonomousPrefix": False,
    }
    networking = scripted["networking"]
    assert networking["bonds"] == {
        "bond0": {
            "interfaces": ["enp0s3", "enp0s4"],
            "driverOptions": {
                "mode": "802.3ad",
                "miimon": "100",
                "updelay": "200",
                "lacp_rate": "fast",
                "xmit_hash_policy": "layer3+4",
                "min_links": "1",
            },
        }
    }
    assert networking["vlans"] == {
        "vlan10": {"id": 10, "interface": "bond0"},
        "storage": {"id": 20, "interface": "bond0"},
    }
    interfaces = networking["interfaces"]
    assert interfaces["bond0"] == {"useDHCP": False, "macAddress": MACS[1], "mtu": 9000}
    assert interfaces["vlan10"]["ipv4"]["addresses"] == [
        {"address": "192.0.2.57", "prefixLength": 24}
    ]
    assert networking["defaultGateway"] == {"address": "192.0.2.1", "interface": "vlan10"}
    assert scripted["sysctl"]["net.ipv6.conf.storage.autoconf"] == "0"


BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "balance-tlb")


def test_all_bond_modes_are_known_to_nixos() -> None:
    texts = [
        module(
            f'[[bonds]]\nname = "bond0"\ninterfaces = ["eth0", "eth1"]\nbond-mode = "{mode}"\n'
            f'mode = "dhcp"\n{more}',
            three(),
        )
        for mode, more in [
            *((mode, "") for mode in (*BOND_MODES, "802.3ad", "balance-alb")),
            *(("802.3ad", f'ad-select = "{one}"') for one in ("stable", "bandwidth", "count")),
            *(
                ("balance-xor", f'hash-policy = "{one}"')
                for one in ("layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4")
            ),
            ("active-backup", 'primary = "eth1"'),
        ]
    ]
    found = judged(texts)
    assert all(not one["failed"] for one in found)
    assert found[-1]["networks"]["10-netinstall-enp0s4"]["networkConfig"] == {
        "Bond": "bond0",
        "PrimarySlave": True,
    }
    assert "PrimarySlave" not in found[-1]["networks"]["10-netinstall-enp0s3"]["networkConfig"]


def test_a_bridge_over_a_card_and_a_vlan() -> None:
    networkd, scripted = systems(
        """
        others = "dhcp"
        [[bridges]]
        name = "br0"
        interfaces = ["boot", "vlan7"]
        mode = "static-from-lease"
        [[bridges]]
        name = "vms"
        mode = "static"
        addresses = ["10.9.0.1/24"]
        [[vlans]]
        id = 7
        on = "eth0"
        mode = "off"
        """,
        three(LEASE),
    )
    networks = networkd["networks"]
    assert networks["10-netinstall-enp0s4"]["networkConfig"] == {"Bridge": "br0"}
    assert networks["10-netinstall-vlan7"]["networkConfig"] == {"Bridge": "br0"}
    assert networks["10-netinstall-enp0s3"]["vlan"] == ["vlan7"]
    assert networks["10-netinstall-br0"]["address"] == ["192.0.2.57/24"]
    assert networkd["netdevs"]["10-netinstall-br0"]["netdevConfig"]["MACAddress"] == MACS[1]
    # without ports there is no carrier, and the boot must not wait for one
    assert networks["10-netinstall-vms"]["networkConfig"]["ConfigureWithoutCarrier"] is True
    assert networks["10-netinstall-vms"]["linkConfig"] == {"RequiredForOnline": "no"}
    assert networkd["networking"]["useDHCP"] is True
    assert scripted["networking"]["bridges"]["br0"]["interfaces"] == ["enp0s4", "vlan7"]
    assert scripted["networking"]["interfaces"]["enp0s3"] == {"useDHCP": False}


def test_mixed_cards() -> None:
    networkd, scripted = systems(
        """
        hostname = "web1.example.org"
        nameservers = ["9.9.9.9", "2620:fe::fe"]
        search = ["example.org"]
        [[interfaces]]
        mode = "static-from-lease"
        [[interfaces]]
        interface = "enp0s3"
        mode = "dhcp"
        [[interfaces]]
        interface = "52-54-00-00-00-03"
        mode = "static"
        addresses = ["203.0.113.3/25", "203.0.113.4/25"]
        gateway = "203.0.113.1"
        ntp = ["ntp.example.org"]
        """,
        three(LEASE, replace(LEASE, interface="eth0", address=IPv4Interface("10.0.0.5/8"))),
    )
    assert networkd["networking"]["hostName"] == "web1"
    assert networkd["networking"]["domain"] == "example.org"
    assert networkd["networking"]["nameservers"] == ["9.9.9.9", "2620:fe::fe"]
    networks = networkd["networks"]
    # said for all interfaces: the leases' do not count
    assert "dns" not in networks["10-netinstall-enp0s4"]
    assert networks["10-netinstall-enp0s3"]["DHCP"] == "yes"
    assert networks["10-netinstall-enp0s3"]["dhcpV4Config"] == {"ClientIdentifier": "mac"}
    assert networks["10-netinstall-enp0s5"]["address"] == ["203.0.113.3/25", "203.0.113.4/25"]
    # the second default route has another metric: the kernel would refuse it
    assert networks["10-netinstall-enp0s5"]["routes"] == [
        {"Gateway": "203.0.113.1", "Metric": 1025}
    ]
    assert networks["10-netinstall-enp0s5"]["ntp"] == ["ntp.example.org"]
    interfaces = scripted["networking"]["interfaces"]
    assert interfaces["enp0s3"] == {"useDHCP": True}
    assert interfaces["enp0s5"]["ipv4"]["routes"] == [
        {"address": EVERYWHERE, "prefixLength": 0, "via": "203.0.113.1",
         "options": {"metric": "1025"}}
    ]  # fmt: skip
    assert scripted["networking"]["nameservers"] == ["9.9.9.9", "2620:fe::fe"]
    assert scripted["networking"]["timeServers"] == ["ntp.example.org"]


def _unit(lines: str, facts: Facts) -> Any:
    (found,) = judged([module(f"[[interfaces]]\n{lines}", facts)])
    assert not found["failed"]
    return found["networks"]["10-netinstall-enp0s4"]


@pytest.mark.parametrize(
    ("said", "dhcp", "settings", "advertisements"),
    [
        ("", "yes", {}, None),
        ('ipv6 = "slaac"', "ipv4", {"IPv6AcceptRA": True}, {"DHCPv6Client": False}),
        (
            'ipv6 = "dhcpv6"',
            "yes",
            {"IPv6AcceptRA": True},
            {"DHCPv6Client": "always", "UseAutonomousPrefix": False},
        ),
        ('ipv6 = "off"', "ipv4", {"IPv6AcceptRA": False, "LinkLocalAddressing": "no"}, None),
        ('ipv6 = "dhcpv6"\nipv4 = false', "ipv6", {"IPv6AcceptRA": True}, ...),
        ('ipv6 = "slaac"\nipv4 = false', None, {"IPv6AcceptRA": True}, ...),
        (
            'ipv6 = "static"\naddresses = ["2001:db8::9/64"]\ngateway6 = "fe80::1"',
            "ipv4",
            {"IPv6AcceptRA": False},
            None,
        ),
    ],
)
def test_ways_to_ipv6(said: str, dhcp: str | None, settings: Any, advertisements: Any) -> None:
    unit = _unit(f'mode = "dhcp"\n{said}', three(LEASE, IPV6))
    assert unit.get("DHCP") == dhcp
    found = {name: value for name, value in unit.get("networkConfig", {}).items() if name != "DHCP"}
    assert found == settings
    if advertisements is not ...:
        assert unit.get("ipv6AcceptRAConfig") == advertisements


def test_what_dhcpv6_leased_becomes_static_in_its_network() -> None:
    networkd, scripted = systems('mode = "static-from-lease"', three(LEASE, IPV6))
    unit = networkd["networks"]["10-netinstall-enp0s4"]
    # DHCPv6 gives no prefix length: it is that of the on-link prefix of the advertisement
    assert unit["address"] == ["192.0.2.57/24", "2001:db8::57/64"]
    assert unit["dns"] == ["192.0.2.53", "2001:db8::53"]
    assert unit["domains"] == ["example.net", "six.example.net"]
    assert unit["networkConfig"]["IPv6AcceptRA"] is True
    assert unit["ipv6AcceptRAConfig"] == {"DHCPv6Client": False, "UseAutonomousPrefix": False}
    interface = scripted["networking"]["interfaces"]["enp0s4"]
    assert interface["ipv6"]["addresses"] == [{"address": "2001:db8::57", "prefixLength": 64}]
    assert scripted["sysctl"]["net.ipv6.conf.enp0s4.autoconf"] == "0"


def test_a_slaac_address_stays_one_where_there_is_ipv4() -> None:
    unit = _unit('mode = "static-from-lease"', three(LEASE, SLAAC))
    assert unit["address"] == ["192.0.2.57/24"]
    assert "ipv6AcceptRAConfig" not in unit
    wanted = 'mode = "static-from-lease"\nipv6 = "static-from-lease"'
    assert _unit(wanted, three(LEASE, SLAAC))["address"] == [
        "192.0.2.57/24",
        "2001:db8::5054:ff:fe00:2/64",
    ]


def test_a_machine_with_ipv6_only() -> None:
    networkd, scripted = systems('mode = "static-from-lease"', three(SLAAC))
    unit = networkd["networks"]["10-netinstall-enp0s4"]
    assert unit["address"] == ["2001:db8::5054:ff:fe00:2/64"]
    assert unit["dns"] == ["2001:db8::53"]
    assert "routes" not in unit
    assert unit["networkConfig"]["IPv6AcceptRA"] is True
    assert scripted["networking"]["interfaces"]["enp0s4"] == {
        "useDHCP": False,
        "ipv6": {"addresses": [{"address": "2001:db8::5054:ff:fe00:2", "prefixLength": 64}]},
    }


def test_without_a_prefix_on_the_link_an_address_is_alone() -> None:
    facts = three(replace(IPV6, prefixes=(Prefix(IPv6Network("2001:db8::/64"), on_link=False),)))
    assert _unit('mode = "static-from-lease"', facts)["address"] == ["2001:db8::57/128"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("useDHCP = true", {"hostName": "node7", "domain": "example.net", "useDHCP": True}),
        (
            'useDHCP = false\nstaticInterfaceFromDHCP = "enp0s4"',
            {
                "hostName": "node7",
                "domain": "example.net",
                "useDHCP": False,
                "interfaces": {
                    "enp0s4": {
                        "ipv4": {"addresses": [{"address": "192.0.2.57", "prefixLength": 24}]}
                    }
                },
                "defaultGateway": {"address": "192.0.2.1", "interface": "enp0s4"},
                "nameservers": ["192.0.2.53"],
                "search": ["example.net"],
            },
        ),
    ],
)
def test_the_older_options(option: str, expected: Any) -> None:
    (found,) = judged([module(option, three(LEASE))])
    networking = found["networking"]
    assert networking.pop("useNetworkd") is False  # NixOS's default: nothing is said about it
    assert not found["links"]
    networking = {name: value for name, value in networking.items() if value}
    networking.setdefault("useDHCP", False)
    networking.pop("timeServers", None)
    assert networking == expected


def test_an_older_name_that_only_this_boot_has_gets_a_card_that_stays() -> None:
    (found,) = judged([module('staticInterfaceFromDHCP = "eth1"', three(LEASE))])
    assert found["networking"]["interfaces"].keys() == {"enp0s4"}
    assert found["links"]["10-netinstall-enp0s4"]["linkConfig"]["Name"] == "enp0s4"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (Nic("eth0", MACS[0], MACS[0]), ("enx525400000001", {"PermanentMACAddress": MACS[0]})),
        (Nic("lan", MACS[0], MACS[0]), ("lan", {"PermanentMACAddress": MACS[0]})),
        (
            Nic("eth0", MACS[0], MACS[0], names=("bad name", "x" * 16, "ens3")),
            ("ens3", {"PermanentMACAddress": MACS[0]}),
        ),
        (
            Nic("eth0", MACS[0], None, path="pci-0000:00:03.0", names=("ens3",)),
            ("ens3", {"Path": "pci-0000:00:03.0"}),
        ),
        (
            Nic("eth0", MACS[0], None, names=("ens3",)),
            ("ens3", {"MACAddress": MACS[0], "Type": "ether", "Kind": "!*"}),
        ),
    ],
)
def test_how_a_card_is_found_again(card: Nic, expected: tuple[str, dict[str, str]]) -> None:
    lease = replace(LEASE, interface=card.name)
    facts = machine(nics=(card,), leases=(lease,), boot_mac=None)
    (found,) = judged([module('mode = "static-from-lease"\nbackend = "scripted"', facts)])
    (link,) = found["links"].values()
    assert (link["linkConfig"]["Name"], link["matchConfig"]) == expected


def test_twins_are_told_apart_by_their_place() -> None:
    facts = three(LEASE)
    twin = replace(facts.nics[2], mac=MACS[1], permanent_mac=MACS[1])
    facts = replace(facts, nics=(*facts.nics[:2], twin))
    toml = '[[interfaces]]\ninterface = "eth1"\nmode = "dhcp"'
    (found,) = judged([module(toml, facts)])
    assert found["networks"]["10-netinstall-enp0s4"]["matchConfig"] == {
        "PermanentMACAddress": MACS[1],
        "Path": "pci-0000:00:04.0",
    }
    assert told(f'[[interfaces]]\ninterface = "{MACS[1]}"\nmode = "dhcp"', facts) == (
        f"error[network.ambiguous]: {MACS[1]} is more than one interface: "
        f"eth1 ({MACS[1]}), eth2 ({MACS[1]})\n"
        "  where: answers.toml: network.interfaces[0]\n"
        "  try:   use a name or MAC address that only one of them has"
    )
    nowhere = replace(facts, nics=tuple(replace(nic, path=None) for nic in facts.nics))
    assert told(toml, nowhere) == (
        "error[network.value]: eth1 has the same hardware address as eth2: none networking.nix "
        "can hold\n"
        "  where: answers.toml: network.interfaces[0]\n"
        '  try:   use another interface, or say mode = "dhcp"'
    )


MISTAKES = {
    "a card twice": (
        '[[interfaces]]\nmode = "dhcp"\n[[interfaces]]\ninterface = "enp0s4"\nmode = "dhcp"',
        "enp0s4 is enp0s4 (52:54:00:00:00:02), which network.interfaces[0] describes already",
        "network.interfaces[1]",
        "describe each interface once",
    ),
    "a member with addresses": (
        (
            '[[interfaces]]\nmode = "dhcp"\n[[bonds]]\nname = "bond0"\ninterfaces = ["boot"]\n'
            'bond-mode = "802.3ad"\nmode = "dhcp"'
        ),
        "enp0s4 belongs to bond0, and network.interfaces[0] gives it addresses",
        "network.bonds[0].interfaces[0]",
        'give them to bond0, and say mode = "off" there',
    ),
    "a member of two": (
        (
            '[[bridges]]\nname = "br0"\ninterfaces = ["eth0"]\nmode = "dhcp"\n'
            '[[bridges]]\nname = "br1"\ninterfaces = ["enp0s3"]\nmode = "dhcp"'
        ),
        "enp0s3 belongs to br0 already",
        "network.bridges[1].interfaces[0]",
        "let it belong to one of them",
    ),
    "a bond of a VLAN": (
        (
            '[[bonds]]\nname = "bond0"\ninterfaces = ["vlan7"]\nbond-mode = "802.3ad"\n'
            'mode = "dhcp"\n'
            '[[vlans]]\nid = 7\non = "eth0"\nmode = "off"'
        ),
        "vlan7 is no network card",
        "network.bonds[0].interfaces[0]",
        "a bond is made of cards",
    ),
    "a circle": (
        (
            '[[bridges]]\nname = "br0"\ninterfaces = ["vlan7"]\nmode = "dhcp"\n'
            '[[vlans]]\nid = 7\non = "br0"\nmode = "off"'
        ),
        "br0 is made of itself",
        "network.bridges[0]",
        "let each be made of others only",
    ),
    "a VLAN on a member": (
        (
            '[[bonds]]\nname = "bond0"\ninterfaces = ["eth0"]\nbond-mode = "802.3ad"\n'
            'mode = "dhcp"\n[[vlans]]\nid = 7\non = "eth0"\nmode = "dhcp"'
        ),
        "enp0s3 belongs to bond0: its VLANs are never heard",
        "network.vlans[0]",
        'say on = "bond0"',
    ),
    "a name that a card has": (
        '[[bridges]]\nname = "enp0s3"\ninterfaces = ["eth0"]\nmode = "dhcp"',
        "enp0s3 is the name of a network card (52:54:00:00:00:01), too",
        "network.bridges[0]",
        "choose another name",
    ),
    "a gateway elsewhere": (
        '[[interfaces]]\nmode = "static"\naddresses = ["10.0.0.2/24"]\ngateway = "10.0.1.1"',
        "the gateway 10.0.1.1 is in none of the interface's networks (10.0.0.0/24)",
        "network.interfaces[0].gateway",
        (
            "correct the address or its prefix length; for a gateway on the link, write a route "
            "with on-link = true"
        ),
    ),
    "a route without a network": (
        (
            '[[interfaces]]\nmode = "static"\naddresses = ["2001:db8::2/64"]\n'
            'routes = [{ destination = "10.0.0.0/8", gateway = "10.0.1.1" }]'
        ),
        "the gateway 10.0.1.1 is in none of the interface's networks",
        "network.interfaces[0].routes[0].gateway",
        (
            "correct the address or its prefix length; for a gateway on the link, write a route "
            "with on-link = true"
        ),
    ),
    "one's own gateway": (
        '[[interfaces]]\nmode = "static"\naddresses = ["10.0.0.2/24"]\ngateway = "10.0.0.2"',
        "the gateway 10.0.0.2 is this machine's own address",
        "network.interfaces[0].gateway",
        "write the router's address",
    ),
    "an address twice": (
        (
            '[[interfaces]]\nmode = "static-from-lease"\n'
            '[[interfaces]]\ninterface = "eth0"\nmode = "static"\naddresses = ["192.0.2.57/24"]'
        ),
        "enp0s3 and enp0s4 both have 192.0.2.57",
        "network.interfaces[1]",
        "give each its own address; a lease is used by one interface",
    ),
    "too long a frame": (
        '[[vlans]]\nid = 7\non = "eth0"\nmode = "dhcp"\nmtu = 9000',
        "the mtu 9000 of vlan7 is larger than the 1500 of enp0s3, which carries it",
        "network.vlans[0].mtu",
        "say mtu = 9000 for enp0s3, too",
    ),
    "DHCPv6 by scripts": (
        'backend = "scripted"\n[[interfaces]]\nmode = "dhcp"\nipv6 = "dhcpv6"',
        "enp0s4: the scripted back end cannot ask for IPv6 addresses without asking for IPv4 ones",
        "network.interfaces[0]",
        'say backend = "networkd"',
    ),
    "SLAAC beside DHCP by scripts": (
        'backend = "scripted"\n[[interfaces]]\nmode = "dhcp"\nipv6 = "slaac"',
        (
            "enp0s4: the scripted back end cannot ask for IPv4 alone while it listens to routers "
            "of IPv6"
        ),
        "network.interfaces[0]",
        'say backend = "networkd"',
    ),
    "a spanning tree by scripts": (
        'backend = "scripted"\n[[bridges]]\nname = "br0"\nmode = "off"\nstp = true',
        "br0: the scripted back end cannot run the spanning tree of a bridge",
        "network.bridges[0]",
        'say backend = "networkd"',
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_contradicts_itself_or_the_machine(name: str) -> None:
    toml, what, where, hint = MISTAKES[name]
    assert told(toml, three(LEASE)) == (
        f"error[network.described]: {what}\n  where: answers.toml: {where}\n  try:   {hint}"
    )


@pytest.mark.parametrize(
    ("toml", "facts", "what", "where"),
    [
        (
            '[[interfaces]]\ninterface = "eth2"\nmode = "static-from-lease"',
            three(LEASE),
            f"eth2 ({MACS[2]}) has no DHCP lease to make static",
            "network.interfaces[0].mode",
        ),
        (
            (
                '[[bonds]]\nname = "bond0"\ninterfaces = ["eth0", "eth2"]\nbond-mode = "802.3ad"\n'
                'mode = "static-from-lease"'
            ),
            three(LEASE),
            "bond0 has no DHCP lease to make static",
            "network.bonds[0].mode",
        ),
        (
            '[[interfaces]]\nmode = "dhcp"\nipv6 = "static-from-lease"',
            three(LEASE),
            f"eth1 ({MACS[1]}) has no IPv6 address to make static",
            "network.interfaces[0].ipv6",
        ),
        (
            '[[interfaces]]\nmode = "static-from-lease"\nlease = "eth0"',
            three(LEASE),
            "eth0 has no DHCP lease to make static",
            "network.interfaces[0].mode",
        ),
    ],
)
def test_a_lease_that_is_not_there(toml: str, facts: Facts, what: str, where: str) -> None:
    assert told(toml, facts) == (
        f"error[network.no-lease]: {what}\n  where: answers.toml: {where}\n"
        '  try:   boot from the interface that is meant, or say mode = "dhcp"'
    )


def test_a_lease_of_another_interface() -> None:
    tagged = replace(LEASE, interface="eth1.7", address=IPv4Interface("10.7.0.7/16"), gateway=None)
    vlan = '[[vlans]]\nid = 7\non = "boot"\nmode = "static-from-lease"\n'
    (own, named) = judged([module(vlan, three(LEASE, tagged)),
                           module(f'{vlan}lease = "eth1"', three(LEASE, tagged))])  # fmt: skip
    assert own["networks"]["10-netinstall-vlan7"]["address"] == ["10.7.0.7/16"]
    assert named["networks"]["10-netinstall-vlan7"]["address"] == ["192.0.2.57/24"]


def test_the_dry_run_shows_the_network() -> None:
    made = plan(three(LEASE), answers(network=tomllib.loads(f'others = "dhcp"\n{BOND}')))
    lines = [line.text for line in plan_text(made)]
    start = lines.index("NETWORK (networkd)")
    assert lines[start : lines.index("", start)] == [
        "NETWORK (networkd)",
        "  host name  node7.example.net, from the lease",
        "  enp0s3: network card 52:54:00:00:00:01, now eth0, belongs to bond0",
        "      MTU 9000",
        "  enp0s4: network card 52:54:00:00:00:02, now eth1, which booted, belongs to",
        "    bond0",
        "      MTU 9000",
        "  bond0: bond (802.3ad) of enp0s3, enp0s4",
        "      no addresses",
        "      MTU 9000",
        "  vlan10: VLAN 10 on bond0",
        "      192.0.2.57/24, IPv6 as the routers say",
        "      from the DHCP lease of eth1, made static, given by 192.0.2.2 on",
        "        2026-11-21 13:00:05 UTC, read from /run/netinstall/lease-eth1.json",
        "      route default via 192.0.2.1",
        "      DNS 192.0.2.53",
        "      search example.net",
        "  storage: VLAN 20 on bond0",
        "      198.51.100.7/24, 2001:db8:20::7/64, IPv6 fixed, routes as the routers say",
        "      route 10.0.0.0/8 via 198.51.100.1, metric 50",
        "      MTU 9000",
        "  every other interface asks a DHCP server",
    ]


def test_a_saved_machine_has_no_ipv6_and_is_read_all_the_same() -> None:
    assert saved("nvme-server").leases6 == ()
