"""Which devices the running system could not live without, and why.

In a boot environment that came over the network there is none: its root lies in memory.
"""

import re
from collections.abc import Iterator

from installer.observe.blocks import Blocks, Mount

_PLACES = (
    # the system itself, and the NixOS installation media (iso-image.nix, netboot.nix)
    *("/", "/usr", "/nix", "/nix/store", "/nix/.ro-store", "/nix/.rw-store", "/iso"),
    # below our own overlay; casper, Arch
    *("/run/netinstall/lower", "/run/netinstall/rw", "/cdrom", "/run/archiso"),
)
_FOLDERS = ("/run/live", "/lib/live", "/usr/lib/live", "/run/initramfs", "/run/archiso")
"""Where live systems keep their medium and image: Debian's live-boot, dracut, archiso."""


def of(blocks: Blocks) -> dict[str, str]:
    """The disks of the running system by name, each with the reason in words."""
    found: dict[str, str] = {}
    places = {place: rank for rank, place in enumerate(_PLACES)}
    mounts = [mount for mount in blocks.mounts if _is_essential(mount.where)]
    for mount in sorted(mounts, key=lambda mount: places.get(mount.where, len(places))):
        for device, trail in _devices(blocks, mount, (), frozenset()):
            for disk in blocks.down_to_disks(device):
                found.setdefault(disk, ", ".join(trail))
    return found


def _is_essential(where: str) -> bool:
    return where in _PLACES or any(where.startswith(f"{folder}/") for folder in _FOLDERS)


def _devices(
    blocks: Blocks, mount: Mount, trail: tuple[str, ...], seen: frozenset[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The devices below a mount, through images in files and layers of an overlay."""
    if mount.where in seen:
        return
    seen |= {mount.where}
    for name in blocks.devices_of(mount):
        step = (*trail, f"{mount.where} is on {blocks.shown(name)}")
        for bottom in (name, *_below(blocks, name)):
            file = blocks.backing(bottom)
            if file is None:
                continue
            below = blocks.holding(file)
            if below is not None:
                image = (*trail, f"{mount.where} is the image {file}")
                yield from _devices(blocks, below, image, seen)
        yield name, step
    if mount.kind == "overlay":
        # the paths were said when it was mounted: they may mean another place by now
        found = re.findall(r"(?:^|,)(?:lowerdir|upperdir)=([^,]*)", mount.options)
        for folder in (folder for group in found for folder in group.split(":")):
            below = blocks.holding(folder) if folder.startswith("/") else None
            if below is not None and below.where != mount.where:
                yield from _devices(blocks, below, trail, seen)


def _below(blocks: Blocks, name: str) -> Iterator[str]:
    for below in blocks.below.get(name, ()):
        yield below
        yield from _below(blocks, below)
