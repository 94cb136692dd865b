"""The disk fails while the system is written: told with step and device, and nothing boots."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from lab import agent, answers, process, sample, signing
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Bus, Disk, Machine, Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

TARBALL = answers.from_source('[payload]\nurl = "@URL@"\nsha256 = "@SHA256@"\nverify = "stream"')
SQUASHFS = answers.from_source('[payload]\nsquashfs = "@URL@"\nsha256 = "@SHA256@"')
PAYLOAD = "/system[.]tar[.]zst"
NOTHING_TO_BOOT = {"bios": r"No bootable device", "uefi": r"BdsDxe: .*Shell"}
UNPACKING = "unpack http://"
LOADER = "install the boot loader"


@dataclass(frozen=True)
class Fault:
    """What happens to the disk in which step, and what has to be said about it."""

    happen: Callable[[Machine], None]
    says: tuple[str, ...]
    step: str = UNPACKING
    bus: Bus = "virtio"


def io_errors(machine: Machine) -> None:
    machine.break_disk(0, errno.EIO)


def one_io_error(machine: Machine) -> None:
    machine.break_disk(0, errno.EIO, once=True)


def no_space(machine: Machine) -> None:
    machine.break_disk(0, errno.ENOSPC)


FAILS = "the disk {node} (serial netinstall-root) fails: reading or writing it gave errors"
FULL = "the disk {node} (serial netinstall-root) takes no more: the storage that it lies on has no"
FAULTS = {
    # in the end, ext4 cannot write its journal
    "io-errors": Fault(
        io_errors, (FAILS, "I/O error, dev vda, sector ", "EXT4-fs error (device vda2)")
    ),
    # nobody asks for what was lost, unless somebody asks
    "one-io-error": Fault(one_io_error, (FAILS, "I/O error, dev vda, sector "), step=""),
    # what a thin volume of a SAN says when its pool is full
    "no-space-on-the-device": Fault(
        no_space, (FULL, "critical space allocation error, dev sda, sector "), bus="scsi"
    ),
    "read-only": Fault(
        Machine.remount_read_only,
        (
            "the file system of / became read-only while it was written to",
            "where /dev/vda2",
            "Read-only file system",
        ),
    ),
    "boot-loader": Fault(io_errors, (FAILS, "I/O error, dev vda, sector "), step=LOADER),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "io-errors" else pytest.mark.slow) for name in FAULTS],
)
def test_a_disk_that_fails_in_the_middle(bench: Bench, name: str) -> None:
    fault = FAULTS[name]
    server = BootServer(bench.web)
    server.answers(TARBALL)
    target = bench.disk("4G", serial="netinstall-root", bus=fault.bus)
    vm = Vm(memory=1024, disks=(target,), nics=(Nic(UserNetwork(bootfile=server.ipxe())),))
    machine = bench.boot(vm)
    console = machine.console
    if fault.step == LOADER:
        console.expect(rf"\] {LOADER}", 400, fail_on=["INSTALLATION FAILED"])
        fault.happen(machine)
    else:
        server.web.wait_for_request(PAYLOAD, 240, method="GET")
        # slow enough to be in the middle
        server.web.pace(4_000_000)
        server.web.wait_for_request(PAYLOAD, 120, method="GET", sent=20_000_000)
        # ext4 commits its journal every 5 s, and then knows
        fault.happen(machine)
    said = failure(machine)
    node = "/dev/sda" if fault.bus == "scsi" else "/dev/vda"
    for text in (fault.step, *fault.says, "error device.io", "exit 5 ("):
        assert text.format(node=node) in said
    # a disk that nothing can be written to keeps what it has, and that is said
    assert ("could not be wiped" in console.text) == (fault.step == LOADER)
    machine.kill()
    require_nothing_boots(bench, vm)


def test_a_file_system_without_room(bench: Bench, tmp_path: Path) -> None:
    """What a squashfs unpacks to is known only when it is unpacked."""
    tree = sample.unpacked(tmp_path / "system")
    image = tmp_path / "system.squashfs"
    options = ["-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress"]
    process.run(["mksquashfs", str(tree), str(image), *options], 300)
    server = BootServer(bench.web, payload=image)
    server.answers(SQUASHFS)
    target = bench.disk("176M", serial="netinstall-root")
    vm = Vm(memory=1024, disks=(target,), nics=(Nic(UserNetwork(bootfile=server.ipxe())),))
    machine = bench.boot(vm)
    said = failure(machine)
    assert UNPACKING in said
    assert "no space left on / (" in said
    assert "MiB on /dev/vda2): " in said
    assert "error payload.too-large" in said
    assert "exit 4 (" in said
    machine.kill()
    require_nothing_boots(bench, vm)


@dataclass(frozen=True)
class PackedFault:
    """What happens to a disk of this file system while several tars write to it."""

    filesystem: Literal["ext4", "xfs", "btrfs"]
    happen: Callable[[Machine], None]
    says: tuple[str, ...]
    bus: Bus = "virtio"


READ_ONLY = (
    # the ESP is mounted when all is unpacked
    "the file system of / became read-only while it was written to",
    "where /dev/vda2",
)
WORDS = {
    "ext4": "EXT4-fs error (device {root})",
    "xfs": "XFS ({root}): ",
    "btrfs": "BTRFS error (device {root}",
}


def packed_faults(filesystem: Literal["ext4", "xfs", "btrfs"]) -> dict[str, PackedFault]:
    words = (FAILS, "I/O error, dev vda, sector ", WORDS[filesystem])
    full = (FULL, "critical space allocation error, dev sda, sector ")
    found = {
        "io-errors": PackedFault(filesystem, io_errors, words),
        "no-space-on-the-device": PackedFault(filesystem, no_space, full, "scsi"),
    }
    # the key passes btrfs by: test_a_btrfs_that_becomes_read_only_under_several_tars
    if filesystem != "btrfs":
        remount = PackedFault(filesystem, Machine.remount_read_only, READ_ONLY)
        found["read-only"] = remount
    return {f"{filesystem}-{kind}": fault for kind, fault in found.items()}


PACKED_FAULTS = {**packed_faults("ext4"), **packed_faults("xfs"), **packed_faults("btrfs")}


def packed(bench: Bench, source: Path, folder: Path, filesystem: str) -> str:
    """Publish a signed payload, packed of `source`; return an answer file that wants it."""
    folder.mkdir()
    signing.packed(source, folder)
    base = bench.web.publish_folder("/packed", folder)
    payload = f'[payload]\nmanifest = "{base}/sample.json"\n'
    payload += f'trust = {{ public-keys = ["{signing.PUBLIC}"] }}'
    return answers.from_source(payload, filesystem=filesystem)


def several_cores(target: Disk) -> Vm:
    return Vm(firmware="uefi", cores=2, memory=1024, disks=(target,))


def wait_for_the_middle(bench: Bench, filesystem: str) -> None:
    bench.web.wait_for_request("/packed/sample[.]tar[.]zst", 240, method="GET")
    # over four lines, half a minute or a whole one: ext4 writes what it must know after 5 s, btrfs
    # and xfs after 30 s
    bench.web.pace(600_000 if filesystem == "ext4" else 250_000)
    bench.web.wait_for_report(
        lambda event: event["kind"] == "step-progress" and event["done"] > 10_000_000, 120
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "ext4-io-errors" else pytest.mark.slow)
        for name in PACKED_FAULTS
    ],
)
def test_a_disk_that_fails_under_several_tars(bench: Bench, tmp_path: Path, name: str) -> None:
    fault = PACKED_FAULTS[name]
    server = BootServer(bench.web)
    server.answers(packed(bench, sample.tarball(), tmp_path / "packed", fault.filesystem))
    vm = several_cores(bench.disk("4G", serial="netinstall-root", bus=fault.bus))
    machine = bench.boot(replace(vm, nics=(Nic(UserNetwork(bootfile=server.ipxe())),)))
    wait_for_the_middle(bench, fault.filesystem)
    fault.happen(machine)
    said = failure(machine)
    disk = "sda" if fault.bus == "scsi" else "vda"
    for text in (UNPACKING, *fault.says, "error device.io", "exit 5 ("):
        assert text.format(node=f"/dev/{disk}", root=f"{disk}2") in said
    require_one_cause(said)
    machine.kill()
    require_nothing_boots(bench, machine.vm)


@pytest.mark.slow
def test_a_btrfs_that_becomes_read_only_under_several_tars(bench: Bench, tmp_path: Path) -> None:
    vm = several_cores(bench.disk("4G", serial="netinstall-root"))
    shell = agent.in_failure_shell(bench, vm)
    wanted = packed(bench, sample.tarball(), tmp_path / "packed", "btrfs")
    url = shell.server.answers(wanted, "case.toml")
    console = shell.machine.console
    console.send_line(f"netinstall install {url} &")
    wait_for_the_middle(bench, "btrfs")
    # a remount is refused while a tar has a file open, and one of them always has
    console.send_line("btrfs property set -t subvol /mnt ro true && echo CHANGED")
    console.expect("^CHANGED", 60)
    failed = console.expect(r"(?s)INSTALLATION FAILED.*?\n\+=+\+\n", 300, fail_on=["INSTALLED in"])
    said = agent.prose(failed[0])
    for text in (UNPACKING, *READ_ONLY, "error device.io", "exit 5 ("):
        assert text in said
    require_one_cause(said)
    shell.machine.kill()
    require_nothing_boots(bench, shell.machine.vm)


@pytest.mark.slow
@pytest.mark.parametrize("happen", [io_errors, one_io_error])
def test_a_disk_that_fails_under_the_esp(
    bench: Bench, tmp_path: Path, happen: Callable[[Machine], None]
) -> None:
    server = BootServer(bench.web)
    server.answers(packed(bench, sample.tarball(), tmp_path / "packed", "ext4"))
    vm = several_cores(bench.disk("4G", serial="netinstall-root"))
    machine = bench.boot(replace(vm, nics=(Nic(UserNetwork(bootfile=server.ipxe())),)))
    machine.console.expect(rf"\] {LOADER}", 400, fail_on=["INSTALLATION FAILED"])
    happen(machine)
    said = failure(machine)
    for text in (LOADER, FAILS, "I/O error, dev vda, sector ", "error device.io", "exit 5 ("):
        assert text.format(node="/dev/vda") in said
    require_one_cause(said)
    # what can be written to keeps no table
    assert ("could not be wiped" in machine.console.text) == (happen is io_errors)
    machine.kill()
    require_nothing_boots(bench, machine.vm)


@pytest.mark.slow
@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_a_file_system_that_fills_up_under_several_tars(
    bench: Bench, tmp_path: Path, filesystem: str
) -> None:
    """Attributes and inodes take room that no manifest counts: file systems differ in how much."""
    tree = sample.unpacked(tmp_path / "system")
    (tree / "srv").mkdir()
    for number in range(80_000):
        file = tree / f"srv/{number}"
        file.touch()
        os.setxattr(file, "user.noise", os.urandom(700))
    server = BootServer(bench.web)
    wanted = packed(bench, tree, tmp_path / "packed", filesystem)
    if filesystem == "ext4":
        # their number is no longer known then, or it would be refused before
        wanted += 'mkfs-options = ["-i", "16384"]\n'
    server.answers(wanted)
    # beside an ESP of 1 GiB
    vm = several_cores(bench.disk("1330M", serial="netinstall-root"))
    machine = bench.boot(replace(vm, nics=(Nic(UserNetwork(bootfile=server.ipxe())),)))
    said = failure(machine)
    assert UNPACKING in said
    which = "for one more file on / (" if filesystem == "ext4" else "on / ("
    assert f"no space left {which}" in said
    assert " on /dev/vda2): " in said
    assert "error payload.too-large" in said
    assert "exit 4 (" in said
    require_one_cause(said)
    machine.kill()
    require_nothing_boots(bench, machine.vm)


def require_one_cause(said: str) -> None:
    """One thing to mend, and what noticed it; no word that makes the archive look broken."""
    follow = said.count(" what because of that: ")
    assert follow <= 1
    assert len(re.findall(r" error [a-z]+[.][a-z-]+ \(", said)) == 1 + follow
    assert said.count("its last words:") <= 1
    assert "Unexpected EOF" not in said


def failure(machine: Machine) -> str:
    """What a person reads on the console at the end."""
    console = machine.console
    failed = console.expect(
        r"(?s)INSTALLATION FAILED.*?\n\+=+\+\n", 300, fail_on=[r"INSTALLED in .*"]
    )
    console.expect_prompt(agent.PROMPT, 120)
    assert "Traceback" not in console.text
    said = agent.prose(failed[0])
    assert "the disks were already being changed; this machine cannot boot from them" in said
    return said


def require_nothing_boots(bench: Bench, vm: Vm) -> None:
    alone = bench.boot(vm.without_network_boot())
    alone.console.expect(
        NOTHING_TO_BOOT[vm.firmware],
        60,
        fail_on=[r"Linux version .*", r"GRUB.*", r"systemd-boot.*"],
    )
