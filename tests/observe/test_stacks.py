"""Old storage: what lies on what, what the running system needs, and what hides.

The trees of raid-lvm-server, old-storage-server, san-multipath and live-stick were recorded from a
real kernel: recorder/README.md.
"""

from pathlib import Path

import pytest
from saved_machines import Machine, unpack

from installer.model.codec import from_json, to_json
from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.observe import disks, layers
from installer.observe.blocks import Blocks
from installer.observe.machine import look

RECORDED = ("raid-lvm-server", "old-storage-server", "san-multipath", "live-stick")


def _facts(name: str, folder: Path) -> Facts:
    tree = unpack(name, folder)
    return look(tree.root, udev=tree.udev)


def _by_serial(facts: Facts) -> dict[str | None, Disk]:
    return {disk.serial: disk for disk in facts.disks}


def _parts(disk: Disk) -> dict[int, FoundPartition]:
    return {part.number: part for part in disk.partitions}


def _names(facts: Facts) -> dict[str, Layer]:
    return {layer.name: layer for layer in facts.layers}


@pytest.mark.parametrize("name", [*RECORDED, "running-laptop"])
def test_a_layer_comes_after_what_it_lies_on(name: str, tmp_path: Path) -> None:
    facts = _facts(name, tmp_path)
    known = {disk.node for disk in facts.disks}
    known |= {part.node for disk in facts.disks for part in disk.partitions}
    for layer in facts.layers:
        assert set(layer.on) <= known, layer
        assert layer.node not in known
        known.add(layer.node)


@pytest.mark.parametrize("name", [*RECORDED, "running-laptop"])
def test_facts_survive_a_file(name: str, tmp_path: Path) -> None:
    facts = _facts(name, tmp_path)
    assert from_json(Facts, to_json(facts), where=name) == facts


def test_facts_of_an_older_version_can_be_read() -> None:
    saved = """{"version": 1, "firmware": "bios", "architecture": "x86_64", "kernel": "6.1",
        "memory": 1, "entropy": "0", "disks": [{"node": "/dev/sda", "size": 512,
        "in_use": ["/dev/sda1 is mounted at /"],
        "partitions": [{"node": "/dev/sda1", "number": 1, "size": 512, "label": "x"}]}]}"""
    facts = from_json(Facts, saved, where="old.json")
    assert facts.layers == ()
    assert facts.disks[0].partitions == (FoundPartition("/dev/sda1", 1, 512, label="x"),)


def test_volumes_on_an_array_that_udev_assembled(tmp_path: Path) -> None:
    facts = _facts("raid-lvm-server", tmp_path)
    one, two = _by_serial(facts)["DB3-A"], _by_serial(facts)["DB3-B"]
    members = (_parts(one)[3].node, _parts(two)[3].node)
    assert _parts(one)[3].filesystem == "linux_raid_member"
    assert _parts(one)[3].label == "db3:pv"
    found = _names(facts)
    array = next(layer for layer in facts.layers if set(layer.on) == set(members))
    assert (array.kind, array.filesystem, array.mounts) == ("md", "LVM2_member", ())
    assert found["vg--db-root"].mounts == ("/mnt/db",)
    assert found["vg--db-root"].filesystem == "ext4"
    assert found["vg--db-data"].mounts == ("/mnt/db/srv/big data",)
    assert found["vg--db-swap"].swap
    assert found["vg--db-swap"].on == (array.node,)
    # a snapshot and its origin lie on the hidden volume of the origin's blocks
    assert found["vg--db-root"].on == (found["vg--db-root-real"].node,)
    assert set(found["vg--db-before--upgrade"].on) == {
        found["vg--db-root-real"].node,
        found["vg--db-before--upgrade-cow"].node,
    }
    # a thin volume lies on the pool's own device, that on data and metadata
    assert found["vg--db-data"].on == (found["vg--db-pool-tpool"].node,)
    assert set(found["vg--db-pool-tpool"].on) == {
        found["vg--db-pool_tdata"].node,
        found["vg--db-pool_tmeta"].node,
    }
    assert {layer.kind for name, layer in found.items() if name.startswith("vg--db")} == {"lvm"}
    assert [disk.in_use for disk in facts.disks] == [(), ()]
    assert [disk.boot_medium for disk in facts.disks] == [None, None]


