"""Stacks of storage as people read them: trees in a probe, steps in a dry run."""

from dataclasses import replace

from report_samples import DISK_PATH, ESP, FACTS, PLAN, ROOT, SSD

from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.plan import Plan, Step
from installer.model.steps import PartitionRef, StackedRef
from installer.model.storage import Tpm2
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    EditTable,
    EnableSwap,
    EraseDisk,
    FormatLuks,
    MakeFilesystem,
    MakeSwapFile,
    MarkComplete,
    MirrorEsp,
    MountFilesystem,
    PlannedPartition,
    TearDown,
    WipeDisk,
    WriteTable,
)
from installer.model.units import GIB, MIB
from installer.report.lines import as_text
from installer.report.text import facts_text, plan_summary, plan_text

RAID = "a19d880f-05fc-4d3b-a006-743f0f84911e"
WINDOWS_PATH = "/dev/disk/by-id/ata-WINDOWS-1"
WINDOWS = Disk(
    "/dev/sdc",
    1024 * GIB,
    by_id=("ata-WINDOWS-1",),
    serial="WINDOWS-1",
    table="gpt",
    partitions=(
        FoundPartition(
            "/dev/sdc1",
            1,
            16 * MIB,
            type_guid="e3c9e316-0b5c-4db8-817d-f92df00215ae",
            name="Microsoft reserved partition",
        ),
        FoundPartition("/dev/sdc2", 2, 500 * GIB, filesystem="ntfs", label="Windows"),
        FoundPartition("/dev/sdc3", 3, 523 * GIB, filesystem="ext4", label="old"),
    ),
)
NEW = PartitionRef(WINDOWS_PATH, 3, "b1a2c3d4-0003-4000-8000-000000000003", 501 * GIB, 523 * GIB)
STACK = (
    Layer("/dev/md127", "md", "md127", ("/dev/sda2", "/dev/sdb2"), "LVM2_member"),
    Layer("/dev/dm-0", "lvm", "vg-meta", ("/dev/md127",)),
    Layer("/dev/dm-1", "lvm", "vg-data", ("/dev/md127",)),
    Layer("/dev/dm-2", "lvm", "vg-pool", ("/dev/dm-0", "/dev/dm-1"), "ext4", ("/srv/a b",)),
    Layer("7a0e", "btrfs", "pair", ("/dev/sda1", "/dev/sdb1"), "btrfs", ("/home",)),
    Layer("tank", "zfs", "tank", ("/dev/sdd",), "zfs"),
    Layer("/dev/loop0", "other", "/live/root.squashfs", ("/dev/sde1",), "squashfs", ("/ro",)),
)
SERVER = replace(
    FACTS,
    disks=(
        *(
            Disk(
                f"/dev/sd{letter}",
                512 * GIB,
                serial=f"DISK-{letter}",
                vendor="ATA",
                model="ATA disk",
                table="gpt",
                partitions=(
                    FoundPartition(f"/dev/sd{letter}1", 1, 100 * GIB, filesystem="btrfs"),
                    FoundPartition(
                        f"/dev/sd{letter}2",
                        2,
                        412 * GIB,
                        type_guid=RAID,
                        filesystem="linux_raid_member",
                        label="db3:pv",
                    ),
                ),
            )
            for letter in "ab"
        ),
        Disk("/dev/sdd", 8 * GIB, vendor="NETAPP", model="LUN", paths=("/dev/sdx", "/dev/sdy")),
        Disk(
            "/dev/sde",
            4 * GIB,
            slot="5",
            optimal_io=MIB,
            removable=True,
            boot_medium="/ro is the image /live/root.squashfs",
            in_use=("/swap on /dev/sde1 is swapped to",),
            partitions=(FoundPartition("/dev/sde1", 1, 4 * GIB, mounts=("/live",), swap=True),),
        ),
    ),
    layers=STACK,
)


def _disks(facts: Facts) -> str:
    text = as_text(facts_text(facts))
    return text[text.index("DISKS") : text.index("\nNETWORK")]


