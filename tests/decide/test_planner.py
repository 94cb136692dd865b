"""The whole decision: its order, its errors, its speed, and that it is always the same."""

import time
from dataclasses import replace
from typing import Any

import pytest
from deciding import CASES, MINIMAL, answers, disk, machine, plan, refusal, saved
from hypothesis import given
from hypothesis import strategies as st

from installer.act.payload.compression import FORMATS
from installer.model.codec import to_json
from installer.model.facts import PayloadFacts
from installer.model.partition_types import GPT_TYPES
from installer.model.payload_steps import CheckPayload, UnpackPayload
from installer.model.plan import (
    Flush,
    InstallBootLoader,
    LeaveTarget,
)
from installer.model.storage_steps import (
    EditTable,
    EnableSwap,
    MakeFilesystem,
    MarkComplete,
    MountFilesystem,
    TearDown,
    WipeDisk,
    WriteTable,
)
from installer.model.units import GIB, MIB

ALL = sorted(path for path in CASES.glob("*/*.toml"))
# what comes of the others is told in the same words
POSSIBLE = [path for path in ALL if path.with_suffix(".txt").read_text().endswith("code 0\n")]
DESTROYERS = (TearDown, WipeDisk, EditTable)


@pytest.mark.parametrize("path", POSSIBLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_order_of_the_steps(path: Any) -> None:
    made = plan(saved(path.parent.name), answers(path.read_text()))
    steps = list(made.steps)
    kinds = [type(step) for step in steps]
    # rule 1: nothing is destroyed before everything that can be checked has been checked
    if CheckPayload in kinds:
        assert kinds[0] is CheckPayload
    # rule 4: what makes the machine bootable is last, after everything was flushed and read back
    last = [kind for kind in kinds if kind is not MarkComplete][-3:]
    assert last == [Flush, InstallBootLoader, LeaveTarget]
    assert all(kind in DESTROYERS for kind, step in zip(kinds, steps, strict=True) if step.destroys)
    assert kinds.index(InstallBootLoader) > max(
        (number for number, step in enumerate(steps) if step.destroys), default=0
    )
    assert len({step.id for step in steps}) == len(steps)
    # what is mounted was made before, and a folder before what is in it
    made_parts = [one for step in steps if isinstance(step, MakeFilesystem) for one in step.devices]
    mounts = [step for step in steps if isinstance(step, MountFilesystem)]
    assert mounts[0].where == "/"
    seen: list[str] = []
    for step in mounts:
        assert step.source in made_parts
        assert not any(earlier.startswith(f"{step.where}/") for earlier in seen)
        seen.append(step.where)
    # a boot loader that the payload holds must not get onto the ESP
    esps = [
        row.ref
        for step in steps
        if isinstance(step, WriteTable)
        for row in step.partitions
        if row.type_id == GPT_TYPES["esp"]
    ]
    unpack = kinds.index(UnpackPayload)
    for step in mounts:
        assert (steps.index(step) > unpack) == (step.source in esps)


@pytest.mark.parametrize("path", POSSIBLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_same_facts_give_the_same_plan(path: Any) -> None:
    facts, given = saved(path.parent.name), answers(path.read_text())
    assert to_json(plan(facts, given)) == to_json(plan(facts, given))
    other = plan(replace(facts, entropy="f" * 32), given)
    mine = plan(facts, given)
    assert {step.uuid for step in other.steps if isinstance(step, MakeFilesystem)}.isdisjoint(
        step.uuid for step in mine.steps if isinstance(step, MakeFilesystem)
    )


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_identifiers_come_from_the_seed_only(entropy: str) -> None:
    facts = replace(machine(), entropy=entropy)
    assert to_json(plan(facts, answers())) == to_json(plan(facts, answers()))


def test_two_hundred_disks_are_decided_on_at_once() -> None:
    many = [disk(f"/dev/sd{n}", by_id=(f"ata-{n}", f"wwn-{n}"), serial=str(n)) for n in range(200)]
    given = answers(
        disks=[
            {
                "match": {"serial": str(number)},
                "partitions": [{"size": "rest", "mount": f"/{number}" if number else "/"}],
            }
            for number in range(0, 200, 10)
        ]
    )
    facts = machine(*many)
    plan(facts, given)
    begun = time.process_time()
    made = plan(facts, given)
    assert time.process_time() - begun < 0.5
    assert len(made.chosen) == 20
    assert len(made.rejected) == 180


def test_the_other_firmware_is_refused() -> None:
    for wanted, seen in (("uefi", "bios"), ("bios", "uefi")):
        assert refusal(machine(firmware=seen), answers(boot={"firmware": wanted})) == (
            f"error[firmware.mismatch]: the answer file wants {wanted.upper()}, "
            f"this machine booted in {seen.upper()} mode\n"
            "  where: answers.toml: boot.firmware\n"
            '  try:   switch the mode in the firmware\'s setup, or say firmware = "auto"'
        )


def test_a_payload_that_cannot_fit_is_refused_before_it_is_read() -> None:
    facts = machine(payload=PayloadFacts("http://192.0.2.1/system.tar.zst", 30 * GIB))
    assert refusal(facts, answers()) == (
        "error[payload.too-large]: http://192.0.2.1/system.tar.zst has 30.0 GiB, "
        "the file systems of the layout take 18.1 GiB\n"
        "  where: answers.toml: disks\n"
        "  try:   give the system a larger disk, or make a smaller payload"
    )
    assert plan(machine(payload=PayloadFacts("x", 10 * GIB)), answers())
    assert plan(machine(payload=PayloadFacts("x", None)), answers())


@pytest.mark.parametrize(
    ("tool", "why", "package"),
    [
        ("wipefs", "every installation", "util-linux"),
        ("sfdisk", "every installation", "fdisk"),
        ("tar", "every installation", "tar"),
        ("zstd", "every installation", "zstd"),
        ("xz", "every installation", "xz-utils"),
        ("mkfs.btrfs", "btrfs file systems", "btrfs-progs"),
        ("mkfs.vfat", "vfat file systems", "dosfstools"),
        ("mkswap", "swap", "util-linux"),
        ("swapoff", "swap", "mount"),
    ],
)
def test_a_missing_program_is_told_before_anything_is_done(
    tool: str, why: str, package: str
) -> None:
    facts = saved("virtio-vm")
    tools = {name: path for name, path in facts.tools.items() if name != tool}
    parts = [
        {"size": "rest", "mount": "/", "filesystem": "btrfs"},
        {"type": "swap", "size": "1 GiB"},
    ]
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": parts}])
    assert refusal(replace(facts, tools=tools), given) == (
        f"error[tool.missing]: {tool} is not in this boot environment; it is needed for {why}\n"
        "  where: answers.toml\n"
        f"  try:   build the boot environment with Debian's package {package}"
    )


def test_what_is_not_used_may_be_missing() -> None:
    facts = saved("virtio-vm")
    unused = ("mkfs.btrfs", "mkfs.xfs", "mkswap", "swapon", "swapoff", "efibootmgr", "blkid")
    tools = {name: path for name, path in facts.tools.items() if name not in unused}
    assert plan(replace(facts, tools=tools), answers())


def test_every_decompressor_is_needed() -> None:
    text = refusal(machine(tools={}), answers())
    for known in FORMATS:
        assert f"error[tool.missing]: {known.argv[0]} is not in this boot environment" in text


def test_all_problems_are_told_together() -> None:
    facts = machine(disk(size=2 * MIB), firmware="bios", tools={}, leases=())
    given = answers(boot={"firmware": "uefi"}, network={"mode": "static-from-lease"})
    lines = refusal(facts, given).splitlines()
    codes = [line.partition("]")[0][6:] for line in lines if line.startswith("error[")]
    assert list(dict.fromkeys(codes)) == [
        "firmware.mismatch",
        "disk.too-small",
        "network.no-lease",
        "tool.missing",
    ]


def test_a_disk_without_a_stable_name_is_warned_about() -> None:
    made = plan(machine(disk(by_id=())), answers())
    assert made.warnings == ("/dev/vda has no by-id or by-path name; it is addressed by its node",)
    made = plan(machine(disk(by_id=(), by_path=("pci-0000:00:03.0",))), answers())
    assert not made.warnings
    assert made.steps[1].device == "/dev/disk/by-path/pci-0000:00:03.0"


def test_secrets_of_a_url_stay_in_this_process() -> None:
    url = "https://user:hunter2@images.example.net/system.tar.zst?signature=hunter3"
    made = plan(machine(), answers(payload={"url": url, "unverified": True}))
    text = to_json(made) + "".join(f"{step.title}{step.destroys}" for step in made.steps)
    assert "hunter" not in text
    (unpack,) = [step for step in made.steps if isinstance(step, UnpackPayload)]
    assert unpack.source == url


def test_streaming_reads_the_payload_once() -> None:
    given = answers(payload={"path": "/srv/x.tar", "unverified": True, "verify": "stream"})
    assert CheckPayload not in map(type, plan(machine(), given).steps)


def test_swap_is_on_before_the_configuration_is_generated() -> None:
    text = MINIMAL.replace("[ {", '[ { type = "swap", size = "1 GiB" }, {')
    kinds = [type(step) for step in plan(machine(), answers(text)).steps]
    assert kinds.index(EnableSwap) < kinds.index(UnpackPayload)
