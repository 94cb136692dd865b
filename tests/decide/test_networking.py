"""networking.nix, as Nix reads it, and what is said about leases that cannot be."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from deciding import answers, machine, plan, refusal, saved
from real_nix import evaluated

from installer.decide.networking import networking_module
from installer.model.facts import Facts, Lease, Nic
from installer.model.network import Network

STATIC = {"mode": "static-from-lease"}


def _network(**given: Any) -> Network:
    return Network.model_validate(given)


def _leased(**changes: Any) -> Facts:
    facts = saved("virtio-vm")
    return replace(facts, leases=(replace(facts.leases[0], **changes),))


def _module(network: Network, facts: Facts) -> tuple[str, list[str]]:
    made, warnings, problems = networking_module(network, facts)
    assert made is not None
    assert not problems
    return made.text, warnings


def _evaluated(text: str, folder: Path) -> Any:
    """Read a module with the real Nix, as a system's configuration imports it."""
    (folder / "networking.nix").write_text(text)
    return evaluated(
        f"import {folder}/networking.nix {{ config = {{ }}; lib = {{ }}; pkgs = {{ }}; }}"
    )


def test_dhcp(tmp_path: Path) -> None:
    text, warnings = _module(_network(hostname="web1"), saved("nvme-server"))
    assert not warnings
    assert text.startswith("# Written by netinstall.\n# All interfaces ask a DHCP server.\n")
    assert _evaluated(text, tmp_path) == {
        "networking": {
            "hostName": "web1",
            "domain": "rack3.example.net",
            "useNetworkd": True,
            "useDHCP": True,
        }
    }


def test_dhcp_needs_no_lease_and_no_interface(tmp_path: Path) -> None:
    text, _ = _module(_network(backend="scripted"), machine(leases=(), boot_mac=None, nics=()))
    assert _evaluated(text, tmp_path) == {"networking": {"useNetworkd": False, "useDHCP": True}}


def test_static_with_networkd(tmp_path: Path) -> None:
    text, warnings = _module(_network(**STATIC), saved("nvme-server"))
    assert not warnings
    assert _evaluated(text, tmp_path) == {
        "networking": {
            "hostName": "db7",
            "domain": "rack3.example.net",
            "useNetworkd": True,
            "useDHCP": False,
        },
        "systemd": {
            "network": {
                "networks": {
                    "10-netinstall-eno1": {
                        "matchConfig": {"PermanentMACAddress": "b8:ce:f6:11:22:30"},
                        "address": ["10.20.30.41/24"],
                        "routes": [{"Gateway": "10.20.30.1"}],
                        "dns": ["10.20.0.53", "10.20.1.53"],
                        "domains": ["rack3.example.net", "example.net"],
                        "linkConfig": {"RequiredForOnline": "routable"},
                    }
                }
            }
        },
    }


def test_static_with_scripts(tmp_path: Path) -> None:
    text, warnings = _module(
        _network(**STATIC, backend="scripted", interface="52:54:00:12:34:56"), saved("virtio-vm")
    )
    assert not warnings
    assert _evaluated(text, tmp_path) == {
        "networking": {
            "hostName": "guest",
            "domain": "example.test",
            "useNetworkd": False,
            "useDHCP": False,
            "interfaces": {
                "enp0s2": {"ipv4": {"addresses": [{"address": "10.0.2.15", "prefixLength": 24}]}}
            },
            "defaultGateway": {"address": "10.0.2.2", "interface": "enp0s2"},
            "nameservers": ["10.0.2.3"],
            "search": ["example.test"],
        },
        # whatever udev would call it, this is its name
        "systemd": {
            "network": {
                "links": {
                    "10-netinstall-enp0s2": {
                        "matchConfig": {"PermanentMACAddress": "52:54:00:12:34:56"},
                        "linkConfig": {
                            "Name": "enp0s2",
                            "AlternativeNamesPolicy": "database onboard slot path mac",
                        },
                    }
                }
            }
        },
    }


@pytest.mark.parametrize("backend", ["networkd", "scripted"])
def test_a_bare_lease_is_enough(backend: str, tmp_path: Path) -> None:
    facts = _leased(gateway=None, nameservers=(), domain=None, hostname=None, server=None)
    text, warnings = _module(_network(**STATIC, backend=backend), facts)
    assert not warnings
    value = _evaluated(text, tmp_path)
    assert not {"hostName", "domain", "defaultGateway", "nameservers"} & value["networking"].keys()
    if backend == "networkd":
        unit = value["systemd"]["network"]["networks"]["10-netinstall-enp0s2"]
        assert unit.keys() == {"matchConfig", "address", "linkConfig"}


