"""Storage as text for people: what lies on what, and what the steps of a plan do to it."""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.partition_types import GPT_ATTRIBUTES, PARTITION_TYPES, PEOPLE
from installer.model.plan import Plan, Step
from installer.model.steps import Device, PartitionRef
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
    MarkComplete,
    MirrorEsp,
    MountFilesystem,
    PlannedPartition,
    TearDown,
    WipeDisk,
    WriteTable,
)
from installer.model.units import MIB, format_bytes, format_seconds
from installer.model.urls import redacted
from installer.report.lines import Line, labelled, table, wrap

_MBR_PEOPLE = {kind.mbr: kind.people for kind in PARTITION_TYPES if kind.mbr is not None}
_ATTRIBUTES = {bit: name for name, bit in GPT_ATTRIBUTES.items()}
_ERASURES = {
    "discard": "the disk is told that all blocks are free",
    "nvme-format": "the controller makes the namespace anew",
    "nvme-sanitize": "the controller clears everything, spare blocks too",
    "ata-secure-erase": "the disk erases itself",
    "overwrite": "zeros are written to every block",
}

Rows = Iterator[tuple[str, str]]


def disks_text(facts: Facts) -> Iterator[Line]:
    """Every disk with what lies on it, as a tree; a layer on several disks is told once."""
    if not facts.disks:
        yield Line("  none: check cabling, controller mode and the kernel's drivers", "warning")
        return
    rows = table([("  " + disk.node, *_disk_words(disk)) for disk in facts.disks], right=(1,))
    trees = _Trees(facts)
    for disk, row in zip(facts.disks, rows, strict=True):
        yield Line(row)
        uses = trees.uses(disk)
        yield from (Line(text) for text in labelled(_disk_rows(disk, uses), indent="      "))
        yield from (Line(text) for text in trees.of(disk))


def type_words(type_id: str | None) -> str | None:
    """What people call a partition's type: of a GPT, or of an MBR."""
    if type_id is None:
        return None
    return PEOPLE.get(type_id.lower()) or _MBR_PEOPLE.get(type_id.lower()) or type_id


def _disk_words(disk: Disk) -> tuple[str, str, str, str]:
    """Size, transport, manner and model of a disk, for a table."""
    words = ["rotating" if disk.rotational else "flash"]
    words += ["removable"] if disk.removable else []
    words += ["read-only"] if disk.read_only else []
    model = disk.model or "?"
    if disk.vendor and not model.startswith(disk.vendor):
        model = f"{disk.vendor} {model}"
    return format_bytes(disk.size), disk.transport or "?", ", ".join(words), model


def _disk_rows(disk: Disk, uses: Sequence[str]) -> Rows:
    yield "serial", disk.serial or "unknown"
    yield "wwn", disk.wwn or ""
    yield "slot", disk.slot or ""
    for index, name in enumerate(disk.by_id):
        yield ("" if index else "by-id"), name
    for index, name in enumerate(disk.by_path):
        yield ("" if index else "by-path"), name
    yield "paths", ", ".join(disk.paths)
    if (disk.logical_sector, disk.physical_sector) != (512, 512):
        yield "sectors", f"{disk.logical_sector} bytes, {disk.physical_sector} physically"
    if disk.optimal_io > disk.physical_sector:
        yield "stripes", format_bytes(disk.optimal_io)
    needed = [f"the running system needs it: {disk.boot_medium}"] if disk.boot_medium else []
    yield "in use", "; ".join([*needed, *disk.in_use, *uses]) or "no"
    held = [kind for kind in (disk.table, disk.filesystem) if kind]
    held += [f'"{disk.label}"'] if disk.label else []
    yield "carries", " ".join(held) or ("partitions" if disk.partitions else "nothing recognised")


