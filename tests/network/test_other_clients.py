"""Leases that other clients hold: systemd-networkd, and a dhcpcd that is not ours."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from dhcp_lab import CLIENT_MAC, Lab, lab, run, until

from installer.model.facts import Lease, Route
from installer.observe import lease

pytestmark = pytest.mark.root

SERVER = (
    "dhcp-range=192.0.2.57,192.0.2.57,255.255.255.0,1h",
    f"dhcp-host={CLIENT_MAC},node7",
    "domain=rack3.example.net",
    "dhcp-option=3,192.0.2.1,192.0.2.2",
    "dhcp-option=6,192.0.2.53,192.0.2.54",
    "dhcp-option=26,1400",
    "dhcp-option=42,192.0.2.4",
    "dhcp-option=119,rack3.example.net,example.net",
    "dhcp-option=121,0.0.0.0/0,192.0.2.9,198.51.100.0/24,192.0.2.8",
)
EXPECTED = Lease(
    interface="eth0",
    address=IPv4Interface("192.0.2.57/24"),
    gateway=IPv4Address("192.0.2.1"),
    further_routers=(IPv4Address("192.0.2.2"),),
    routes=(
        Route(IPv4Network("0.0.0.0/0"), IPv4Address("192.0.2.9")),
        Route(IPv4Network("198.51.100.0/24"), IPv4Address("192.0.2.8")),
    ),
    nameservers=(IPv4Address("192.0.2.53"), IPv4Address("192.0.2.54")),
    search=("rack3.example.net", "example.net"),
    domain="rack3.example.net",
    hostname="node7",
    ntp=(IPv4Address("192.0.2.4"),),
    mtu=1400,
    server=IPv4Address("192.0.2.1"),
    seconds=3600,
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def test_networkd(here: Lab) -> None:
    here.dnsmasq(*SERVER)
    units = here.folder / "units"
    units.mkdir()
    (units / "lab.network").write_text(
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nUseMTU=yes\nUseDomains=yes\n"
    )
    state = here.root / "run/systemd/netif"
    # it has no place of its own for its files, wants a read-only /sys where there is no udev, and
    # becomes a user who may not walk into a test's folder
    script = (
        "mount -o remount,ro /sys && mkdir -p /run/systemd/network /run/systemd/netif && "
        "mount -t tmpfs none /run/systemd/network && mount -t tmpfs none /run/systemd/netif && "
        'cp "$1"/lab.network /run/systemd/network && '
        "chown systemd-network:systemd-network /run/systemd/netif && "
        "{ /lib/systemd/systemd-networkd & } && mkdir -p $2 && "
        "until grep -q ^ADDRESS /run/systemd/netif/leases/*; do sleep 0.1; done && "
        'cp -r /run/systemd/netif/leases "$2" && kill $!'
    )
    here.start("networkd", ["sh", "-c", script, "sh", units, state], here.client)
    until(lambda: bool(list(state.glob("leases/[0-9]*"))), 30, "lease of networkd")
    until(lambda: "CLIENTID" in next(state.glob("leases/[0-9]*")).read_text(), 5, "whole file")
    net = here.root / "sys/class/net/eth0"
    net.mkdir(parents=True)
    index = run("ip", "netns", "exec", here.client, "cat", "/sys/class/net/eth0/ifindex")
    (net / "ifindex").write_text(index)
    leases = here.look()
    assert not leases.warnings
    (found,) = leases.v4
    assert found.source == f"/run/systemd/netif/leases/{index.strip()}"
    for name in (
        "address",
        "gateway",
        "further_routers",
        "routes",
        "nameservers",
        "search",
        "domain",
        "hostname",
        "ntp",
        "mtu",
    ):
        assert getattr(found, name) == getattr(EXPECTED, name), name
    assert (found.server, found.seconds) == (EXPECTED.server, EXPECTED.seconds)


def test_a_dhcpcd_that_is_not_ours(here: Lab) -> None:
    here.dnsmasq(*SERVER)
    said = here.folder / "said"
    places = "".join(
        f"mkdir -p {place} && mount -t tmpfs none {place} && "
        for place in ("/var/lib/dhcpcd", "/run/dhcpcd")
    )
    options = "domain_name_servers,domain_name,domain_search,classless_static_routes"
    options += ",interface_mtu,host_name,ntp_servers,routers"
    hook = here.folder / "hook"
    hook.write_text(f"#!/bin/sh\n[ $reason != BOUND ] || : >{here.folder}/bound\n")
    hook.chmod(0o755)
    # dhcpcd 9 with separated privileges answers one question at a time, and a hasty one never
    script = (
        f"{places.removesuffix(' && ')}; {{ until [ -e {here.folder}/bound ]; do sleep 0.1; done; "
        f"dhcpcd -4 -U eth0 >{said}.new && mv {said}.new {said}; }} & "
        f"exec dhcpcd -q -B -4 -f /dev/null -o {options} -A -c {hook} eth0"
    )
    here.start("foreign", ["sh", "-c", script], here.client)
    until(said.exists, 30, "answer of dhcpcd -U")
    found = lease.look(here.root, {"eth0": said.read_text()})
    assert not found.warnings
    (one,) = found.v4
    assert one.source == "dhcpcd -4 -U eth0"
    for name in ("address", "gateway", "further_routers", "routes", "nameservers", "search"):
        assert getattr(one, name) == getattr(EXPECTED, name), name
    for name in ("domain", "ntp", "mtu", "server", "seconds"):
        assert getattr(one, name) == getattr(EXPECTED, name), name
