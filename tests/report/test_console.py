"""The plain console: a whole success and a whole failure, as they stand on a serial line."""

import io
import re

import pytest
from report_samples import (
    DISK_PATH,
    LOST,
    PLAN,
    failed,
    installation,
    message,
    progress,
)

from installer.model.errors import Problem
from installer.model.events import AnyEvent, Finished, StepStarted
from installer.model.units import GIB, MIB
from installer.report.console import ConsoleSink, can_be_live

LOG = "/run/netinstall/log.txt"


def shown(*events: AnyEvent, verbose: bool = False) -> str:
    stream = io.StringIO()
    sink = ConsoleSink(stream, verbose=verbose, log=LOG)
    for event in events:
        sink.emit(event)
    sink.close(1)
    return stream.getvalue()


def started(title: str = "unpack it", *, at: float = 10.0) -> StepStarted:
    return StepStarted(time=at, uptime=at, step="unpack", title=title, number=9, count=17)


def test_a_success_is_told_from_the_machine_to_the_times() -> None:
    text = shown(*installation())
    assert (
        text
        == f"""\
netinstall 0.1.0: unattended NixOS installation
  machine    LENOVO ThinkSystem SR250, serial J100ABCD
  firmware   UEFI, x86_64, 2.03 GiB memory, Linux 6.1.0-18-amd64
  booted by  eth0 52:54:00:12:34:56, 192.0.2.10/24 via 192.0.2.1

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

WHAT WILL BE DONE (12 steps)
   1  check the payload http://10.0.2.2:8000/system.tar.zst
   2  wipe {DISK_PATH}
   3  write a GPT to
      {DISK_PATH}: ESP 1.00
      GiB, root 465 GiB
   4  make vfat on partition 1 of
      {DISK_PATH}
   5  make ext4 on partition 2 of
      {DISK_PATH}
   6  mount partition 2 of
      {DISK_PATH} as /
   7  mount partition 1 of
      {DISK_PATH} as /boot
   8  unpack http://10.0.2.2:8000/system.tar.zst
   9  write /etc/nixos/networking.nix
  10  write everything to the disks, then verify system, kernel and initrd
  11  install the boot loader
  12  keep the log as /var/log/netinstall and unmount

[ 1/12] check the payload http://10.0.2.2:8000/system.tar.zst
        [##########----------]  50 %  24.2 of 48.0 MiB  12.1 MiB/s  2 s left
        [####################] 100 %  48.0 of 48.0 MiB  12.1 MiB/s
        done in 4.0 s
[ 2/12] wipe {DISK_PATH}
        done in 0.0 s
[ 3/12] write a GPT to
        {DISK_PATH}: ESP
        1.00 GiB, root 465 GiB
        done in 0.0 s
[ 4/12] make vfat on partition 1 of
        {DISK_PATH}
        done in 0.0 s
[ 5/12] make ext4 on partition 2 of
        {DISK_PATH}
        done in 1.3 s
[ 6/12] mount partition 2 of
        {DISK_PATH} as /
        done in 0.0 s
[ 7/12] mount partition 1 of
        {DISK_PATH} as /boot
        done in 0.0 s
[ 8/12] unpack http://10.0.2.2:8000/system.tar.zst
        [##------------------]  11 %  36 of 314 MiB  12.1 MiB/s  23 s left
        [####----------------]  21 %  67 of 314 MiB  12.1 MiB/s  21 s left
        [######--------------]  30 %  97 of 314 MiB  12.1 MiB/s  18 s left
        [########------------]  40 %  127 of 314 MiB  12.1 MiB/s  16 s left
        [##########----------]  50 %  157 of 314 MiB  12.1 MiB/s  13 s left
        [############--------]  61 %  194 of 314 MiB  12.1 MiB/s  10 s left
        [##############------]  71 %  224 of 314 MiB  12.1 MiB/s  8 s left
        [################----]  80 %  254 of 314 MiB  12.1 MiB/s  5 s left
        [##################--]  90 %  284 of 314 MiB  12.1 MiB/s  3 s left
        [####################] 100 %  314 of 314 MiB  12.1 MiB/s
        done in 26 s
[ 9/12] write /etc/nixos/networking.nix
        done in 0.0 s
[10/12] write everything to the disks, then verify system, kernel and initrd
        done in 0.0 s
[11/12] install the boot loader
        done in 6.2 s
[12/12] keep the log as /var/log/netinstall and unmount
        done in 0.0 s

+== INSTALLED in 38 s ========================================================+
| check the payload http://10.0.2.2:8000/system.tar.zst                 4.0 s |
| make ext4 on partition 2 of /dev/disk/by-id/nvme-Samsung_S...         1.3 s |
| unpack http://10.0.2.2:8000/system.tar.zst                             26 s |
| install the boot loader                                               6.2 s |
| 8 short steps                                                         0.3 s |
+=============================================================================+
"""
    )


