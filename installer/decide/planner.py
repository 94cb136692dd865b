"""(Facts, Config) -> Plan."""

from collections.abc import Iterator

from installer.decide.disks import carries, choose
from installer.decide.identifiers import chosen_uuid, chosen_volume_id
from installer.decide.layout import LaidOut, capacity_bytes, lay_out, with_boot_partitions
from installer.decide.networking import networking_module
from installer.decide.nix import nix_module
from installer.model.config import Config
from installer.model.errors import InstallError, Problem
from installer.model.facts import Disk, Facts
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.plan import (
    CheckPayload,
    EnableSwap,
    EnterTarget,
    Flush,
    GenerateConfig,
    InstallBootLoader,
    LeaveTarget,
    MakeFilesystem,
    MountFilesystem,
    Plan,
    RebuildSystem,
    RegisterStore,
    SetProfile,
    Step,
    UnpackPayload,
    WipeDisk,
    WriteFile,
    WriteTable,
)
from installer.model.units import format_bytes

LOG_PATH = "/var/log/netinstall"

_TOOLS = {
    "wipefs": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "chroot": "coreutils",
    "tar": "tar",
    "sfdisk": "fdisk",
    # what a payload is compressed with is known only when it comes: see act.payload.compression
    "gzip": "gzip",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Programs that every installation needs, and Debian's package that holds each."""


def decide(facts: Facts, config: Config) -> Plan:
    """Decide everything, or say everything that stands in the way.

    Raises:
        InstallError: all problems that were found, each with the field it belongs to.
    """
    answers = config.answers
    problems: list[Problem] = []
    warnings: list[str] = []
    if answers.boot.firmware not in ("auto", facts.firmware):
        problems.append(
            Problem(
                "firmware.mismatch",
                f"the answer file wants {answers.boot.firmware.upper()}, "
                f"this machine booted in {facts.firmware.upper()} mode",
                "boot.firmware",
                'switch the mode in the firmware\'s setup, or say firmware = "auto"',
            )
        )
    partitions, found = with_boot_partitions(answers.disks, facts.firmware)
    problems += found
    chosen, rejected, found = choose(answers.disks, facts.disks)
    problems += found

    laid: list[tuple[Disk, list[LaidOut]]] = []
    for index, (disk, wanted) in enumerate(zip(chosen, partitions, strict=True)):
        if disk is not None:
            places, found = lay_out(disk, wanted, facts.entropy, f"disks[{index}]")
            problems += found
            laid.append((disk, places))
            if disk.stable_path == disk.node:
                warnings.append(
                    f"{disk.node} has no by-id or by-path name; it is addressed by its node"
                )
    problems += _payload_problems(facts, laid)
    networking, found_warnings, found = networking_module(answers.network, facts)
    warnings += found_warnings
    problems += found
    steps = tuple(_steps(facts, config, laid, networking))
    problems += _missing_tools(facts, steps)
    if problems:
        raise InstallError(_in_place(problem, config.source) for problem in problems)
    return Plan(
        version=1,
        firmware=facts.firmware,
        chosen=tuple(disk for disk, _ in laid),
        rejected=tuple(rejected),
        steps=steps,
        warnings=tuple(warnings),
    )


def _in_place(problem: Problem, source: str) -> Problem:
    where = f"{source}: {problem.where}" if problem.where else source
    return Problem(problem.code, problem.what, where, problem.hint)


def _steps(
    facts: Facts, config: Config, laid: list[tuple[Disk, list[LaidOut]]], networking: str
) -> Iterator[Step]:
    answers = config.answers
    payload, system = answers.payload, answers.system
    rows = [row for _, places in laid for row in places]
    mounted = sorted(
        (row for row in rows if row.wanted.mount_point is not None),
        key=lambda row: _depth(row.wanted.mount_point or ""),
    )
    capacity = {
        row.wanted.mount_point or "": capacity_bytes(row.planned.ref.size)
        for row in mounted
        if row.wanted.type != "esp"
    }
    what = (payload.source, payload.sha256, capacity, system.toplevel, payload.retry_seconds)
    if payload.verify == "first":
        yield CheckPayload(*what)
    yield from _disk_steps(facts, laid)
    for row in mounted:
        if row.wanted.type != "esp":
            yield _mount(row)
    for row in rows:
        if row.wanted.type == "swap":
            yield EnableSwap(row.planned.ref)
    yield UnpackPayload(*what)
    # After the payload, which could hold a boot loader of its own: nothing may boot before the end
    for row in mounted:
        if row.wanted.type == "esp":
            yield _mount(row)
    yield EnterTarget(efivars=facts.firmware == "uefi")
    yield RegisterStore()
    yield GenerateConfig()
    yield WriteFile("/etc/nixos/networking.nix", networking)
    if facts.firmware == "bios":
        # GRUB's boot record can load the rest of it from the same disk only
        grub_disk = next(
            (disk for disk, places in laid for row in places if row.wanted.type == "bios-boot"),
            None,
        )
        if grub_disk is not None:
            yield WriteFile("/etc/nixos/boot-device.nix", _boot_device(grub_disk))
    if system.install == "rebuild":
        rebuild = system.rebuild
        yield RebuildSystem(
            system.toplevel,
            rebuild.expression,
            rebuild.attribute,
            rebuild.substitute,
            rebuild.timeout_seconds,
        )
    else:
        yield SetProfile(system.toplevel)
    yield Flush(whole_store=system.verify_store)
    yield InstallBootLoader(facts.firmware)
    yield LeaveTarget(LOG_PATH)


def _disk_steps(facts: Facts, laid: list[tuple[Disk, list[LaidOut]]]) -> Iterator[Step]:
    """Wipe, partition and format: all that is destroyed is destroyed here."""
    for disk, places in laid:
        yield WipeDisk(disk.stable_path, disk.node, disk.size, disk.serial, disk.wwn, carries(disk))
        yield WriteTable(
            disk.stable_path,
            chosen_uuid(facts.entropy, f"disk {disk.stable_path}"),
            disk.logical_sector,
            tuple(row.planned for row in places),
        )
    for _, places in laid:
        for row in places:
            if row.wanted.type != "bios-boot":
                yield _make(row, facts.entropy)


def _depth(mount: str) -> tuple[int, str]:
    return (0 if mount == "/" else mount.count("/"), mount)


def _mount(row: LaidOut) -> MountFilesystem:
    filesystem = FILESYSTEMS[row.wanted.filesystem_name]
    return MountFilesystem(
        row.planned.ref,
        filesystem.name,
        row.wanted.mount_point or "",
        filesystem.mount_options,
    )


def _make(row: LaidOut, entropy: str) -> MakeFilesystem:
    ref = row.planned.ref
    purpose = f"file system {ref.partuuid}"
    filesystem = SWAP if row.wanted.type == "swap" else FILESYSTEMS[row.wanted.filesystem_name]
    uuid = (
        chosen_volume_id(entropy, purpose)
        if filesystem.name == "vfat"
        else chosen_uuid(entropy, purpose)
    )
    return MakeFilesystem(ref, filesystem.name, uuid, filesystem.make_argv(uuid, row.wanted.label))


def _boot_device(disk: Disk) -> str:
    return nix_module(
        {"boot": {"loader": {"grub": {"device": disk.stable_path}}}},
        "Written by netinstall: the disk whose boot record GRUB is installed to.",
    )


def _payload_problems(facts: Facts, laid: list[tuple[Disk, list[LaidOut]]]) -> list[Problem]:
    """The compressed payload is never larger than what it unpacks to."""
    if facts.payload is None or facts.payload.size is None:
        return []
    room = sum(
        capacity_bytes(row.planned.ref.size)
        for _, places in laid
        for row in places
        if row.wanted.mount_point is not None
    )
    if not laid or facts.payload.size <= room:
        return []
    return [
        Problem(
            "payload.too-large",
            f"{facts.payload.source} has {format_bytes(facts.payload.size)}, "
            f"the file systems of the layout take {format_bytes(room)}",
            "disks",
            "give the system a larger disk, or make a smaller payload",
        )
    ]


def _missing_tools(facts: Facts, steps: tuple[Step, ...]) -> list[Problem]:
    needed = dict.fromkeys(_TOOLS, "every installation")
    packages = dict(_TOOLS)
    for step in steps:
        match step:
            case MakeFilesystem(filesystem=name):
                filesystem = SWAP if name == "swap" else FILESYSTEMS[name]
                needed[filesystem.tool] = f"{name} file systems" if name != "swap" else "swap"
                packages[filesystem.tool] = filesystem.package
            case EnableSwap():
                for tool in ("swapon", "swapoff"):
                    needed[tool] = "swap"
                    packages[tool] = "mount"
    return [
        Problem(
            "tool.missing",
            f"{tool} is not in this boot environment; it is needed for {purpose}",
            "",
            f"build the boot environment with Debian's package {packages[tool]}",
        )
        for tool, purpose in needed.items()
        if tool not in facts.tools
    ]
