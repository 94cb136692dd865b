"""A blank machine boots from the network, is installed, and runs its NixOS."""

from __future__ import annotations

from typing import Literal

import pytest
from lab import answers, disk, report
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = pytest.mark.vm

ANSWERS = answers.one_disk(install="rebuild", network="static-from-lease", partitions=answers.SWAP)

FAILURES = [r"INSTALLATION FAILED"]


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
def test_a_blank_machine_is_installed_over_http(
    bench: Bench, firmware: Literal["uefi", "bios"]
) -> None:
    server = BootServer(bench.web)
    server.answers(ANSWERS)
    target = bench.disk("4G", serial="netinstall-root")
    other = bench.disk("1G", serial="somebody-elses", canary=True)
    before = disk.fingerprint(other.image)
    vm = Vm(
        firmware=firmware,
        memory=1024,
        # SeaBIOS tries the first disk only
        disks=(target, other),
        nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname="rack7.example.test")),),
    )
    machine = bench.boot(vm)
    console = machine.console
    console.expect(r"WILL BE DESTROYED", 240, fail_on=FAILURES)
    console.expect(r"because serial is somebody-elses, not netinstall-root", 10)
    console.expect(r"\[#+-*\] +\d+ % .*MiB/s", 60, fail_on=FAILURES)
    console.expect(r"INSTALLED in", 400, fail_on=FAILURES)
    assert machine.wait_for_exit(60) == "reboot"
    assert disk.fingerprint(other.image) == before

    installed = bench.boot(vm.without_network_boot())
    up = report.wait(installed.console, 180)
    assert up["booted_via"] == firmware
    assert up["configured_from"] == "rebuilt"
    assert up["hostname"] == "rack7"
    assert up["network"]["mode"] == "static"
    (nic,) = up["network"]["interfaces"].values()
    assert nic["addresses"] == ["10.0.2.15/24"]
    assert up["network"]["nameservers"] == ["10.0.2.3"]
    assert up["nix"]["verify"] == "ok"

    mounts = {row["mount"]: row for row in up["mounts"]}
    assert mounts["/"]["fstype"] == "ext4"
    assert ("/boot" in mounts) == (firmware == "uefi")
    hardware = up["hardware_configuration"]
    for row in [*up["mounts"], *up["swaps"]]:
        assert f'"/dev/disk/by-uuid/{row["uuid"]}"' in hardware
    assert 'address = [ "10.0.2.15/24" ];' in up["networking_nix"]
    assert disk.fingerprint(other.image) == before