class _Trees:
    """What lies on the disks of a machine."""

    def __init__(self, facts: Facts) -> None:
        self._above: dict[str, list[Layer]] = {}
        for layer in facts.layers:
            for below in dict.fromkeys(layer.on):
                self._above.setdefault(below, []).append(layer)
        self._told: dict[str, str] = {}
        """Below which node a layer was told."""

    def uses(self, disk: Disk) -> list[str]:
        """Where the disk is mounted, through whatever lies on it, and whether it is swapped to."""
        mounts: list[str] = [*disk.mounts]
        swap = disk.swap
        holders: list[FoundPartition | Layer] = [*disk.partitions, *self._layers(disk)]
        for holder in holders:
            mounts += holder.mounts
            swap = swap or holder.swap
        words = [f"mounted at {', '.join(dict.fromkeys(mounts))}"] if mounts else []
        words += ["swapped to"] if swap else []
        # an array that nobody mounted holds its members, too
        return words or [f"held by {layer.node}" for layer in self._layers(disk)[:1]]

    def _layers(self, disk: Disk) -> list[Layer]:
        found: dict[str, Layer] = {}
        waiting = [disk.node, *(part.node for part in disk.partitions)]
        while waiting:
            for layer in self._above.get(waiting.pop(0), ()):
                if layer.node not in found:
                    found[layer.node] = layer
                    waiting.append(layer.node)
        return list(found.values())

    def of(self, disk: Disk) -> Iterator[str]:
        """The lines of a disk's tree."""
        parts = disk.partitions
        rows = table(
            [(f"      {p.node}", format_bytes(p.size), _held(p)) for p in parts], right=(1,)
        )
        yield from self._branches(disk.node, "      ")
        for part, row in zip(parts, rows, strict=True):
            yield from wrap(row, rest=" " * 10)
            yield from self._branches(part.node, "      ")

    def _branches(self, below: str, indent: str) -> Iterator[str]:
        layers = self._above.get(below, [])
        for layer in layers:
            last = layer is layers[-1]
            deeper = indent + ("   " if last else "|  ")
            told = self._told.get(layer.node)
            words = _layer_words(layer)
            if told is not None:
                words = f"{_layer_name(layer)}  (see {told})"
            elif others := [node for node in layer.on if node != below]:
                words += f"  (also on {', '.join(others)})"
            yield from wrap(words, first=f"{indent}{'`' if last else '|'}- ", rest=f"{deeper}   ")
            if told is None:
                self._told[layer.node] = below
                yield from self._branches(layer.node, deeper)


def _held(part: FoundPartition) -> str:
    words = [part.filesystem or type_words(part.type_guid) or "nothing recognised"]
    words += [f'"{name}"' for name in dict.fromkeys((part.label, part.name)) if name]
    return "  ".join([*words, *_use_words(part)])


def _use_words(holder: FoundPartition | Layer) -> list[str]:
    words = [f"mounted at {', '.join(holder.mounts)}"] if holder.mounts else []
    return [*words, "swapped to"] if holder.swap else words


def _layer_words(layer: Layer) -> str:
    words = [_layer_name(layer)]
    if layer.filesystem not in (None, layer.kind):
        words.append(layer.filesystem or "")
    return "  ".join([*words, *_use_words(layer)])


def _layer_name(layer: Layer) -> str:
    words = [layer.node] if layer.node.startswith("/dev/") else []
    kind: list[str] = [layer.kind] if layer.kind != "other" else []
    if f"/dev/{layer.name}" != layer.node:
        kind.append(layer.name)
    return "  ".join([*words, " ".join(kind)])


def kept_partitions(plan: Plan) -> Iterator[tuple[Disk, FoundPartition, bool]]:
    """The partitions that stay, each with its disk, and whether it is made anew inside."""
    remade = {
        (device.disk, device.number)
        for step in plan.steps
        for device in _written(step)
        if isinstance(device, PartitionRef)
    }
    wiped = {step.disk for step in plan.steps if isinstance(step, WipeDisk)}
    edited = {step.disk: step.kept for step in plan.steps if isinstance(step, EditTable)}
    for disk in plan.chosen:
        if disk.stable_path not in wiped:
            for part in edited.get(disk.stable_path, disk.partitions):
                yield disk, part, (disk.stable_path, part.number) in remade


def _written(step: Step) -> tuple[Device, ...]:
    match step:
        case MakeFilesystem(devices=devices):
            return devices
        case CreateArray() | CreateVolumeGroup() | CreatePool():
            return step.members
        case FormatLuks(on=device):
            return (device,)
    return ()


def partition_words(part: FoundPartition) -> str:
    """Size and contents of a partition that was found, in parentheses after its name."""
    words = [format_bytes(part.size), part.filesystem or type_words(part.type_guid) or "unknown"]
    words += [f'"{part.label or part.name}"'] if part.label or part.name else []
    return ", ".join(words)


