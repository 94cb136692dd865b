"""dnsmasq's log, as dnsmasq 2.90 wrote it while real firmware and iPXE booted."""

from pathlib import Path

import pytest

from installer.boot.serve.dnsmasq_log import Reader
from installer.boot.serve.journey import (
    Event,
    Leased,
    Offered,
    Proxied,
    Refused,
    Step,
    Transfer,
)

MAC, IP = "52:54:00:00:00:07", "192.0.2.77"
ROOT = "/tmp/netinstall-serve-pdijsj6r/tftp"  # noqa: S108 - a recorded path
PXE = "vendor class: PXEClient:Arch:00007:UNDI:003000"


def _about(name: str) -> tuple[Step, str]:
    return ("loader", "") if name == "ipxe.efi" else ("script", "rack7")


def _read(text: str) -> list[Event]:
    """Read lines that have been shortened: `dhcp: …` is said by dnsmasq-dhcp."""
    reader = Reader(Path(ROOT), _about)
    lines = [
        line.replace("dhcp: ", "dnsmasq-dhcp[13994]: ", 1).replace(
            "tftp: ", "dnsmasq-tftp[13994]: ", 1
        )
        for line in text.strip().splitlines()
    ]
    return [event for line in lines if (event := reader.read(line))]


def _sent(name: str, step: Step = "loader", host: str = "", state: str = "done") -> Transfer:
    return Transfer(IP, "", step, name, "TFTP", state, host=host)  # type: ignore[arg-type]


FIRMWARE = f"""
dnsmasq[13994]: started, version 2.90 DNS disabled
dhcp: DHCP, IP range 192.0.2.100 -- 192.0.2.199, lease time 1h
dhcp: 375196329 available DHCP range: 192.0.2.100 -- 192.0.2.199
dhcp: 375196329 {PXE}
dhcp: 375196329 DHCPDISCOVER(br0) {MAC}{" "}
dhcp: 375196329 tags: known, uefi, br0
dhcp: 375196329 DHCPOFFER(br0) {IP} {MAC}{" "}
dhcp: 375196329 requested options: 1:netmask, 2:time-offset, 3:router, 4, 5,{" "}
dhcp: 375196329 next server: 192.0.2.1
dhcp: 375196329 broadcast response
dhcp: 375196329 sent size: 12 option: 67 bootfile-name  bootx64.efi
dhcp: 375196329 available DHCP range: 192.0.2.100 -- 192.0.2.199
dhcp: 375196329 {PXE}
dhcp: 375196329 DHCPREQUEST(br0) {IP} {MAC}{" "}
dhcp: 375196329 tags: known, uefi, br0
dhcp: 375196329 DHCPACK(br0) {IP} {MAC} rack7
dhcp: 375196329 sent size:  5 option: 12 hostname  rack7
tftp: error 8 User aborted the transfer received from {IP}
tftp: sent {ROOT}/ipxe.efi to {IP}
tftp: sent {ROOT}/ipxe.efi to {IP}
"""

PROXY = f"""
dhcp: DHCP, proxy on subnet 192.0.2.0
dhcp: 2152216314 available DHCP subnet: 192.0.2.0/255.255.255.0
dhcp: 2152216314 {PXE}
dhcp: 2152216314 PXE(br0) {MAC} proxy
dhcp: 2152216314 tags: uefi, br0
dhcp: 2152216314 next server: 192.0.2.1
dhcp: 2152216314 broadcast response
dhcp: 1525075805 PXE(br0) {MAC} proxy
dhcp: 1525075805 tags: uefi, br0
dhcp: 1525075805 bootfile name: ipxe.efi
tftp: sent {ROOT}/ipxe.efi to {IP}
dhcp: 1616404303 vendor class: PXEClient:Arch:00007:UNDI:003010
dhcp: 1616404303 user class: iPXE
dhcp: 1616404303 PXE(br0) {MAC} proxy
dhcp: 1616404303 tags: ipxe, uefi, br0
dhcp: 1616404303 bootfile name: http://192.0.2.1:8080/lab/ipxe/boot.ipxe
"""