def test_a_cache_holds_two_disks(tmp_path: Path) -> None:
    facts = _facts("old-storage-server", tmp_path)
    found = _by_serial(facts)
    cache, backing = found["CACHE-1"], found["BACKING-1"]
    assert (cache.filesystem, backing.partitions[0].filesystem) == ("bcache", "bcache")
    (cache_set,) = [layer for layer in facts.layers if layer.on == (cache.node,)]
    assert (cache_set.kind, cache_set.name) == ("bcache", f"cache set {cache_set.node}")
    cached = _names(facts)["bcache0"]
    assert cached.on == (backing.partitions[0].node, cache_set.node)
    assert (cached.kind, cached.filesystem) == ("bcache", "ext4")
    assert cached.mounts == ("/mnt/archive",)


def test_a_file_system_on_two_disks_is_a_layer(tmp_path: Path) -> None:
    facts = _facts("old-storage-server", tmp_path)
    found = _by_serial(facts)
    pair = _names(facts)["pair"]
    assert pair.kind == "btrfs"
    assert pair.node == found["BTRFS-2"].uuid
    assert pair.on == (found["BTRFS-1"].partitions[0].node, found["BTRFS-2"].node)
    assert pair.mounts == ("/mnt/pool", "/mnt/home")
    assert found["BTRFS-1"].partitions[0].mounts == found["BTRFS-2"].mounts == ()
    assert found["BTRFS-2"].in_use == ()


def test_swap_in_use_on_an_mbr(tmp_path: Path) -> None:
    disk = _by_serial(_facts("old-storage-server", tmp_path))["SWAP-1"]
    assert disk.table == "mbr"
    swap, rest = disk.partitions
    assert (swap.type_guid, swap.filesystem, swap.label, swap.swap) == (
        "82",
        "swap",
        "oldswap",
        True,
    )
    assert (rest.type_guid, rest.swap, rest.partuuid) == ("83", False, f"{disk.table_uuid}-02")


def test_a_pool_that_nobody_imported_is_only_a_label(tmp_path: Path) -> None:
    facts = _facts("old-storage-server", tmp_path)
    member = _by_serial(facts)["ZFS-1"].partitions[0]
    assert (member.filesystem, member.label) == ("zfs_member", "oldpool")
    assert "zfs" not in {layer.kind for layer in facts.layers}


def test_an_imported_pool_is_a_layer(tmp_path: Path) -> None:
    """What OpenZFS shows in /proc/spl; its kernel module could not be recorded."""
    tree = unpack("old-storage-server", tmp_path)
    state = tree.root / "proc/spl/kstat/zfs/oldpool/state"
    state.parent.mkdir(parents=True)
    state.write_text("ONLINE\n")
    with (tree.root / "proc/self/mountinfo").open("a") as mounts:
        mounts.write("90 1 0:60 / /tank rw - zfs oldpool/data rw,xattr\n")
    facts = look(tree.root, udev=tree.udev)
    pool = _names(facts)["oldpool"]
    member = _by_serial(facts)["ZFS-1"].partitions[0]
    assert (pool.node, pool.kind, pool.on) == ("oldpool", "zfs", (member.node,))
    assert pool.mounts == ("/tank",)


def test_paths_to_one_disk_are_one_disk(tmp_path: Path) -> None:
    facts = _facts("san-multipath", tmp_path)
    assert [disk.serial for disk in facts.disks] == ["LUN-1", "LUN-2"]
    assert facts.layers == ()
    first = facts.disks[0]
    assert len(first.paths) == 2
    assert first.node.startswith("/dev/dm-")
    assert first.stable_path == "/dev/disk/by-id/scsi-3600a0b8000123451"
    assert (first.vendor, first.model, first.wwn) == ("NETAPP", "SAN-TARGET", "0x600a0b8000123451")
    assert (first.transport, first.size) == ("scsi", 512 * 1024**2)
    esp, root = first.partitions
    assert (esp.number, esp.start, esp.size) == (1, 1024**2, 100 * 1024**2)
    assert (root.filesystem, root.label, root.partuuid is not None) == ("ext4", "sanroot", True)
    assert root.node.startswith("/dev/dm-")


def test_paths_without_udev_are_one_disk_too(tmp_path: Path) -> None:
    first, second = disks.look(unpack("san-multipath", tmp_path).root, udev={})
    assert (len(first.paths), len(second.paths)) == (2, 2)
    assert [part.number for part in first.partitions] == [1, 2]


