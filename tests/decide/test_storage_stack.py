"""What is stacked on partitions, and what NixOS is told about it."""

from pathlib import Path
from typing import Any

import pytest
from deciding import answers, disk, machine, plan, refusal

from installer.model.facts import Facts
from installer.model.partition_types import MBR_ACTIVE
from installer.model.plan import WriteFile
from installer.model.steps import PartitionRef, StackedRef
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    EnableSwap,
    FormatLuks,
    MakeFilesystem,
    MirrorEsp,
    MountFilesystem,
    WriteTable,
)
from installer.model.units import GIB, MIB

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    *("mdadm", "cryptsetup", "systemd-cryptenroll", "lvm", "thin_check", "zpool"),
    *("mkfs.xfs", "mkfs.btrfs", "btrfs", "mkswap", "swapon", "swapoff"),
)
HEAD = """
version = 1
payload = { url = "http://192.0.2.1/system.tar.zst", unverified = true }
"""
TWO = """
[[disks]]
match = { transport = "virtio" }
count = 2
"""
ONE = """
[[disks]]
match = { transport = "virtio" }
"""


def _facts(count: int, firmware: str = "uefi", size: int = 20 * GIB) -> Facts:
    facts = machine(*(disk(f"/dev/vd{'abcdef'[n]}", size) for n in range(count)), firmware=firmware)
    return machine(*facts.disks, firmware=firmware, tools={**facts.tools, **dict.fromkeys(TOOLS)})


def _written(steps: Any, name: str) -> str:
    return "".join(
        step.content for step in steps if isinstance(step, WriteFile) and step.path.endswith(name)
    )


def test_a_mirrored_root_boots_from_each_disk() -> None:
    given = answers(
        HEAD
        + TWO
        + """
partitions = [ { name = "half", size = "rest" } ]
[[raid]]
name = "root"
level = 1
members = ["half"]
mount = "/"
"""
    )
    made = plan(_facts(2), given)
    tables = [step for step in made.steps if isinstance(step, WriteTable)]
    assert [[row.name for row in table.partitions] for table in tables] == [["ESP", "half"]] * 2
    (array,) = [step for step in made.steps if isinstance(step, CreateArray)]
    assert array.members == tuple(table.partitions[1].ref for table in tables)
    assert array.argv == (
        *("mdadm", "--create", "/dev/md/root", "--run", "--level=1", "--raid-devices=2"),
        *("--metadata=1.2", f"--uuid={array.array.uuid}", "--name=root", "--homehost=any"),
        "--bitmap=internal",
    )
    mounts = [step for step in made.steps if isinstance(step, MountFilesystem)]
    assert [(step.where, step.filesystem) for step in mounts] == [
        ("/", "ext4"),
        ("/boot", "vfat"),
        ("/boot-2", "vfat"),
    ]
    (mirror,) = [step for step in made.steps if isinstance(step, MirrorEsp)]
    assert (mirror.source, mirror.targets) == ("/boot", ("/boot-2",))
    assert "boot.swraid = {\n    enable = true;" in _written(made.steps, "storage.nix")
    # the machine must start without either of them
    assert _written(made.steps, "storage.nix").count('options = [ "nofail" ];') == 2
    assert 'path = "/boot-2";' in _written(made.steps, "boot-mirror.nix")


def test_a_bios_machine_gets_grub_on_each_disk_of_the_mirror() -> None:
    text = HEAD + TWO + 'partitions = [ { name = "half", size = "rest" } ]\n'
    text += '[[raid]]\nname = "root"\nlevel = 1\nmembers = ["half"]\nmount = "/"\n'
    made = plan(_facts(2, "bios"), answers(text))
    assert (
        'boot.loader.grub.devices = [ "/dev/disk/by-id/virtio-vda" "/dev/disk/by-id/virtio-vdb" ];'
    ) in _written(made.steps, "boot-device.nix")


LUKS_LVM = (
    HEAD
    + ONE
    + """
[[disks.partitions]]
name = "pv"
size = "rest"
luks = { name = "crypt", passphrase = "http://192.0.2.1/key", tpm2 = {}, recovery = true }

[[lvm]]
name = "vg0"
members = ["pv"]

[[lvm.volumes]]
name = "root"
size = "50 %"
mount = "/"

[[lvm.volumes]]
name = "swap"
size = "1 GiB"
filesystem = "swap"

[[lvm.volumes]]
name = "pool"
size = "rest"
thin-pool = true

[[lvm.volumes]]
name = "home"
size = "40 GiB"
pool = "pool"
mount = "/home"
filesystem = "xfs"
"""
)


