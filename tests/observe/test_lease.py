"""Leases: from klibc, from the kernel, from our hooks; and whatever a hostile server sends."""

import json
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer.model.facts import Lease, Route
from installer.observe.lease import read_leases, read_leases_with_warnings

KLIBC = """DEVICE='eth0'
PROTO='dhcp'
IPV4ADDR='192.0.2.57'
IPV4BROADCAST='192.0.2.255'
IPV4NETMASK='255.255.255.0'
IPV4GATEWAY='192.0.2.1'
IPV4DNS0='192.0.2.53'
IPV4DNS1='0.0.0.0'
HOSTNAME='node7.example.net'
DNSDOMAIN='example.net'
NISDOMAIN=''
ROOTSERVER='192.0.2.10'
ROOTPATH='/srv/it'\\''s,vers=3'
filename='/tftp/x'
UPTIME='6'
DHCPLEASETIME='3600'
DOMAINSEARCH='a.example.net. example.net.'
"""


def _undated(leases: tuple[Lease, ...]) -> tuple[Lease, ...]:
    """When a file was written is another one's test."""
    return tuple(replace(lease, taken=None) for lease in leases)


def _write(root: Path, path: str, text: str | bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text if isinstance(text, bytes) else text.encode())


def test_klibc(tmp_path: Path) -> None:
    _write(tmp_path, "run/net-eth0.conf", KLIBC)
    leases, warnings = read_leases_with_warnings(tmp_path)
    assert warnings == ()
    assert _undated(leases) == (
        Lease(
            interface="eth0",
            address=IPv4Interface("192.0.2.57/24"),
            gateway=IPv4Address("192.0.2.1"),
            nameservers=(IPv4Address("192.0.2.53"),),
            search=("a.example.net", "example.net"),
            domain="example.net",
            hostname="node7.example.net",
            server=IPv4Address("192.0.2.10"),
            root_path="/srv/it's,vers=3",
            seconds=3600,
            source="/run/net-eth0.conf",
        ),
    )


def test_classless_routes_take_the_place_of_the_gateway(tmp_path: Path) -> None:
    text = KLIBC.replace(
        "IPV4GATEWAY='192.0.2.1'",
        "IPV4ROUTE0SUBNET='10.0.0.0/8'\nIPV4ROUTE0GATEWAY='192.0.2.3'\n"
        "IPV4ROUTE1SUBNET='0.0.0.0/0'\nIPV4ROUTE1GATEWAY='192.0.2.2'",
    )
    _write(tmp_path, "run/net-eth0.conf", text)
    (lease,) = read_leases(tmp_path)
    assert lease.gateway is None
    assert lease.effective_routes == (
        Route(IPv4Network("10.0.0.0/8"), IPv4Address("192.0.2.3")),
        Route(IPv4Network("0.0.0.0/0"), IPv4Address("192.0.2.2")),
    )


HOSTILE = (
    KLIBC.replace("node7.example.net", "a'\\''; reboot; '\\''")
    .replace("'example.net'", "'exam\nple.net'")
    .replace("192.0.2.53", "$(reboot)")
    .replace("a.example.net.", "`id` ok.example.net -x")
    .replace("3600", "soon")
    .replace("/srv/it", "/srv/\x1b[2J")
    + "PATH=/tmp:$PATH\nreboot -f\nA='unclosed\n"
)


def test_hostile_values_are_left_out_one_by_one(tmp_path: Path) -> None:
    _write(tmp_path, "run/net-eth0.conf", HOSTILE)
    leases, warnings = read_leases_with_warnings(tmp_path)
    assert _undated(leases) == (
        Lease(
            interface="eth0",
            address=IPv4Interface("192.0.2.57/24"),
            gateway=IPv4Address("192.0.2.1"),
            search=("ok.example.net", "example.net"),
            server=IPv4Address("192.0.2.10"),
            source="/run/net-eth0.conf",
        ),
    )
    source = "/run/net-eth0.conf: "
    assert warnings == (
        source + "'PATH=/tmp:$PATH' is left out: it is no NAME='value'",
        source + "'reboot -f' is left out: it is no NAME='value'",
        source + "\"A='unclosed\" is left out: it is no NAME='value'",
        source + "IPV4DNS0 '$(reboot)' is left out: it is no IPv4 address",
        source + "DOMAINSEARCH '`id`' is left out: it is no domain name",
        source + "DOMAINSEARCH '-x' is left out: it is no domain name",
        source + "DNSDOMAIN 'exam\\nple.net' is left out: it is no host or domain name",
        source + "HOSTNAME \"a'; reboot; '\" is left out: it is no host or domain name",
        source + 'ROOTPATH "/srv/\\x1b[2J\'s,vers=3" is left out: it holds control characters',
        source + "DHCPLEASETIME 'soon' is left out: it is no number of seconds",
    )