def test_the_stick_that_the_system_runs_from(tmp_path: Path) -> None:
    facts = _facts("live-stick", tmp_path)
    found = _by_serial(facts)
    stick = found["STICK-1"]
    assert stick.boot_medium == (
        f"/run/live/lower is the image /run/live/medium/live/root.squashfs, "
        f"/run/live/medium is on {stick.partitions[0].node}"
    )
    assert found["WINDOWS-1"].boot_medium is None
    assert found["NV-LAPTOP-1"].boot_medium is None


def test_volumes_in_an_opened_luks(tmp_path: Path) -> None:
    facts = _facts("live-stick", tmp_path)
    disk = _by_serial(facts)["NV-LAPTOP-1"]
    esp, crypt = disk.partitions
    assert (esp.name, esp.filesystem, esp.label) == ("ESP", "vfat", "ESP")
    assert (crypt.name, crypt.filesystem, crypt.label) == ("crypt", "crypto_LUKS", "laptop")
    found = _names(facts)
    assert found["luks-home"].on == (crypt.node,)
    assert (found["luks-home"].kind, found["luks-home"].filesystem) == ("crypt", "LVM2_member")
    assert found["laptop-root"].on == (found["luks-home"].node,)
    assert (found["laptop-root"].filesystem, found["laptop-home"].filesystem) == ("ext4", None)


