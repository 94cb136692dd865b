"""Saved machines give the facts that they are known to have."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from saved_machines import unpack

from installer.model.codec import from_json
from installer.model.facts import Disk, Dmi, Facts
from installer.observe import disks
from installer.observe.machine import TOOLS, look, look_with_warnings

CASES = Path(__file__).parent.parent / "cases"


@pytest.mark.parametrize(
    "name",
    [
        *("nvme-server", "sata-usb", "virtio-vm"),
        *("raid-lvm-server", "old-storage-server", "san-multipath", "live-stick"),
    ],
)
def test_a_saved_tree_gives_the_saved_facts(name: str, tmp_path: Path) -> None:
    tree = unpack(name, tmp_path)
    expected = from_json(Facts, (CASES / name / "facts.json").read_text(), where=name)
    for tool in expected.tools.values():
        program = tree.root / tool.lstrip("/")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)

    facts, warnings = look_with_warnings(tree.root, udev=tree.udev)

    # when the tree was unpacked
    leases = tuple(replace(one, taken=None) for one in facts.leases)
    facts = replace(facts, leases=leases, observed=expected.observed)
    assert replace(facts, entropy=expected.entropy) == expected
    assert warnings == ()


def test_every_observation_has_its_own_entropy(tmp_path: Path) -> None:
    tree = unpack("virtio-vm", tmp_path)
    assert look(tree.root).entropy != look(tree.root).entropy


@pytest.fixture
def laptop(tmp_path: Path) -> dict[str, Disk]:
    tree = unpack("running-laptop", tmp_path)
    return {disk.node: disk for disk in disks.look(tree.root, udev=tree.udev)}


def test_only_whole_disks_with_hardware_are_listed(laptop: dict[str, Disk]) -> None:
    assert list(laptop) == ["/dev/mmcblk0", *(f"/dev/sd{letter}" for letter in "abcdefgh")]


def test_sysfs_identifies_disks_without_udev(laptop: dict[str, Disk]) -> None:
    disk = laptop["/dev/sda"]
    assert (disk.serial, disk.wwn, disk.model) == (
        "W623ABCD",
        "0x5000c5007a1b2c3d",
        "ST500LM021-1KJ15",
    )
    assert disk.transport == "sata"
    assert disk.rotational
    assert (disk.logical_sector, disk.physical_sector) == (512, 4096)
    assert disk.stable_path == "/dev/sda"
    assert laptop["/dev/sdb"].transport == "usb"
    assert laptop["/dev/sdb"].removable
    assert laptop["/dev/mmcblk0"].model == "SB32G"


@pytest.mark.parametrize(
    ("path", "vendor", "transport"),
    [
        ("pci0000:00/0000:03:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", "HP", "sas"),
        (
            "pci0000:00/0000:03:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0",
            "ATA",
            "sata",
        ),
        ("pci0000:00/0000:00:05.0/virtio2/host2/target2:0:0/2:0:0:0", "QEMU", "scsi"),
        ("platform/host3/session1/target3:0:0/3:0:0:1", "LIO-ORG", "iscsi"),
        ("pci0000:00/0000:04:00.0/host1/rport-1:0-1/target1:0:0/1:0:0:0", "NETAPP", "fc"),
        ("pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0", "ATA", "usb"),
        ("platform/strange/sda", "NONE", None),
    ],
)
def test_transport(tmp_path: Path, path: str, vendor: str, transport: str | None) -> None:
    device = tmp_path / "sys/devices" / path
    (device / "block/sda").mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor:8}")
    (device / "block/sda/device").symlink_to(device)
    (tmp_path / "sys/block").mkdir()
    (tmp_path / "sys/block/sda").symlink_to(device / "block/sda")
    (disk,) = disks.look(tmp_path, udev={})
    assert disk.transport == transport
    assert disk.size == 0


def test_a_name_that_two_disks_claim_is_no_name(tmp_path: Path) -> None:
    tree = unpack("running-laptop", tmp_path)
    shared = "/dev/disk/by-id/usb-Cheap_Bridge_0123456789"
    udev = {
        "block/sdc": {"DEVLINKS": f"{shared} /dev/disk/by-id/wwn-0x1"},
        "block/sdd": {"DEVLINKS": shared},
    }
    found = {disk.node: disk.by_id for disk in disks.look(tree.root, udev=udev)}
    assert found["/dev/sdc"] == ("wwn-0x1",)
    assert found["/dev/sdd"] == ()


def test_strings_from_a_device_can_be_printed(tmp_path: Path) -> None:
    tree = unpack("virtio-vm", tmp_path)
    serial = tree.root / "sys/block/vda/serial"
    serial.write_bytes(b"A\x1b[2J\nB\xff\0")
    (tree.root / "sys/class/dmi/id/product_serial").write_bytes(b"\x1b]0;owned\x07\n")
    facts = look(tree.root)
    assert facts.disks[0].serial == "A?[2J?B\ufffd"
    assert facts.dmi.serial == "?]0;owned?"


def test_fillers_of_vendors_identify_nothing(tmp_path: Path) -> None:
    assert look(unpack("running-laptop", tmp_path).root).dmi == Dmi()


def test_an_empty_tree_is_a_machine_without_anything(tmp_path: Path) -> None:
    facts = look(tmp_path)
    assert facts.firmware == "bios"
    assert facts.memory == 0
    assert (facts.disks, facts.nics, facts.leases) == ((), (), ())
    assert facts.tools == {}


def test_secrets_of_the_command_line_are_not_kept(tmp_path: Path) -> None:
    tree = unpack("virtio-vm", tmp_path)
    (tree.root / "proc/cmdline").write_text(
        "netinstall.answers=https://user:secret@h/a?token=hidden netinstall.failure_delay=5"
    )
    assert look(tree.root).kernel_arguments == {
        "netinstall.answers": "https://***@h/a?…",
        "netinstall.failure-delay": "5",
    }


def test_this_machine_can_be_looked_at() -> None:
    facts = look()
    assert facts.architecture == os.uname().machine
    assert facts.memory > 0
    assert set(facts.tools) <= set(TOOLS)
    assert "mount" in facts.tools


@pytest.mark.loop
def test_a_loop_device_counts_only_when_it_is_named(loop_disk: Path) -> None:
    assert str(loop_disk) not in [disk.node for disk in look().disks]
    (disk,) = [disk for disk in look(include=[str(loop_disk)]).disks if "loop" in disk.node]
    assert (disk.node, disk.size, disk.in_use) == (str(loop_disk), 2 * 1024**3, ())
    assert str(loop_disk) not in [layer.node for layer in look(include=[str(loop_disk)]).layers]


@pytest.mark.loop
def test_a_program_that_holds_a_disk_is_noticed(loop_disk: Path) -> None:
    held = os.open(loop_disk, os.O_RDONLY | os.O_EXCL)
    try:
        found = {disk.node: disk.in_use for disk in look(include=[str(loop_disk)]).disks}
    finally:
        os.close(held)
    assert found[str(loop_disk)] == (f"the kernel or a program holds {loop_disk}",)


@pytest.mark.loop
def test_a_read_only_mount_is_noticed(loop_disk: Path, tmp_path: Path) -> None:
    where = tmp_path / "a folder"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(loop_disk)], check=True)
    subprocess.run(["mount", "-o", "ro", str(loop_disk), str(where)], check=True)
    try:
        found = {disk.node: disk for disk in look(include=[str(loop_disk)]).disks}
    finally:
        subprocess.run(["umount", str(where)], check=True)
    assert found[str(loop_disk)].mounts == (str(where),)
    assert found[str(loop_disk)].in_use == ()


@pytest.mark.loop
def test_a_mount_out_of_sight_is_noticed(loop_disk: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(loop_disk)], check=True)
    hidden = "mount $0 /mnt && echo mounted && read _"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hidden, str(loop_disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as elsewhere:
        assert elsewhere.stdout is not None
        assert elsewhere.stdout.readline() == "mounted\n"
        found = {disk.node: disk for disk in look(include=[str(loop_disk)]).disks}
        elsewhere.communicate("\n", timeout=60)
    assert found[str(loop_disk)].mounts == ()
    assert found[str(loop_disk)].in_use == (f"the kernel or a program holds {loop_disk}",)


_ASK_LIBUDEV = """
import sys
from pathlib import Path
from installer.observe import disks
node = Path(sys.argv[1])
number = Path(f"/sys/block/{node.name}/dev").read_text().strip()
record = Path("/run/udev/data") / f"b{number}"
record.parent.mkdir(parents=True)
record.write_text(
    "S:disk/by-id/ata-Model_SER1\\nS:disk/by-path/pci-0000:00:1f.2-ata-1\\nI:1\\n"
    "E:ID_SERIAL_SHORT=SER1\\nE:ID_FS_TYPE=ext4\\nG:systemd\\nV:1\\n"
)
(disk,) = [
    disk
    for disk in disks.look(udev=disks.udev_properties(), include=[sys.argv[1]])
    if disk.node == sys.argv[1]
]
print(disk.by_id, disk.by_path, disk.serial, disk.filesystem)
"""


@pytest.mark.loop
def test_libudev_is_asked(loop_disk: Path) -> None:
    """In a mount namespace with a /run of its own: libudev reads /run/udev/data."""
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"),
            *(sys.executable, "-c", _ASK_LIBUDEV, str(loop_disk)),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        timeout=60,
    )
    assert done.stdout.strip() == "('ata-Model_SER1',) ('pci-0000:00:1f.2-ata-1',) SER1 ext4"
