"""File systems: one entry each with all that differs between them."""

from collections.abc import Iterable
from dataclasses import dataclass

from installer.model.units import GIB, MIB


@dataclass(frozen=True)
class Filesystem:
    """How a file system is made, mounted and limited.

    `make` is the argv of mkfs without uuid, label and device; `uuid_option` and `label_option`
    precede their values. `label_bytes` and `minimum_bytes` are the limits of the format. Journal,
    log and copies of metadata take one byte of `own_share`, at least and at most so many.
    """

    name: str
    tool: str
    package: str
    make: tuple[str, ...]
    uuid_option: tuple[str, ...]
    label_option: str
    label_bytes: int
    minimum_bytes: int
    mount_options: tuple[str, ...] = ()
    own_share: int = 16
    own_least: int = 0
    own_most: int = 128 * MIB

    def capacity(self, size: int) -> int:
        """Return the bytes of files that one of `size` bytes can surely take.

        4 % are inode tables (1.6 % for ext4), allocation groups, and metadata that grows. Blocks
        reserved for root count: it is root who installs.
        """
        own = min(max(size // self.own_share, self.own_least), self.own_most)
        return max(0, int(size * 0.96) - own)

    def inodes(self, size: int, options: Iterable[str] = ()) -> int | None:
        """Return how many files, folders and links one of `size` bytes can surely hold.

        None: as many as there is room for, or it is not known, as with `options` of mkfs that
        change it. The ratios are those of mke2fs.conf(5): "small", none, "big" and "huge".
        """
        if self.name != "ext4" or any(word[:2] in ("-i", "-N", "-T") for word in options):
            return None
        ratio = next((ratio for limit, ratio in _INODE_RATIOS if size < limit), 65536)
        # some are the format's own, and the last group of blocks may have none
        return max(0, size * 98 // 100 // ratio - 16)

    def make_argv(self, uuid: str, label: str | None) -> tuple[str, ...]:
        """Return the argv that makes this file system, up to the device, which comes last."""
        argv = [*self.make, *self.uuid_option, self._encode_uuid(uuid)]
        if label is not None:
            argv += [self.label_option, label]
        return tuple(argv)

    def _encode_uuid(self, uuid: str) -> str:
        match self.name:
            case "vfat":  # a FAT volume id is 32 bits: mkfs.fat(8) takes eight hex digits
                return uuid.replace("-", "")
            case "xfs":  # a sub-option of -m
                return f"uuid={uuid}"
            case _:
                return uuid


_INODE_RATIOS = ((512 * MIB, 4096), (4 * 1024 * GIB, 16384), (16 * 1024 * GIB, 32768))

FILESYSTEMS: dict[str, Filesystem] = {
    fs.name: fs
    for fs in (
        Filesystem(
            name="ext4",
            tool="mkfs.ext4",
            package="e2fsprogs",
            # -F -F: mkfs asks when something looks formatted; consent was given with the plan.
            # lazy_itable_init=1 leaves inode tables to the installed system's kernel.
            make=("mkfs.ext4", "-q", "-F", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"),
            uuid_option=("-U",),
            label_option="-L",
            label_bytes=16,
            minimum_bytes=32 * MIB,
            # below 512 MiB, inodes take four times as much (mke2fs.conf(5), "small")
            own_share=12,
            own_least=12 * MIB,
        ),
        Filesystem(
            name="xfs",
            tool="mkfs.xfs",
            package="xfsprogs",
            make=("mkfs.xfs", "-q", "-f"),
            uuid_option=("-m",),
            label_option="-L",
            label_bytes=12,
            minimum_bytes=300 * MIB,
            # the log has 64 MiB from the smallest size on (mkfs.xfs(8), -l size)
            own_least=76 * MIB,
        ),
        Filesystem(
            name="btrfs",
            tool="mkfs.btrfs",
            package="btrfs-progs",
            make=("mkfs.btrfs", "-q", "-f"),
            uuid_option=("-U",),
            label_option="-L",
            label_bytes=255,
            minimum_bytes=256 * MIB,
            # two copies of metadata, of 32 to 256 MiB each, and what no whole chunk fits into
            own_share=8,
            own_least=81 * MIB,
            own_most=529 * MIB,
        ),
        Filesystem(
            name="vfat",
            tool="mkfs.vfat",
            package="dosfstools",
            make=("mkfs.vfat", "-F", "32"),
            uuid_option=("-i",),
            label_option="-n",
            label_bytes=11,
            # 65525 clusters make a FAT32 (UEFI 2.10, 13.3.1): 33 MiB of 512-byte sectors
            minimum_bytes=34 * MIB,
            # bootctl warns when the random seed on the ESP is world-readable
            mount_options=("umask=0077",),
        ),
        Filesystem(
            name="f2fs",
            tool="mkfs.f2fs",
            package="f2fs-tools",
            make=("mkfs.f2fs", "-q", "-f"),
            uuid_option=("-U",),
            label_option="-l",
            label_bytes=255,
            minimum_bytes=128 * MIB,
        ),
        Filesystem(
            name="bcachefs",
            tool="mkfs.bcachefs",
            package="bcachefs-tools",
            make=("mkfs.bcachefs", "--quiet", "--force"),
            uuid_option=("--uuid",),
            label_option="--fs_label",
            label_bytes=32,
            minimum_bytes=256 * MIB,
        ),
    )
}

SWAP = Filesystem(
    name="swap",
    tool="mkswap",
    package="util-linux",
    make=("mkswap",),
    uuid_option=("-U",),
    label_option="-L",
    label_bytes=16,
    minimum_bytes=1 * MIB,
)

FAT32_MINIMUM_4K = 260 * MIB
"""65525 clusters of one 4096-byte sector: the smallest FAT32 on a 4Kn disk, rounded up."""

DEFAULT_ESP_BYTES = 1 * GIB
"""A NixOS generation's kernel and initrd take 40 to 80 MiB; ten of them fit."""

BIOS_BOOT_BYTES = 1 * MIB
"""Enough for GRUB's core.img (GRUB manual, "BIOS installation")."""