def test_what_lies_on_a_disk_is_a_tree() -> None:
    assert (
        _disks(SERVER)
        == """\
DISKS (4)
  /dev/sda   512 GiB  ?  flash             ATA disk
      serial   DISK-a
      in use   mounted at /home, /srv/a b
      carries  gpt
      /dev/sda1  100 GiB  btrfs
      `- btrfs pair  mounted at /home  (also on /dev/sdb1)
      /dev/sda2  412 GiB  linux_raid_member  "db3:pv"
      `- /dev/md127  md  LVM2_member  (also on /dev/sdb2)
         |- /dev/dm-0  lvm vg-meta
         |  `- /dev/dm-2  lvm vg-pool  ext4  mounted at /srv/a b  (also on
         |        /dev/dm-1)
         `- /dev/dm-1  lvm vg-data
            `- /dev/dm-2  lvm vg-pool  (see /dev/dm-0)
  /dev/sdb   512 GiB  ?  flash             ATA disk
      serial   DISK-b
      in use   mounted at /home, /srv/a b
      carries  gpt
      /dev/sdb1  100 GiB  btrfs
      `- btrfs pair  (see /dev/sda1)
      /dev/sdb2  412 GiB  linux_raid_member  "db3:pv"
      `- /dev/md127  md  (see /dev/sda2)
  /dev/sdd  8.00 GiB  ?  flash             NETAPP LUN
      serial   unknown
      paths    /dev/sdx, /dev/sdy
      in use   held by tank
      carries  nothing recognised
      `- zfs tank
  /dev/sde  4.00 GiB  ?  flash, removable  ?
      serial   unknown
      slot     5
      stripes  1.00 MiB
      in use   the running system needs it: /ro is the image
               /live/root.squashfs; /swap on /dev/sde1 is swapped to; mounted
               at /live, /ro; swapped to
      carries  partitions
      /dev/sde1  4.00 GiB  nothing recognised  mounted at /live  swapped to
      `- /dev/loop0  /live/root.squashfs  squashfs  mounted at /ro
"""
    )


def test_a_tree_of_hostile_names_stays_inside_its_margin() -> None:
    layer = Layer("/dev/dm-0", "lvm", "vg-\x1b[2J" + "x" * 90, ("/dev/nvme0n1p2",))
    text = as_text(facts_text(replace(FACTS, layers=(layer, replace(layer, on=("/dev/dm-0",))))))
    assert "\x1b" not in text
    assert "vg-\\x1b[2J" in text
    assert max(map(len, text.splitlines())) <= 79


def _plan(*steps: Step, chosen: tuple[Disk, ...] = (WINDOWS,)) -> Plan:
    return Plan(1, "uefi", chosen, (), steps)


def _steps(plan: Plan) -> str:
    text = as_text(plan_text(plan))
    assert max(map(len, text.splitlines())) <= 79
    return text[text.index("STEPS") :].partition("\n")[2]


def test_layers_die_one_after_the_other_and_what_is_kept_is_said() -> None:
    kept, gone = WINDOWS.partitions[:2], WINDOWS.partitions[2:]
    plan = _plan(
        TearDown("/dev/dm-2", ("/srv/a b",), swap=False, layer=STACK[3]),
        TearDown("/dev/md127", (), swap=False, layer=STACK[0]),
        EditTable(
            WINDOWS_PATH, "/dev/sdc", 1024 * GIB, "WINDOWS-1", None, "gpt", 512, kept, gone, ()
        ),
    )
    text = as_text(plan_text(plan))
    assert text.startswith("""\
!!! WILL BE DESTROYED !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
!                                                                             !
!   lvm vg-pool (/dev/dm-2 on /dev/dm-0, /dev/dm-1): ext4                     !
!   md md127 (/dev/md127 on /dev/sda2, /dev/sdb2): LVM2_member                !
!                                                                             !
!   of /dev/disk/by-id/ata-WINDOWS-1: /dev/sdc3 523 GiB ext4                  !
!       now /dev/sdc, serial WINDOWS-1                                        !
!                                                                             !
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!

KEPT
  partition 1 of /dev/disk/by-id/ata-WINDOWS-1 (16.0 MiB, Microsoft reserved,
    "Microsoft reserved partition")
  partition 2 of /dev/disk/by-id/ata-WINDOWS-1 (500 GiB, ntfs, "Windows")

NOT TOUCHED
""")
    assert "\nKEPT\n" in as_text(plan_summary(plan))


def test_a_partition_that_is_kept_but_made_anew_is_not_called_kept() -> None:
    plan = _plan(MakeFilesystem((NEW,), "ext4", "f500", ("mkfs.ext4",)))
    text = as_text(plan_text(plan))
    assert text.startswith("""\
!!! WILL BE DESTROYED !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
!                                                                             !
!   what partition 3 of /dev/disk/by-id/ata-WINDOWS-1 holds (523 GiB, ext4,   !
!   "old")                                                                    !
!                                                                             !
""")
    assert '(500 GiB, ntfs, "Windows")' in text
    assert text.count("partition 3 of /dev/disk/by-id/ata-WINDOWS-1 (") == 0


