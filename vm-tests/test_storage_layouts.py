"""Every layout of examples/: planned, applied, mounted, compared, taken down, applied again.

Two machines in their failure shells, one for each firmware, with the disks of all layouts: those of
the others are canaries. What is installed is the smallest payload (lab/bare.py); whether systems
on such disks boot is what test_storage_boot.py shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from lab import agent, bare, disk, planned, process
from lab.agent import Agent
from lab.bench import Bench
from lab.tpm import Tpm
from lab.vm import Disk, Vm

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.loop]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PASSPHRASE = "correct horse battery"
BOOTMGR = "/EFI/Microsoft/bootmgfw.efi"

Wipe = Literal["refuse", "known", "force"]


@dataclass(frozen=True)
class Layout:
    """An example, its disks by serial number, and what had to be replaced in its text.

    `again` is the consent of the second installation, where the example's own would not do.
    """

    example: str
    disks: dict[str, str]
    replaced: tuple[tuple[str, str], ...] = ()
    bus: str = "scsi"
    again: Wipe = "known"
    seen_as: dict[str, Any] = field(default_factory=dict)


def named(text: str, serial: str) -> tuple[tuple[str, str], ...]:
    """Another match, because disks of other layouts are there, too."""
    return ((text, text.replace("match = {", f'match = {{ serial = "{serial}",')),)


def group(name: str) -> tuple[str, str]:
    """Another name than the one that groups of other layouts have, which is refused."""
    return 'name = "vg0"', f'name = "{name}"'


# argon2id is made to be slow, and much slower on an emulated processor
QUICK = ', options = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]'
VIRTIO = 'match = { transport = "virtio"'

UEFI = (
    Layout(
        "btrfs-separate-home",
        {"S4XBNF0M1": "120G"},
        # the kernel of the boot environment here has no driver for SATA
        (("ata-Samsung_SSD_860_EVO_*", "scsi-0QEMU_QEMU_HARDDISK_S4X*"),),
        seen_as={"rotational": False},
    ),
    Layout("uefi-simple", {"simple": "6G"}, named(VIRTIO, "simple"), bus="virtio", again="force"),
    Layout("hybrid-boot", {"HYBRID-1": "6G"}),
    Layout(
        "btrfs-two-disks",
        {"btrfs-1": "6G", "btrfs-2": "6G"},
        named(VIRTIO, "btrfs-*"),
        bus="virtio",
    ),
    Layout("lvm-thin", {"LVM-1": "14G"}),
    Layout(
        "raid1-mirrored-esp",
        {"raid1-1": "6G", "raid1-2": "6G"},
        named(VIRTIO, "raid1-*"),
        bus="virtio",
    ),
    Layout(
        "raid5-lvm",
        {"raid5-1": "7G", "raid5-2": "7G", "raid5-3": "7G"},
        (*named(VIRTIO, "raid5-*"), group("vg1")),
        bus="virtio",
    ),
    Layout(
        "luks-tpm2",
        {"LUKS-1": "6G"},
        (("recovery = true }", f"recovery = true{QUICK} }}"),),
    ),
    Layout(
        "luks-on-lvm",
        {"LUKS-2": "14G"},
        (("LUKS-1", "LUKS-2"), ('luks-1" }', f'luks-1"{QUICK} }}'), group("vg2")),
        again="force",
    ),
    Layout(
        "lvm-on-luks",
        {"LUKS-3": "6G"},
        (("LUKS-1", "LUKS-3"), ("discard = true }", f"discard = true{QUICK} }}"), group("vg3")),
    ),
    Layout("tmpfs-root", {"TMPFS-1": "14G"}),
    Layout("static-address-rebuild", {"NVME-1": "6G", "NVME-2": "8G"}, bus="nvme"),
    Layout("data-disk-kept", {"SYSTEM-1": "6G", "DATA-1": "1G"}),
    Layout("windows-kept", {"LAPTOP-1": "20G"}, again="force"),
)
BIOS = (
    Layout("bios-swap", {"WD-WMAY01874201": "14G"}),
    Layout("hybrid-boot", {"HYBRID-1": "6G"}),
    Layout(
        "raid1-mirrored-esp",
        {"raid1-1": "6G", "raid1-2": "6G"},
        named(VIRTIO, "raid1-*"),
        bus="virtio",
    ),
)


@dataclass
class Room:
    """A machine that waits for answer files, and its disks by serial number."""

    agent: Agent
    disks: dict[str, Disk]

    def install(self, layout: Layout, wipe: Wipe | None = None) -> tuple[str, int]:
        """Install an example, with another consent if one is given."""
        text = (EXAMPLES / f"{layout.example}.toml").read_text()
        text = re.sub(r'^url = ".*"$', 'url = "@URL@"', text, flags=re.MULTILINE)
        text = re.sub(r'^sha256 = ".*"$', 'sha256 = "@SHA256@"', text, flags=re.MULTILINE)
        for old, new in layout.replaced:
            assert old in text, old
            text = text.replace(old, new)
        key = self.agent.server.web.publish("/key", PASSPHRASE)
        text = re.sub(r"http://boot\.example\.net/keys/[a-z0-9-]+", key, text)
        if wipe is not None:
            text = re.sub(r"^wipe = .*\n", "", text, flags=re.MULTILINE)
            text = text.replace("[[disks]]\n", f'[[disks]]\nwipe = "{wipe}"\n')
        return self.agent.install(text, 600)

    def others(self, layout: Layout) -> dict[str, str]:
        """Fingerprints of the disks that are none of this layout's."""
        return {
            serial: disk.fingerprint(one.image)
            for serial, one in self.disks.items()
            if serial not in layout.disks
        }


