"""What people read in a dry run and a probe: the text itself, line by line."""

import io

import pytest
from report_samples import FACTS, PLAN

from installer.model.facts import Facts
from installer.model.plan import Plan, WriteFile
from installer.report.lines import as_text, ascii_only, neutral, show, wrap
from installer.report.text import facts_text, header_text, plan_text


def test_the_header_says_which_machine_this_is() -> None:
    assert (
        as_text(header_text("0.1.0", FACTS))
        == """\
netinstall 0.1.0: unattended NixOS installation
  machine    LENOVO ThinkSystem SR250, serial J100ABCD
  firmware   UEFI, x86_64, 2.03 GiB memory, Linux 6.1.0-18-amd64
  booted by  eth0 52:54:00:12:34:56, 192.0.2.10/24 via 192.0.2.1
"""
    )


def test_facts_are_told_without_secrets() -> None:
    assert (
        as_text(facts_text(FACTS, tools=("wipefs",)))
        == """\
MACHINE
  machine   LENOVO ThinkSystem SR250, serial J100ABCD
  uuid      4c4c4544-0031-3010-8030-b7c04f333258
  firmware  UEFI
  system    Linux 6.1.0-18-amd64 on x86_64
  memory    2.03 GiB

DISKS (2)
  /dev/nvme0n1   466 GiB  nvme  flash             Samsung SSD 980 PRO 500GB
      serial   S5GXNX0T123456A
      wwn      eui.002538b111b2c3d4
      by-id    nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
               nvme-eui.002538b111b2c3d4
      by-path  pci-0000:01:00.0-nvme-1
      in use   no
      carries  gpt
      /dev/nvme0n1p1  512 MiB  vfat  "EFI"
      /dev/nvme0n1p2  465 GiB  ext4
  /dev/sda      28.9 GiB  usb   flash, removable  SanDisk Ultra
      serial   4C530001230621117364
      by-id    usb-SanDisk_Ultra_4C530001230621117364-0:0
      in use   mounted at /media
      carries  iso9660

NETWORK INTERFACES (2)
  eth0  52:54:00:12:34:56  carrier     1000 Mbit/s  igb  booted from
      names    eno1, enp2s0
      lease    192.0.2.10/24; gateway 192.0.2.1; DNS 192.0.2.53, 192.0.2.54;
               host name node7; domain example.org; for 1 h 00 min
      told by  /run/net-eth0.conf
  eth1  52:54:00:12:34:57  no carrier               igb
      own mac  52:54:00:aa:bb:cc
      lease    none

KERNEL ARGUMENTS
  ip=dhcp
  netinstall.report=https://***@reports.example.org/in?...

PAYLOAD
  from      http://10.0.2.2:8000/system.tar.zst
  size      48.0 MiB
  resuming  the server can continue a broken download

MISSING PROGRAMS
  mkfs.bcachefs, mkfs.btrfs, mkfs.f2fs, mkfs.xfs, wipefs
"""
    )


def test_a_machine_that_shows_nothing_is_told_what_to_check() -> None:
    bare = Facts(1, "bios", "x86_64", "6.1.0", 512 * 1024**2, "0" * 32)
    text = as_text(facts_text(bare))
    assert "none: check cabling, controller mode and the kernel's drivers" in text
    assert "none: check the kernel's drivers" in text
    assert "unknown machine" in text
    assert "booted by  no interface is known to have booted" in as_text(header_text("1", bare))


def test_a_plan_begins_with_what_it_destroys_and_whom_it_spares() -> None:
    assert as_text(plan_text(PLAN)).startswith("""\
!!! WILL BE DESTROYED !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!
!                                                                             !
!   everything on                                                             !
!   /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A (466 GiB): !
!   gpt: /dev/nvme0n1p1 512 MiB vfat "EFI", /dev/nvme0n1p2 465 GiB ext4       !
!       now /dev/nvme0n1, Samsung SSD 980 PRO 500GB, nvme, serial             !
!       S5GXNX0T123456A                                                       !
!                                                                             !
!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!

NOT TOUCHED
  /dev/sda 28.9 GiB, SanDisk Ultra, usb, serial 4C530001230621117364
      because transport is usb, not nvme
      because it is removable (say transport = "usb" to take it)
      because it is in use: /dev/sda is mounted at /media

WARNINGS
  * the lease names no search domain; example.org is used

STEPS (UEFI)
   1  check the payload http://10.0.2.2:8000/system.tar.zst
      sha256  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
      retry   2 min 00 s without progress
      again   run again: the same result
   2  wipe /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
      device    /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
      destroys  everything on
                /dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A
                (466 GiB): gpt: /dev/nvme0n1p1 512 MiB vfat "EFI",
                /dev/nvme0n1p2 465 GiB ext4
      only if   it has 500107862016 bytes, serial S5GXNX0T123456A, wwn
                eui.002538b111b2c3d4, nothing uses it
      again     cannot be undone
""")


def test_a_plan_shows_tables_and_files_as_they_will_be() -> None:
    text = as_text(plan_text(PLAN))
    assert (
        """
      no  name  type              start      size
       1  ESP   EFI system        1 MiB  1.00 GiB
       2  root  root (x86-64)  1025 MiB   465 GiB
"""
        in text
    )
    assert (
        """
   9  write /etc/nixos/networking.nix
      mode   0644
      again  run again: the same result
      | {
      |   networking.hostName = "node7";
      | }
  10  write"""
        in text
    )


def test_a_plan_is_the_same_text_each_time_and_fits_the_screen() -> None:
    assert plan_text(PLAN) == plan_text(PLAN)
    assert max(len(line.text) for line in plan_text(PLAN)) <= 79


def test_a_plan_without_other_disks_or_destruction_says_so() -> None:
    text = as_text(plan_text(Plan(1, "bios", (), (), ())))
    assert text.startswith("Nothing will be destroyed.\n")
    assert "(there is no other disk)" in text


def test_nothing_is_coloured_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    show(plan_text(PLAN), stream)
    assert stream.getvalue() == as_text(plan_text(PLAN))


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\bc\x7f", "a\\rb\\x08c\\x7f"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("one\u2028two\x85", "one\\u2028two\\x85"),
        ("\udc80 is no UTF-8", "\\udc80 is no UTF-8"),
        ("tab\there\u00a0too", "tab here too"),
        ("Größe 5 µm", "Größe 5 µm"),
    ],
)
def test_foreign_text_cannot_command_a_terminal(hostile: str, shown: str) -> None:
    assert neutral(hostile) == shown


def test_serial_lines_get_ascii() -> None:
    assert ascii_only("Größe … “é” – 日") == 'Gro\\xdfe ... "e" - \\u65e5'


def test_a_file_with_hostile_content_stays_inside_its_margin() -> None:
    step = WriteFile("/etc/x", "a\x1b[2J\nb\x0b\x85c\n")
    text = as_text(plan_text(Plan(1, "uefi", (), (), (step,))))
    assert "\x1b" not in text
    assert "      | a\\x1b[2J\n      | b\\x0b\\x85c\n" in text


def test_long_words_are_broken_and_indentation_is_kept() -> None:
    assert wrap("its last words:\n  deep " + "x" * 30, first="try  ", width=30) == [
        "try  its last words:",
        "       deep xxxxxxxxxxxxxxxxxx",
        "       xxxxxxxxxxxx",
    ]