def test_windows_is_described_well_enough_to_be_kept(tmp_path: Path) -> None:
    disk = _by_serial(_facts("live-stick", tmp_path))["WINDOWS-1"]
    assert [(part.number, part.type_guid, part.filesystem) for part in disk.partitions] == [
        (1, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "vfat"),
        (2, "e3c9e316-0b5c-4db8-817d-f92df00215ae", None),
        (3, "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "ntfs"),
        (4, "de94bba4-06d1-4d40-a16a-bfd50179d6ac", "ntfs"),
    ]
    system = disk.partitions[2]
    assert (system.name, system.label) == ("Basic data partition", "Windows")
    assert system.start == 117 * 1024**2
    assert system.partuuid is not None


@pytest.fixture
def laptop(tmp_path: Path) -> Machine:
    return unpack("running-laptop", tmp_path)


def test_what_a_running_laptop_has_on_its_disks(laptop: Machine) -> None:
    blocks = Blocks(laptop.root, {})
    found = {layer.name: layer for layer in layers.of(blocks)}
    assert found["sda2_crypt"] == Layer("/dev/dm-0", "other", "sda2_crypt", ("/dev/sda2",))
    assert found["vg-root"].mounts == ("/",)
    assert found["vg-swap"].swap
    assert found["md127"] == Layer(
        "/dev/md127", "md", "md127", ("/dev/sde", "/dev/sdf"), mounts=("/srv",)
    )
    btrfs = found["1a2b3c4d-0000-4000-8000-0123456789ab"]
    assert (btrfs.on, btrfs.mounts) == (("/dev/sdc1", "/dev/sdd1"), ("/data",))
    disk = {disk.node: disk for disk in disks.of(blocks)}
    assert disk["/dev/sda"].partitions[0].mounts == ("/boot",)
    assert disk["/dev/sdb"].partitions[0].mounts == ("/media/anna/MY STICK",)
    assert disk["/dev/sdg"].partitions[1].swap
    media = {node: one.boot_medium for node, one in disk.items() if one.boot_medium}
    assert media == {"/dev/sda": "/ is on /dev/dm-1 (vg-root)"}
    assert {node: one.in_use for node, one in disk.items() if one.in_use} == {
        "/dev/sda": ("/home/swap file on /dev/dm-1 (vg-root) is swapped to",)
    }


def test_an_array_comes_after_the_container_of_the_firmware(laptop: Machine) -> None:
    """Intel's RAID, as md.rst describes it: QEMU's firmware has none to record."""
    for disk in ("sde", "sdf"):
        (laptop.root / "sys/block" / disk / "holders/md126").symlink_to("md126")
    for name, version in (("md126", "external:/md127/0\n"), ("md127", "external:imsm\n")):
        (laptop.root / "sys/block" / name / "md").mkdir(parents=True, exist_ok=True)
        (laptop.root / "sys/block" / name / "md/metadata_version").write_text(version)
    found = [layer for layer in layers.of(Blocks(laptop.root, {})) if layer.kind == "md"]
    assert [(layer.name, layer.on) for layer in found] == [
        ("md127", ("/dev/sde", "/dev/sdf")),
        ("md126", ("/dev/sde", "/dev/sdf", "/dev/md127")),
    ]


def test_a_swap_file_holds_a_disk(laptop: Machine) -> None:
    with (laptop.root / "proc/swaps").open("a") as swaps:
        swaps.write("/srv/swap\\040file\tfile\t1048572\t0\t-3\n")
    found = {disk.node: disk.in_use for disk in disks.look(laptop.root, udev={})}
    assert found["/dev/sde"] == ("/srv/swap file on /dev/md127 is swapped to",)
    assert found["/dev/sdg"] == ()


def test_a_btrfs_mounted_out_of_sight_holds_a_disk(laptop: Machine) -> None:
    (laptop.root / "proc/self/mountinfo").write_text("")
    (laptop.root / "sys/fs/btrfs/1a2b3c4d-0000-4000-8000-0123456789ab/devices/sdd1").unlink()
    found = {disk.node: disk.in_use for disk in disks.look(laptop.root, udev={})}
    assert found["/dev/sdc"] == ("/dev/sdc1 belongs to a btrfs that is mounted out of sight",)
    assert found["/dev/sdd"] == ()


def test_the_network_is_no_boot_medium(laptop: Machine) -> None:
    (laptop.root / "proc/self/mountinfo").write_text(
        "28 1 0:25 / / rw - overlay overlay rw,lowerdir=/run/netinstall/lower\n"
        "29 28 0:26 / /run/netinstall/lower ro - nfs4 192.0.2.1:/srv/root ro\n"
        "30 28 254:1 / /mnt rw - ext4 /dev/mapper/vg-root rw\n"
    )
    assert {disk.boot_medium for disk in disks.look(laptop.root, udev={})} == {None}


def test_an_overlay_leads_to_the_disk_below(laptop: Machine) -> None:
    (laptop.root / "proc/self/mountinfo").write_text(
        "28 1 0:25 / / rw - overlay overlay rw,lowerdir=/media/ro:/nowhere,upperdir=/up\n"
        "29 28 8:17 / /media rw - ext4 /dev/sdb1 rw\n"
    )
    found = {disk.node: disk.boot_medium for disk in disks.look(laptop.root, udev={})}
    assert found["/dev/sdb"] == "/media is on /dev/sdb1"
    assert [node for node, why in found.items() if why] == ["/dev/sdb"]


@pytest.mark.parametrize("where", ["/iso", "/nix/store", "/run/initramfs/live", "/cdrom"])
def test_media_that_no_overlay_names(laptop: Machine, where: str) -> None:
    """What the overlay lies on was mounted in an initramfs, below names that are gone."""
    (laptop.root / "proc/self/mountinfo").write_text(
        "28 1 0:25 / / rw - overlay overlay rw,lowerdir=/sysroot/lower,upperdir=/sysroot/up\n"
        f"29 28 8:17 / {where} ro - iso9660 /dev/sdb1 ro\n"
        "30 28 8:1 / /iso/not rw - ext4 /dev/sda1 rw\n"
    )
    found = {disk.node: disk.boot_medium for disk in disks.look(laptop.root, udev={})}
    assert {node: why for node, why in found.items() if why} == {
        "/dev/sdb": f"{where} is on /dev/sdb1"
    }


def test_an_image_in_a_circle_ends(laptop: Machine) -> None:
    """Two loop devices whose files lie on each other: impossible, but a saved tree can say it."""
    lines = ""
    for number, other in ((0, 1), (1, 0)):
        folder = laptop.root / f"sys/block/loop{number}"
        (folder / "loop").mkdir(parents=True, exist_ok=True)
        (folder / "dev").write_text(f"7:{number}\n")
        (folder / "loop/backing_file").write_text(f"/run/live/{other}/image\x1b[2J\n")
        lines += f"3{number} 1 7:{number} / /run/live/{number} ro - squashfs /dev/loop{number} ro\n"
    (laptop.root / "proc/self/mountinfo").write_text(lines)
    facts = look(laptop.root, udev={})
    assert {disk.boot_medium for disk in facts.disks} == {None}
    names = [layer.name for layer in facts.layers if layer.node.startswith("/dev/loop")]
    assert names == ["/run/live/0/image?[2J", "/run/live/1/image?[2J"] or names[::-1]


def test_slots_of_enclosures_and_boards(tmp_path: Path) -> None:
    """Laid out as drivers/misc/enclosure.c and drivers/pci/slot.c do."""
    devices = tmp_path / "sys/devices/pci0000:00"
    (tmp_path / "sys/block").mkdir(parents=True)
    bay = devices / "0000:03:00.0/host0/target0:0:9/0:0:9:0/enclosure/0:0:9:0/Slot 05"
    bay.mkdir(parents=True)
    (bay / "slot").write_text("5\n")
    for name, device in (
        ("sda", devices / "0000:03:00.0/host0/target0:0:1/0:0:1:0"),
        ("nvme0n1", devices / "0000:00:1d.0/0000:65:00.0/nvme/nvme0"),
    ):
        (device / "block" / name).mkdir(parents=True)
        (device / "block" / name / "device").symlink_to(device)
        (tmp_path / "sys/block" / name).symlink_to(device / "block" / name)
    (devices / "0000:03:00.0/host0/target0:0:1/0:0:1:0/enclosure_device:Slot 05").symlink_to(bay)
    for slot, address in (("3", "0000:03:00"), ("107", "0000:65:00")):
        (tmp_path / "sys/bus/pci/slots" / slot).mkdir(parents=True)
        (tmp_path / "sys/bus/pci/slots" / slot / "address").write_text(f"{address}\n")
    found = {disk.node: disk.slot for disk in disks.look(tmp_path, udev={})}
    assert found == {"/dev/nvme0n1": "107", "/dev/sda": "5"}


def test_names_from_a_disk_cannot_command_a_terminal(laptop: Machine) -> None:
    hostile = "\x1b]0;owned\x07"
    udev = {
        "block/sda1": {
            "ID_FS_LABEL_ENC": "\\x1b[2J",
            "ID_PART_ENTRY_NAME": "\\x1b[2J",
            **dict.fromkeys(("ID_FS_TYPE", "ID_FS_UUID", "ID_PART_ENTRY_UUID"), hostile),
        },
        "block/sda": dict.fromkeys(
            ("ID_FS_UUID", "ID_PART_TABLE_UUID", "ID_PART_TABLE_TYPE", "ID_VENDOR"), hostile
        ),
        "block/dm-1": {"ID_FS_TYPE": hostile},
    }
    (laptop.root / "sys/block/dm-1/dm/name").write_text(hostile)
    text = to_json(look(laptop.root, udev=udev))
    assert "\\u001b" not in text
    assert "?]0;owned?" in text


def test_two_hundred_disks(tmp_path: Path) -> None:
    """Generated: 100 RAID 1 arrays, each with a volume group, each of them mounted."""
    block = tmp_path / "sys/block"
    lines = []
    udev: dict[str, dict[str, str]] = {}
    for pair in range(100):
        for half in (0, 1):
            name = f"sd{chr(97 + pair // 26)}{chr(97 + pair % 26)}{half}"[:5].replace("0", "x")
            name = name.replace("1", "y")
            disk = block / name
            (disk / f"{name}1/holders").mkdir(parents=True)
            (disk / f"{name}1/partition").write_text("1\n")
            (disk / f"{name}1/holders/md{pair}").symlink_to(block / f"md{pair}")
            (disk / "device").mkdir()
            (disk / "size").write_text("2097152\n")
            udev[f"block/{name}"] = {"ID_SERIAL_SHORT": f"S{pair}-{half}"}
        (block / f"md{pair}/holders").mkdir(parents=True)
        (block / f"md{pair}/holders/dm-{pair}").symlink_to(block / f"dm-{pair}")
        (block / f"dm-{pair}/dm").mkdir(parents=True)
        (block / f"dm-{pair}/dev").write_text(f"254:{pair}\n")
        (block / f"dm-{pair}/dm/name").write_text(f"vg{pair}-root\n")
        (block / f"dm-{pair}/dm/uuid").write_text(f"LVM-{pair}\n")
        lines.append(f"{pair} 1 254:{pair} / /srv/{pair} rw - ext4 /dev/mapper/vg{pair}-root rw")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines))
    facts = look(tmp_path, udev=udev)
    assert len(facts.disks) == 200
    assert len({disk.serial for disk in facts.disks}) == 200
    assert len(facts.layers) == 200
    assert [layer.mounts for layer in facts.layers if layer.kind == "lvm"] == [
        (f"/srv/{pair}",) for pair in range(100)
    ]