def test_a_disk_of_which_all_is_kept_destroys_nothing() -> None:
    text = as_text(plan_text(_plan(MountFilesystem(NEW, "ext4", "/data", ()))))
    assert text.startswith("Nothing will be destroyed.\n\nKEPT\n  partition 1 of ")
    assert 'ata-WINDOWS-1 (523 GiB, ext4, "old")\n' in text


def test_a_wiped_disk_keeps_nothing() -> None:
    assert "KEPT" not in as_text(plan_text(PLAN))


def test_the_steps_that_take_apart() -> None:
    assert (
        _steps(
            _plan(
                TearDown("/dev/dm-2", ("/srv/a b",), swap=False, layer=STACK[3]),
                TearDown("/dev/sde1", (), swap=True, layer=None),
                WipeDisk(
                    WINDOWS_PATH, "/dev/sdc", 1024, None, "0x5000", "nothing recognised", blank=True
                ),
                EraseDisk(WINDOWS_PATH, "/dev/sdc", 1024, "S", None, "nvme-sanitize", 120),
            )
        )
        == """\
   1  unmount /srv/a b, wipe and stop lvm vg-pool (/dev/dm-2)
      destroys  lvm vg-pool (/dev/dm-2 on /dev/dm-0, /dev/dm-1): ext4
      lies on   /dev/dm-0, /dev/dm-1
      holds     ext4
      again     cannot be undone
   2  stop swapping to /dev/sde1
      again  cannot be undone
   3  wipe /dev/disk/by-id/ata-WINDOWS-1
      device    /dev/disk/by-id/ata-WINDOWS-1
      destroys  everything on /dev/disk/by-id/ata-WINDOWS-1 (1.00 KiB): nothing
                recognised
      only if   it has 1024 bytes, wwn 0x5000, nothing uses it, it holds zeros
                where signatures would be
      again     cannot be undone
   4  erase /dev/disk/by-id/ata-WINDOWS-1 by nvme-sanitize (about 2 min 00 s)
      device   /dev/disk/by-id/ata-WINDOWS-1
      how      the controller clears everything, spare blocks too
      takes    about 2 min 00 s
      only if  it has 1024 bytes, serial S, nothing uses it
      again    cannot be undone
"""
    )


def test_the_steps_that_write_tables() -> None:
    kept, gone = WINDOWS.partitions[:2], WINDOWS.partitions[2:]
    raid = PlannedPartition(NEW, "pv", RAID.upper(), (0, 63, 48))
    old = PlannedPartition(replace(NEW, number=1), "boot", "83")
    assert (
        _steps(
            _plan(
                EditTable(
                    *(WINDOWS_PATH, "/dev/sdc", 1024, "WINDOWS-1", None, "gpt", 512),
                    *(kept, gone, (raid,)),
                ),
                WriteTable("/dev/sdz", "mbr", "1a2b3c4d", 4096, (old,)),
            )
        )
        == """\
   1  keep partition 1, 2 of /dev/disk/by-id/ata-WINDOWS-1, add pv 523 GiB
      device    /dev/disk/by-id/ata-WINDOWS-1
      destroys  of /dev/disk/by-id/ata-WINDOWS-1: /dev/sdc3 523 GiB ext4
      keeps     partition 1 (16.0 MiB, Microsoft reserved, "Microsoft reserved
                partition")
                partition 2 (500 GiB, ntfs, "Windows")
      removes   partition 3 (523 GiB, ext4, "old")
      only if   it has 1024 bytes, serial WINDOWS-1, nothing uses it, its table
                is still the one that was seen
      again     cannot be undone
      no  name  type             start     size  flags
       3  pv    Linux RAID  513024 MiB  523 GiB  required,no-auto,48
   2  write an MBR to /dev/sdz: boot 523 GiB
      device  /dev/sdz
      table   MBR 1a2b3c4d, sectors of 4096 bytes
      again   run again: the same result
      no  name  type             start     size
       1  boot  Linux data  513024 MiB  523 GiB
"""
    )


