"""Firmware, DHCP, iPXE, agent: each way of docs/boot-ipxe.md with what the command rendered.

SeaBIOS, OVMF, dnsmasq and iPXE (of 2019) are Debian's. The one PXE ROM for BIOS that can be had is
iPXE itself, which never asks for undionly.kpxe: where a plain ROM is meant, somebody types at its
prompt what a plain ROM does of itself (a lease, the file over TFTP, its start).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from lab import answers, disk, ipxe, process
from lab.bench import Bench
from lab.http import Fault
from lab.network import Dhcp, Namespace
from lab.site import Site, tiny_image
from lab.vm import Machine, Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:11"
UUID = "8c1b9d3e-5f2a-4b67-9e10-2d4c6a8f0b15"

ANSWERS = answers.one_disk(more='\n[finish]\non-success = "poweroff"\n')

PROXY = {"mode": "proxy", "range": None}
DRY_RUN = r"DRY RUN: no disk was changed"
# what the kernel says when it powers off would get into the line
TINY = "echo READY $(cat /proc/cmdline)\nsleep 3600\n"
ENTER = b"\r"


@dataclass(frozen=True)
class Chain:
    """A machine's firmware, and how it comes to iPXE: `loader` is what it fetches, and `by` what.

    `proxy`: a router gives the addresses, and dnsmasq says only what is to be booted.
    """

    firmware: Literal["bios", "uefi"]
    loader: str
    by: Literal["tftp", "http"] = "tftp"
    proxy: bool = False

    def tables(self) -> dict[str, Any]:
        """What the site file says about it."""
        return {"tftp": {self.firmware: self.loader}, **({"dhcp": PROXY} if self.proxy else {})}

    def vm(self, network: Namespace, **more: Any) -> Vm:
        """The machine."""
        # OvmfPkg/RUNTIME_CONFIG.md: what is left then is HTTP boot
        no_pxe = tuple((f"opt/org.tianocore/IPv{one}PXESupport", "n") for one in (4, 6))
        rom: Literal["ipxe", "none"] = "ipxe" if self.firmware == "bios" else "none"
        return Vm(
            firmware=self.firmware,
            nics=(Nic(network.tap(), MAC, rom=rom),),
            fw_cfg=no_pxe if self.by == "http" else (),
            **more,
        )


CHAINS = {
    "bios": Chain("bios", "undionly.kpxe"),
    "uefi": Chain("uefi", "ipxe.efi"),
    "uefi-http": Chain("uefi", "ipxe.efi", by="http"),
    "uefi-beside-another-server": Chain("uefi", "ipxe.efi", proxy=True),
}


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(CHAINS["bios"], id="bios"),
        pytest.param(CHAINS["uefi"], id="uefi", marks=pytest.mark.slow),
        pytest.param(CHAINS["uefi-http"], id="uefi-http", marks=pytest.mark.slow),
        pytest.param(CHAINS["uefi-beside-another-server"], id="uefi-proxy"),
    ],
)
def test_a_machine_shows_its_plan_and_keeps_its_disks(bench: Bench, chain: Chain) -> None:
    network = bench.namespace()
    bench.router(network, dhcp=chain.proxy)
    web = bench.web_on(network)
    arguments = [f"netinstall.report={web.url('/report')}", "netinstall.dry-run=1"]
    tables = chain.tables() | {"kernel": {"arguments": arguments}}
    site = Site(network, bench.folder / "site", web, tables)
    site.answers(ANSWERS)
    site.render("ipxe")
    dnsmasq = site.dnsmasq()
    disks = (
        bench.disk("4G", serial="netinstall-root"),
        bench.disk("64M", canary=True, serial="V-2"),
        bench.disk("64M", canary=True, bus="scsi", serial="C-1"),
        bench.disk("64M", canary=True, bus="usb", serial="U-1"),
    )
    before = [disk.fingerprint(one.image) for one in disks]

    machine = bench.boot(chain.vm(network, memory=768, disks=disks))
    start(machine, chain, network)
    fetched(site, dnsmasq, chain)
    address = r"192\.0\.2\.2\d\d" if chain.proxy else r"192\.0\.2\.1\d\d"
    machine.console.expect(rf"booted by .*{MAC}, {address}", 400)
    machine.console.expect(DRY_RUN, 180, fail_on=[r"INSTALLATION FAILED"])
    assert machine.wait_for_exit(60) == "poweroff"

    assert [disk.fingerprint(one.image) for one in disks] == before
    kinds = [event["kind"] for event in web.reports]
    assert "planned" in kinds
    assert not {"step-started", "failed"} & set(kinds)


@pytest.mark.parametrize(
    "chain",
    [
        # it uses the firmware's driver of the card that booted, and no other card
        pytest.param(Chain("uefi", "snponly.efi"), id="snponly", marks=pytest.mark.slow),
        pytest.param(Chain("bios", "undionly.kpxe", proxy=True), id="bios-proxy"),
    ],
)
def test_a_loader_gets_to_the_script(bench: Bench, chain: Chain) -> None:
    network, site = tiny_site(bench, chain.tables(), proxy=chain.proxy)
    dnsmasq = site.dnsmasq()
    machine = bench.boot(chain.vm(network))
    start(machine, chain, network)
    fetched(site, dnsmasq, chain)
    assert "BOOTIF=01-52-54-00-00-00-11" in ready(machine)


def test_each_machine_gets_its_own_script(bench: Bench) -> None:
    hosts = [
        {"mac": MAC, "ip": "192.0.2.10", "hostname": "db7", "arguments": ["lab.host=mac"]},
        {"uuid": UUID, "arguments": ["lab.host=uuid"]},
    ]
    network, site = tiny_site(bench, {"hosts": hosts})
    dnsmasq = site.dnsmasq()
    for name, mac, uuid, expected in (
        ("by-mac", MAC, None, "lab.host=mac"),
        ("by-uuid", "52:54:00:00:00:12", UUID, "lab.host=uuid"),
        ("other", "52:54:00:00:00:13", None, ""),
    ):
        vm = Vm(name, smbios_uuid=uuid, nics=(Nic(network.tap(), mac),))
        words = ready(bench.boot(vm))
        assert "".join(word for word in words if word.startswith("lab.host=")) == expected
    assert re.search(rf"DHCPACK\(br0\) 192\.0\.2\.10 {MAC} db7", dnsmasq.said.text)


def test_a_server_that_is_gone_is_asked_again(bench: Bench) -> None:
    network, site = tiny_site(bench)
    site.dnsmasq()
    web = site.web
    web.fail("/ipxe/default.ipxe", Fault(status=503))
    machine = bench.boot(Vm(nics=(Nic(network.tap(), MAC),)))
    console = machine.console
    console.expect(r"ipxe/default\.ipxe did not come; trying again in 2 s", 120)
    web.stop()
    console.expect(r"(?s)Connection reset.{,60}did not come; trying again in (4|8|16) s", 60)
    web.heal("/ipxe/default.ipxe")
    web.fail("/image/initrd", Fault(cut_after=100_000, times=1))
    web.start()
    console.expect(r"netinstall did not start; trying again in 2 s", 90)
    # the half of the first attempt is forgotten
    assert ready(machine).count("initrd=initrd") == 1


# As netboot.xyz does it: its menu offers "custom_url", and expects to be returned to.
NETBOOT_XYZ = """#!ipxe
set custom_url @URL@
set cmdline lab.added=1 quiet
:main
menu A menu like netboot.xyz
item custom Custom URL Menu
choose choice || goto main
goto ${choice}
:custom
chain ${custom_url}/custom.ipxe || goto broken
goto main
:broken
echo The custom menu is broken
shell
"""


def test_netboot_xyz_leads_here(bench: Bench) -> None:
    network, site = tiny_site(bench)
    folder = site.web.publish_folder("/netbootxyz", site.render("netbootxyz"))
    menu = site.web.publish("/menu.ipxe", NETBOOT_XYZ.replace("@URL@", folder))
    network.dhcp(Dhcp(boot=(("ipxe", menu),)))
    console = (machine := bench.boot(Vm(nics=(Nic(network.tap(), MAC),)))).console
    console.expect_prompt(r"Custom URL Menu", 90)
    console.send(ENTER)
    console.expect_prompt(r"Back to netboot\.xyz", 30)
    # nobody who came here by accident installs anything
    console.send(ENTER)
    console.expect_prompt(r"Custom URL Menu", 30)
    console.send(ENTER)
    console.expect_prompt(r"Back to netboot\.xyz", 30)
    console.send(b"i")
    words = ready(machine)
    assert words[-2:] == ["lab.added=1", "quiet"]
    assert "boot=netinstall" in words


def tiny_site(
    bench: Bench, tables: Mapping[str, Any] | None = None, *, proxy: bool = False
) -> tuple[Namespace, Site]:
    """A network with a site whose guest says its command line."""
    network = bench.namespace()
    bench.router(network, dhcp=proxy)
    image = tiny_image(bench.folder / "tiny", TINY)
    site = Site(network, bench.folder / "site", bench.web_on(network), tables or {}, image)
    site.render("ipxe")
    return network, site


def start(machine: Machine, chain: Chain, network: Namespace) -> None:
    """Where the ROM is iPXE, let it do what a plain one does."""
    if chain.firmware != "bios":
        return
    ipxe.prompt(machine.console)
    ipxe.command(machine.console, "dhcp")
    ipxe.type_line(machine.console, f"chain tftp://{network.server_address}/{chain.loader}")


def fetched(site: Site, dnsmasq: process.Server, chain: Chain) -> None:
    """The loader came over the protocol that is meant, and after it the site's script."""
    site.web.wait_for_request("/ipxe/boot[.]ipxe", 180, complete=True)
    sent = re.findall(r"sent \S+/([^/ ]+) to", dnsmasq.said.text)
    assert set(sent) == (set() if chain.by == "http" else {chain.loader})
    if chain.by == "http":
        site.web.wait_for_request(f"/{chain.loader}", 0, method="GET", complete=True)


def ready(machine: Machine) -> list[str]:
    """The kernel arguments with which the tiny guest came up."""
    said = machine.console.expect(r"READY (.*)", 180)
    machine.kill()
    return said[1].split()
