"""What real DHCP servers and routers say, as facts and as networking.nix.

`UPDATE_GOLDENS=1` writes both anew; the difference is what a change means.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dhcp_lab import CLIENT_MAC, Lab, lab, until

from installer.decide.networking import networking_module
from installer.model.codec import to_json
from installer.model.facts import Facts, Nic
from installer.model.network import Network
from installer.observe.lease import Leases

pytestmark = pytest.mark.root

GOLDEN = Path(__file__).with_name("golden")
RANGE = "dhcp-range=192.0.2.57,192.0.2.57,255.255.255.0,1h"
ROUTER_ONLY = "dhcp-range=fd77::,ra-only"

DNSMASQ_ALL = (
    RANGE,
    f"dhcp-host={CLIENT_MAC},node7",
    "domain=rack3.example.net",
    "dhcp-option=3,192.0.2.1,192.0.2.2",
    "dhcp-option=6,192.0.2.53,192.0.2.54,192.0.2.55,192.0.2.56",
    "dhcp-option=17,192.0.2.1:/srv/root",
    "dhcp-option=26,1400",
    "dhcp-option=42,192.0.2.4,192.0.2.5",
    "dhcp-option=119,rack3.example.net,example.net",
)
DHCPD_HEAD = """
default-lease-time 3600; max-lease-time 3600; authoritative; ping-check off;
option rfc3442 code 121 = array of integer 8;
"""
DHCPD_ALL = (
    DHCPD_HEAD
    + """
subnet 192.0.2.0 netmask 255.255.255.0 {
  range 192.0.2.57 192.0.2.57;
  option routers 192.0.2.1, 192.0.2.2;
  option domain-name-servers 192.0.2.53, 192.0.2.54, 192.0.2.55, 192.0.2.56;
  option domain-name "rack3.example.net";
  option domain-search "rack3.example.net", "example.net";
  option host-name "node7";
  option fqdn.fqdn "node7.rack3.example.net";
  option fqdn.encoded true;
  option ntp-servers 192.0.2.4, 192.0.2.5;
  option interface-mtu 1400;
  option root-path "192.0.2.1:/srv/root";
}
"""
)
DHCPD_ON_LINK = (
    DHCPD_HEAD
    + """
subnet 192.0.2.0 netmask 255.255.255.0 {
  range 192.0.2.57 192.0.2.57;
  option subnet-mask 255.255.255.255;
  option routers 192.0.2.254;
  option domain-name-servers 192.0.2.53;
  option rfc3442 32, 203,0,113,1, 0,0,0,0,  0, 203,0,113,1,  12, 172,16, 203,0,113,1;
}
"""
)
KEA_ALL = {
    "pools": [{"pool": "192.0.2.57 - 192.0.2.57"}],
    "valid-lifetime": 3600,
    "option-data": [
        {"name": name, "data": data}
        for name, data in (
            ("routers", "192.0.2.1, 192.0.2.2"),
            ("domain-name-servers", "192.0.2.53, 192.0.2.54, 192.0.2.55, 192.0.2.56"),
            ("domain-name", "rack3.example.net"),
            ("domain-search", "rack3.example.net, example.net"),
            ("host-name", "node7"),
            ("ntp-servers", "192.0.2.4, 192.0.2.5"),
            ("interface-mtu", "1400"),
            ("root-path", "192.0.2.1:/srv/root"),
        )
    ],
}


@dataclass(frozen=True)
class Case:
    """A server, and which protocols answer."""

    serve: Callable[[Lab], int]
    protocols: tuple[str, ...] = ("dhcp",)


def dnsmasq(*lines: str) -> Callable[[Lab], int]:
    """A server of the name, with these lines."""
    return lambda here: here.dnsmasq(*lines)


def named(name: str | None) -> Callable[[Lab], int]:
    """A server that gives this host name (option 12), or none."""
    option = () if name is None else (f"dhcp-option-force=12,{name}",)
    return dnsmasq(RANGE, "dhcp-option=3,192.0.2.1", "domain=example.net", *option)


CASES = {
    "dnsmasq-all-options": Case(dnsmasq(*DNSMASQ_ALL)),
    "dhcpd-all-options": Case(lambda here: here.dhcpd(DHCPD_ALL)),
    "kea-all-options": Case(lambda here: here.kea(KEA_ALL)),
    "gateway-on-link": Case(lambda here: here.dhcpd(DHCPD_ON_LINK)),
    "routes-without-a-default": Case(
        dnsmasq(RANGE, "dhcp-option=3,192.0.2.1", "dhcp-option=121,198.51.100.0/24,192.0.2.8")
    ),
    "hostname-fqdn": Case(named("Node7.rack9.example.org")),
    "hostname-underscore": Case(named("db_7")),
    "hostname-none": Case(named(None)),
    "router-only": Case(
        dnsmasq(
            *("enable-ra", ROUTER_ONLY, "ra-param=lan0,mtu:1450,high,0,1800"),
            "dhcp-option=option6:dns-server,[fd77::53],[fd77::54]",
            "dhcp-option=option6:domain-search,v6.example.net",
        ),
        ("ra",),
    ),
    "dhcpv6-stateless": Case(
        dnsmasq(
            *("enable-ra", "dhcp-range=fd77::,ra-stateless"),
            "dhcp-option=option6:dns-server,[fd77::53]",
            "dhcp-option=option6:domain-search,v6.example.net",
            "dhcp-option=option6:ntp-server,[fd77::4]",
        ),
        ("ra", "dhcp6"),
    ),
    "dhcpv6-stateful": Case(
        dnsmasq(
            *("enable-ra", "dhcp-range=fd77::57,fd77::57,64,1h"),
            "dhcp-option=option6:dns-server,[fd77::53]",
            "dhcp-option=option6:sntp-server,[fd77::4]",
        ),
        ("ra", "dhcp6"),
    ),
    "both-families": Case(
        dnsmasq(
            *DNSMASQ_ALL, "enable-ra", ROUTER_ONLY, "dhcp-option=option6:dns-server,[fd77::53]"
        ),
        ("dhcp", "ra"),
    ),
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_what_a_server_says(name: str, here: Lab) -> None:
    case = CASES[name]
    case.serve(here)
    here.ask()
    for protocol in case.protocols:
        here.answered(protocol)
    if "ra" in case.protocols and name != "dhcpv6-stateful":
        # the kernel looks first whether somebody else has the address it formed
        until(lambda: here.look().v6[0].slaac != (), 10, "address by SLAAC")
    leases = here.look()
    assert not leases.warnings
    _compare(f"{name}.json", to_json(_facts(leases), indent=2) + "\n")
    _compare(f"{name}.nix", _module(leases))


def _facts(leases: Leases) -> Facts:
    nic = Nic("eth0", CLIENT_MAC, CLIENT_MAC, carrier=True, names=("enp3s0",))
    return Facts(
        version=1,
        firmware="uefi",
        architecture="x86_64",
        kernel="6.1.0",
        memory=1 << 30,
        entropy="0" * 32,
        nics=(nic,),
        leases=leases.v4,
        leases6=leases.v6,
    )


def _module(leases: Leases) -> str:
    """networking.nix with all that the lease has made static, and what was said about it."""
    network = Network(mode="static-from-lease", interface="enp3s0")
    made, warnings, problems = networking_module(network, _facts(leases))
    said = [f"# warning: {warning}\n" for warning in warnings]
    said += [f"# {problem.code}: {problem.what}\n" for problem in problems]
    return ("" if made is None else made.text) + "".join(said)


def _compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text
