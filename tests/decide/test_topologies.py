"""Machines and answer files that nobody thought of: 5,000 of them, and what must always hold."""

import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from deciding import answers, machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer.decide.planner import decide
from installer.decide.tables import alignment
from installer.model.config import Config
from installer.model.errors import InstallError, Problem
from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.filesystems import FILESYSTEMS
from installer.model.plan import Plan
from installer.model.steps import PartitionRef
from installer.model.storage_steps import EditTable, TearDown, WipeDisk, WriteTable
from installer.model.units import GIB, MIB

TOOLS = (
    *("wipefs", "mount", "umount", "chroot", "tar", "sfdisk", "gzip", "xz", "zstd", "mkswap"),
    *("swapon", "swapoff", "mdadm", "cryptsetup", "systemd-cryptenroll", "lvm", "thin_check"),
    *("btrfs", "zpool", "dmsetup", *(one.tool for one in FILESYSTEMS.values())),
)
HEAD = "version = 1\npayload = { path = '/x', unverified = true }"
KINDS = ("plain", "raid", "lvm", "btrfs", "zfs")


@st.composite
def found_disks(draw: st.DrawFn) -> list[Disk]:
    """Disks with old partitions on some of them."""
    disks = []
    for number in range(draw(st.integers(2, 6))):
        node = f"/dev/sd{'abcdef'[number]}"
        sector = draw(st.sampled_from([512, 4096]))
        least = draw(st.sampled_from([1, 30, 30, 30])) * 1024
        size = draw(st.integers(least, least + 9999)) * MIB + draw(st.integers(0, 255)) * 4096
        parts = []
        start = MIB
        for index in range(draw(st.integers(0, 3))):
            length = draw(st.integers(1, 4096)) * MIB
            if start + length > size - MIB:
                break
            kind = draw(st.sampled_from([None, "ext4", "ntfs", "vfat"]))
            parts.append(
                FoundPartition(f"{node}{index + 1}", index + 1, length, start, filesystem=kind)
            )
            start += length + draw(st.sampled_from([0, 0, 4096 * 3, 700 * MIB]))
        disks.append(
            Disk(
                node,
                size,
                sector,
                4096,
                draw(st.sampled_from([0, 0, 512 * 1024, 33553920, 3 * MIB])),
                by_id=(f"ata-{number}",),
                serial=f"S{number}",
                transport="sata",
                table="gpt" if parts else None,
                partitions=tuple(parts),
            )
        )
    return disks


@st.composite
def machines(draw: st.DrawFn) -> Facts:
    """Machines whose disks may be part of old arrays and volumes."""
    disks = draw(found_disks())
    nodes = [part.node for one in disks for part in one.partitions]
    layers = []
    for number in range(draw(st.sampled_from([0, 0, 1, 3])) if nodes else 0):
        below = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        node = f"/dev/dm-{number}"
        layers.append(
            Layer(node, draw(st.sampled_from(["md", "crypt", "lvm"])), node, tuple(below))
        )
        nodes.append(node)
    firmware = draw(st.sampled_from(["uefi", "bios"]))
    return machine(
        *disks, layers=tuple(layers), firmware=firmware, tools=dict.fromkeys(TOOLS, "/x")
    )


SIZE = st.one_of(
    st.integers(1, 20 * 1024).map(lambda count: f"{count} MiB"),
    st.integers(1, 9).map(lambda share: f"{share} %"),
)
FILESYSTEM = st.sampled_from(["ext4", "xfs", "btrfs", "f2fs"])


