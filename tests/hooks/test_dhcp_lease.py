"""A lease by busybox's udhcpc from a real dnsmasq, on machines with one cable and with two."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from initrds import LIBRARY, SHELLS, Initrd
from lab import process
from lab.network import Dhcp, Host, Namespace

from installer.init.lease import client_lines
from installer.observe.lease import read_leases_with_warnings

pytestmark = pytest.mark.root

MAC = "52:54:00:00:00:02"
# The first card has a link and nobody who answers: its other end is in no bridge.
CARDS = {"card0": ("52:54:00:00:00:01", False), "card1": (MAC, True)}


@dataclass
class Client:
    """A network namespace with two cards, the second of which leads to the DHCP server."""

    namespace: str
    initrd: Initrd

    def lease(self, device: str = "") -> subprocess.CompletedProcess[str]:
        udhcpc = LIBRARY.with_name("netinstall-udhcpc")
        script = (
            # ip-netns(8) mounts the namespace's own sysfs
            f"NETINSTALL_SYS=/sys NETINSTALL_UDHCPC={udhcpc}\n"
            "netinstall_modules() { :; }\n"
            'netinstall_udhcpc "$1" || exit\n'
            "ip -o addr; ip route"
        )
        return self.initrd.run(script, device)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Namespace]:
    with Namespace(tmp_path) as network:
        yield network


@pytest.fixture
def client(tmp_path: Path, network: Namespace) -> Iterator[Client]:
    name = f"{network.name}-client"
    process.run(["ip", "netns", "add", name])
    try:
        for card, (address, connected) in CARDS.items():
            other = f"other{card}"
            ends = ["ip", "-netns", network.name, "link"]
            process.run([*ends, "add", other, "type", "veth", "peer", card, "netns", name])
            process.run([*ends, "set", other, "up", *(["master", "br0"] if connected else [])])
            process.run(["ip", "-netns", name, "link", "set", card, "address", address])
        (tmp_path / "initrd").mkdir()
        shell = ("ip", "netns", "exec", name, *SHELLS["ash"])
        yield Client(name, Initrd(tmp_path / "initrd", shell))
    finally:
        process.run(["ip", "netns", "delete", name])


SERVER = Dhcp(
    hosts=(Host(MAC, "192.0.2.77", "rack7"),),
    options=((17, '"192.0.2.1:/root,vers=4.1"'), (119, "a.lab.test,b.lab.test")),
)


def test_a_lease_becomes_what_the_agent_reads(network: Namespace, client: Client) -> None:
    network.dhcp(SERVER)
    result = client.lease("card1")
    assert result.returncode == 0, result.stderr
    assert "192.0.2.77/24" in result.stdout
    assert "default via 192.0.2.1 dev card1" in result.stdout
    leases, warnings = read_leases_with_warnings(client.initrd.folder)
    assert not warnings
    (lease,) = leases
    assert lease.interface == "card1"
    assert str(lease.address) == "192.0.2.77/24"
    assert str(lease.gateway) == "192.0.2.1"
    assert [str(server) for server in lease.nameservers] == ["192.0.2.1"]
    assert (lease.hostname, lease.domain) == ("rack7", "lab.test")
    assert lease.search == ("a.lab.test", "b.lab.test")
    assert lease.root_path == "192.0.2.1:/root,vers=4.1"
    assert str(lease.server) == "192.0.2.1"
    assert lease.seconds == 3600
    assert client.initrd.run("netinstall_find_root").stdout == "192.0.2.1:/root,vers=4.1\n"


def test_all_that_udhcpc_was_told_is_handed_over(network: Namespace, client: Client) -> None:
    options = (
        (3, "192.0.2.1,192.0.2.2"),
        (6, "192.0.2.51,192.0.2.52,192.0.2.53"),
        (26, "1400"),
        (42, "192.0.2.4,192.0.2.5"),
        (121, "0.0.0.0/0,192.0.2.9,203.0.113.1/32,0.0.0.0"),
    )
    network.dhcp(Dhcp(hosts=SERVER.hosts, options=options))
    assert client.lease("card1").returncode == 0
    (lease,) = read_leases_with_warnings(client.initrd.folder)[0]
    assert [str(server) for server in lease.nameservers] == [
        *("192.0.2.51", "192.0.2.52", "192.0.2.53"),
    ]
    assert (lease.mtu, [str(server) for server in lease.ntp]) == (1400, ["192.0.2.4", "192.0.2.5"])
    assert [str(router) for router in lease.further_routers] == ["192.0.2.1", "192.0.2.2"]
    ways = [(str(route.destination), str(route.gateway)) for route in lease.effective_routes]
    assert ways == [("0.0.0.0/0", "192.0.2.9"), ("203.0.113.1/32", "None")]
    # the client that asks again does so as udhcpc did
    assert "clientid" in list(client_lines(client.initrd.folder))


def test_a_first_card_without_a_dhcp_server_is_passed_over(
    network: Namespace, client: Client
) -> None:
    network.dhcp(SERVER)
    result = client.lease()
    assert result.returncode == 0, result.stderr
    (lease,) = read_leases_with_warnings(client.initrd.folder)[0]
    assert lease.interface == "card1"
    # nothing is left on the other
    assert not [line for line in result.stdout.splitlines() if "card0" in line and "192." in line]


def test_classless_routes_take_the_place_of_the_router(network: Namespace, client: Client) -> None:
    routes = "0.0.0.0/0,192.0.2.9,198.51.100.0/24,192.0.2.8"
    network.dhcp(Dhcp(hosts=SERVER.hosts, options=((121, routes),)))
    result = client.lease("card1")
    assert "default via 192.0.2.9 dev card1" in result.stdout
    assert "198.51.100.0/24 via 192.0.2.8 dev card1" in result.stdout
    (lease,) = read_leases_with_warnings(client.initrd.folder)[0]
    assert str(lease.gateway) == "192.0.2.9"


def test_what_a_server_says_is_never_executed(network: Namespace, client: Client) -> None:
    evil = "$(touch pwned)'; touch pwned; '`touch pwned`"
    network.dhcp(Dhcp(options=((17, f'"{evil}"'), (15, f'"{evil}"'))))
    assert client.lease("card1").returncode == 0
    (lease,) = read_leases_with_warnings(client.initrd.folder)[0]
    assert lease.root_path == evil
    assert not list(client.initrd.folder.rglob("pwned"))


def test_nobody_answers(client: Client) -> None:
    client.initrd.arguments("netinstall.network-timeout=1")
    assert client.lease("card0").returncode == 1
    assert not list((client.initrd.folder / "run").iterdir())


@pytest.mark.parametrize("device", ["card1", ""])
def test_a_fixed_address(client: Client, device: str) -> None:
    fields = f"192.0.2.50:192.0.2.1:192.0.2.254:255.255.255.0:rack9:{device}:none:192.0.2.53"
    client.initrd.arguments(f"ip={fields}")
    result = client.lease("card1")
    assert result.returncode == 0, result.stderr
    assert "default via 192.0.2.254 dev card1" in result.stdout
    (lease,) = read_leases_with_warnings(client.initrd.folder)[0]
    assert lease.interface == "card1"
    assert str(lease.address) == "192.0.2.50/24"
    assert lease.hostname == "rack9"
    assert str(lease.server) == "192.0.2.1"
    assert [str(server) for server in lease.nameservers] == ["192.0.2.53"]