@pytest.mark.parametrize(
    ("netmask", "expected"),
    [
        ("255.255.252.0", "192.0.2.57/22"),
        ("255.255.255.255", "192.0.2.57/32"),
        ("0.0.0.0", "192.0.2.57/24"),  # noqa: S104 - a netmask that is not given
        ("0.0.0.255", None),
        ("255.0.255.0", None),
        ("garbage", None),
    ],
)
def test_netmask(tmp_path: Path, netmask: str, expected: str | None) -> None:
    _write(tmp_path, "run/net-eth0.conf", KLIBC.replace("255.255.255.0", netmask))
    leases, warnings = read_leases_with_warnings(tmp_path)
    assert [str(lease.address) for lease in leases] == ([expected] if expected else [])
    assert bool(warnings) == (expected is None)


def test_an_address_is_no_host_name(tmp_path: Path) -> None:
    _write(tmp_path, "run/net-eth0.conf", KLIBC.replace("node7.example.net", "192.0.2.57"))
    leases, warnings = read_leases_with_warnings(tmp_path)
    assert leases[0].hostname is None
    assert warnings == ()


def _json_lease(**changes: object) -> str:
    lease = {
        "interface": "enp1s0",
        "address": "198.51.100.7/25",
        "gateway": "198.51.100.1",
        "nameservers": ["198.51.100.53", "198.51.100.54"],
        "search": ["example.org"],
        "domain": "example.org",
        "hostname": "seven",
        "server": "198.51.100.2",
        "root_path": "198.51.100.2:/srv/root",
        "seconds": 600,
        "source": "udhcpc",
    }
    return json.dumps({**lease, **changes})


def test_a_lease_of_our_hooks(tmp_path: Path) -> None:
    _write(tmp_path, "run/netinstall/lease-enp1s0.json", _json_lease())
    leases, warnings = read_leases_with_warnings(tmp_path)
    assert warnings == ()
    assert _undated(leases) == (
        Lease(
            interface="enp1s0",
            address=IPv4Interface("198.51.100.7/25"),
            gateway=IPv4Address("198.51.100.1"),
            nameservers=(IPv4Address("198.51.100.53"), IPv4Address("198.51.100.54")),
            search=("example.org",),
            domain="example.org",
            hostname="seven",
            server=IPv4Address("198.51.100.2"),
            root_path="198.51.100.2:/srv/root",
            seconds=600,
            source="udhcpc",
        ),
    )


def test_our_hooks_know_best(tmp_path: Path) -> None:
    _write(tmp_path, "run/netinstall/lease-eth0.json", _json_lease(interface="eth0"))
    _write(tmp_path, "run/net-eth0.conf", KLIBC)
    assert [lease.source for lease in read_leases(tmp_path)] == ["udhcpc"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("{", "left out: it is not JSON"),
        ("[" * 100_000, "left out: it is not JSON"),
        ("[]", "left out: it is no JSON object"),
        (_json_lease(address=None), "address '' is left out: it is no IPv4 address with a prefix"),
        (
            _json_lease(interface="../x"),
            "interface '../x' is left out: it is no name of an interface",
        ),
    ],
)
def test_an_unusable_lease_of_our_hooks(tmp_path: Path, text: str, warning: str) -> None:
    _write(tmp_path, "run/netinstall/lease-x.json", text)
    assert read_leases_with_warnings(tmp_path) == (
        (),
        (f"/run/netinstall/lease-x.json: {warning}",),
    )


def test_wrong_types_are_left_out(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "run/netinstall/lease-x.json",
        _json_lease(nameservers={"a": 1}, seconds=True, search=["a b"], gateway="::1"),
    )
    (lease,), warnings = read_leases_with_warnings(tmp_path)
    assert (lease.nameservers, lease.seconds, lease.gateway) == ((), None, None)
    assert len(warnings) == 3


ROUTE = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)
FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.57
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""