def test_volumes_on_an_encrypted_disk() -> None:
    made = plan(_facts(1), answers(LUKS_LVM))
    crypt = StackedRef("/dev/mapper/crypt", made_uuid(made.steps))
    kinds = (FormatLuks, CreateVolumeGroup, CreateVolume, MakeFilesystem)
    order = [type(step).__name__ for step in made.steps if isinstance(step, kinds)]
    assert order == [
        *("MakeFilesystem", "FormatLuks", "CreateVolumeGroup"),
        # each is used at once
        *("CreateVolume", "MakeFilesystem", "CreateVolume", "MakeFilesystem"),
        *("CreateVolume", "CreateVolume", "MakeFilesystem"),
    ]
    # a pool that takes all that is left would leave nothing for those that have a size
    volumes = [step.name for step in made.steps if isinstance(step, CreateVolume)]
    assert volumes == ["root", "swap", "pool", "home"]
    (group,) = [step for step in made.steps if isinstance(step, CreateVolumeGroup)]
    assert group.members == (crypt,)
    sizes = {s.name: (s.type, s.size, s.fill) for s in made.steps if isinstance(s, CreateVolume)}
    assert sizes["home"] == ("thin", 40 * GIB, False)
    assert sizes["swap"] == ("linear", GIB, False)
    kind, size, fill = sizes["pool"]
    assert (kind, fill) == ("thin-pool", True)
    assert 0 < size < 20 * GIB - sizes["root"][1] - GIB
    assert [str(s.area) for s in made.steps if isinstance(s, EnableSwap)] == ["/dev/vg0/swap"]
    storage = _written(made.steps, "storage.nix")
    assert f'device = "/dev/disk/by-uuid/{crypt.uuid}";' in storage
    assert 'crypttabExtraOpts = [ "tpm2-device=auto" ];' in storage
    assert "services.lvm.boot.thin.enable = true;" in storage


def test_a_pool_of_all_that_is_left_is_as_large_as_lvcreate_makes_it() -> None:
    text = (ROOT / "examples/lvm-thin.toml").read_text()
    disks = machine(disk(serial="LVM-1", size=14 * GIB))
    facts = machine(*disks.disks, tools={**disks.tools, **dict.fromkeys(TOOLS)})
    made = plan(facts, answers(text))
    (pool,) = [s for s in made.steps if isinstance(s, CreateVolume) and s.type == "thin-pool"]
    # measured with lvm2 2.03.16: of what is left, the metadata and its spare are taken first
    assert pool.size == 4084 * MIB


def made_uuid(steps: Any) -> str:
    """The UUID of the one LUKS header of a plan."""
    (luks,) = [step for step in steps if isinstance(step, FormatLuks)]
    assert luks.opened.uuid is not None
    assert luks.argv[-1] == luks.opened.uuid
    return str(luks.opened.uuid)


def test_an_encrypted_boot_is_refused_where_grub_would_have_to_read_it() -> None:
    text = refusal(_facts(1, "bios"), answers(LUKS_LVM))
    assert text == (
        "error[firmware.mismatch]: / is encrypted, and GRUB on a BIOS machine reads the kernel "
        "from there before anything is unlocked or assembled\n"
        "  where: answers.toml: disks\n"
        '  try:   add a partition with mount = "/boot", filesystem = "ext4" and 1 GiB'
    )


def test_a_btrfs_on_two_disks_with_the_root_in_memory() -> None:
    text = (
        'tmpfs = [ { mount = "/", size = "2 GiB" } ]\n'
        'swap-files = [ { path = "/nix/swap", size = "1 GiB" } ]\n'
        + HEAD
        + TWO
        + """
partitions = [ { name = "data", size = "rest" } ]
[[btrfs]]
members = ["data"]
subvolumes = [
  { path = "@nix", mount = "/nix", mount-options = ["compress=zstd"] },
  { path = "@home", mount = "/home" },
]
"""
    )
    made = plan(_facts(2), answers(text))
    (btrfs,) = [s for s in made.steps if isinstance(s, MakeFilesystem) and s.filesystem == "btrfs"]
    assert len(btrfs.devices) == 2
    assert btrfs.argv[-4:] == ("--data", "raid1", "--metadata", "raid1")
    assert btrfs.subvolumes == ("@nix", "@home")
    mounts = {s.where: s for s in made.steps if isinstance(s, MountFilesystem)}
    assert mounts["/"].source == "tmpfs"
    assert mounts["/nix"].options == ("subvol=@nix", "compress=zstd")
    storage = _written(made.steps, "storage.nix")
    assert '"/".options = [ "mode=755" "size=2147483648" ];' in storage
    assert 'options = [ "compress=zstd" ];' in storage
    # the link by UUID may lead to the other device, and a node would be written
    device = f'device = lib.mkForce "/dev/disk/by-uuid/{btrfs.uuid}";'
    assert storage.count(device) == 2
    assert 'swapDevices = [ { device = "/nix/swap"; size = 1024; } ];' in storage
    assert made.warnings == (
        (
            "/ is in memory: /etc/nixos, the log and all state are gone after each reboot, unless "
            "the payload's configuration keeps them elsewhere"
        ),
    )


