"""How the kernel's block devices lie on each other, and what is mounted and swapped to.

Names are the kernel's, as in /sys/block (`sda1`, `dm-0`, `cciss!c0d0`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from installer.observe.sysfs import clean, decoded, entries, lines, natural, text, unescaped

UdevProperties = Mapping[str, Mapping[str, str]]
"""udev's properties of each device, by subsystem and name: `block/sda1`, `net/eth0`."""

_KPARTX = re.compile(r"part([0-9]+)-(mpath-.+)")
"""dm uuid of a partition of a multipath device (multipath-tools, kpartx/devmapper.c)."""


@dataclass(frozen=True)
class Mount:
    """A line of proc_pid_mountinfo(5). `device` is a block device's name, None for others."""

    where: str
    kind: str
    source: str
    options: str
    device: str | None


@dataclass(frozen=True)
class Btrfs:
    """A btrfs that is in use somewhere; `members` are block devices."""

    uuid: str
    label: str | None
    members: tuple[str, ...]


@dataclass(frozen=True)
class CacheSet:
    """Caching devices of bcache, and what they cache."""

    uuid: str
    caches: tuple[str, ...]
    backing: tuple[str, ...]


class Blocks:
    """The block devices of a machine at one moment."""

    def __init__(self, root: Path, udev: UdevProperties) -> None:
        """Read sysfs and /proc below `root`; `udev` is what udev's database holds."""
        self.root = root
        self.block = root / "sys/block"
        self._udev = udev
        self.paths: dict[str, Path] = {}
        self.parent: dict[str, str] = {}
        """The disk of each partition."""
        self._numbers: dict[str, str] = {}
        self.disks = [path.name for path in entries(self.block)]
        for disk in self.disks:
            path = self.block / disk
            self._add(path)
            for part in partition_folders(path):
                self.parent[part.name] = disk
                self._add(part)
        self.dm_names = {
            name: found
            for name, path in self.paths.items()
            if (found := text(path / "dm/name")) is not None
        }
        self.dm_uuids = {name: text(self.paths[name] / "dm/uuid") or "" for name in self.dm_names}
        self._mapped = {found: name for name, found in self.dm_names.items()}
        self.above: dict[str, list[str]] = {}
        self.below: dict[str, list[str]] = {}
        for name, path in self.paths.items():
            for holder in entries(path / "holders"):
                if holder.name in self.paths:
                    self._stack(holder.name, on=name)
        self.mounts = tuple(self._read_mounts())
        self.swaps, self.swap_files = self._read_swaps()
        self.btrfs = tuple(self._read_btrfs())
        self.cache_sets = tuple(self._read_cache_sets())
        self.pools = {name: self._pool_members(name) for name in self._read_pools()}
        """The ZFS pools that are imported; their members as far as udev knows the labels."""
        self.united = {
            name: found for found in self.btrfs if len(found.members) > 1 for name in found.members
        }
        """Devices of a btrfs on several."""
        self._mounted: dict[str, list[str]] = {}
        for mount in self.mounts:
            if mount.device is not None:
                self._mounted.setdefault(mount.device, []).append(mount.where)

    def _add(self, path: Path) -> None:
        self.paths[path.name] = path
        found = text(path / "dev")
        if found is not None:
            self._numbers[found] = path.name

    def _stack(self, name: str, *, on: str) -> None:
        self.above.setdefault(on, []).append(name)
        self.below.setdefault(name, []).append(on)

    def properties(self, name: str) -> Mapping[str, str]:
        """What udev knows of a device; nothing without udev."""
        return self._udev.get(f"block/{name}", {})

    def property(self, name: str, key: str) -> str | None:
        """One of udev's properties as a line that may be printed."""
        return clean(self.properties(name).get(key, "").encode())

    def partitions(self, disk: str) -> list[str]:
        """The names of a disk's partitions, by number; those of a multipath device, too."""
        uuid = self.dm_uuids.get(disk, "")
        if uuid.startswith("mpath-"):
            found = [
                (int(match[1]), name)
                for name, of in self.dm_uuids.items()
                if (match := _KPARTX.fullmatch(of)) and match[2] == uuid
            ]
            return [name for _, name in sorted(found)]
        return [part.name for part in partition_folders(self.paths[disk])]

    def partition_number(self, name: str) -> int:
        """The number of a partition in its table; 0 for what is none."""
        match = _KPARTX.fullmatch(self.dm_uuids.get(name, ""))
        if match:
            return int(match[1])
        found = text(self.paths[name] / "partition") or ""
        return int(found) if re.fullmatch(r"[0-9]{1,4}", found) else 0

    def is_multipath(self, name: str) -> bool:
        """Whether a device stands for several paths to one disk."""
        return self.dm_uuids.get(name, "").startswith("mpath-")

    def is_path(self, disk: str) -> bool:
        """Whether a disk is one of several paths to a multipath device."""
        return any(self.is_multipath(name) for name in self.above.get(disk, ()))

    def is_layer(self, name: str) -> bool:
        """Whether a device is stacked on others, and neither a disk nor a partition."""
        if self.is_multipath(name) or _KPARTX.fullmatch(self.dm_uuids.get(name, "")):
            return False
        return name in self.below

    def mounted(self, name: str) -> tuple[str, ...]:
        """Where a device is mounted; a btrfs on several is mounted by any of them."""
        return tuple(dict.fromkeys(self._mounted.get(name, ())))

    def own_mounts(self, name: str) -> tuple[str, ...]:
        """Where a device is mounted for itself, not as one of several of a btrfs."""
        return () if name in self.united else self.mounted(name)

    def shown(self, name: str) -> str:
        """A device in a text: its node, and what device-mapper calls it."""
        mapped = self.dm_names.get(name)
        return f"{node(name)} ({mapped})" if mapped else node(name)

    def holding(self, path: str) -> Mount | None:
        """The mount that a path lies on."""
        parts = PurePosixPath(path)
        best = None
        for mount in self.mounts:
            # of two at one place, the later lies on the earlier
            if parts.is_relative_to(mount.where) and (
                best is None or len(mount.where) >= len(best.where)
            ):
                best = mount
        return best

    def backing(self, name: str) -> str | None:
        """The file of a loop device, as a path of this mount namespace."""
        found = text(self.block / name / "loop/backing_file")
        return found.removesuffix(" (deleted)") if found else None

    def devices_of(self, mount: Mount) -> tuple[str, ...]:
        """The devices that a mounted file system lies on: several for btrfs and ZFS."""
        if mount.kind == "zfs":
            return self.pools.get(mount.source.partition("/")[0], ())
        if mount.device is None:
            return ()
        btrfs = self.united.get(mount.device)
        return btrfs.members if btrfs is not None else (mount.device,)

    def label(self, name: str) -> str | None:
        """The label of what is on a device."""
        return decoded_property(self.properties(name), "ID_FS_LABEL")

    def down_to_disks(self, name: str) -> Iterator[str]:
        """The disks below a device; a multipath device is one, its paths are not."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one in self.parent:
                waiting.append(self.parent[one])
            elif self.is_multipath(one):
                yield one
            elif one in self.below:
                waiting += self.below[one]
            else:
                yield one

    def _name_of(self, source: str) -> str | None:
        """The kernel's name for a path such as /dev/sda1 or /dev/mapper/vg-root."""
        name = source.removeprefix("/dev/")
        if name.startswith("mapper/"):
            return self._mapped.get(name.removeprefix("mapper/"))
        name = name.replace("/", "!")
        return name if name in self.paths else None

    def _read_mounts(self) -> Iterator[Mount]:
        """Mounts of this namespace; read-only ones count too."""
        for line in lines(self.root / "proc/self/mountinfo"):
            fields, _, rest = line.partition(" - ")
            words, tail = fields.split(" "), rest.split(" ")
            if len(words) < 5 or len(tail) < 2:
                continue
            source = unescaped(tail[1])
            yield Mount(
                where=clean(unescaped(words[4]).encode()) or "a place without a name",
                kind=tail[0],
                source=source,
                options=unescaped(tail[2]) if len(tail) > 2 else "",
                # btrfs and others mount under an anonymous number; their source names the device
                device=self._numbers.get(words[2]) or self._name_of(source),
            )

    def _read_swaps(self) -> tuple[set[str], tuple[str, ...]]:
        """Devices that are swapped to, and files."""
        devices, files = set(), []
        for line in lines(self.root / "proc/swaps")[1:]:
            words = line.split()
            if len(words) < 2:
                continue
            source = unescaped(words[0])
            name = self._name_of(source)
            if name is not None:
                devices.add(name)
            elif words[1] == "file":
                files.append(clean(source.encode()) or "a file without a name")
        return devices, tuple(files)

    def _read_btrfs(self) -> Iterator[Btrfs]:
        """Every btrfs that is mounted, in whatever namespace."""
        for folder in entries(self.root / "sys/fs/btrfs"):
            members = [path.name for path in entries(folder / "devices")]
            members = [name for name in members if name in self.paths]
            if members:
                label = text(folder / "label")
                yield Btrfs(clean(folder.name.encode()) or "", label, tuple(members))

    def _read_cache_sets(self) -> Iterator[CacheSet]:
        """The sets that the kernel knows (bcache.rst, "sysfs - cache set")."""
        for folder in entries(self.root / "sys/fs/bcache"):
            # the links lead to the folder bcache of each device
            links = [
                (link.name, link.resolve().parent.name)
                for link in entries(folder)
                if link.is_symlink()
            ]
            caches, backing = (
                tuple(name for link, name in links if re.fullmatch(kind, link))
                for kind in ("cache[0-9]+", "bdev[0-9]+")
            )
            if caches:
                yield CacheSet(clean(folder.name.encode()) or "", caches, backing)

    def _read_pools(self) -> Iterator[str]:
        for folder in entries(self.root / "proc/spl/kstat/zfs"):
            if (folder / "state").exists():
                yield clean(folder.name.encode()) or ""

    def _pool_members(self, pool: str) -> tuple[str, ...]:
        return tuple(
            name
            for name in self.paths
            if self.properties(name).get("ID_FS_TYPE") == "zfs_member" and self.label(name) == pool
        )


def node(name: str) -> str:
    """The path of a device of this name."""
    return "/dev/" + name.replace("!", "/")


def partition_folders(disk: Path) -> list[Path]:
    """The partitions of a disk in sysfs, by number."""
    found = [entry for entry in entries(disk) if (entry / "partition").is_file()]
    return sorted(found, key=lambda entry: natural(text(entry / "partition") or ""))


def decoded_property(properties: Mapping[str, str], key: str) -> str | None:
    """One of udev's properties that it has twice: encoded, and with `_` for strange characters."""
    return decoded(properties.get(f"{key}_ENC")) or clean(properties.get(key, "").encode())
