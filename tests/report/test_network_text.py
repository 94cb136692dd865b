"""What `netinstall probe` shows of cards and leases."""

from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from report_samples import FACTS

from installer.model.facts import Lease, Lease6, Neighbour, Nic, Prefix, Route, Router
from installer.report.network import nics_text


def test_a_card_with_everything() -> None:
    card = Nic(
        *("eth0", "52:54:00:12:34:56", "52:54:00:12:34:56", "igb", "pci-0000:02:00.0", True, 1000),
        names=("eno1", "enp2s0"),
        neighbour=Neighbour(
            system="sw3",
            chassis="00:11:22:33:44:55",
            port="Gi1/0/7",
            port_description="rack 7",
            address=IPv4Address("192.0.2.250"),
            vlan=30,
        ),
    )
    lease = Lease(
        "eth0",
        IPv4Interface("192.0.2.10/24"),
        gateway=IPv4Address("192.0.2.1"),
        further_routers=(IPv4Address("192.0.2.2"),),
        routes=(
            Route(IPv4Network("0.0.0.0/0"), IPv4Address("192.0.2.1")),
            Route(IPv4Network("198.51.100.0/24")),
        ),
        hostname="node7",
        fqdn="node7.example.org",
        ntp=(IPv4Address("192.0.2.4"),),
        mtu=9000,
        seconds=60,
        source="dhcpcd",
    )
    lease6 = Lease6(
        "eth0",
        addresses=(IPv6Address("2001:db8::57"),),
        slaac=(IPv6Interface("2001:db8::5054:ff:fe12:3456/64"),),
        prefixes=(Prefix(IPv6Network("2001:db8::/64")),),
        routers=(Router(IPv6Address("fe80::1")),),
        nameservers=(IPv6Address("2001:db8::53"),),
        search=("example.org",),
        source="the router fe80::1",
    )
    facts = replace(FACTS, nics=(card,), leases=(lease,), leases6=(lease6,))
    assert [line.text for line in nics_text(facts)] == [
        "  eth0  52:54:00:12:34:56  carrier  1000 Mbit/s  igb  booted from",
        "      names    eno1, enp2s0",
        "      switch   sw3, port Gi1/0/7, rack 7, VLAN 30, managed at 192.0.2.250",
        "      lease    192.0.2.10/24; gateway 192.0.2.1, 192.0.2.2; route default via",
        "               192.0.2.1; route 198.51.100.0/24 on the link; host name node7;",
        "               full name node7.example.org; NTP 192.0.2.4; MTU 9000; for 1 min",
        "               00 s",
        "      told by  dhcpcd",
        "      IPv6     DHCPv6 2001:db8::57; SLAAC 2001:db8::5054:ff:fe12:3456/64;",
        "               prefix 2001:db8::/64; router fe80::1; DNS 2001:db8::53; search",
        "               example.org",
        "      told by  the router fe80::1",
    ]
