"""What the kernel made of router advertisements, and what dhcpcd's hook kept, as files."""

import shutil
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer.model.facts import Lease6, Prefix, Route, Router
from installer.observe import dhcpcd, ipv6, lease, machine, nics
from installer.observe.lease_watch import LeaseWatch, wait

# /proc/net of Linux 6.1 on a network with a router, its own prefix and one behind it
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000006c1381fffebdf903 02 40 20 80     eth0
fd770000000000006c1381fffebdf903 02 40 00 00     eth0
fd770000000000001111111111111111 02 40 00 01     eth0
fd770000000000000000000000000057 02 80 00 00     eth0
20010db8000000000000000000000005 03 40 00 80     eth1
"""
ZERO = "0" * 32
ROUTER = "fe80000000000000d8d40dfffe50ae0f"
IPV6_ROUTE = "".join(
    f"{destination} {bits} {ZERO} 00 {via} 00000400 00000001 00000000 {flags}     {device}\n"
    for destination, bits, via, flags, device in (
        ("fd770000000000000000000000000000", "40", ZERO, "004c0001", "eth0"),
        ("fe800000000000000000000000000000", "40", ZERO, "00000001", "eth0"),
        ("20010db8000000000000000000000000", "20", ROUTER, "08c40003", "eth0"),
        (ZERO, "00", ROUTER, "08450003", "eth0"),
        # given by hand
        (ZERO, "00", ROUTER, "00000003", "eth1"),
        (ZERO, "00", ZERO, "00200200", "lo"),
    )
)
BY_THE_KERNEL = Lease6(
    interface="eth0",
    slaac=(IPv6Interface("fd77::6c13:81ff:febd:f903/64"),),
    prefixes=(Prefix(IPv6Network("fd77::/64")),),
    routers=(Router(IPv6Address("fe80::d8d4:dff:fe50:ae0f"), "high"),),
    routes=(Route(IPv6Network("2001:db8::/32"), IPv6Address("fe80::d8d4:dff:fe50:ae0f")),),
    source="the kernel",
)


def _tables(root: Path) -> None:
    folder = root / "proc/net"
    folder.mkdir(parents=True)
    (folder / "if_inet6").write_text(IF_INET6)
    (folder / "ipv6_route").write_text(IPV6_ROUTE)


def _kept(root: Path, name: str, **values: str) -> None:
    folder = root / dhcpcd.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{key}={value}\0" for key, value in values.items())
    (folder / name).write_text(text)


def test_the_kernel_s_own_addresses_prefixes_and_routers(tmp_path: Path) -> None:
    _tables(tmp_path)
    assert ipv6.leases(tmp_path) == (BY_THE_KERNEL,)
    assert lease.look(tmp_path).v6 == (BY_THE_KERNEL,)


def test_what_dhcpcd_heard_is_completed_by_what_the_kernel_made_of_it(tmp_path: Path) -> None:
    _tables(tmp_path)
    _kept(
        tmp_path,
        "ra-eth0",
        interface="eth0",
        reason="ROUTERADVERT",
        nd1_from="fe80::1",
        nd1_flags="MOl",
        nd1_lifetime="1800",
        nd1_prefix_information1_prefix="fd77::",
        nd1_prefix_information1_length="64",
        nd1_prefix_information1_flags="LA",
        nd1_prefix_information1_vltime="4294967295",
        nd1_prefix_information1_pltime="600",
        nd1_rdnss1_servers="fd77::53 fd77::54 nobody",
        nd2_from="fe80::2",
        nd2_lifetime="0",
        nd2_mtu="1400",
    )
    _kept(
        tmp_path,
        "dhcp6-eth0",
        interface="eth0",
        reason="BOUND6",
        new_dhcp6_server_id="000100013294",
        new_dhcp6_ia_na1_ia_addr1="fd77::57",
        new_dhcp6_ia_na1_ia_addr1_vltime="3600",
        new_dhcp6_name_servers="fd77::99 fd77::53",
        new_dhcp6_fqdn="Box.example.net.",
    )
    found = lease.look(tmp_path)
    (one,) = found.v6
    assert one.taken is not None
    assert found.warnings == (
        "dhcpcd: nd1_rdnss1_servers 'nobody' is left out: it is no IPv6 address",
    )
    assert one.slaac == BY_THE_KERNEL.slaac
    assert one.routes == BY_THE_KERNEL.routes
    assert one.addresses == (IPv6Address("fd77::57"),)
    assert one.prefixes == (Prefix(IPv6Network("fd77::/64"), valid=None, preferred=600),)
    # the second router is none for everywhere
    assert one.routers == (Router(IPv6Address("fe80::1"), "low", 1800),)
    assert (one.managed, one.other, one.mtu, one.seconds) == (True, True, 1400, 3600)
    assert [str(server) for server in one.nameservers] == ["fd77::99", "fd77::53", "fd77::54"]
    assert (one.fqdn, one.server) == ("Box.example.net", "000100013294")


def test_a_lost_lease_of_ipv4_is_none(tmp_path: Path) -> None:
    _kept(tmp_path, "dhcp-eth0", interface="eth0", reason="EXPIRE", old_ip_address="192.0.2.7")
    assert lease.look(tmp_path).v4 == ()
    _kept(
        tmp_path,
        "dhcp-eth0",
        interface="eth0",
        reason="BOUND",
        new_ip_address="192.0.2.7",
        new_subnet_cidr="24",
        new_host_name="$(reboot)",
        new_domain_search="good.example -bad",
        new_classless_static_routes="10.0.0.0/8 192.0.2.1 0.0.0.0/0 nowhere 172.16.0.0/12",
        new_interface_mtu="20",
    )
    found = lease.look(tmp_path)
    assert {warning.partition(" is left out: ")[0] for warning in found.warnings} == {
        "dhcpcd: classless_static_routes '0.0.0.0/0 nowhere'",
        "dhcpcd: classless_static_routes '172.16.0.0/12'",
        "dhcpcd: domain_search '-bad'",
        "dhcpcd: host_name '$(reboot)'",
        "dhcpcd: interface_mtu '20'",
    }
    (one,) = found.v4
    assert (str(one.address), one.search, one.hostname, one.mtu) == (
        *("192.0.2.7/24", ("good.example",), None),
        None,
    )
    assert [str(route.destination) for route in one.routes] == ["10.0.0.0/8"]


_NAMES = st.sampled_from(
    [
        *("new_ip_address", "new_subnet_cidr", "new_routers", "new_classless_static_routes"),
        *("new_domain_name_servers", "new_dhcp6_server_id", "new_dhcp6_ia_na1_ia_addr1"),
        *("new_dhcp6_ia_na1_ia_addr1_vltime", "nd1_from", "nd1_flags", "nd1_lifetime", "nd1_mtu"),
        *("nd1_prefix_information1_prefix", "nd1_prefix_information1_length", "new_interface_mtu"),
        *("nd1_rdnss1_servers", "nd1_dnssl1_search", "new_dhcp_lease_time", "new_root_path"),
    ]
)
_WORDS = st.sampled_from(
    ["192.0.2.7", "24", "fe80::1", "fd77::", "64", "0", "0.0.0.0/0", "99999999999", "a.b", "-1"]
)
_VALUES = st.text(max_size=20) | st.lists(_WORDS, max_size=4).map(" ".join)


@given(st.dictionaries(_NAMES, _VALUES), st.binary(max_size=200))
@settings(max_examples=300)
def test_any_state_and_any_table_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str], table: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-state"
    plain = {name: value.replace("\0", "") for name, value in values.items()}
    for protocol in ("dhcp", "dhcp6", "ra"):
        folder = root / dhcpcd.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        pairs = {**plain, "interface": "eth0"}.items()
        raw = b"".join(f"{key}={value}\0".encode(errors="replace") for key, value in pairs)
        (folder / f"{protocol}-eth0").write_bytes(raw)
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    for name in ("if_inet6", "ipv6_route"):
        (root / "proc/net" / name).write_bytes(table + IF_INET6.encode() + IPV6_ROUTE.encode())
    lease.look(root)
    LeaseWatch(lambda _text, _level: None, root).look()
    shutil.rmtree(root)


def test_without_a_client_nobody_waits_and_nothing_is_watched(tmp_path: Path) -> None:
    said: list[str] = []
    wait(lambda text, _level: said.append(text), tmp_path)
    watch = LeaseWatch(lambda text, _level: said.append(text), tmp_path)
    watch.start()
    watch.stop()
    assert not said


def test_the_card_that_booted_is_known_when_the_client_has_leases_for_all(tmp_path: Path) -> None:
    for name, last in (("eth0", 6), ("eth1", 7)):
        card = tmp_path / "sys/class/net" / name
        (card / "device").mkdir(parents=True)
        (card / "type").write_text("1\n")
        (card / "address").write_text(f"52:54:00:00:00:0{last}\n")
        _kept(
            tmp_path,
            f"dhcp-{name}",
            interface=name,
            reason="BOUND",
            new_ip_address=f"192.0.2.{last}",
            new_subnet_cidr="24",
        )
    assert machine.look(tmp_path).boot_nic is None
    (tmp_path / "run/net-eth1.conf").write_text(
        "DEVICE='eth1'\nPROTO='dhcp'\nIPV4ADDR='192.0.2.7'\nIPV4NETMASK='255.255.255.0'\n"
    )
    booted = machine.look(tmp_path).boot_nic
    assert booted is not None
    assert booted.name == "eth1"


def test_the_permanent_address_is_asked_of_the_driver() -> None:
    # the loopback interface has none, and no driver is asked for one that is not there
    assert nics._asked_mac("lo") is None
    assert nics._asked_mac("nobody0") is None