def test_a_zfs_mirror() -> None:
    text = (
        HEAD
        + TWO
        + """
partitions = [ { name = "z", size = "rest" } ]
[[zfs]]
name = "rpool"
members = ["z"]
topology = "mirror"
properties = { compression = "zstd" }
datasets = [ { path = "root", mount = "/" }, { path = "home", mount = "/home" } ]
"""
    )
    made = plan(_facts(2), answers(text))
    (pool,) = [step for step in made.steps if isinstance(step, CreatePool)]
    assert pool.topology == "mirror"
    assert pool.argv[-1] == "rpool"
    assert "compression=zstd" in pool.argv
    assert pool.datasets == {"root": {"mountpoint": "legacy"}, "home": {"mountpoint": "legacy"}}
    assert "networking.hostId = " in _written(made.steps, "storage.nix")
    mounts = [(s.source, s.where) for s in made.steps if isinstance(s, MountFilesystem)]
    assert ("rpool/root", "/") in mounts


def test_random_swap_is_left_to_the_installed_system() -> None:
    text = (
        HEAD
        + ONE
        + """
[[disks.partitions]]
type = "swap"
size = "1 GiB"
random-key = true
[[disks.partitions]]
size = "rest"
mount = "/"
"""
    )
    made = plan(_facts(1), answers(text))
    assert not [step for step in made.steps if isinstance(step, EnableSwap)]
    (table,) = [step for step in made.steps if isinstance(step, WriteTable)]
    (swap,) = [row.ref for row in table.partitions if row.name == "swap"]
    assert isinstance(swap, PartitionRef)
    storage = _written(made.steps, "storage.nix")
    assert f'"/dev/disk/by-partuuid/{swap.partuuid}"' in storage
    assert "randomEncryption.enable = true;" in storage


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (
            '[[raid]]\nname = "root"\nlevel = 5\nmembers = ["a"]\nmount = "/"\n',
            (
                "error[storage.members]: RAID 5 needs at least 3 members, root has 2\n"
                "  where: answers.toml: raid[0]\n"
                "  try:   raise count of the disks, or take another level"
            ),
        ),
        (
            '[[btrfs]]\nmembers = ["a"]\ndata = "raid1c3"\nmount = "/"\n',
            (
                "error[storage.members]: btrfs profile raid1c3 needs at least 3 members, "
                "there are 2\n"
                "  where: answers.toml: btrfs[0].data\n"
                "  try:   raise count of the disks, or take another profile"
            ),
        ),
        (
            (
                '[[lvm]]\nname = "vg0"\nmembers = ["a"]\n'
                'volumes = [ { name = "root", size = "50 GiB", mount = "/" } ]\n'
            ),
            (
                "error[disk.too-small]: the volumes of vg0 need 50.0 GiB, it has 38.0 GiB\n"
                "  where: answers.toml: lvm[0].volumes\n"
                "  try:   make a volume smaller, or match larger disks"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_told(group: str, text: str) -> None:
    given = answers(HEAD + TWO + 'partitions = [ { name = "a", size = "rest" } ]\n' + group)
    assert refusal(_facts(2), given) == text


def test_a_hybrid_disk_gets_grub_for_both_firmwares() -> None:
    text = (
        HEAD
        + ONE
        + """
partitions = [
  { type = "bios-boot", size = "1 MiB" },
  { type = "esp", size = "300 MiB" },
  { size = "rest", mount = "/" },
]
"""
    )
    for firmware in ("uefi", "bios"):
        module = _written(plan(_facts(1, firmware), answers(text)).steps, "boot-device.nix")
        assert "{ lib, ... }:" in module
        assert "efiInstallAsRemovable = true;" in module
        assert "efi.canTouchEfiVariables = lib.mkForce false;" in module


def test_of_two_hybrid_disks_each_starts_by_its_own_esp() -> None:
    text = (
        HEAD
        + TWO
        + """
partitions = [
  { type = "bios-boot", size = "1 MiB" },
  { type = "esp", size = "300 MiB" },
  { name = "half", size = "rest" },
]

[[raid]]
name = "root"
level = 1
members = ["half"]
mount = "/"
"""
    )
    first, second = (f"/dev/disk/by-id/{disk.by_id[0]}" for disk in _facts(2).disks)
    rebuilt = plan(_facts(2), answers(text, system={"install": "rebuild"})).steps
    assert f'device = "{first}";' in _written(rebuilt, "boot-device.nix")
    mirror = _written(rebuilt, "boot-mirror.nix")
    assert f'devices = [ "{second}" ];' in mirror
    assert 'path = "/boot-2";' in mirror
    # what names the first file system must not get onto the second
    assert not [step for step in rebuilt if isinstance(step, MirrorEsp)]


def test_an_mbr_for_a_bios_machine() -> None:
    text = HEAD + ONE + 'table = "mbr"\npartitions = [ { size = "rest", mount = "/" } ]\n'
    made = plan(_facts(1, "bios"), answers(text))
    (table,) = [step for step in made.steps if isinstance(step, WriteTable)]
    assert table.label == "mbr"
    (row,) = table.partitions
    assert (row.type_id, row.ref.partuuid) == ("83", f"{table.disk_id}-01")
    assert row.ref.start == MIB
    assert row.attributes == (MBR_ACTIVE,)