def test_the_steps_that_stack() -> None:
    array = StackedRef("/dev/md/pv", "4db50f7f")
    crypt = StackedRef("/dev/mapper/crypt", "1ac5")
    root = StackedRef("/dev/vg/root")
    esps = (ESP, replace(ESP, disk="/dev/sdb"))
    luks = FormatLuks(
        on=array,
        opened=crypt,
        name="crypt",
        argv=("cryptsetup", "luksFormat"),
        passphrase="https://user:hunter2@keys.example.org/k?token=s3cret",
        tpm2=Tpm2(pcrs=[4, 7]),
        recovery_path="/var/lib/netinstall/recovery-crypt",
        discard=True,
    )
    assert (
        _steps(
            _plan(
                CreateArray(array, 1, esps, ("mdadm", "--create", "/dev/md/pv")),
                luks,
                replace(luks, passphrase=None, discard=False),
                CreateVolumeGroup("vg", (crypt,)),
                CreateVolume(root, "vg", "root", GIB + 1, fill=False, type="linear", pool=None),
                CreateVolume(root, "vg", "root", GIB, fill=True, type="thin", pool="pool"),
                MakeFilesystem(
                    (root, crypt), "btrfs", "f5", ("mkfs.btrfs", "-L", "a b"), ("@", "@h")
                ),
                MountFilesystem(root, "btrfs", "/", ("subvol=@", "noatime")),
                MountFilesystem("tank/home", "zfs", "/home", ()),
                CreatePool(
                    *("tank", esps, "mirror", ("zpool", "create", "tank")),
                    {"home": {"compression": "zstd"}, "var": {}},
                ),
                MakeSwapFile("/swap/file", GIB),
                EnableSwap(ROOT),
                MirrorEsp("/boot", ("/boot2",)),
                MarkComplete({DISK_PATH: "d15c"}),
                chosen=(),
            )
        )
        == """\
   1  make RAID 1 /dev/md/pv of partition 1 of
      /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A, partition
      1 of /dev/sdb
      runs   mdadm --create /dev/md/pv
             PARTUUID=b1a2c3d4-0001-4000-8000-000000000001
             PARTUUID=b1a2c3d4-0001-4000-8000-000000000001
      uuid   4db50f7f
      again  closed at the end, also after a failure
   2  encrypt /dev/md/pv as /dev/mapper/crypt, unlocked by a passphrase or the
      TPM or a recovery key
      runs      cryptsetup luksFormat /dev/md/pv
      uuid      1ac5
      secret    https://***@keys.example.org/k?...
      TPM       while these registers stay: 4, 7
      recovery  key written to /var/lib/netinstall/recovery-crypt
      discard   yes: who has the disk sees which blocks are free
      again     closed at the end, also after a failure
   3  encrypt /dev/md/pv as /dev/mapper/crypt, unlocked by the TPM or a
      recovery key
      runs      cryptsetup luksFormat /dev/md/pv
      uuid      1ac5
      secret    a random one, forgotten when the other keys are enrolled
      TPM       while these registers stay: 4, 7
      recovery  key written to /var/lib/netinstall/recovery-crypt
      again     closed at the end, also after a failure
   4  make the volume group vg of /dev/mapper/crypt
      of     /dev/mapper/crypt
      again  closed at the end, also after a failure
   5  make the volume vg/root, 1.00 GiB
      size   1073741825 B
      again  run again: the same result
   6  make the thin volume vg/root, 1.00 GiB
      size       all that is left, at least 1024 MiB
      blocks of  vg/pool
      again      run again: the same result
   7  make btrfs on /dev/vg/root, /dev/mapper/crypt with @, @h
      runs   mkfs.btrfs -L 'a b' /dev/vg/root /dev/mapper/crypt
      uuid   f5
      again  run again: the same result
   8  mount /dev/vg/root as /
      device   /dev/vg/root
      options  subvol=@,noatime
      again    unmounted at the end, also after a failure
   9  mount tank/home as /home
      device  tank/home
      again   unmounted at the end, also after a failure
  10  make the ZFS pool tank of mirror partition 1 of
      /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A, partition
      1 of /dev/sdb
      runs      zpool create tank mirror
                PARTUUID=b1a2c3d4-0001-4000-8000-000000000001
                PARTUUID=b1a2c3d4-0001-4000-8000-000000000001
      data set  tank/home (compression=zstd)
      data set  tank/var
      again     closed at the end, also after a failure
  11  make the swap file /swap/file, 1.00 GiB
      again  run again: the same result
  12  swap on partition 2 of
      /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
      device  PARTUUID=b1a2c3d4-0002-4000-8000-000000000002
      again   switched off at the end, also after a failure
  13  copy /boot to /boot2
      so that  the machine boots when the first of these disks is gone
      again    run again: the same result
  14  mark /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A as
      installed
      GPT    d15c on
             /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
      again  run again: the same result
"""
    )


def test_a_chosen_disk_is_known_by_its_path() -> None:
    assert SSD.stable_path == DISK_PATH