@st.composite
def wanted(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Answer files with one kind of group, if any, on one or two entries of disks."""
    tables: dict[str, Any] = {"disks": []}
    luks = {"name": "crypt", "passphrase": "/key"}
    count = draw(st.integers(1, 3)) if kind != "plain" else 1
    parts = [
        {"size": draw(SIZE), "filesystem": "swap", "name": f"s{number}"}
        for number in range(draw(st.integers(0, 2)))
    ]
    root: dict[str, Any] = {"size": draw(st.sampled_from(["rest", "8 GiB", "80 %"]))}
    if kind == "plain":
        root |= {"mount": "/", "filesystem": draw(FILESYSTEM)}
        root |= {"luks": luks} if draw(st.booleans()) else {}
    else:
        root["name"] = "member"
    parts.insert(draw(st.integers(0, len(parts))), root)
    members = ["member"]
    match kind:
        case "raid":
            holder = {"mount": "/"} if draw(st.booleans()) else {"name": "deep"}
            level = draw(st.sampled_from([0, 1, 5, 10]))
            tables["raid"] = [{"name": "r", "level": level, "members": members} | {"mount": "/"}]
            if holder.get("name") and draw(st.booleans()):
                tables["raid"][0] |= {"luks": luks}
        case "lvm":
            volumes = [
                {"name": "root", "size": "rest", "mount": "/", "filesystem": draw(FILESYSTEM)},
                {"name": "pool", "size": draw(SIZE), "thin-pool": True},
                {"name": "thin", "size": "100 GiB", "pool": "pool", "mount": "/var"},
            ]
            tables["lvm"] = [{"name": "vg", "members": members, "volumes": volumes}]
        case "btrfs":
            subvolumes = [{"path": "@", "mount": "/"}, {"path": "@home", "mount": "/home"}]
            profile = draw(st.sampled_from(["single", "raid0", "raid1", "raid10"]))
            tables["btrfs"] = [{"members": members, "data": profile, "subvolumes": subvolumes}]
        case "zfs":
            datasets = [{"path": "root", "mount": "/"}]
            topology = draw(st.sampled_from(["stripe", "mirror", "raidz"]))
            pool = {"name": "tank", "members": members, "topology": topology, "datasets": datasets}
            tables["zfs"] = [pool]
    boot = {"type": "bios-boot", "size": "1 MiB"}, {"type": "esp", "size": "512 MiB"}
    parts = [*(boot if draw(st.booleans()) else ()), *parts]
    tables["disks"].append(
        {
            "match": {"serial": draw(st.sampled_from(["S*", "S*", "S[01]", "S0", "S[12]"]))},
            "choose": draw(st.sampled_from(["largest", "largest", "smallest", None])),
            "count": count,
            "wipe": draw(st.sampled_from(["force", "force", "force", "force", "refuse"])),
            "partitions": parts,
        }
    )
    if draw(st.integers(0, 3)) == 0:
        data = {"size": "rest", "mount": "/data", "filesystem": draw(FILESYSTEM)}
        keep = {"keep": {"number": 1}}
        table = draw(st.sampled_from([[data], [keep, data]]))
        tables["disks"].append(
            {"match": {"serial": "S*"}, "choose": "largest", "wipe": "force", "partitions": table}
        )
    return tables


def _refs(value: Any) -> Iterator[PartitionRef]:
    """Every partition that something names, however deep."""
    if isinstance(value, PartitionRef):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _refs(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _refs(inner)


def _sound(plan: Plan, facts: Facts) -> None:
    chosen = {disk.stable_path: disk for disk in plan.chosen}
    assert len(chosen) == len(plan.chosen)
    assert len(plan.chosen) + len(plan.rejected) == len(facts.disks)
    seen_ids: list[str] = []
    for step in plan.steps:
        assert step.device is None or step.device in chosen
        assert all(ref.disk in chosen for ref in _refs(step))
        match step:
            case WipeDisk(node=node) | EditTable(node=node):
                assert node in {disk.node for disk in plan.chosen}
            case TearDown(layer=Layer() as layer):
                _only_on(layer, plan, facts)
        if isinstance(step, WriteTable | EditTable):
            _sound_table(step, chosen[step.disk])
            rows = step.partitions if isinstance(step, WriteTable) else step.added
            seen_ids += [row.ref.partuuid for row in rows]
        if isinstance(step, WriteTable):
            seen_ids.append(step.disk_id)
        seen_ids += [getattr(step, "uuid", None) or step.id]
    assert len(seen_ids) == len(set(seen_ids))


def _only_on(layer: Layer, plan: Plan, facts: Facts) -> None:
    """What is stopped lies on chosen disks alone, however many layers are between."""
    ours = {part.node for disk in plan.chosen for part in disk.partitions}
    below = list(layer.on)
    by_node = {one.node: one for one in facts.layers}
    while below:
        node = below.pop()
        assert node in ours or node in by_node
        below += by_node[node].on if node in by_node else ()


def _sound_table(step: WriteTable | EditTable, disk: Disk) -> None:
    unit = alignment(disk)
    assert unit % disk.physical_sector == 0
    rows = step.partitions if isinstance(step, WriteTable) else step.added
    taken = [(row.ref.start, row.ref.start + row.ref.size, row.ref.number) for row in rows]
    for start, end, _ in taken:
        assert start % unit == 0
        assert end % unit == 0
        assert start < end
    if isinstance(step, EditTable):
        taken += [(part.start, part.start + part.size, part.number) for part in step.kept]
        assert {*step.kept, *step.removed} == set(disk.partitions)
        assert not {part.number for part in step.kept} & {row.ref.number for row in rows}
    taken.sort()
    # UEFI 2.10, 5.3.2: 16 KiB of entries and a header at both ends, and the protective record
    end = 16384 + 2 * disk.logical_sector
    for start, stop, _ in taken:
        assert start >= end
        end = stop
    assert end <= disk.size - 16384 - disk.logical_sector
    assert len({number for _, _, number in taken}) == len(taken)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_planned_is_sound(kind: str) -> None:
    planned = 0

    @settings(
        max_examples=1000,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(machines(), wanted(kind))
    def check(facts: Facts, tables: dict[str, Any]) -> None:
        nonlocal planned
        problems: tuple[Problem, ...] = ()
        try:
            plan = decide(facts, Config(answers(HEAD, **tables), "answers.toml"))
        except InstallError as error:
            problems = error.problems
        else:
            planned += 1
            _sound(plan, facts)
        assert all(problem.what and problem.where for problem in problems)

    check()
    # a test of refusals alone would prove nothing
    assert planned > 30


def test_two_hundred_disks_with_a_stack_take_under_half_a_second() -> None:
    disks = [
        Disk(
            f"/dev/sd{number}",
            100 * GIB,
            by_id=(f"ata-{number}",),
            serial=f"S{number}",
            table="gpt",
            partitions=(FoundPartition(f"/dev/sd{number}p1", 1, GIB, MIB),),
        )
        for number in range(200)
    ]
    layers = tuple(
        Layer(f"/dev/md{n}", "md", f"md{n}", (f"/dev/sd{2 * n}p1", f"/dev/sd{2 * n + 1}p1"))
        for n in range(100)
    )
    tables = {
        "disks": [
            {
                "match": {"serial": "S*"},
                "count": 24,
                "exclude": [{"serial": f"S{n}"} for n in range(24, 200)],
                "wipe": "force",
                "partitions": [{"name": "m", "size": "rest"}],
            }
        ],
        "raid": [{"name": "big", "level": 6, "members": ["m"], "mount": "/"}],
    }
    facts = machine(*disks, layers=layers, tools=dict.fromkeys(TOOLS, "/x"))
    config = Config(answers(HEAD, **tables), "a.toml")
    decide(facts, config)
    begun = time.process_time()
    assert len(decide(facts, config).chosen) == 24
    assert time.process_time() - begun < 0.5
