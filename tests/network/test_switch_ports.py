"""Who is at the other end of a cable, as the real lldpd hears it."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dhcp_lab import SERVER, Lab, lab, run, until
from hypothesis import given
from hypothesis import strategies as st

from installer.observe.lldp import neighbours


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder into which lldpd's own user may walk, as into none of pytest's."""
    with TemporaryDirectory(prefix="netinstall-lldp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.root
def test_a_switch_announces_itself(here: Lab, sockets: Path) -> None:
    for name, namespace, device, options in (
        ("switch", here.server, "lan0", ("-S", "A switch", "-m", SERVER)),
        ("machine", here.client, "eth0", ()),
    ):
        # it wants a place for its users' jail, and another lldpd may run on this machine
        places = "mount -t tmpfs none /run && "
        argv = ["lldpd", "-d"]
        argv += ["-u", f"{sockets}/{name}", "-I", device, *options]
        here.start(name, ["sh", "-c", f'{places}exec "$@"', "sh", *argv], namespace)
    switch, machine = (sockets / name for name in ("switch", "machine"))
    until(lambda: switch.exists() and machine.exists(), 30, "lldpd")
    # what is said about a port that lldpd has not looked at yet is lost
    show = ("show", "interfaces", "-f", "json0")
    until(lambda: "lan0" in run("lldpcli", "-u", switch, *show), 30, "port of the switch")
    for command in (
        "configure system hostname sw-7.example.net",
        "configure lldp tx-interval 1",
        "configure ports lan0 lldp portidsubtype local Gi1/0/7 description rack-3",
    ):
        run("lldpcli", "-u", switch, *command.split())
    found = {}

    def told() -> bool:
        found.update(neighbours(run("lldpctl", "-u", machine, "-f", "json0")))
        return "eth0" in found and found["eth0"].port == "Gi1/0/7"

    until(told, 90, "announcement")
    one = found["eth0"]
    assert one.system == "sw-7.example.net"
    assert (one.port, one.port_description) == ("Gi1/0/7", "rack-3")
    assert one.address == IPv4Address(SERVER)
    assert one.chassis


def test_the_vlan_of_a_port() -> None:
    interface = {
        "name": "eth0",
        "chassis": [{"name": [{"value": "sw\x1b[2J"}], "mgmt-ip": [{"value": "nowhere"}]}],
        "vlan": [{"vlan-id": "9", "pvid": False}, {"vlan-id": "100", "pvid": True}],
    }
    one = neighbours(json.dumps({"lldp": [{"interface": [interface]}]}))["eth0"]
    assert (one.vlan, one.system, one.address) == (100, None, None)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["lldp", "interface", "name", "chassis", "value", "vlan", "pvid", "vlan-id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_a_switch_may_say_anything(document: object) -> None:
    neighbours(json.dumps(document))
    neighbours(json.dumps({"lldp": [{"interface": [{"name": "e", "vlan": document}]}]}))