def test_a_failure_says_what_where_what_to_try_and_where_the_log_is() -> None:
    text = shown(
        *installation(until=8),
        message("connection reset; trying again in 2 s", "warning", step="unpack"),
        failed(LOST, step="unpack"),
        message("unmounted everything"),
    )
    assert text.endswith("""\
        [##########----------]  50 %  157 of 314 MiB  12.1 MiB/s  13 s left
        warning: connection reset; trying again in 2 s

+== INSTALLATION FAILED ======================================================+
| in     step 8 of 12: unpack http://10.0.2.2:8000/system.tar.zst             |
|                                                                             |
| what   no byte came for 2 min 00 s, after 188 of 314 MiB                    |
| where  http://10.0.2.2:8000/system.tar.zst                                  |
| try    see whether the server 10.0.2.2 still runs and is reachable, then    |
|        start the machine again                                              |
| error  network.lost (the connection broke and did not come back)            |
|                                                                             |
| exit   6 (the network)                                                      |
| disks  the disks were already being changed; this machine cannot boot from  |
|        them                                                                 |
| log    /run/netinstall/log.txt                                              |
+=============================================================================+
unmounted everything
""")


def test_a_failure_before_the_first_step_names_all_problems_and_no_change() -> None:
    text = shown(
        failed(
            Problem("disk.none", "no disk matches", "a.toml: disks[0].match", "see `probe`"),
            Problem("tool.missing", "mkfs.xfs is not in this boot environment"),
        )
    )
    assert (
        text
        == """
+== INSTALLATION FAILED ======================================================+
| in     the preparation                                                      |
|                                                                             |
| what   no disk matches                                                      |
| where  a.toml: disks[0].match                                               |
| try    see `probe`                                                          |
| error  disk.none (no disk matches)                                          |
|                                                                             |
| what   mkfs.xfs is not in this boot environment                             |
| error  tool.missing (the boot environment lacks a program)                  |
|                                                                             |
| exit   6 (the network)                                                      |
| disks  no disk was changed                                                  |
| log    /run/netinstall/log.txt                                              |
+=============================================================================+
"""
    )


def test_a_failure_while_the_payload_is_checked_has_changed_no_disk() -> None:
    text = shown(*installation(until=1), failed(LOST, step="check-payload"))
    assert "| disks  no disk was changed " in text


def test_every_line_of_a_serial_console_is_short_printable_ascii() -> None:
    hostile = "Größe \x1b[31m\x9b2J\u202e " + "x" * 200 + "\r\nnext\tline\x07"
    problem = Problem("command.failed", hostile, hostile, f"its last words:\n{hostile}")
    text = shown(
        *(message(hostile, level) for level in ("debug", "info", "output", "warning")),
        started(hostile),
        *(message(hostile, level, step="unpack") for level in ("info", "output")),
        progress("unpack", 999 * GIB, 1000 * GIB, at=30),
        failed(problem, step="unpack"),
        Finished(time=1, uptime=1, seconds=1, phases={hostile: 1.0}),
        verbose=True,
    )
    for line in text.removesuffix("\n").split("\n"):
        assert line == line.rstrip()
        assert line == "" or line.isprintable(), repr(line)
        assert line.isascii()
        assert len(line) <= 79
    assert "\\x1b[31m\\x9b2J\\u202e" in text


def test_program_output_is_kept_for_the_log_unless_asked_for() -> None:
    events: list[AnyEvent] = [
        started(),
        message("mke2fs 1.47.0", "output", step="unpack"),
        message("why", "debug", step="unpack"),
        message("label is EFI", step="unpack"),
    ]
    assert shown(*events) == "[ 9/17] unpack it\n        label is EFI\n"
    assert shown(*events, verbose=True) == (
        "[ 9/17] unpack it\n        | mke2fs 1.47.0\n        . why\n        label is EFI\n"
    )


def test_progress_is_told_every_two_seconds_at_most() -> None:
    quick = [progress("unpack", n * MIB, 100 * MIB, at=10 + n / 50) for n in range(101)]
    assert shown(started(), *quick).count(" % ") == 1


def test_progress_is_told_at_each_tenth_and_as_a_sign_of_life() -> None:
    slow = [progress("unpack", n * MIB, 100 * MIB, at=10 + n * 3) for n in range(101)]
    told = [int(share) for share in re.findall(r"(\d+) %", shown(started(), *slow))]
    assert set(range(10, 101, 10)) <= set(told)
    assert told[0] == 4, "more than ten seconds without a line are too long"


def test_progress_without_a_known_end_is_told_too() -> None:
    text = shown(started(), progress("unpack", 300 * MIB, None, at=25))
    assert text.splitlines()[1] == "        300 MiB  12.1 MiB/s"


def test_the_longest_progress_line_fits() -> None:
    text = shown(started(), progress("unpack", int(9.99 * GIB * 0.001), int(9.99 * GIB), at=25))
    assert text.splitlines()[1].endswith("15 min left")
    assert len(text.splitlines()[1]) <= 79


@pytest.mark.parametrize("term", ["", "dumb", "unknown", "xterm"])
def test_what_is_no_terminal_is_never_live(term: str) -> None:
    assert not can_be_live(io.StringIO(), {"TERM": term})


def test_the_plan_of_the_samples_destroys_something() -> None:
    assert PLAN.destroyed
