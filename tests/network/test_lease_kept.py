"""A lease is asked for again, renewed, lost, refused and given back, by real servers."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from dhcp_lab import Lab, lab, run, until

from installer.observe.lease_watch import LeaseWatch, wait

pytestmark = pytest.mark.root

SUBNET = """
authoritative; ping-check off;
default-lease-time {0}; max-lease-time {0}; min-lease-time {0};
subnet 192.0.2.0 netmask 255.255.255.0 {{ range {1}; option routers 192.0.2.1; }}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


class Heard:
    """What was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str, level: Literal["info", "warning"] = "info") -> None:
        self.lines.append(f"{level}: {text}")


@pytest.fixture
def heard() -> Heard:
    return Heard()


def _addresses(here: Lab) -> str:
    return run("ip", "-n", here.client, "-4", "-o", "address", "show", "dev", "eth0")


def _acknowledged(here: Lab) -> int:
    return (here.folder / "dhcpd.log").read_text().count("DHCPACK")


def _serve(here: Lab, seconds: int, addresses: str = "192.0.2.57 192.0.2.99") -> int:
    return here.dhcpd(SUBNET.format(seconds, addresses))


@pytest.mark.parametrize("client", ["", "CLIENT='udhcpc'"])
def test_the_address_of_the_boot_is_asked_for_and_nothing_is_touched(
    here: Lab, heard: Heard, client: str
) -> None:
    _serve(here, 600)
    here.boot_left("192.0.2.80", "IPV4DNS0='192.0.2.53'", *([client] if client else []))
    before = _addresses(here), run("ip", "-n", here.client, "route")
    here.ask()
    wait(heard, here.root)
    leases = here.look()
    assert not leases.warnings
    (lease,) = leases.v4
    assert (str(lease.address), lease.source, lease.seconds) == ("192.0.2.80/24", "dhcpcd", 600)
    # what the server does not say now, the boot's report of the same lease does
    assert [str(server) for server in lease.nameservers] == ["192.0.2.53"]
    assert (_addresses(here), run("ip", "-n", here.client, "route")) == before
    sent = (here.folder / "dhcpd.leases").read_text()
    assert ("\n  uid " in sent) == bool(client)
    assert "client-hostname" not in sent
    assert not heard.lines


def test_another_address_than_the_boot_s_is_told(here: Lab, heard: Heard) -> None:
    _serve(here, 600, "192.0.2.57")
    here.boot_left("192.0.2.80")
    here.ask()
    wait(heard, here.root)
    leases = here.look()
    assert [str(lease.address) for lease in leases.v4] == ["192.0.2.57/24"]
    assert leases.warnings == (
        (
            "dhcpcd: eth0 has the address 192.0.2.80 from /run/net-eth0.conf, but is given "
            "192.0.2.57 now, which counts"
        ),
    )
    # the root file system may hang on it
    assert "192.0.2.80/24" in _addresses(here)


def test_a_fixed_address_is_not_asked_for(here: Lab, heard: Heard) -> None:
    here.dnsmasq(
        "dhcp-range=192.0.2.57,192.0.2.99,255.255.255.0,1h",
        "enable-ra",
        "dhcp-range=fd77::,ra-only",
    )
    here.boot_left("192.0.2.80")
    path = here.root / "run/net-eth0.conf"
    path.write_text(path.read_text().replace("PROTO='dhcp'", "PROTO='none'"))
    here.ask()
    here.answered("ra")
    wait(heard, here.root, answer_seconds=3)
    assert not heard.lines
    (lease,), (lease6,) = here.look().v4, here.look().v6
    assert (str(lease.address), lease.source) == ("192.0.2.80/24", "/run/net-eth0.conf")
    assert str(lease6.routers[0].address) == "fe80::5054:ff:fe00:1"
    assert "DHCPDISCOVER" not in (here.folder / "dnsmasq.log").read_text()


def _renewed(here: Lab, heard: Heard, seconds: int, lifetimes: float) -> None:
    """Watch a lease for longer than it lasts."""
    _serve(here, seconds)
    here.boot_left("192.0.2.80")
    here.ask()
    wait(heard, here.root)
    watch = LeaseWatch(heard, here.root, every=0.1)
    watch.start()
    begun, first = time.monotonic(), _acknowledged(here)
    until(lambda: time.monotonic() - begun > lifetimes * seconds, 600, "end")
    watch.stop()
    assert _acknowledged(here) - first >= int(lifetimes)
    assert [str(lease.address) for lease in here.look().v4] == ["192.0.2.80/24"]
    assert not heard.lines


def test_a_short_lease_is_renewed(here: Lab, heard: Heard) -> None:
    # less is too short for dhcpcd, which takes it for this
    _renewed(here, heard, 20, 1.2)


@pytest.mark.slow
def test_a_lease_of_60_seconds_outlives_a_long_installation(here: Lab, heard: Heard) -> None:
    _renewed(here, heard, 60, 3.2)


def test_a_lost_lease_is_told_and_so_is_its_return(here: Lab, heard: Heard) -> None:
    server = _serve(here, 6)
    here.boot_left("192.0.2.80")
    here.ask()
    wait(heard, here.root)
    watch = LeaseWatch(heard, here.root, every=0.1)
    watch.start()
    here.stop(server)
    until(lambda: bool(heard.lines), 30, "word of the loss")
    assert heard.lines == [
        (
            "warning: eth0 lost its DHCP lease of 192.0.2.80: it ran out, and no server renewed "
            "it. The address stays in use, but another machine may be given it"
        )
    ]
    # the agent still knows what the boot was told
    assert [lease.source for lease in here.look().v4] == ["/run/net-eth0.conf"]
    assert "192.0.2.80/24" in _addresses(here)
    _serve(here, 600)
    until(lambda: len(heard.lines) > 1, 60, "word of the return")
    watch.stop()
    assert heard.lines[1:] == ["info: eth0 has its DHCP lease of 192.0.2.80 again"]


def _one(address: str) -> str:
    return f"dhcp-range={address},{address},255.255.255.0,2m"


def test_a_server_that_takes_the_address_back(here: Lab, heard: Heard) -> None:
    # it renews after 5 s
    server = here.dnsmasq(_one("192.0.2.80"), "dhcp-option-force=58,5")
    here.boot_left("192.0.2.80")
    here.ask()
    wait(heard, here.root)
    watch = LeaseWatch(heard, here.root, every=0.05)
    watch.start()
    here.stop(server)
    here.dnsmasq(_one("192.0.2.90"), name="another")
    until(lambda: "192.0.2.90" in " ".join(heard.lines), 30, "word of another address")
    watch.stop()
    assert "DHCPNAK" in (here.folder / "another.log").read_text()
    assert heard.lines[-1] == (
        "warning: eth0 has a DHCP lease of 192.0.2.90 now, no longer of 192.0.2.80"
    )


def test_the_end_of_the_client_is_told(here: Lab, heard: Heard) -> None:
    _serve(here, 600, "192.0.2.57")
    client = here.ask()
    here.answered()
    watch = LeaseWatch(heard, here.root, every=0.1)
    watch.start()
    here.stop(client, signal.SIGTERM)
    until(lambda: "ended" in " ".join(heard.lines), 10, "word of its end")
    watch.stop()
    assert heard.lines == [
        (
            "warning: eth0 lost its DHCP lease of 192.0.2.57: the client was stopped. The "
            "address stays in use, but another machine may be given it"
        ),
        "warning: the DHCP client has ended: nobody renews the lease any more",
    ]


def test_two_servers(here: Lab, heard: Heard) -> None:
    _serve(here, 600, "192.0.2.57")
    here.dnsmasq(
        "dhcp-range=192.0.2.200,192.0.2.200,255.255.255.0,1h",
        "dhcp-reply-delay=2",
        "dhcp-option=3,192.0.2.254",
        "domain=other.example",
    )
    # both may listen on one address, as dnsmasq's other interfaces do
    here.boot_left("192.0.2.200")
    here.ask()
    wait(heard, here.root)
    leases = here.look()
    (lease,) = leases.v4
    # the first that answers, and nothing of the other
    assert (str(lease.address), str(lease.gateway), lease.domain) == (
        *("192.0.2.57/24", "192.0.2.1"),
        None,
    )
    assert len(leases.warnings) == 1


def test_no_answer(here: Lab, heard: Heard) -> None:
    here.boot_left("192.0.2.80")
    here.ask()
    wait(heard, here.root, answer_seconds=8)
    assert heard.lines == [
        "info: waiting up to 8.0 s for a DHCP server on eth0",
        (
            "warning: no DHCP server answered on eth0 within 8.0 s: what the boot was told "
            "counts. The client goes on asking"
        ),
    ]
    (lease,) = here.look().v4
    assert (str(lease.address), lease.source) == ("192.0.2.80/24", "/run/net-eth0.conf")


def test_a_machine_without_any_lease_waits_as_long_as_its_owner_says(
    here: Lab, heard: Heard
) -> None:
    (here.root / "proc").mkdir(parents=True)
    (here.root / "proc/cmdline").write_text("netinstall.network-timeout=7\n")
    here.ask()
    wait(heard, here.root)
    assert heard.lines[-1] == (
        "warning: no DHCP server answered on any interface within 7.0 s: there is no lease. "
        "The client goes on asking"
    )


@pytest.mark.slow
def test_an_answer_after_90_seconds(here: Lab, heard: Heard) -> None:
    here.ask()
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 90, 100, "time")
    _serve(here, 600, "192.0.2.57")
    wait(heard, here.root)
    assert [str(lease.address) for lease in here.look().v4] == ["192.0.2.57/24"]
    assert heard.lines == ["info: waiting up to 3 min 00 s for a DHCP server on any interface"]


def test_the_kernel_goes_on_forming_addresses(here: Lab) -> None:
    run("ip", "-n", here.client, "link", "set", "eth0", "down")
    here.dnsmasq("enable-ra", "dhcp-range=fd77::,ra-only")
    here.ask()
    here.answered("ra")
    until(lambda: here.look().v6[0].slaac != (), 10, "address by SLAAC")
    assert str(here.look().v6[0].slaac[0]) == "fd77::5054:ff:fe00:2/64"
    assert "default via fe80::" in run("ip", "-n", here.client, "-6", "route")
