"""What networking.nix says is what the installed system has: asked inside by ip, outside by ping.

The payload is the sample system with the real systemd-networkd. Everywhere the boot environment
calls its cards eth0, eth1…, as net.ifnames=0 has it, and the installed system names them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from lab import process, report, sample, vlan
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import Dhcp, Host, Namespace
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:01:{:02x}"
ANSWERS = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"

[system]
install = "rebuild"

[[disks]]
match = {{ serial = "netinstall-root" }}

[[disks.partitions]]
size = "rest"
mount = "/"

{network}
"""

ROUTER = "192.0.2.1"
FIXED = Host(MAC.format(2), "192.0.2.57", "rack7.example.test")
SLAAC = "fd77::5054:ff:fe00:102"
"""The kernel's address of the second card (RFC 4291, appendix A) in the lab's prefix."""

BOND = f"""
[network]
hostname = "bonded"

[[network.bonds]]
name = "bond0"
interfaces = ["{MAC.format(1)}", "{MAC.format(2)}"]
bond-mode = "active-backup"
mode = "off"

[[network.vlans]]
id = 7
on = "bond0"
mode = "static"
addresses = ["198.51.100.57/24"]
gateway = "198.51.100.1"
nameservers = ["198.51.100.1"]
"""


@dataclass(frozen=True)
class Scenario:
    """Cards, of which the second boots if there are several, and what has to come up.

    `addresses` maps interfaces (by their order, or by name) to what they have and nothing else;
    `default` is what the default route goes over, `alive` what answers a ping.
    """

    network: str
    addresses: dict[str, list[str]]
    default: str
    nameservers: list[str]
    alive: str
    mode: str = "static"
    cards: int = 1
    hostname: str = "rack7"
    options: tuple[tuple[int, str], ...] = ()
    around: Callable[[Namespace], None] = field(default=lambda _: None)


def _vlan(network: Namespace) -> None:
    """The lab's server is in VLAN 7 as well."""
    vlan.port(network, 7, "198.51.100.1/24")


SCENARIOS = {
    "static-from-lease": Scenario(
        '[network]\nmode = "static-from-lease"',
        {MAC.format(2): ["192.0.2.57/24"]},
        "192.0.2.9",
        ["192.0.2.1", "192.0.2.53"],
        "192.0.2.57",
        options=(
            (6, "192.0.2.1,192.0.2.53"),
            # the router of option 3 does not count then
            (121, "0.0.0.0/0,192.0.2.9,198.51.100.0/24,192.0.2.8"),
        ),
    ),
    "dhcp": Scenario(
        '[network]\nmode = "dhcp"',
        {MAC.format(2): ["192.0.2.57/24"]},
        ROUTER,
        ["192.0.2.1"],
        "192.0.2.57",
        mode="dhcp",
    ),
    "three-cards-the-second-boots": Scenario(
        '[network]\nmode = "static-from-lease"',
        {MAC.format(1): [], MAC.format(2): ["192.0.2.57/24"], MAC.format(3): []},
        ROUTER,
        ["192.0.2.1"],
        "192.0.2.57",
        cards=3,
    ),
    "vlan-on-a-bond": Scenario(
        BOND,
        {"vlan7": ["198.51.100.57/24"], "bond0": []},
        "198.51.100.1",
        ["198.51.100.1"],
        "198.51.100.57",
        cards=2,
        hostname="bonded",
        around=_vlan,
    ),
    "ipv6-only": Scenario(
        '[[network.interfaces]]\nmode = "static-from-lease"\nipv4 = false',
        {MAC.format(2): [f"{SLAAC}/64"]},
        "fe80::",
        ["fd77::1"],
        SLAAC,
        options=(),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "static-from-lease" else [pytest.mark.slow])
        for name in SCENARIOS
    ],
)
def test_the_installed_system_has_the_network_that_was_decided(bench: Bench, name: str) -> None:
    scenario = SCENARIOS[name]
    network = bench.namespace()
    scenario.around(network)
    server = BootServer(
        bench.web_on(network), payload=sample.tarball("network"), arguments="net.ifnames=0"
    )
    server.answers(ANSWERS.format(network=scenario.network))
    network.dhcp(
        Dhcp(
            boot=(("ipxe", server.ipxe()),),
            hosts=(FIXED,),
            options=((12, "rack7.example.test"), *scenario.options),
            extra=("dhcp-option=option6:dns-server,[fd77::1]",),
        )
    )
    booting = 0 if scenario.cards == 1 else 1
    nics = tuple(
        Nic(
            network.tap(),
            MAC.format(number + 2 - booting),
            rom="ipxe" if number == booting else "none",
        )
        for number in range(scenario.cards)
    )
    vm = Vm(memory=768, disks=(bench.disk("4G", serial="netinstall-root"),), nics=nics)
    machine = bench.boot(vm)
    machine.console.expect("INSTALLED in", 1500, fail_on=["INSTALLATION FAILED"])
    _check_observed(server, scenario)
    assert machine.wait_for_exit(180) == "reboot"

    up = report.wait(bench.boot(vm.without_network_boot()).console, 900)
    assert up["configured_from"] == "rebuilt", up
    _check_report(up, scenario)
    ping = ["busybox", "ping6" if ":" in scenario.alive else "ping", "-c", "3", scenario.alive]
    process.run([*network.prefix, *ping], 60)


def _check_observed(server: BootServer, scenario: Scenario) -> None:
    """The boot environment asked again, with a client that renews."""
    observed = server.web.wait_for_report(lambda event: event["kind"] == "observed", 30)
    facts = observed["facts"]
    assert [nic["name"] for nic in facts["nics"]] == [f"eth{n}" for n in range(scenario.cards)]
    (boot,) = (nic for nic in facts["nics"] if nic["mac"] == MAC.format(2))
    assert facts["boot_mac"] == boot["mac"] == boot["permanent_mac"]
    assert boot["carrier"]
    (lease,) = (lease for lease in facts["leases"] if lease["interface"] == boot["name"])
    assert (lease["address"], lease["source"]) == ("192.0.2.57/24", "dhcpcd")
    assert lease["hostname"] == "rack7.example.test"
    (lease6,) = (lease for lease in facts["leases6"] if lease["interface"] == boot["name"])
    assert lease6["slaac"] == [f"{SLAAC}/64"]
    assert lease6["nameservers"] == ["fd77::1"]


def _check_report(up: dict[str, Any], scenario: Scenario) -> None:
    network = up["network"]
    by_name = network["interfaces"]
    by_mac = {one["mac"]: one for name, one in by_name.items() if name.startswith("en")}
    # the names that udev gave, none of which the boot environment knew
    assert not [name for name in by_name if name.startswith("eth")], by_name
    for key, addresses in scenario.addresses.items():
        found = (by_name if key in by_name else by_mac)[key]["addresses"]
        if ":" in scenario.alive:
            assert found == addresses, network
        else:
            # of the other family only what routers advertise
            assert [one for one in found if ":" not in one] == addresses, network
    assert network["mode"] == scenario.mode, network
    (default,) = (
        route
        for route in network["routes"]
        if route.startswith("default") and (":" in route) == (":" in scenario.alive)
    )
    assert f"via {scenario.default}" in default, network
    servers = [one for one in network["nameservers"] if (":" in one) == (":" in scenario.alive)]
    assert servers == scenario.nameservers, network
    assert up["hostname"] == scenario.hostname
