"""A blank machine boots from the network, is installed, and runs its NixOS."""

from __future__ import annotations

from typing import Literal

import pytest
from lab import report
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = pytest.mark.vm

ANSWERS = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"

[system]
install = "rebuild"

[network]
mode = "static-from-lease"

[[disks]]
match = { serial = "netinstall-root" }

[[disks.partitions]]
size = "256 MiB"
type = "swap"
label = "swap"

[[disks.partitions]]
size = "rest"
mount = "/"
label = "nixos"
"""

FAILURES = [r"INSTALLATION FAILED"]


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
def test_a_blank_machine_is_installed_over_http(
    bench: Bench, firmware: Literal["uefi", "bios"]
) -> None:
    server = BootServer(bench.web)
    server.answers(ANSWERS)
    network = UserNetwork(bootfile=server.ipxe(), hostname="rack7")
    target = bench.disk("4G", serial="netinstall-root")
    vm = Vm(firmware=firmware, memory=1024, disks=(target,), nics=(Nic(network),))
    machine = bench.boot(vm)
    machine.console.expect(r"WILL BE DESTROYED", 240, fail_on=FAILURES)
    machine.console.expect(r"INSTALLED in", 400, fail_on=FAILURES)
    assert machine.wait_for_exit(60) == "reboot"

    installed = bench.boot(vm.without_network_boot())
    up = report.wait(installed.console, 180)
    print(up)
    assert up["hostname"] == "rack7"
    assert up["booted_via"] == firmware
    assert up["configured_from"] == "rebuilt"
    assert up["network"]["mode"] == "static"
    assert up["nix"]["verify"] == "ok"
