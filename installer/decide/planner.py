"""(Facts, Config) -> Plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from installer.decide import consent, names, payloads, proof
from installer.decide.boot_partitions import with_boot_partitions
from installer.decide.disks import carries, choose
from installer.decide.identifiers import chosen_disk_id, installed_by_us
from installer.decide.networking import networking_module
from installer.decide.nixos_storage import (
    BOOT_DEVICE_PATH,
    BOOT_MIRROR_PATH,
    STORAGE_PATH,
    boot_device_module,
    boot_mirror_module,
    is_hybrid,
    storage_module,
)
from installer.decide.stack import Mounted, Stack, build, members_used_by
from installer.decide.tables import Table, lay_out
from installer.model.answers import AnswerFile
from installer.model.config import Config
from installer.model.errors import InstallError, Problem
from installer.model.facts import Disk, Facts
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.plan import (
    EnterTarget,
    Flush,
    GenerateConfig,
    InstallBootLoader,
    LeaveTarget,
    Plan,
    RebuildSystem,
    RegisterStore,
    SetProfile,
    Step,
    WriteFile,
)
from installer.model.storage import Disk as WantedDisk
from installer.model.storage import Erase
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
    TearDown,
    WipeDisk,
    WriteTable,
)

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


@dataclass(frozen=True)
class _Storage:
    """What becomes of the machine's storage. `chosen` has the entry's number and copy with each
    disk; `tables` only those that could be laid out."""

    chosen: tuple[tuple[int, int, WantedDisk, Disk], ...]
    tables: tuple[Table, ...]
    stack: Stack


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
    chosen, rejected, found = choose(answers.disks, facts)
    problems += found
    storage, found = _storage(facts, answers, chosen)
    problems += found
    problems += names.problems(answers, storage.stack, _torn_down(facts, storage), rejected, facts)
    on_disk = [one for one in _of_payload(storage) if not _in_memory(one)]
    problems += payloads.problems(
        facts,
        answers,
        {one.step.where: one.room for one in on_disk},
        [one.inodes for one in on_disk],
        frozenset(one.step.filesystem for one in storage.stack.mounts),
    )
    networking, found_warnings, found = networking_module(answers.network, facts)
    problems += proof.problems(facts, answers)
    warnings += _storage_warnings(answers, storage) + found_warnings
    warnings += proof.warnings(facts, answers)
    problems += found
    text = networking.text if networking is not None else ""
    steps = tuple(_steps(facts, config, storage, text))
    problems += _missing_tools(facts, steps)
    if problems:
        raise InstallError(_in_place(problem, config.source) for problem in problems)
    return Plan(
        version=1,
        firmware=facts.firmware,
        chosen=tuple(disk for _, _, _, disk in storage.chosen),
        rejected=tuple(rejected),
        steps=steps,
        warnings=tuple(warnings),
        network=networking.network if networking is not None else None,
        system=proof.sentences(facts, answers),
    )


def _in_place(problem: Problem, source: str) -> Problem:
    where = f"{source}: {problem.where}" if problem.where else source
    return Problem(problem.code, problem.what, where, problem.hint)


def _storage(
    facts: Facts, answers: AnswerFile, chosen: Sequence[Sequence[Disk]]
) -> tuple[_Storage, list[Problem]]:
    rows = tuple(
        (index, copy, want, disk)
        for index, (want, disks) in enumerate(zip(answers.disks, chosen, strict=True))
        for copy, disk in enumerate(disks)
    )
    partitions, problems = with_boot_partitions(answers, facts.firmware)
    problems += consent.problems(((index, want, disk) for index, _, want, disk in rows), facts)
    used_by = members_used_by(answers)
    tables = []
    for index, copy, want, disk in rows:
        table, found = lay_out(
            disk,
            want,
            partitions[index],
            index=index,
            copy=copy,
            entropy=facts.entropy,
            used_by=used_by,
        )
        problems += found
        if table is not None:
            tables.append(table)
    stack = build(answers, tables, facts.entropy)
    # what is missing above a disk that could not be laid out is no news
    if len(tables) == len(rows) and all(chosen):
        problems += stack.problems
        problems += _boot_problems(facts, stack)
    return _Storage(rows, tuple(tables), stack), problems


def _boot_problems(facts: Facts, stack: Stack) -> Iterator[Problem]:
    """Say what GRUB on a BIOS machine could not read its kernel from."""
    if facts.firmware != "bios":
        return
    mounts = {one.step.where: one for one in stack.in_order}
    boot = mounts.get("/boot") or mounts.get("/nix/store") or mounts.get("/nix") or mounts.get("/")
    if boot is None:
        return
    names = {
        "luks": "is encrypted",
        "thin": "lies on a thin volume",
        "bcachefs": "is a bcachefs",
        "zfs": "lies on ZFS",
    }
    for reason in sorted(boot.above | {boot.step.filesystem}):
        if reason in names:
            yield Problem(
                "firmware.mismatch",
                f"{boot.step.where} {names[reason]}, and GRUB on a BIOS machine reads the kernel "
                "from there before anything is unlocked or assembled",
                "disks",
                'add a partition with mount = "/boot", filesystem = "ext4" and 1 GiB',
            )


def _storage_warnings(answers: AnswerFile, storage: _Storage) -> list[str]:
    warnings = []
    needed = frozenset[str]().union(*(one.above for one in storage.stack.mounts))
    if needed and answers.system.install == "prebuilt":
        warnings.append(
            "the prebuilt system must know by itself how its file systems are assembled or "
            f"unlocked ({', '.join(sorted(needed))}): what is written to /etc/nixos counts from "
            'the next rebuild on (or say install = "rebuild")'
        )
    mounts = {one.step.where: one for one in storage.stack.mounts}
    if "/" in mounts and _in_memory(mounts["/"]) and "/etc/nixos" not in mounts:
        warnings.append(
            "/ is in memory: /etc/nixos, the log and all state are gone after each reboot, unless "
            "the payload's configuration keeps them elsewhere"
        )
    for _, _, _, disk in storage.chosen:
        if disk.stable_path == disk.node:
            warnings.append(
                f"{disk.node} has no by-id or by-path name; it is addressed by its node"
            )
        if installed_by_us(disk.table_uuid) == "begun":
            warnings.append(
                f"{disk.node} carries an installation by netinstall that did not get to its end; "
                "it is done again from the beginning"
            )
    return warnings


def _steps(facts: Facts, config: Config, storage: _Storage, networking: str) -> Iterator[Step]:
    answers, stack = config.answers, storage.stack
    system = answers.system
    capacity = {one.step.where: one.room for one in _of_payload(storage)}
    yield from payloads.checking(answers, capacity)
    yield from _disk_steps(facts, storage)
    yield from stack.made
    for one in stack.in_order:
        if not one.esp:
            yield one.step
    yield from stack.swaps
    manifest = facts.payload.manifest if facts.payload is not None else None
    yield payloads.unpacking(answers, capacity, manifest)
    # After the payload, which could hold a boot loader of its own: nothing may boot before the end
    esps = [one.step for one in stack.in_order if one.esp]
    yield from esps
    for file in answers.swap_files:
        yield MakeSwapFile(file.path, file.size)
    yield EnterTarget(efivars=facts.firmware == "uefi")
    # what Nix copies it registers itself
    if answers.payload.closure is None:
        yield RegisterStore()
    yield GenerateConfig()
    add = system.add_imports
    yield WriteFile("/etc/nixos/networking.nix", networking, add_import=add)
    for path, text in (
        (STORAGE_PATH, storage_module(answers, stack, facts.entropy)),
        (BOOT_DEVICE_PATH, boot_device_module(storage.tables, facts.firmware, stack)),
        (BOOT_MIRROR_PATH, boot_mirror_module(stack, storage.tables)),
    ):
        if text is not None:
            yield WriteFile(path, text, add_import=add)
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
    # GRUB's menus differ by the file system that they name; the rebuilt system writes each itself
    if len(esps) > 1 and not (is_hybrid(storage.tables) and system.install == "rebuild"):
        yield MirrorEsp(esps[0].where, tuple(step.where for step in esps[1:]))
    complete = {
        table.disk.stable_path: chosen_disk_id(facts.entropy, table.disk.stable_path, "complete")
        for table in storage.tables
        if not table.keeps and table.want.table == "gpt"
    }
    if complete:
        yield MarkComplete(complete)
    yield LeaveTarget(LOG_PATH)


def _torn_down(facts: Facts, storage: _Storage) -> Iterator[TearDown]:
    return consent.tear_down(((want, disk) for _, _, want, disk in storage.chosen), facts)


def _disk_steps(facts: Facts, storage: _Storage) -> Iterator[Step]:
    """Take apart, wipe and partition: all that is destroyed is destroyed here."""
    yield from _torn_down(facts, storage)
    # every old signature is gone before the first new table shows what lies behind it
    for table in storage.tables:
        if not table.keeps:
            want = table.want
            yield WipeDisk(
                *_seen(table),
                carries(table.disk),
                blank=want.wipe == "blank-only",
                unmarked=want.wipe in ("refuse", "known") and not consent.marked(table.disk),
            )
            if want.erase is not None:
                seconds = _erase_seconds(table.disk, want.erase)
                yield EraseDisk(*_seen(table), want.erase, seconds)
    for table in storage.tables:
        label, sector = table.want.table, table.disk.logical_sector
        added = tuple(row.planned for row in table.rows if row.planned is not None)
        if not table.keeps:
            yield WriteTable(table.disk.stable_path, label, table.disk_id, sector, added)
        elif added or table.removed:
            yield EditTable(*_seen(table), label, sector, table.stays, table.removed, added)


def _seen(table: Table) -> tuple[str, str, int, str | None, str | None]:
    """By what a step makes sure that a disk is the planned one."""
    disk = table.disk
    return disk.stable_path, disk.node, disk.size, disk.serial, disk.wwn


def _erase_seconds(disk: Disk, method: Erase) -> int:
    """About how long it takes: whole writes at 150 or 500 MB/s, commands of the device at once."""
    match method:
        case "overwrite" | "ata-secure-erase":
            return disk.size // (150 if disk.rotational else 500) // 10**6 + 1
        case "nvme-sanitize":
            return 120
    return 10


def _of_payload(storage: _Storage) -> list[Mounted]:
    """File systems that the payload is unpacked onto; the ESP is filled by the boot loader."""
    return [one for one in storage.stack.in_order if not one.esp and one.room]


def _in_memory(mounted: Mounted) -> bool:
    return mounted.step.filesystem == "tmpfs"


def _needs(step: Step) -> Iterator[tuple[str, str, str]]:
    """The programs that a step needs beyond those of every installation: tool, package, purpose."""
    yield from payloads.needs(step)
    match step:
        case MakeFilesystem(filesystem=name, subvolumes=subvolumes):
            filesystem = SWAP if name == "swap" else FILESYSTEMS[name]
            purpose = "swap" if name == "swap" else f"{name} file systems"
            yield filesystem.tool, filesystem.package, purpose
            if subvolumes:
                yield "btrfs", "btrfs-progs", "subvolumes"
        case EnableSwap():
            for tool in ("swapon", "swapoff"):
                yield tool, "mount", "swap"
        case CreateArray():
            yield "mdadm", "mdadm", "software RAID"
        case FormatLuks(tpm2=tpm2, recovery_path=recovery):
            yield "cryptsetup", "cryptsetup-bin", "encryption"
            if tpm2 is not None or recovery is not None:
                yield "systemd-cryptenroll", "systemd", "unlocking by TPM or recovery key"
        case CreateVolumeGroup():
            yield "lvm", "lvm2", "logical volumes"
        case CreateVolume(type="thin-pool"):
            yield "thin_check", "thin-provisioning-tools", "thin volumes"
        case CreatePool():
            yield "zpool", "zfsutils-linux", "ZFS"
        case EraseDisk(method=method):
            tool, package = _ERASERS[method]
            yield tool, package, f"erasing by {method}"
        case TearDown(layer=layer) if layer is not None and layer.kind in _STOPPERS:
            tool, package = _STOPPERS[layer.kind]
            yield tool, package, f"taking {layer.name} apart"


_ERASERS = {
    "discard": ("blkdiscard", "util-linux"),
    "nvme-format": ("nvme", "nvme-cli"),
    "nvme-sanitize": ("nvme", "nvme-cli"),
    "ata-secure-erase": ("hdparm", "hdparm"),
    "overwrite": ("wipefs", "util-linux"),
}
_STOPPERS = {
    "md": ("mdadm", "mdadm"),
    "zfs": ("zpool", "zfsutils-linux"),
    # by the kernel's names: those of LVM and cryptsetup may be taken twice
    "crypt": ("dmsetup", "dmsetup"),
    "lvm": ("dmsetup", "dmsetup"),
    "other": ("dmsetup", "dmsetup"),
}


def _missing_tools(facts: Facts, steps: tuple[Step, ...]) -> list[Problem]:
    needed = {tool: (package, "every installation") for tool, package in _TOOLS.items()}
    for step in steps:
        for tool, package, purpose in _needs(step):
            needed[tool] = (package, purpose)
    return [
        Problem(
            "tool.missing",
            f"{tool} is not in this boot environment; it is needed for {purpose}",
            "",
            f"build the boot environment with Debian's package {package}",
        )
        for tool, (package, purpose) in needed.items()
        if tool not in facts.tools
    ]
