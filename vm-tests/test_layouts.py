"""Other file systems, layouts and disks than those of the main installation."""

from __future__ import annotations

import json

import pytest
from lab import disk, report
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.slow]

FAILURES = [r"INSTALLATION FAILED"]

PREBUILT_XFS = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"

[system]
install = "prebuilt"

[network]
mode = "dhcp"

[[disks]]
match = { transport = "nvme", serial = "NVME-4K" }

[[disks.partitions]]
size = "rest"
mount = "/"
filesystem = "xfs"
label = "nixos"
"""


@pytest.mark.loop
def test_the_prebuilt_system_on_xfs_on_a_disk_of_4096_byte_sectors(bench: Bench) -> None:
    server = BootServer(bench.web)
    server.answers(PREBUILT_XFS)
    target = bench.disk("4G", bus="nvme", sector=4096, serial="NVME-4K")
    vm = Vm(
        firmware="uefi",
        memory=1024,
        disks=(target,),
        nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname="rack8")),),
    )
    machine = bench.boot(vm)
    machine.console.expect(r"INSTALLED in", 400, fail_on=FAILURES)
    assert machine.wait_for_exit(60) == "reboot"

    events = server.web.reports
    kinds = [event["kind"] for event in events]
    first = {kind: kinds.index(kind) for kind in reversed(kinds)}
    assert first["observed"] < first["planned"] < first["step-started"] < first["step-finished"]
    assert kinds[-1] == "finished"
    started = [one["step"] for one in events if one["kind"] == "step-started"]
    assert [one["step"] for one in events if one["kind"] == "step-finished"] == started
    assert list(events[-1]["phases"]) == started
    planned = events[first["planned"]]
    assert [chosen["serial"] for chosen in planned["plan"]["chosen"]] == ["NVME-4K"]

    table = disk.table(target.image, 4096)
    assert [part.start % (1 << 20) for part in table.partitions] == [0, 0]
    with disk.mounted(target.image, table.partitions[1], "xfs", 4096) as root:
        log = root / "var/log/netinstall"
        assert "WILL BE DESTROYED" in (log / "log.txt").read_text()
        logged = [json.loads(line) for line in (log / "log.jsonl").read_text().splitlines()]
        assert logged[0]["kind"] == "observed"

    up = report.wait(bench.boot(vm.without_network_boot()).console, 180)
    assert up["configured_from"] == "prebuilt"
    assert up["booted_via"] == "uefi"
    assert up["hostname"] == "rack8"
    assert up["network"]["mode"] == "dhcp"
    assert up["nix"]["verify"] == "ok"
    mounts = {row["mount"]: row for row in up["mounts"]}
    assert mounts["/"]["fstype"] == "xfs"
    assert mounts["/"]["device"].startswith("/dev/nvme0n1p")
    assert f'"/dev/disk/by-uuid/{mounts["/"]["uuid"]}"' in up["hardware_configuration"]
    assert "useDHCP = true;" in up["networking_nix"]


REBUILT_BTRFS = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"
verify = "stream"

[system]
install = "rebuild"
verify-store = true

[network]
mode = "dhcp"
hostname = "rack9"

[[disks]]
match = { model = "SYSTEM*", rotational = false }

[[disks.partitions]]
size = "2 GiB"
mount = "/"
filesystem = "btrfs"

[[disks.partitions]]
size = "rest"
mount = "/nix"

[[disks]]
match = { model = "HOME*", rotational = true }

[[disks.partitions]]
size = "50 %"
mount = "/home"
filesystem = "xfs"
"""


def test_a_rebuilt_system_on_btrfs_with_nix_and_home_elsewhere(bench: Bench) -> None:
    server = BootServer(bench.web)
    server.answers(REBUILT_BTRFS)
    vm = Vm(
        firmware="uefi",
        memory=1024,
        disks=(
            bench.disk("4G", bus="scsi", serial="S-1", model="SYSTEM-SSD", rotational=False),
            bench.disk("2G", bus="scsi", serial="H-1", model="HOME-DISK", rotational=True),
        ),
        nics=(Nic(UserNetwork(bootfile=server.ipxe())),),
    )
    machine = bench.boot(vm)
    machine.console.expect(r"INSTALLED in", 400, fail_on=FAILURES)
    assert machine.wait_for_exit(60) == "reboot"

    up = report.wait(bench.boot(vm.without_network_boot()).console, 180)
    assert up["configured_from"] == "rebuilt"
    assert up["hostname"] == "rack9"
    assert up["network"]["mode"] == "dhcp"
    assert up["nix"]["verify"] == "ok"
    mounts = {row["mount"]: row for row in up["mounts"]}
    kinds = {mount: row["fstype"] for mount, row in mounts.items()}
    assert kinds.items() >= {"/": "btrfs", "/nix": "ext4", "/home": "xfs", "/boot": "vfat"}.items()
    for row in mounts.values():
        assert f'"/dev/disk/by-uuid/{row["uuid"]}"' in up["hardware_configuration"]