@pytest.fixture(scope="module", params=["uefi", "bios"])
def room(request: pytest.FixtureRequest, shared_bench: Bench) -> Iterator[Room]:
    firmware = request.param
    disks = {"canary": shared_bench.disk("512M", serial="canary", bus="scsi", canary=True)}
    layouts = {"uefi": UEFI, "bios": BIOS}[firmware]
    for layout in layouts:
        for serial, size in layout.disks.items():
            disks[serial] = shared_bench.disk(size, bus=layout.bus, serial=serial, **layout.seen_as)
    if firmware == "uefi":
        windows(disks["LAPTOP-1"].image)
        photos(disks["DATA-1"].image)
    with Tpm(shared_bench.folder / f"tpm-{firmware}") as tpm:
        vm = Vm(
            name=firmware,
            firmware=firmware,
            memory=1024,
            disks=tuple(disks.values()),
            extra=tpm.extra,
        )
        guest = agent.in_failure_shell(shared_bench, vm, bare.tarball())
        url = guest.server.payload_url
        fetch = f"mkdir -p /srv/netinstall; wget -q -O /srv/netinstall/laptop.tar.zst {url}"
        assert guest.run(fetch, 60)[1] == 0
        yield Room(guest, disks)
        guest.machine.kill()


def windows(image: Path) -> None:
    """A disk with Windows, its reserved partition and ESP, and an old Linux behind them."""
    table = """label: gpt
size=100MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, name="EFI system partition"
size=16MiB, type=e3c9e316-0b5c-4db8-817d-f92df00215ae, name="Microsoft reserved partition"
size=4GiB, type=ebd0a0a2-b9e5-4433-87c0-68b6b72699c7, name="Windows"
size=4GiB, type=0fc63daf-8483-4772-8e79-3d69d8477de4, name="old linux"
"""
    process.run(["sfdisk", "--quiet", str(image)], stdin=table.encode())
    esp, _, ntfs, linux = disk.table(image).partitions
    with disk.loop_device(image, 512, esp, writable=True) as device:
        process.run(["mkfs.vfat", "-I", "-F", "32", str(device)])
        process.run(["mmd", "-i", str(device), "::/EFI", "::/EFI/Microsoft"])
        loader = ["mcopy", "-i", str(device), "-", f"::{BOOTMGR}"]
        process.run(loader, stdin=b"the old loader")
    with disk.loop_device(image, 512, linux, writable=True) as device:
        process.run(["mkfs.ext4", "-q", str(device)])
    with image.open("r+b") as file:
        # what libblkid knows an NTFS by is not needed: nobody here reads it
        for offset in (0, ntfs.size // 2, ntfs.size - (1 << 20)):
            file.seek(ntfs.start + offset)
            file.write(b"Windows " * (1 << 17))


def photos(image: Path) -> None:
    """A disk with a file system of which the first mount writes as little as possible."""
    process.run(["sfdisk", "--quiet", str(image)], stdin=b"label: gpt\nsize=+, name=photos\n")
    (data,) = disk.table(image).partitions
    with disk.loop_device(image, 512, data, writable=True) as device:
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        process.run(["mkfs.ext4", "-q", "-L", "photos", "-E", lazy, str(device)])
        process.run(["debugfs", "-w", "-R", "write /etc/passwd holiday.jpg", str(device)])


def of_windows(room: Room) -> object:
    """What must be the same for ever on the laptop's disk; the ESP also gets files."""
    image = room.disks["LAPTOP-1"].image
    rows = disk.table(image).partitions[:3]
    esp, reserved, ntfs = rows
    kept = [disk.fingerprint(image, part) for part in (reserved, ntfs)]
    return rows, kept, disk.read_fat(image, esp, BOOTMGR)


def of_photos(room: Room) -> object:
    """All of the data disk, but for what every mounting of an ext4 writes."""
    image = room.disks["DATA-1"].image
    (data,) = disk.table(image).partitions
    with disk.loop_device(image, 512, data) as device:
        said = process.run(["debugfs", "-R", "stat <8>", str(device)]).decode()
        process.run(["fsck.ext4", "-fn", str(device)])
    # the superblock, and the journal (inode 8: ext4(5), "Special inodes")
    blocks = [(0, 0)] + [
        (int(first), int(last or first))
        for first, last in re.findall(r":(\d+)(?:-(\d+))?", said.partition("EXTENTS:")[2])
    ]
    copy = image.with_suffix(".compared")
    process.run(["cp", "--sparse=always", str(image), str(copy)])
    with copy.open("r+b") as file:
        for first, last in blocks:
            file.seek(data.start + first * 4096)
            file.write(bytes((last - first + 1) * 4096))
    return len(blocks), disk.fingerprint(copy), disk.read_ext4(image, data, "/holiday.jpg")


KEPT = {"windows-kept": of_windows, "data-disk-kept": of_photos}


def twice(room: Room, layout: Layout) -> None:
    """Install, compare, take down, be refused, install again, compare again."""
    others, kept = room.others(layout), KEPT.get(layout.example, lambda _: None)
    before, plans = kept(room), []
    for wipe in (None, layout.again):
        if wipe is not None:
            said, code = room.install(layout, "refuse")
            assert code == 3, said
            assert "disk.carries-data" in said
        said, code = room.install(layout, wipe)
        assert code == 0, said
        plan = planned.last(room.agent)
        plans.append(plan)
        assert kept(room) == before
        planned.check(plan, planned.inspect(room.agent, plan, key=PASSPHRASE), room.disks)
    assert plans[0].shape() == plans[1].shape()
    assert room.others(layout) == others


@pytest.mark.parametrize("room", ["uefi"], indirect=True)
@pytest.mark.parametrize("layout", UEFI, ids=lambda one: one.example)
def test_with_uefi(room: Room, layout: Layout) -> None:
    twice(room, layout)


@pytest.mark.parametrize("room", ["bios"], indirect=True)
@pytest.mark.parametrize("layout", BIOS, ids=lambda one: one.example)
def test_with_a_bios(room: Room, layout: Layout) -> None:
    twice(room, layout)