GRUB = f"""
tftp: sent {ROOT}/bootx64.efi to {IP}
tftp: file {ROOT}/load-kernel-52:54:00:00:00:07.cfg not found for {IP}
tftp: error 0 closed received from {IP}
tftp: sent {ROOT}/load-kernel.cfg to {IP}
tftp: sent {ROOT}/load-kernel.cfg to {IP}
"""


def test_firmware_asks_and_fetches() -> None:
    assert _read(FIRMWARE) == [
        Offered(MAC, "UEFI"),
        Leased(MAC, IP, "UEFI", "rack7"),
        _sent("ipxe.efi"),
    ]


def test_beside_another_dhcp_server() -> None:
    assert _read(PROXY) == [
        Proxied(MAC, "UEFI"),
        Proxied(MAC, "UEFI"),
        _sent("ipxe.efi"),
        Proxied(MAC, "iPXE"),
    ]


def test_grub_looks_at_a_file_before_it_reads_it() -> None:
    assert _read(GRUB) == [
        _sent("bootx64.efi", "script", "rack7"),
        _sent("load-kernel-52:54:00:00:00:07.cfg", "script", "rack7", "missing"),
        _sent("load-kernel.cfg", "script", "rack7"),
    ]


@pytest.mark.parametrize(
    ("tags", "client"),
    [
        ("ipxe, bios, lan0", "iPXE"),
        ("bios, lan0", "BIOS"),
        ("known, uefi, lan0", "UEFI"),
        ("httpclient, http, lan0", "UEFI HTTP"),
        ("http, lan0", "other"),
        ("lan0", "other"),
    ],
)
def test_who_asks(tags: str, client: str) -> None:
    (found,) = _read(f"dhcp: 1 tags: {tags}\ndhcp: 1 DHCPACK(lan0) {IP} {MAC} ")
    assert isinstance(found, Leased)
    assert (found.client, found.name) == (client, "")


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            f"dhcp: 3 DHCPDISCOVER(lan0) {MAC} no address available",
            Refused(MAC, "no address is free: make dhcp.range larger"),
        ),
        (
            f"dhcp: 3 DHCPNAK(lan0) 192.0.3.1 {MAC} wrong network",
            Refused(MAC, "192.0.3.1 is refused: wrong network"),
        ),
        (f"tftp: failed sending {ROOT}/ipxe.efi to {IP}", _sent("ipxe.efi", state="broken")),
        (f"dhcp: 3 PXE(lan0) {MAC} proxy-ignored", None),
        # the name of a file may look like the rest of the line
        (f"tftp: sent {ROOT}/a to {IP} to {IP}", _sent(f"a to {IP}", "script", "rack7")),
        # what clients choose is no event
        (f"dhcp: 3 client provides name: DHCPACK(lan0) {IP} {MAC}", None),
        (f"dhcp: 3 vendor class: DHCPACK(lan0) {IP} {MAC}", None),
        (f"tftp: sent {ROOT}/a to 192.0.2", None),
        (f"dhcp: 3 DHCPACK(lan0) {IP} 52:54:00:00:00", None),
        ("dnsmasq[1]: exiting on receipt of SIGTERM", None),
        ("", None),
    ],
)
def test_other_lines(line: str, event: Event | None) -> None:
    assert _read(line) == ([event] if event else [])


def test_conversations_are_forgotten_in_the_end() -> None:
    many = "\n".join(f"dhcp: {number} tags: bios, lan0" for number in range(10_000))
    found = _read(
        f"{many}\ndhcp: 0 DHCPACK(lan0) {IP} {MAC} \ndhcp: 9999 DHCPACK(lan0) {IP} {MAC} "
    )
    assert [one.client for one in found if isinstance(one, Leased)] == ["other", "BIOS"]
