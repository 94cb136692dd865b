"""What nixos-generate-config cannot know of the storage: modules beside its own.

It finds mounted file systems, subvolumes, active swap partitions and opened LUKS devices by UUID
(nixos-generate-config(8)); it knows neither options nor how things are unlocked and assembled.
"""

from collections.abc import Sequence

from installer.decide.identifiers import chosen_uuid
from installer.decide.nix import Forced, NixValue, nix_module, nix_value
from installer.decide.stack import Mounted, Stack
from installer.decide.tables import Table
from installer.model.answers import AnswerFile
from installer.model.facts import Firmware
from installer.model.filesystems import FILESYSTEMS
from installer.model.steps import PartitionRef
from installer.model.storage_steps import MakeFilesystem, MountFilesystem
from installer.model.units import MIB

STORAGE_PATH = "/etc/nixos/storage.nix"
BOOT_DEVICE_PATH = "/etc/nixos/boot-device.nix"
BOOT_MIRROR_PATH = "/etc/nixos/boot-mirror.nix"


def storage_module(answers: AnswerFile, stack: Stack, entropy: str) -> str | None:
    """Write storage.nix; None where there is nothing to add."""
    settings: dict[str, NixValue] = {}
    boot: dict[str, NixValue] = {}
    options = {one.step.where: [*_own_options(one.step)] for one in stack.in_order}
    if len(esps := _esps(stack)) > 1:
        for one in esps:
            # without its disk, systemd would end in emergency mode (systemd.mount(5))
            options[one.step.where].append("nofail")
    found: dict[str, dict[str, NixValue]] = {
        where: {"options": given} for where, given in options.items() if given
    }
    for where, uuid in _on_several_devices(stack).items():
        # udev's link by UUID leads to whichever device it saw last, so that nixos-generate-config
        # may not find it for the mounted one, and writes a node such as /dev/sda2
        found.setdefault(where, {})["device"] = Forced(f"/dev/disk/by-uuid/{uuid}")
    if found:
        settings["fileSystems"] = found
    swaps: list[NixValue] = [
        {"device": f"/dev/disk/by-partuuid/{ref.partuuid}", "randomEncryption": {"enable": True}}
        for ref in stack.random_swaps
    ]
    swaps += [{"device": one.path, "size": one.size // MIB} for one in answers.swap_files]
    if swaps:
        settings["swapDevices"] = swaps
    if stack.opened:
        boot["initrd"] = _initrd(stack)
    if stack.arrays:
        lines = [
            f"ARRAY {step.array.path} UUID={_mdadm_uuid(step.array.uuid or '')}"
            for step in stack.arrays
        ]
        # mdadm's monitor does not start without somebody to write to
        text = "".join(f"{line}\n" for line in [*lines, "MAILADDR root"])
        boot["swraid"] = {"enable": True, "mdadmConf": text}
    if stack.pools:
        # a pool remembers the host that used it last (networking.hostId)
        host = chosen_uuid(entropy, "host id")[:8]
        settings["networking"] = {"hostId": host}
    if stack.thin:
        settings["services"] = {"lvm": {"boot": {"thin": {"enable": True}}}}
    if boot:
        settings["boot"] = boot
    if not settings:
        return None
    return nix_module(
        settings,
        "Written by netinstall: what nixos-generate-config cannot know of the storage.",
    )


def _on_several_devices(stack: Stack) -> dict[str, str]:
    """The UUIDs of file systems that have several devices, by mount point."""
    uuids = {
        device: step.uuid
        for step in stack.made
        if isinstance(step, MakeFilesystem) and len(step.devices) > 1
        for device in step.devices
    }
    sources = {one.step.where: one.step.source for one in stack.in_order}
    return {
        where: uuids[source]
        for where, source in sources.items()
        if not isinstance(source, str) and source in uuids
    }


def _own_options(step: MountFilesystem) -> Sequence[str]:
    """What the answer file added; generated configuration has subvolumes and umask itself."""
    if step.filesystem == "tmpfs":
        return step.options
    known = FILESYSTEMS[step.filesystem].mount_options if step.filesystem in FILESYSTEMS else ()
    return [o for o in step.options if o not in known and not o.startswith("subvol=")]


def _initrd(stack: Stack) -> NixValue:
    devices: dict[str, NixValue] = {}
    for one in stack.opened:
        device: dict[str, NixValue] = {"device": f"/dev/disk/by-uuid/{one.uuid}"}
        if one.luks.discard:
            device["allowDiscards"] = True
        if one.luks.tpm2 is not None:
            device["crypttabExtraOpts"] = ["tpm2-device=auto"]
        devices[one.luks.name] = device
    settings: dict[str, NixValue] = {"luks": {"devices": devices}}
    if any(one.luks.tpm2 is not None for one in stack.opened):
        # only systemd in the initrd asks the TPM
        settings["systemd"] = {"enable": True}
    return settings


def _mdadm_uuid(uuid: str) -> str:
    """mdadm.conf(5) writes four groups of eight digits."""
    digits = uuid.replace("-", "")
    return ":".join(digits[start : start + 8] for start in range(0, 32, 8))


def is_hybrid(tables: Sequence[Table]) -> bool:
    """Whether GRUB is to start it on both firmwares: there are BIOS boot partitions and ESPs."""
    types = {row.wanted.type for table in tables for row in table.rows}
    return {"esp", "bios-boot"} <= types


def _boot_records(tables: Sequence[Table]) -> list[str]:
    """The disks that hold GRUB's boot record."""
    return [
        table.disk.stable_path
        for table in tables
        if any(row.wanted.type == "bios-boot" for row in table.rows) or table.want.table == "mbr"
    ]


def _own_records(stack: Stack, tables: Sequence[Table]) -> dict[str, str]:
    """By the mount points of further ESPs: the disk, if its boot record is to read from there.

    A record that read the first disk's ESP would not start the machine without that disk.
    """
    if not is_hybrid(tables):
        return {}
    records = _boot_records(tables)
    return {
        one.step.where: one.step.source.disk
        for one in _esps(stack)[1:]
        if isinstance(one.step.source, PartitionRef) and one.step.source.disk in records
    }


def _esps(stack: Stack) -> list[Mounted]:
    return [one for one in stack.in_order if one.esp]


def boot_device_module(tables: Sequence[Table], firmware: Firmware, stack: Stack) -> str | None:
    """Write boot-device.nix, for GRUB: where its boot record goes; None where there is none.

    A layout with both a BIOS boot partition and an ESP gets GRUB for both firmwares, whichever the
    machine booted with.
    """
    hybrid = is_hybrid(tables)
    if firmware != "bios" and not hybrid:
        return None
    elsewhere = set(_own_records(stack, tables).values())
    devices = [disk for disk in _boot_records(tables) if disk not in elsewhere]
    grub: dict[str, NixValue] = {"devices": devices}
    if len(devices) == 1:
        grub = {"device": devices[0]}
    loader: dict[str, NixValue] = {"grub": grub}
    if hybrid:
        grub |= {"enable": True, "efiSupport": True, "efiInstallAsRemovable": True}
        # GRUB for the removable path and entries in the NVRAM exclude each other
        loader["efi"] = {"canTouchEfiVariables": Forced(False)}
        loader["systemd-boot"] = {"enable": Forced(False)}
    return nix_module(
        {"boot": {"loader": loader}},
        "Written by netinstall: the disks whose boot record GRUB is installed to.",
    )


def boot_mirror_module(stack: Stack, tables: Sequence[Table]) -> str | None:
    """Write boot-mirror.nix, which keeps further ESPs the same; None where there is one at most."""
    esps = [one.step.where for one in _esps(stack)]
    if len(esps) < 2:
        return None
    first, *others = esps
    records = _own_records(stack, tables)
    rows = [{"path": path, "devices": [records.get(path, "nodev")]} for path in others]
    text = _MIRROR.replace("@FIRST@", first).replace("@PATH@", BOOT_MIRROR_PATH)
    return text.replace("@OTHERS@", nix_value(rows))


_MIRROR = """\
# Written by netinstall: what the boot loader puts onto one ESP is copied to the others.
{ config, lib, pkgs, ... }:
let
  others = @OTHERS@;
in
{
  boot.loader.systemd-boot.extraInstallCommands = ''
    missing=
    for copy in ${toString (map (other: other.path) others)}; do
      if ${pkgs.util-linux}/bin/mountpoint --quiet $copy; then
        ${pkgs.coreutils}/bin/cp --recursive --no-preserve=mode,ownership @FIRST@/. $copy/
      else
        echo "$copy is not mounted: it has the old boot loader. Mount it and install the boot" >&2
        echo "loader again, or take it out of @PATH@ if its disk is gone." >&2
        missing=1
      fi
    done
    test -z "$missing"
  '';
  boot.loader.grub.mirroredBoots = lib.mkIf config.boot.loader.grub.enable others;
}
"""
