"""Real boots of the smallest thing: they prove the lab, and nothing of the installer."""

from __future__ import annotations

from typing import Literal

import pytest
from lab import tiny
from lab.bench import Bench
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = pytest.mark.vm

INIT = """
echo "LAB-HELLO $(cat /proc/cmdline)"
echo "LAB-DISKS $(cd /sys/block && echo *)"
read -r answer
echo "LAB-ANSWER $answer"
reboot -f
"""

IPXE = """#!ipxe
kernel vmlinuz initrd=initrd console=ttyS0 hostname=${hostname} mac=${net0/mac}
initrd initrd
boot
"""


def publish_tiny(bench: Bench) -> str:
    bench.web.publish("/vmlinuz", tiny.vmlinuz())
    bench.web.publish("/initrd", tiny.initrd(INIT))
    return bench.web.publish("/boot.ipxe", IPXE)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_ipxe_http(bench: Bench, firmware: Literal["bios", "uefi"]) -> None:
    network = UserNetwork(bootfile=publish_tiny(bench), hostname="lab-guest")
    vm = Vm(firmware=firmware, disks=(bench.disk("64M"),), nics=(Nic(network),))
    machine = bench.boot(vm)
    said = machine.console.expect(r"LAB-HELLO (.*)", 120)
    assert "hostname=lab-guest mac=52:54:00:00:00:01" in said[1]
    machine.console.expect(r"LAB-DISKS .*vda", 20)
    machine.console.send_line("typed")
    machine.console.expect(r"LAB-ANSWER typed", 20)
    assert machine.wait_for_exit(30) == "reboot"
    assert bench.web.wait_for_request("/initrd", 0, complete=True).status == 200
