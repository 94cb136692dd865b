"""GRUB on UEFI machines: found by TFTP, told by load-kernel files, and what it boots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from lab import answers, image, report, tiny
from lab.bench import Bench
from lab.site import Site, link
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:07"
UUID = "4c4c4544-0042-3510-8052-b4c04f4e3132"
KNOWN = {"mac": MAC, "ip": "192.0.2.77", "hostname": "rack7"}

# what the kernel was told, on one line
INIT = 'echo "TOLD $(cat /proc/cmdline)" >/dev/ttyS0\npoweroff -f\n'
SAYS = "console=ttyS0,115200"


def _site(bench: Bench, tables: Mapping[str, Any], port: int = 0) -> Site:
    """A site whose UEFI machines load GRUB, and whose image is fetched by TFTP as nixos/bzImage."""
    network = bench.namespace()
    image = {"name": "netinstall", "folder": "nixos", "kernel": "bzImage", "root": "lease"}
    common: dict[str, Any] = {
        "tftp": {"uefi": "bootx64.efi"},
        "images": [image],
        "grub": {},
        "nfs": {"server": network.server_address, "path": "/srv/nowhere"},
    }
    return Site(network, bench.folder, bench.web_on(network, port), common | dict(tables))


def _machine(site: Site, **fields: Any) -> Vm:
    nic = Nic(site.network.tap(), MAC, rom="none")
    return Vm(firmware="uefi", nics=(nic,), **{"memory": 512, **fields})


def _publish_tiny(site: Site) -> None:
    """Put the smallest kernel and initrd where the site's image is."""
    for root in (site.tftp, site.http):
        link(tiny.vmlinuz(), root / "nixos/bzImage")
        link(tiny.initrd(INIT, modules=()), root / "nixos/initrd")
    site.web.publish_folder("", site.http)


ANSWERS = answers.one_disk(install="rebuild", network="static-from-lease")

LOCAL = """\
search --no-floppy --set=root --file /EFI/BOOT/BOOTX64.EFI
chainloader /EFI/BOOT/BOOTX64.EFI
boot
"""
"""What docs/boot-grub.md shows for a machine that has the network first in its boot order."""


@pytest.mark.slow
@pytest.mark.parametrize("server", ["dnsmasq", "dhcpd"])
def test_a_blank_machine_is_installed(bench: Bench, server: str) -> None:
    """DHCP, GRUB by TFTP, its own load-kernel file, kernel and initrd by TFTP, the NFS root of
    option 17, the overlay, the installation; then its disk, by the firmware and through GRUB."""
    site = _site(
        bench,
        {
            "nfs": {
                "server": "192.0.2.1",
                "path": str(image.folder() / "root"),
                "root-squash": False,
                "mount-options": ["vers=4.1"],
            },
            "hosts": [{**KNOWN, "arguments": ["marker=host"]}],
            "kernel": {"arguments": ["marker=all"]},
            "grub": {"server": "loader" if server == "dnsmasq" else "option-66"},
        },
    )
    site.answers(ANSWERS)
    for name, source in (("bzImage", "vmlinuz"), ("initrd", "initrd")):
        link(site.image / source, site.tftp / "nixos" / name)
    site.loader()
    default = site.tftp / "load-kernel.cfg"
    default.write_text("echo THE-DEFAULT\n" + default.read_text())
    if server == "dnsmasq":
        site.dnsmasq()
    else:
        site.dhcpd()
        site.tftp_server()
    site.ganesha()
    vm = _machine(site, memory=1024, disks=(bench.disk("4G", serial="netinstall-root"),))
    machine = bench.boot(vm)
    console = machine.console
    # GRUB writes on the serial port and on the firmware's console, which is the same one here
    card = "efinet0" if server == "dnsmasq" else "efinet0_dhcp"
    console.expect(rf"netinstall: {card} {MAC}", 300)
    console.expect(r"netinstall: address 192\.0\.2\.77, name rack7", 60)
    console.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg", 60)
    console.expect(r"Kernel command line: .*BOOTIF=52:54:00:00:00:07 .*marker=host", 300)
    assert "THE-DEFAULT" not in console.text
    console.expect(r"the root is read-only, overlayfs makes it writable in memory", 600)
    console.expect(r"INSTALLED in", 1200, fail_on=[r"INSTALLATION FAILED"])
    assert machine.wait_for_exit(120) == "reboot"

    up = report.wait(bench.boot(vm.without_network_boot()).console, 600)
    assert up["booted_via"] == "uefi"
    assert up["hostname"] == "rack7"
    assert up["network"]["mode"] == "static"
    (nic,) = up["network"]["interfaces"].values()
    assert "192.0.2.77/24" in nic["addresses"]
    assert up["nix"]["verify"] == "ok"
    if server == "dnsmasq":
        _boots_its_disk_through_grub(bench, site, vm)


def _boots_its_disk_through_grub(bench: Bench, site: Site, vm: Vm) -> None:
    (site.tftp / f"load-kernel-{MAC}.cfg").write_text(LOCAL)
    bench.machines[-1].kill()
    again = bench.boot(replace(vm, boot=("network", "disk"))).console
    again.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg", 300)
    assert report.wait(again, 600)["hostname"] == "rack7"