def details(step: Step) -> Rows:
    """What a dry run says of a step that changes storage, besides its title."""
    match step:
        case TearDown(layer=Layer() as layer):
            yield "lies on", ", ".join(layer.on)
            yield "holds", layer.filesystem or "nothing recognised"
        case WipeDisk():
            blank = ["it holds zeros where signatures would be"] if step.blank else []
            yield "only if", ", ".join([*_only_if(step), *blank])
        case EraseDisk():
            yield "how", _ERASURES[step.method]
            yield "takes", f"about {format_seconds(step.seconds)}"
            yield "only if", ", ".join(_only_if(step))
        case WriteTable():
            label = "GPT" if step.label == "gpt" else "MBR"
            yield "table", f"{label} {step.disk_id}, sectors of {step.logical_sector} bytes"
        case EditTable():
            for name, parts in (("keeps", step.kept), ("removes", step.removed)):
                for index, part in enumerate(parts):
                    words = f"partition {part.number} ({partition_words(part)})"
                    yield ("" if index else name), words
            yield (
                "only if",
                ", ".join([*_only_if(step), "its table is still the one that was seen"]),
            )
        case _:
            yield from _stack_details(step)


def _only_if(step: WipeDisk | EraseDisk | EditTable) -> list[str]:
    words = [f"it has {step.disk_size} bytes"]
    words += [f"serial {step.serial}"] if step.serial else []
    words += [f"wwn {step.wwn}"] if step.wwn else []
    return [*words, "nothing uses it"]


def _stack_details(step: Step) -> Rows:
    match step:
        case CreateArray():
            yield "runs", _command(step.argv, step.members)
            yield "uuid", step.array.uuid or ""
        case FormatLuks():
            yield from _luks_details(step)
        case CreateVolumeGroup():
            yield "of", ", ".join(map(_node, step.members))
        case CreateVolume():
            size = f"all that is left, at least {_exact(step.size)}" if step.fill else ""
            yield "size", size or _exact(step.size)
            yield "blocks of", f"{step.group}/{step.pool}" if step.pool else ""
        case CreatePool():
            kind = [step.topology] if step.topology else []
            yield "runs", _command((*step.argv, *kind), step.members)
            for name, properties in step.datasets.items():
                words = ", ".join(f"{key}={value}" for key, value in properties.items())
                yield "data set", f"{step.name}/{name}" + (f" ({words})" if words else "")
        case _:
            yield from _use_details(step)


def _luks_details(step: FormatLuks) -> Rows:
    yield "runs", _command(step.argv, (step.on,))
    yield "uuid", step.opened.uuid or ""
    forgotten = "a random one, forgotten when the other keys are enrolled"
    yield "secret", redacted(step.passphrase) if step.passphrase else forgotten
    if step.tpm2 is not None:
        yield "TPM", f"while these registers stay: {', '.join(map(str, step.tpm2.pcrs))}"
    yield "recovery", f"key written to {step.recovery_path}" if step.recovery_path else ""
    if step.discard:
        yield "discard", "yes: who has the disk sees which blocks are free"


def _use_details(step: Step) -> Rows:
    match step:
        case MakeFilesystem():
            yield "runs", _command(step.argv, step.devices)
            yield "uuid", step.uuid
        case MountFilesystem():
            yield "device", _node(step.source)
            yield "options", ",".join(step.options)
        case EnableSwap():
            yield "device", _node(step.area)
        case MirrorEsp():
            yield "so that", "the machine boots when the first of these disks is gone"
        case MarkComplete():
            for disk, guid in step.disks.items():
                yield "GPT", f"{guid} on {disk}"
        case _:
            pass


def partition_table(step: Step, indent: str) -> list[str]:
    """The new rows of a partition table."""
    match step:
        case WriteTable(partitions=parts) | EditTable(added=parts) if parts:
            rows: list[tuple[str, ...]] = [_partition_row(part, indent) for part in parts]
            rows = [(f"{indent}no", "name", "type", "start", "size", "flags"), *rows]
            columns = 6 if any(part.attributes for part in parts) else 5
            return table([row[:columns] for row in rows], right=(3, 4))
    return []


def _partition_row(part: PlannedPartition, indent: str) -> tuple[str, ...]:
    return (
        f"{indent}{part.ref.number:2d}",
        part.name,
        type_words(part.type_id) or "",
        _exact(part.ref.start),
        format_bytes(part.ref.size),
        ",".join(_ATTRIBUTES.get(bit, str(bit)) for bit in part.attributes),
    )


def _command(argv: Iterable[str], devices: Iterable[Device]) -> str:
    return f"{shlex.join(argv)} {' '.join(map(_node, devices))}"


def _node(device: Device | str) -> str:
    return f"PARTUUID={device.partuuid}" if isinstance(device, PartitionRef) else str(device)


def _exact(count: int) -> str:
    return f"{count // MIB} MiB" if count % MIB == 0 else f"{count} B"