def test_a_gateway_beyond_the_prefix_is_on_the_link(tmp_path: Path) -> None:
    facts = _leased(address=IPv4Interface("203.0.113.9/32"), gateway=IPv4Address("10.0.0.1"))
    value = _evaluated(_module(_network(**STATIC), facts)[0], tmp_path)
    assert value["systemd"]["network"]["networks"]["10-netinstall-enp0s2"]["routes"] == [
        {"Gateway": "10.0.0.1", "GatewayOnLink": True}
    ]


def test_a_full_name_is_taken_apart() -> None:
    text, _ = _module(_network(), _leased(hostname="Web-1.dc.example.org", domain="other.example"))
    assert 'hostName = "web-1";' in text
    assert 'domain = "dc.example.org";' in text
    # a name that is chosen does not bring its domain
    text, _ = _module(_network(hostname="chosen"), _leased(hostname="a.b", domain="c.example"))
    assert 'hostName = "chosen";' in text
    assert 'domain = "c.example";' in text


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("bad_name", "bad-name"),
        ("-x", "x"),
        ("x" * 64, "x" * 63),
        ("a b", "a-b"),
        ("${x}", "x"),
        ("a\n", "a"),
        ("Ünïcode.example.net", "n-code"),
        ("x" * 62 + "_y", "x" * 62),
    ],
)
def test_a_host_name_that_is_none_is_replaced(name: str, becomes: str) -> None:
    text, warnings = _module(_network(), _leased(hostname=name))
    (warning,) = warnings
    assert warning == (
        f"the lease's host name {name!r} is none that NixOS takes: it becomes {becomes} "
        "(set network.hostname to choose one)"
    )
    assert f'hostName = "{becomes}";' in text


@pytest.mark.parametrize("name", [".", "___", "\0"])
def test_a_host_name_of_which_nothing_can_be_kept_is_left_out(name: str) -> None:
    text, warnings = _module(_network(), _leased(hostname=name))
    (warning,) = warnings
    assert warning == (
        f"the lease's host name {name!r} is none that NixOS takes: nothing of it can be kept, "
        "and the payload's stays (set network.hostname to choose one)"
    )
    assert "hostName" not in text


def test_the_server_s_full_name_counts_before_the_host_name() -> None:
    text, _ = _module(_network(), _leased(hostname="web1", fqdn="Web-1.dc.example.org"))
    assert 'hostName = "web-1";' in text
    assert 'domain = "dc.example.org";' in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"hostname": "a.b.example"}, ("a", "b.example")),
        ({"hostname": "a", "domain": "c.example"}, ("a", "c.example")),
        ({"hostname": "a"}, ("a", "example.test")),
        ({"domain": "c.example"}, ("guest", "c.example")),
    ],
)
def test_what_is_chosen_counts_before_the_lease(
    given: dict[str, str], expected: tuple[str, str]
) -> None:
    text, _ = _module(_network(**given), saved("virtio-vm"))
    assert f'hostName = "{expected[0]}";' in text
    assert f'domain = "{expected[1]}";' in text


