"""What init makes of the leases."""

import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path

from installer.init import dhcp
from installer.init.lease import client_lines, resolv_conf
from installer.model.facts import Lease, Lease6


def _lease(*servers: str, search: tuple[str, ...] = (), domain: str | None = None) -> Lease:
    return Lease(
        interface="ens3",
        address=IPv4Interface("192.0.2.10/24"),
        nameservers=tuple(map(IPv4Address, servers)),
        search=search,
        domain=domain,
    )


def test_name_servers_and_search_domains() -> None:
    lease = _lease(
        "192.0.2.53", "192.0.2.54", search=("a.example", "b.example"), domain="c.example"
    )
    assert resolv_conf([lease]) == (
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch a.example b.example\n"
    )


def test_the_domain_is_searched_if_nothing_else_is() -> None:
    assert resolv_conf([_lease(domain="c.example")]) == "search c.example\n"


def test_several_leases_repeat_nothing_and_stop_at_three_servers() -> None:
    leases = [
        _lease("192.0.2.53", "192.0.2.54", domain="c.example"),
        _lease("192.0.2.53", "192.0.2.55", "192.0.2.56", domain="c.example"),
    ]
    assert resolv_conf(leases) == (
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 192.0.2.55\nsearch c.example\n"
    )


def test_without_a_lease() -> None:
    assert resolv_conf([]) == ""


KLIBC = "DEVICE='{0}'\nPROTO='{1}'\nIPV4ADDR='192.0.2.{2}'\nIPV4NETMASK='255.255.255.0'\n{3}"


def test_the_client_asks_for_what_the_boot_had(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name, protocol, last, more in (
        ("eth0", "dhcp", 7, ""),
        ("eth1", "dhcp", 8, "CLIENT='udhcpc'\n"),
        ("eth2", "none", 9, ""),
    ):
        (tmp_path / f"run/net-{name}.conf").write_text(KLIBC.format(name, protocol, last, more))
    lines = list(client_lines(tmp_path))
    assert lines == [
        *("interface eth0", "request 192.0.2.7"),
        *("interface eth1", "request 192.0.2.8", "clientid"),
        *("interface eth2", "nodhcp"),
    ]
    text = dhcp.config(lines, tmp_path)
    assert text.startswith("noconfigure\n")
    assert text.endswith(f"logfile {tmp_path}/log\n" + "\n".join(lines) + "\n")


def test_a_static_address_of_the_kernel_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text("ip=192.0.2.9:::255.255.255.0::eth0:off\n")
    assert list(client_lines(tmp_path)) == ["interface eth0", "nodhcp"]


def test_name_servers_of_both_families() -> None:
    six = Lease6("ens3", nameservers=(IPv6Address("fd77::53"),), search=("v6.example",))
    assert resolv_conf([_lease("192.0.2.53", domain="c.example"), six]) == (
        "nameserver 192.0.2.53\nnameserver fd77::53\nsearch c.example v6.example\n"
    )


def test_the_hook_is_clean() -> None:
    hook = dhcp.argv()[-1]
    subprocess.run(["shellcheck", "-s", "sh", hook], check=True)
    assert os.access(hook, os.X_OK)


def test_the_hook_keeps_values_as_they_are(tmp_path: Path) -> None:
    evil = "$(touch pwned)'; touch pwned; '`touch pwned`\n\x1b[2J"
    environment = {
        "NETINSTALL_DHCP": str(tmp_path),
        "interface": "nosuch0",
        "protocol": "dhcp",
        "reason": "BOUND",
        "new_root_path": evil,
    }
    subprocess.run([dhcp.argv()[-1]], check=True, env=environment, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dhcp-nosuch0"]
    kept = (tmp_path / "dhcp-nosuch0").read_bytes().split(b"\0")
    assert b"new_root_path=" + evil.encode() in kept
    assert (tmp_path / "dhcp-nosuch0").stat().st_mode & 0o077 == 0
