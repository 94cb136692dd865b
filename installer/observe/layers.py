"""What the running kernel stacked on the disks: arrays, volumes, encryption, pools.

No program is asked. What only they know stays unknown: which devices belong to an imported ZFS pool
is told by the labels that udev saw, and an array that nobody assembled is no layer, only a
partition with `linux_raid_member` on it.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from installer.model.facts import Layer, LayerKind
from installer.observe.blocks import Blocks, node
from installer.observe.sysfs import natural, text

_DM_KINDS: Mapping[str, LayerKind] = {"CRYPT": "crypt", "LVM": "lvm"}
"""What dm uuids begin with, up to the hyphen, as their programs choose it (dmsetup(8))."""


def of(blocks: Blocks, include: Collection[str] = ()) -> tuple[Layer, ...]:
    """All layers, each after those that it lies on.

    Args:
        blocks: the machine's block devices.
        include: nodes that count as disks although they lie on others (/dev/loop0).
    """
    kinds = (_caches, _btrfs, _pools)
    found = {layer.node: layer for layer in _devices(blocks) if layer.node not in include}
    found |= {layer.node: layer for kind in kinds for layer in kind(blocks)}
    return tuple(_in_order(found))


def _devices(blocks: Blocks) -> Iterator[Layer]:
    for name in sorted(blocks.paths, key=natural):
        file = blocks.backing(name)
        on = sorted(blocks.below.get(name, ()), key=natural) if blocks.is_layer(name) else []
        if file is not None:
            mount = blocks.holding(file)
            on = list(blocks.devices_of(mount)) if mount is not None else []
        if not on:
            continue
        caches = [one for one in blocks.cache_sets if set(on) & set(one.backing)]
        on = [below for below in on if not any(below in one.caches for one in caches)]
        on += _container(blocks, name)
        yield Layer(
            node=node(name),
            kind=_kind(blocks, name),
            # by mdadm's rules for udev: its name below /dev/md
            name=file or blocks.dm_names.get(name) or blocks.property(name, "MD_DEVNAME") or name,
            on=(*map(node, on), *(one.uuid for one in caches)),
            filesystem=blocks.property(name, "ID_FS_TYPE"),
            mounts=blocks.own_mounts(name),
            swap=name in blocks.swaps,
        )


def _kind(blocks: Blocks, name: str) -> LayerKind:
    uuid = blocks.dm_uuids.get(name)
    if uuid is not None:
        return next(
            (kind for prefix, kind in _DM_KINDS.items() if uuid.startswith(prefix)), "other"
        )
    if re.fullmatch(r"md[0-9_].*", name):
        return "md"
    return "bcache" if re.fullmatch(r"bcache[0-9]+", name) else "other"


def _container(blocks: Blocks, name: str) -> list[str]:
    """The array that holds the metadata of this one: firmware's RAID (md.rst, metadata_version)."""
    told = text(blocks.paths[name] / "md/metadata_version") or ""
    match = re.fullmatch(r"external:[/-](md[^/]+)/.+", told)
    return [match[1]] if match and match[1] in blocks.paths else []


def _caches(blocks: Blocks) -> Iterator[Layer]:
    """A cache set holds its devices even when nothing is cached any more."""
    for one in blocks.cache_sets:
        on = tuple(map(node, one.caches))
        yield Layer(node=one.uuid, kind="bcache", name=f"cache set {one.uuid}", on=on)


def _btrfs(blocks: Blocks) -> Iterator[Layer]:
    for one in dict.fromkeys(blocks.united.values()):
        mounts = (where for name in one.members for where in blocks.mounted(name))
        yield Layer(
            node=one.uuid,
            kind="btrfs",
            name=one.label or one.uuid,
            on=tuple(map(node, one.members)),
            filesystem="btrfs",
            mounts=tuple(dict.fromkeys(mounts)),
        )


def _pools(blocks: Blocks) -> Iterator[Layer]:
    for pool, members in blocks.pools.items():
        yield Layer(
            node=pool,
            kind="zfs",
            name=pool,
            on=tuple(map(node, members)),
            filesystem="zfs",
            mounts=tuple(
                mount.where
                for mount in blocks.mounts
                if mount.kind == "zfs" and mount.source.partition("/")[0] == pool
            ),
        )


def _in_order(layers: Mapping[str, Layer]) -> Iterator[Layer]:
    done: set[str] = set()

    def visit(layer: Layer) -> Iterator[Layer]:
        # marked before what is below is visited: wrong data cannot make a circle
        done.add(layer.node)
        for below in layer.on:
            if below in layers and below not in done:
                yield from visit(layers[below])
        yield layer

    for layer in layers.values():
        if layer.node not in done:
            yield from visit(layer)
