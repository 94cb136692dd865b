"""The server dies while the system is unpacked: retries, a report, and a disk that cannot boot."""

from __future__ import annotations

from typing import Literal

import pytest
from lab import agent
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Machine, Nic, Vm

pytestmark = pytest.mark.vm

ANSWERS = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"
retry-seconds = @RETRY@

[[disks]]
match = { serial = "netinstall-root" }

[[disks.partitions]]
size = "rest"
mount = "/"
label = "nixos"

[finish]
on-success = "poweroff"
"""

PAYLOAD = "/system[.]tar[.]zst"
NOTHING_TO_BOOT = {"bios": r"No bootable device", "uefi": r"BdsDxe: .*Shell"}


def boot(
    bench: Bench, firmware: Literal["bios", "uefi"], retry_seconds: int, arguments: str = ""
) -> tuple[BootServer, Machine]:
    """A machine in the middle of unpacking, the second time that it reads the payload."""
    server = BootServer(bench.web, arguments=arguments)
    server.answers(ANSWERS.replace("@RETRY@", str(retry_seconds)))
    vm = Vm(
        firmware=firmware,
        memory=1024,
        disks=(bench.disk("4G", serial="netinstall-root"),),
        nics=(Nic(UserNetwork(bootfile=server.ipxe())),),
    )
    machine = bench.boot(vm)
    server.web.wait_for_request(PAYLOAD, 240, method="GET", complete=True)
    # slow enough to be stopped in the middle
    server.web.pace(4_000_000)
    server.web.wait_for_request(PAYLOAD, 120, method="GET", skip=1, sent=20_000_000)
    return server, machine


@pytest.mark.parametrize(
    ("firmware", "ending"),
    [("bios", "shell"), pytest.param("uefi", "reboot", marks=pytest.mark.slow)],
)
def test_the_server_dies_for_good(
    bench: Bench, firmware: Literal["bios", "uefi"], ending: Literal["shell", "reboot"]
) -> None:
    arguments = "netinstall.on-failure=reboot netinstall.failure-delay=5"
    server, machine = boot(bench, firmware, 8, arguments if ending == "reboot" else "")
    server.web.stop()
    console = machine.console
    console.expect(r"retry 2 in", 60)
    failed = console.expect(r"(?s)INSTALLATION FAILED.*?\n\+=+\+\n", 60)
    said = agent.prose(failed[0])
    assert "and nothing more came in 8.0 s" in said
    assert "error network.lost" in said
    assert "the disks were already being changed; this machine cannot boot from them" in said
    assert "exit 6 (" in said
    if ending == "shell":
        console.expect_prompt(agent.PROMPT, 60)
        shell = agent.Agent(machine, server)
        assert '"kind": "failed"' in shell.run("tail -n 1 /run/netinstall/log.jsonl", 20)[0]
        assert shell.run("ls /mnt", 20) == ("", 0)
        # as a power cut would: nothing is tidied up
        machine.kill()
    else:
        console.expect(r"reboot in 5 s", 30)
        assert machine.wait_for_exit(60) == "reboot"

    # the disk does not keep the machine from coming back
    again = bench.boot(machine.vm)
    again.console.expect(r"Open Source Network Boot Firmware", 60)
    again.kill()
    alone = bench.boot(machine.vm.without_network_boot())
    alone.console.expect(NOTHING_TO_BOOT[firmware], 60, fail_on=[r"Linux version .*", r"GRUB.*"])


@pytest.mark.slow
def test_the_server_comes_back_in_time(bench: Bench) -> None:
    server, machine = boot(bench, "bios", 120)
    server.web.stop()
    machine.console.expect(r"retry 2 in", 60)
    server.web.pace(None)
    server.web.start()
    machine.console.expect(r"INSTALLED in", 300, fail_on=[r"INSTALLATION FAILED"])
    assert machine.wait_for_exit(60) == "poweroff"
    resumed = server.web.wait_for_request(PAYLOAD, 0, method="GET", skip=2, complete=True)
    assert resumed.status == 206
    assert resumed.range is not None
    assert int(resumed.range.removeprefix("bytes=").removesuffix("-")) >= 10_000_000