@pytest.mark.parametrize(
    ("file", "tables"),
    [
        ("load-kernel-192.0.2.77.cfg", {"grub": {"fetch": "http"}}),
        ("load-kernel-rack7.cfg", {}),
        (f"load-kernel-{UUID}.cfg", {}),
        ("load-kernel.cfg", {}),
    ],
)
def test_a_machine_finds_its_own_file(bench: Bench, file: str, tables: Mapping[str, Any]) -> None:
    kernel = {"arguments": [SAYS]}
    host = {**KNOWN, "uuid": UUID, "arguments": ["marker=host"]}
    site = _site(bench, {"kernel": kernel, "hosts": [host], "serial": None, **tables}, port=80)
    _publish_tiny(site)
    site.loader()
    # of this machine's files only one, so that it is found by this and not by another
    for other in site.tftp.glob("load-kernel-*.cfg"):
        if other.name != file:
            other.unlink()
    site.dnsmasq()
    console = bench.boot(_machine(site, smbios_uuid=UUID)).console
    console.expect(rf"netinstall: efinet0 {MAC}", 240)
    console.expect(r"netinstall: address 192\.0\.2\.77, name rack7", 30)
    console.expect(r"netinstall: server 192\.0\.2\.1, prefix \(memdisk\)/boot/grub", 30)
    console.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/{re.escape(file)}", 30)
    told = console.expect(r"TOLD (.*)", 240)[1].split()
    assert f"BOOTIF={MAC}" in told
    assert ("marker=host" in told) == (file != "load-kernel.cfg")
    by_http = [one.path for one in site.web.requests]
    assert ("/nixos/bzImage" in by_http) == ("/nixos/initrd" in by_http) == ("grub" in tables)


@pytest.mark.slow
def test_what_is_missing_or_broken_is_tried_again_and_then_the_machine_starts_anew(
    bench: Bench,
) -> None:
    kernel = {"arguments": [SAYS]}
    site = _site(bench, {"kernel": kernel, "serial": None})
    site.loader()
    mine, default = site.tftp / f"load-kernel-{MAC}.cfg", site.tftp / "load-kernel.cfg"
    default.unlink()
    site.dnsmasq()
    machine = bench.boot(_machine(site))
    console = machine.console
    console.expect(rf"netinstall: efinet0 {MAC}", 240)
    console.expect(r"netinstall: no load-kernel\.cfg on \(tftp,192\.0\.2\.1\)", 30)
    # while it waits somebody writes the file, with a mistake
    default.write_text("echo THE-DEFAULT\n")
    mine.write_text("if true; the\nboot\n")
    console.expect(r"netinstall: waiting 5 s", 30)
    # GRUB measures the clock in 10 ms at its start: on a busy host its seconds may last many times
    # as long
    console.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg", 300)
    console.expect(r"error: syntax error", 30)
    console.expect(rf"netinstall: \(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg\s+did not boot", 30)
    console.expect(r"netinstall: giving up, this machine starts again", 1200)
    assert machine.wait_for_exit(60) == "reboot"
    # its own file is broken: that of all others is not for it
    assert "THE-DEFAULT" not in console.text


@pytest.mark.parametrize("loaded", [True, False], ids=["initrd", "no-initrd"])
def test_dhcpd_names_the_server_by_option_66(bench: Bench, loaded: bool) -> None:
    grub = {"server": "option-66", "interface": "efinet0"}
    kernel = {"arguments": [SAYS]}
    site = _site(bench, {"kernel": kernel, "hosts": [KNOWN], "serial": None, "grub": grub})
    _publish_tiny(site)
    if not loaded:
        (site.tftp / "nixos/initrd").unlink()
    site.loader()
    site.dhcpd()
    site.tftp_server()
    console = bench.boot(_machine(site)).console
    console.expect(rf"netinstall: efinet0_dhcp {MAC}", 240)
    console.expect(r"netinstall: address 192\.0\.2\.77, name rack7", 30)
    console.expect(r"netinstall: server 192\.0\.2\.1, prefix ", 30)
    console.expect(rf"efinet0:dhcp {MAC} 192\.0\.2\.77", 30)
    console.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg", 60)
    if loaded:
        assert f"BOOTIF={MAC}" in console.expect(r"TOLD (.*)", 240)[1].split()
    else:
        # a kernel without its initrd would panic, and stay there
        console.expect(r"(?s)error: file\s.*?not\s+found", 120)
        console.expect(rf"load-kernel-{MAC}\.cfg\s+did not boot", 30, [r"Linux version"])


def test_uefi_http_boot_leaves_grub_without_an_address(bench: Bench) -> None:
    kernel = {"arguments": [SAYS]}
    site = _site(bench, {"kernel": kernel, "hosts": [KNOWN], "serial": None})
    _publish_tiny(site)
    link(site.loader(), site.http / "bootx64.efi")
    site.web.publish_folder("", site.http)
    site.dnsmasq()
    # OvmfPkg/RUNTIME_CONFIG.md
    no_pxe = tuple((f"opt/org.tianocore/IPv{version}PXESupport", "n") for version in (4, 6))
    console = bench.boot(_machine(site, fw_cfg=no_pxe)).console
    console.expect(rf"netinstall: efinet0_dhcp {MAC}", 240)
    console.expect(r"netinstall: address 192\.0\.2\.77, name rack7", 30)
    console.expect(rf"netinstall: reading\s+\(tftp,192\.0\.2\.1\)/load-kernel-{MAC}\.cfg", 60)
    assert f"BOOTIF={MAC}" in console.expect(r"TOLD (.*)", 240)[1].split()