HOSTILE = [
    *("a b", "a..b", "a\nb.example", "x" * 254, "\0"),
    *('x"; evil = true; y="', "${builtins.exec []}"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_domain_that_is_none_is_left_out(name: str) -> None:
    facts = _leased(domain=name, search=("good.example", name))
    text, warnings = _module(_network(**STATIC), facts)
    assert warnings == [f"the lease's domain {name!r} is none: it is left out"]
    assert name not in text
    assert 'domains = [ "good.example" ];' in text
    text, _ = _module(_network(), _leased(hostname=f"host.{name}", domain="good.example"))
    assert 'domain = "good.example";' in text


def test_a_name_server_that_is_none_is_left_out() -> None:
    servers = tuple(map(IPv4Address, ("0.0.0.0", "10.0.2.3", "224.0.0.1", "255.255.255.255")))  # noqa: S104 - an address, nothing is bound
    text, warnings = _module(_network(**STATIC), _leased(nameservers=servers))
    assert warnings == [
        f"the lease's name server {server} cannot be one: it is left out"
        for server in ("0.0.0.0", "224.0.0.1", "255.255.255.255")  # noqa: S104
    ]
    assert 'dns = [ "10.0.2.3" ];' in text


def test_the_warnings_are_the_plan_s() -> None:
    made = plan(_leased(domain="a b"), answers())
    assert made.warnings == ("the lease's domain 'a b' is none: it is left out",)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"address": IPv4Interface("10.0.2.255/24")}, "the address 10.0.2.255/24"),
        ({"address": IPv4Interface("10.0.2.0/24")}, "the address 10.0.2.0/24"),
        ({"address": IPv4Interface("127.0.0.1/8")}, "the address 127.0.0.1/8"),
        ({"address": IPv4Interface("224.0.0.5/24")}, "the address 224.0.0.5/24"),
        ({"address": IPv4Interface("0.0.0.0/0")}, "the address 0.0.0.0/0"),
        ({"gateway": IPv4Address("255.255.255.255")}, "the gateway 255.255.255.255"),
        ({"gateway": IPv4Address("127.0.0.1")}, "the gateway 127.0.0.1"),
    ],
)
def test_an_address_that_cannot_be_is_refused(changes: dict[str, Any], what: str) -> None:
    assert refusal(_leased(**changes), answers(network=STATIC)) == (
        f"error[network.value]: the lease of enp0s2 holds {what}, which no machine can have\n"
        "  where: answers.toml: network.mode\n"
        '  try:   correct the DHCP server, or say mode = "dhcp"'
    )
    assert plan(_leased(**changes), answers())


def test_a_machine_is_not_its_own_gateway() -> None:
    assert refusal(_leased(gateway=IPv4Address("10.0.2.15")), answers(network=STATIC)) == (
        "error[network.value]: the lease of enp0s2 holds the gateway 10.0.2.15, "
        "which is this machine's own address\n"
        "  where: answers.toml: network.mode\n"
        '  try:   correct the DHCP server, or say mode = "dhcp"'
    )


@pytest.mark.parametrize("prefix", [31, 32])
def test_short_prefixes_have_no_broadcast_address(prefix: int) -> None:
    assert plan(_leased(address=IPv4Interface(f"192.0.2.0/{prefix}")), answers(network=STATIC))


def test_an_interface_that_cannot_be_found_again_is_refused() -> None:
    nic = Nic("ib0", "80:00:02:08")
    lease = Lease(nic.name, IPv4Interface("192.0.2.7/24"))
    facts = machine(nics=(nic,), leases=(lease,), boot_mac=None)
    for backend in ("networkd", "scripted"):
        assert refusal(facts, answers(network={**STATIC, "backend": backend})) == (
            "error[network.value]: the hardware address '80:00:02:08' of 'ib0' is none that "
            "networking.nix can hold\n"
            "  where: answers.toml: network.interface\n"
            '  try:   use another interface, or say mode = "dhcp"'
        )


def test_no_lease() -> None:
    assert refusal(
        saved("nvme-server"), answers(NVME, network={**STATIC, "interface": "eno2"})
    ) == (
        "error[network.no-lease]: eno2 (b8:ce:f6:11:22:31) has no DHCP lease to make static\n"
        "  where: answers.toml: network.mode\n"
        '  try:   boot from the interface that is meant, or say mode = "dhcp"'
    )


@pytest.mark.parametrize("mode", ["dhcp", "static-from-lease"])
def test_no_interface_of_that_name(mode: str) -> None:
    assert refusal(
        saved("nvme-server"), answers(NVME, network={"mode": mode, "interface": "eth9"})
    ) == (
        "error[network.no-interface]: there is no interface eth9; "
        "seen: eno1 (b8:ce:f6:11:22:30), eno2 (b8:ce:f6:11:22:31)\n"
        "  where: answers.toml: network.interface\n"
        "  try:   use one of these names or MAC addresses"
    )


def test_it_is_not_known_which_interface_booted() -> None:
    facts = replace(saved("virtio-vm"), boot_mac=None, leases=(), nics=())
    assert refusal(facts, answers(network=STATIC)) == (
        "error[network.no-interface]: it is not known which interface booted; seen: none\n"
        "  where: answers.toml: network.interface\n"
        "  try:   name it, or boot with BOOTIF=01-<mac> on the kernel command line"
    )


NVME = """
version = 1
payload = { url = "http://192.0.2.1/system.tar.zst", unverified = true }
[[disks]]
match = { serial = "S61ANE0R501234" }
wipe = "force"
partitions = [ { size = "rest", mount = "/" } ]
"""
