"""Machines that start from what storage people really have: mirrors, encryption, volumes.

Where examples/ has such a layout, that file is what is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from lab import report, sample
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.tpm import Tpm
from lab.vm import Machine, Nic, Vm

pytestmark = pytest.mark.vm

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# the last is where systemd would end in emergency mode
FAILURES = [
    r"INSTALLATION FAILED",
    r"^stage 1: .*(no device|cannot|stays locked).*",
    r"^start: cannot mount .*",
]
PASSPHRASE = "correct horse battery"
ASKED = r"Enter passphrase for \S+: $"

# what the payload holds ready built knows neither arrays nor LUKS
REBUILD = """
[system]
install = "rebuild"
"""

Firmware = Literal["bios", "uefi"]


def example(name: str) -> str:
    """An answer file of examples/, with the payload and the keys of this scenario."""
    text = (EXAMPLES / f"{name}.toml").read_text()
    text = re.sub(r'^url = ".*"$', 'url = "@URL@"', text, flags=re.MULTILINE)
    text = re.sub(r'^sha256 = ".*"$', 'sha256 = "@SHA256@"', text, flags=re.MULTILINE)
    return text if "[system]" in text else text + REBUILD


def install(bench: Bench, vm: Vm, answers: str) -> Vm:
    """Install over the network; return the machine with the network out of its boot order."""
    server = BootServer(bench.web, payload=sample.tarball("storage"))
    key = bench.web.publish("/key", f"{PASSPHRASE}\n")
    server.answers(re.sub(r"http://boot\.example\.net/keys/[a-z0-9-]+", key, answers))
    vm = replace(vm, nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname="box")),))
    machine = bench.boot(vm)
    machine.console.expect(r"INSTALLED in", 900, fail_on=FAILURES)
    assert machine.wait_for_exit(120) == "reboot"
    return vm.without_network_boot()


def came_up(machine: Machine) -> dict[str, Any]:
    """The system's report; the machine is off afterwards, and its disks clean."""
    up = report.wait(machine.console, 400, FAILURES)
    assert up["configured_from"] == "rebuilt"
    assert up["nix"]["verify"] == "ok"
    machine.console.expect(r"SAMPLE-UP", 60)
    machine.console.expect_prompt(r"# $", 60)
    machine.console.send_line("poweroff")
    assert machine.wait_for_exit(120) == "poweroff"
    return up


def below(up: dict[str, Any], mount: str) -> list[list[str]]:
    """What is under a mount point, layer by layer: the types of the devices, sorted."""
    rows = {row["name"]: row for row in up["blocks"]}
    labels = {row["label"]: row["name"] for row in up["blocks"]}
    (device,) = [row["device"] for row in up["mounts"] if row["mount"] == mount]
    name = device.rpartition("/")[2]
    layer = {name if name in rows else labels[name]}
    found = []
    while layer:
        found.append(sorted(rows[one]["type"] for one in layer))
        layer = {parent for one in layer for parent in rows[one]["parents"]}
    return found


@pytest.mark.parametrize("firmware", ["uefi", pytest.param("bios", marks=pytest.mark.slow)])
def test_a_mirror_boots_with_each_of_its_disks(bench: Bench, firmware: Firmware) -> None:
    one, two = bench.disk("4G", serial="one"), bench.disk("4G", serial="two")
    vm = Vm(firmware=firmware, memory=1024, disks=(one, two))
    vm = install(bench, vm, example("raid1-mirrored-esp"))

    up = came_up(bench.boot(vm))
    assert below(up, "/") == [["raid1"], ["part", "part"], ["disk", "disk"]]
    assert [row["degraded"] for row in up["arrays"]] == [0]
    assert "boot.swraid.enable = true;" in up["hardware_configuration"]
    if firmware == "uefi":
        assert {"/boot", "/boot-2"} <= {row["mount"] for row in up["mounts"]}

    # the second is out of date for the first after this, so it is the last that is asked
    for pulled in (two, one):
        up = came_up(bench.boot(vm.without(pulled)))
        assert below(up, "/") == [["raid1"], ["part"], ["disk"]]
        assert [row["degraded"] for row in up["arrays"]] == [1]


@contextmanager
def with_tpm(vm: Vm, folder: Path) -> Iterator[Vm]:
    """The machine with the TPM whose state is in `folder`."""
    with Tpm(folder) as tpm:
        yield replace(vm, extra=tpm.extra)