def test_a_kernel_that_asked_itself(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cmdline", "root=/dev/nfs ip=::::::dhcp ro")
    _write(
        tmp_path,
        "proc/net/pnp",
        "#PROTO: DHCP\ndomain example.net\nnameserver 192.0.2.53\nbootserver 192.0.2.10\n",
    )
    _write(tmp_path, "proc/net/route", ROUTE)
    _write(tmp_path, "proc/net/fib_trie", FIB_TRIE)
    _write(tmp_path, "proc/sys/kernel/hostname", "node7\n")
    assert read_leases_with_warnings(tmp_path) == (
        (
            Lease(
                interface="eth0",
                address=IPv4Interface("192.0.2.57/24"),
                gateway=IPv4Address("192.0.2.1"),
                nameservers=(IPv4Address("192.0.2.53"),),
                domain="example.net",
                hostname="node7",
                server=IPv4Address("192.0.2.10"),
                source="/proc/net/pnp",
            ),
        ),
        (),
    )


def test_addresses_on_the_command_line(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "proc/cmdline",
        "ip=192.0.2.57:192.0.2.10:192.0.2.1:255.255.255.128:n7.example.net:eth1:off:192.0.2.53",
    )
    _write(tmp_path, "proc/net/pnp", "#MANUAL\n")
    assert read_leases(tmp_path) == (
        Lease(
            interface="eth1",
            address=IPv4Interface("192.0.2.57/25"),
            gateway=IPv4Address("192.0.2.1"),
            nameservers=(IPv4Address("192.0.2.53"),),
            hostname="n7",
            domain="example.net",
            server=IPv4Address("192.0.2.10"),
            source="ip= on the kernel command line",
        ),
    )


def test_an_interface_is_found_by_its_address(tmp_path: Path) -> None:
    _write(tmp_path, "proc/cmdline", "ip=192.0.2.57:::255.255.255.0")
    why = "it is not known which interface has it"
    assert read_leases_with_warnings(tmp_path) == (
        (),
        (f"ip= on the kernel command line: client '192.0.2.57' is left out: {why}",),
    )
    _write(tmp_path, "proc/net/route", ROUTE)
    _write(tmp_path, "proc/net/fib_trie", FIB_TRIE)
    assert [lease.interface for lease in read_leases(tmp_path)] == ["eth0"]


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=150)
def test_any_file_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    _write(root, "run/net-eth0.conf", content)
    _write(root, "run/netinstall/lease-eth0.json", content)
    _write(root, "proc/cmdline", b"ip=" + content)
    _write(root, "proc/net/pnp", b"#PROTO: DHCP\n" + content)
    _write(root, "proc/net/route", b"\n" + content)
    _write(root, "proc/net/fib_trie", content)
    read_leases_with_warnings(root)
    shutil.rmtree(root)


# a DHCP option without NUL, as bytes: whatever the server wants
_OPTIONS = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b""))


def _as_ipconfig_writes(value: bytes) -> bytes:
    return b"'" + value.replace(b"'", b"'\\''").replace(b"!", b"'\\!'") + b"'"


@given(hostname=_OPTIONS, domain=_OPTIONS, path=_OPTIONS, search=_OPTIONS)
@settings(max_examples=150)
def test_hostile_options_cannot_pose_as_others(
    tmp_path_factory: pytest.TempPathFactory,
    hostname: bytes,
    domain: bytes,
    path: bytes,
    search: bytes,
) -> None:
    root = tmp_path_factory.getbasetemp() / "hostile"
    text = b"".join(
        name + b"=" + _as_ipconfig_writes(value) + b"\n"
        for name, value in (
            (b"HOSTNAME", hostname),
            (b"DNSDOMAIN", domain),
            (b"ROOTPATH", path),
            (b"DOMAINSEARCH", search),
            (b"DEVICE", b"eth0"),
            (b"IPV4ADDR", b"192.0.2.57"),
            (b"IPV4NETMASK", b"255.255.255.0"),
            (b"IPV4GATEWAY", b"192.0.2.1"),
        )
    )
    _write(root, "run/net-eth0.conf", text)
    (lease,), _ = read_leases_with_warnings(root)
    assert (lease.interface, str(lease.address), str(lease.gateway)) == (
        "eth0",
        "192.0.2.57/24",
        "192.0.2.1",
    )
    if lease.root_path is not None:
        assert lease.root_path == path.decode()


@pytest.mark.parametrize("value", ["plain", "it's", "a!b", "back\\slash", 'say "hi"', "$HOME `id`"])
def test_a_shell_reads_the_same(tmp_path: Path, value: str) -> None:
    _write(tmp_path, "run/net-eth0.conf", KLIBC.replace("/srv/it'\\''s,vers=3", "X"))
    text = (tmp_path / "run/net-eth0.conf").read_bytes()
    text = text.replace(b"'X'", _as_ipconfig_writes(value.encode()))
    _write(tmp_path, "run/net-eth0.conf", text)
    said = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$ROOTPATH"', "sh", str(tmp_path / "run/net-eth0.conf")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said == value
    assert read_leases(tmp_path)[0].root_path == value
