"""Disks with a past: what the dirty matrix installs over.

`make` of a content is sh that runs in the boot environment with real tools; the functions of
`PROLOGUE` and these variables are there: $a and $b (the disks), $n (a name that no other has).
`image` writes to the blank images before the machine starts, for what the boot environment has no
tools for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import cache, process
from lab.disk import size_bytes

SIZES = ("640M", "320M")
"""Of the first and the second disk of a content."""


@dataclass(frozen=True)
class Content:
    """What a disk, or two, held before.

    `refused` are regexes, in order, of what the refusal says of it (@ stands for $n); `ours` is
    an installation by netinstall, which wipe = "known" may destroy.
    """

    name: str
    make: str
    refused: tuple[str, ...]
    disks: int = 1
    image: Callable[[Sequence[Path], int], None] | None = None
    ours: bool = False


PROLOGUE = """
set -eu
export LC_ALL=C
# an area that is swapped to is not to change while it is watched
echo 0 >/proc/sys/vm/swappiness
table() { # DISK LABEL PARTITIONS... as sfdisk reads them
    disk=$1 label=$2 && shift 2
    printf '%s\\n' "label: $label" "$@" | sfdisk --quiet --wipe=always "$disk"
    udevadm settle
}
old_ext4() { mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$1"; }
old_mount() {
    mkdir -p "/run/old/$n"
    mount -o noatime "$1" "/run/old/$n"
    echo old >"/run/old/$n/file"
}
mirror() { # LEVEL-METADATA MEMBERS...
    metadata=$1 && shift
    mdadm --quiet --create "/dev/md/$n" --run --level=1 --metadata="$metadata" --raid-devices=2 \
        --assume-clean --bitmap=none "$@"
    # udev does not watch a device that it looks at: the end of mdadm's writing may pass unseen,
    # and a member go for nothing until the next start
    for member; do
        [ "$member" = missing ] || udevadm trigger --action=change --settle "$member"
    done
}
luks() { # DEVICE
    printf old | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 \
        --pbkdf-force-iterations 1000 --key-file=- "$1"
    printf old | cryptsetup open --key-file=- "$1" "$n"
}
settled() { udevadm settle; sync; }
"""


def _bcache(images: Sequence[Path], sector: int) -> None:
    for image, kind in zip(images, ("--bdev", "--cache"), strict=True):
        process.run(["make-bcache", "--block", str(sector), kind, str(image)])


def _pool(images: Sequence[Path], _: int) -> None:
    process.run(["cp", "--sparse=always", str(old_pool()), str(images[0])])


def _iso(images: Sequence[Path], _: int) -> None:
    with images[0].open("r+b") as target, _hybrid_iso().open("rb") as source:
        shutil.copyfileobj(source, target)


CONTENTS = (
    Content(
        "gpt-ext4",
        """
        table $a gpt size=200MiB size=100MiB
        old_ext4 ${a}1; mkfs.vfat ${a}2 >&2; old_mount ${a}1
        """,
        (r"1 is mounted at /run/old/@",),
    ),
    Content(
        "mbr-vfat",
        """
        table $a dos size=100MiB,type=c type=5 size=64MiB,type=82 size=64MiB
        mkfs.vfat ${a}1 >&2; mkswap --quiet ${a}5; old_ext4 ${a}6
        """,
        (r"carries mbr: ", r"1 100 MiB vfat", r"5 64\.0 MiB swap", r"6 64\.0 MiB ext4"),
    ),
    Content(
        "lvm-disk",
        """
        vgcreate -q $n $a; lvcreate -q -y -L 200m -n data $n; old_ext4 /dev/$n/data
        """,
        (r"LVM2_member",),
    ),
    Content(
        "lvm-thin",
        """
        table $a gpt size=500MiB
        vgcreate -q $n ${a}1; lvcreate -q -y --type thin-pool -L 200m -n pool $n
        lvcreate -q -y -V 300m --thinpool pool -n data $n; old_ext4 /dev/$n/data
        old_mount /dev/$n/data
        """,
        (r"is mounted at /run/old/@",),
    ),
    Content(
        "md-1.2",
        """
        table $a gpt size=200MiB size=200MiB
        mirror 1.2 ${a}1 ${a}2; old_ext4 /dev/md/$n
        """,
        (r"1 200 MiB linux_raid_member", r"2 200 MiB linux_raid_member"),
    ),
    Content(
        "md-1.0",
        """
        mirror 1.0 $a missing; old_ext4 /dev/md/$n; old_mount /dev/md/$n
        """,
        (r"is mounted at /run/old/@",),
    ),
    Content(
        "md-0.90",
        """
        table $a gpt size=200MiB size=+
        mirror 0.90 ${a}1 ${a}2; old_ext4 /dev/md/$n; mdadm --quiet --stop /dev/md/$n
        """,
        (r"1 200 MiB linux_raid_member", r"2 \d+ MiB linux_raid_member"),
    ),
    Content(
        "luks",
        """
        table $a gpt size=400MiB
        luks ${a}1; old_ext4 /dev/mapper/$n; old_mount /dev/mapper/$n
        """,
        (r"is mounted at /run/old/@",),
    ),
    Content(
        "lvm-luks-md",
        """
        table $a gpt size=300MiB size=300MiB
        mirror 1.2 ${a}1 ${a}2; luks /dev/md/$n; vgcreate -q v$n /dev/mapper/$n
        lvcreate -q -y -L 100m -n root v$n; lvcreate -q -y -L 32m -n swap v$n
        old_ext4 /dev/v$n/root; old_mount /dev/v$n/root
        mkswap --quiet /dev/v$n/swap; swapon /dev/v$n/swap
        """,
        (r"is mounted at /run/old/@", r"is swapped to"),
    ),
    Content(
        "btrfs-two",
        """
        # without its module nobody remembers the members
        modprobe btrfs
        table $a gpt size=320MiB
        mkfs.btrfs --quiet --force -d raid1 -m raid1 ${a}1 $b
        udevadm settle; btrfs device scan ${a}1 $b >&2; old_mount ${a}1
        """,
        (r"is mounted at /run/old/@",),
        disks=2,
    ),
    Content(
        "bcache",
        """
        modprobe bcache
        for one in $a $b; do
            [ -e /sys/class/block/${one#/dev/}/bcache ] || echo $one >/sys/fs/bcache/register
        done
        udevadm settle
        set=$(readlink -f /sys/class/block/${b#/dev/}/bcache/set)
        echo ${set##*/} >/sys/class/block/${a#/dev/}/bcache/attach
        cached=$(readlink -f /sys/class/block/${a#/dev/}/bcache/dev)
        old_ext4 /dev/${cached##*/}; old_mount /dev/${cached##*/}
        # at each flush bcache writes to its cache; what is read-only is not flushed (fs/sync.c)
        mount -o remount,ro /run/old/$n
        """,
        (r"is mounted at /run/old/@",),
        disks=2,
        image=_bcache,
    ),
    Content("zfs", "", (r"zfs_member",), image=_pool),
    Content(
        "stale-gpt",
        """
        table $a gpt start=8MiB,size=300MiB size=100MiB
        old_ext4 ${a}1; old_ext4 ${a}2
        # the protective MBR stays
        dd if=/dev/zero of=$a bs=$(blockdev --getss $a) seek=1 count=5 conv=fsync 2>/dev/null
        blockdev --rereadpt $a
        """,
        (r"carries gpt",),
    ),
    Content(
        "uncovered",
        """
        table $a gpt size=100MiB size=100MiB size=100MiB size=100MiB size=+
        for part in ${a}1 ${a}2; do old_ext4 $part; done
        mkswap --quiet ${a}3
        pvcreate -q ${a}4
        mirror 1.0 ${a}5 missing; old_ext4 /dev/md/$n; mdadm --quiet --stop /dev/md/$n
        """,
        (r"1 100 MiB ext4", r"3 100 MiB swap", r"4 100 MiB LVM2_member", r"5 .* linux_raid_member"),
    ),
    Content(
        "swap",
        """
        table $a gpt size=64MiB,type=swap
        mkswap --quiet ${a}1; swapon ${a}1
        """,
        (r"1 is swapped to",),
    ),
    Content("iso", "", (r"iso9660",), image=_iso),
    Content("installed", "netinstall install $answers >&2", (r"carries gpt: ",), ours=True),
    Content(
        "interrupted",
        """
        rm -f /run/heard; mkfifo /run/heard
        netinstall install $answers >/run/heard 2>&1 & pid=$!
        grep -q '/[0-9]*] unpack' </run/heard
        kill -9 $pid
        # a power cut would end these, too
        while mountpoint -q /mnt; do umount --recursive /mnt 2>/dev/null || :; done
        """,
        (r"carries gpt: ",),
        ours=True,
    ),
)


def old_pool() -> Path:
    """A disk with a ZFS pool that was exported: made by zfs-fuse(8), which needs no module.

    Its package would start a daemon on installation, so that it is only unpacked.
    """

    def make(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-zfs-") as folder:
            process.run(["env", "-C", folder, "apt-get", "download", "zfs-fuse"], 600)
            (archive,) = Path(folder).glob("*.deb")
            process.run(["dpkg-deb", "--extract", str(archive), f"{folder}/root"], 120)
            with output.open("xb") as file:
                file.truncate(size_bytes(SIZES[0]))
            # the tools talk to the daemon over a socket in /var/run/zfs
            script = """
                set -eu
                mkdir -p /var/run/zfs
                "$1/sbin/zfs-fuse" --no-daemon &
                trap 'kill $!' EXIT
                while [ ! -S /var/run/zfs/zfs_socket ]; do kill -0 $!; sleep 0.1; done
                "$1/sbin/zpool" create -f -m none oldpool "$2"
                "$1/sbin/zpool" export oldpool
            """
            process.run(["sh", "-c", script, "sh", f"{folder}/root", str(output)], 60)

    return cache.build("old-pool", [Path(__file__)], make)


def _hybrid_iso() -> Path:
    """An image as distributions have them: ISO 9660, a GPT and an MBR over each other."""

    def make(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-iso-") as folder:
            tree, esp = Path(folder, "tree"), Path(folder, "esp.img")
            tree.mkdir()
            (tree / "file").write_bytes(os.urandom(1 << 20))
            with esp.open("xb") as file:
                file.truncate(4 << 20)
            process.run(["mkfs.vfat", str(esp)])
            process.run(
                [
                    *("xorriso", "-as", "mkisofs", "-quiet", "-V", "OLD_ISO", "-o", str(output)),
                    *("-append_partition", "2", "0xef", str(esp), "-appended_part_as_gpt"),
                    *("-partition_offset", "16", str(tree)),
                ]
            )

    return cache.build("old-iso", [Path(__file__)], make)