@pytest.mark.slow
def test_a_tpm_unlocks_the_root_and_a_passphrase_without_it(bench: Bench) -> None:
    vm = Vm(firmware="uefi", memory=1024, disks=(bench.disk("4G", serial="LUKS-1"),))
    own = bench.folder / "tpm"
    with with_tpm(vm, own) as board:
        installed = install(bench, board, example("luks-tpm2"))

    with with_tpm(installed, own) as board:
        machine = bench.boot(board)
        machine.console.expect(r"is unlocked as root", 300, fail_on=[*FAILURES, ASKED])
        up = came_up(machine)
    assert below(up, "/") == [["crypt"], ["part"], ["disk"]]
    assert 'luks.devices."root".device = "/dev/disk/by-uuid/' in up["hardware_configuration"]
    (header,) = [row["header"] for row in up["luks"]]
    tokens = sorted(token["type"] for token in header["tokens"].values())
    assert tokens == ["systemd-recovery", "systemd-tpm2"]
    # swap with a key that nobody keeps
    (swap,) = up["swaps"]
    assert swap["device"].startswith("/dev/mapper/dev-disk-by-partuuid-")

    # another TPM, as after a change of the board
    with with_tpm(installed, bench.folder / "another-tpm") as board:
        machine = bench.boot(board)
        machine.console.expect_prompt(ASKED, 300, FAILURES)
        machine.console.send_line(PASSPHRASE)
        came_up(machine)
    machine = bench.boot(replace(installed, extra=()))
    machine.console.expect_prompt(ASKED, 300, FAILURES)
    machine.console.send_line(PASSPHRASE)
    came_up(machine)


THIN_ON_LUKS = f"""
version = 1
{REBUILD}

[payload]
url = "@URL@"
sha256 = "@SHA256@"

[[disks]]
match = {{ transport = "nvme", serial = "NVME-4K" }}

[[disks.partitions]]
name = "pv"
size = "rest"
luks = {{ name = "crypt", passphrase = "http://boot.example.net/keys/nvme", discard = true }}

[[lvm]]
name = "vg0"
members = ["pv"]

[[lvm.volumes]]
name = "pool"
size = "rest"
thin-pool = true

[[lvm.volumes]]
name = "root"
size = "6 GiB"
pool = "pool"
mount = "/"
filesystem = "xfs"

[[swap-files]]
path = "/swapfile"
size = "64 MiB"
"""


@pytest.mark.slow
def test_a_thin_volume_on_luks_on_nvme_with_4096_byte_sectors(bench: Bench) -> None:
    target = bench.disk("4G", bus="nvme", sector=4096, serial="NVME-4K")
    vm = install(bench, Vm(firmware="uefi", memory=1024, disks=(target,)), THIN_ON_LUKS)
    machine = bench.boot(vm)
    machine.console.expect_prompt(ASKED, 300, FAILURES)
    machine.console.send_line(PASSPHRASE)
    up = came_up(machine)
    assert below(up, "/")[0] == ["lvm"]
    assert below(up, "/")[-3:] == [["crypt"], ["part"], ["disk"]]
    assert [row["device"] for row in up["swaps"]] == ["/swapfile"]


@pytest.mark.slow
def test_btrfs_subvolumes_on_two_disks(bench: Bench) -> None:
    one, two = bench.disk("4G", serial="one"), bench.disk("4G", serial="two")
    vm = Vm(firmware="uefi", memory=1024, disks=(one, two))
    up = came_up(bench.boot(install(bench, vm, example("btrfs-two-disks"))))
    kinds = {row["mount"]: row["fstype"] for row in up["mounts"]}
    assert kinds.items() >= {"/": "btrfs", "/nix": "btrfs", "/home": "btrfs"}.items()
    assert len({row["uuid"] for row in up["mounts"] if row["fstype"] == "btrfs"}) == 1
    assert 'options = [ "subvol=@nix" ];' in up["hardware_configuration"]
    assert '"compress=zstd"' in up["storage_nix"]


@pytest.mark.slow
def test_a_hybrid_disk_boots_by_either_firmware(bench: Bench) -> None:
    vm = Vm(firmware="uefi", memory=1024, disks=(bench.disk("4G", serial="HYBRID-1"),))
    vm = install(bench, vm, example("hybrid-boot"))
    for firmware in ("uefi", "bios"):
        up = came_up(bench.boot(replace(vm, firmware=firmware)))
        assert up["booted_via"] == firmware


# metadata 1.0 lies at the end, so that a member looks like the file system itself
HYBRID_MIRROR = f"""
version = 1
{REBUILD}
[payload]
url = "@URL@"
sha256 = "@SHA256@"

[[disks]]
match = {{ transport = "virtio" }}
count = 2
partitions = [
  {{ type = "bios-boot", size = "1 MiB" }},
  {{ type = "esp", size = "300 MiB" }},
  {{ name = "half", size = "rest" }},
]

[[raid]]
name = "root"
level = 1
metadata = "1.0"
members = ["half"]
mount = "/"
"""


@pytest.mark.slow
def test_the_second_disk_of_a_hybrid_mirror_boots_alone_by_either_firmware(bench: Bench) -> None:
    one, two = bench.disk("4G", serial="one"), bench.disk("4G", serial="two")
    vm = install(bench, Vm(firmware="bios", memory=1024, disks=(one, two)), HYBRID_MIRROR)
    for firmware in ("bios", "uefi"):
        up = came_up(bench.boot(replace(vm, firmware=firmware).without(one)))
        assert up["booted_via"] == firmware
        assert [row["degraded"] for row in up["arrays"]] == [1]
