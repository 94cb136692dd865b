"""Which disks are taken, which are not, and what is said about it."""

from dataclasses import replace
from typing import Any

import pytest
from deciding import answers, disk, machine, plan, refusal, saved
from hypothesis import given
from hypothesis import strategies as st

from installer.decide.disks import carries, choose, describe
from installer.model.facts import Disk, FoundPartition
from installer.model.steps import PartitionRef
from installer.model.storage import Disk as WantedDisk
from installer.model.storage_steps import MakeFilesystem, MountFilesystem, WipeDisk, WriteTable
from installer.model.units import GIB, MIB

ROOT = [{"size": "rest", "mount": "/"}]


def _wanted(match: dict[str, Any], **more: Any) -> WantedDisk:
    return WantedDisk.model_validate({"match": match, "partitions": ROOT, **more})


def _reasons(match: dict[str, Any], found: Disk) -> list[str]:
    _, rejected, _ = choose([_wanted(match)], machine(found))
    return [reason for other in rejected for reason in other.reasons]


SSD = Disk(
    "/dev/sda",
    500 * 10**9,
    by_id=("ata-SSD_1234", "wwn-0x5000"),
    by_path=("pci-0000:00:17.0-ata-1",),
    serial="1234",
    wwn="0x5000",
    model="SSD",
    transport="sata",
)


@pytest.mark.parametrize(
    "match",
    [
        {"by-id": "ata-SSD_1234"},
        {"by-id": "wwn-*"},
        {"by-path": "pci-*-ata-1"},
        {"serial": "12[0-9]4"},
        {"wwn": "0x5000"},
        {"model": "S?D"},
        {"transport": "sata", "rotational": False},
        {"size": {"min": "500 GB", "max": "500 GB"}},
    ],
    ids=str,
)
def test_what_matches(match: dict[str, Any]) -> None:
    chosen, rejected, problems = choose([_wanted(match)], machine(SSD))
    assert (chosen, rejected, problems) == ([[SSD]], [], [])


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        ({"by-id": "ata-SSD"}, "by-id is ata-SSD_1234, wwn-0x5000, not ata-SSD"),
        ({"by-path": "pci-*-ata-2"}, "by-path is pci-0000:00:17.0-ata-1, not pci-*-ata-2"),
        ({"serial": "123"}, "serial is 1234, not 123"),
        ({"wwn": "0X5000"}, "wwn is 0x5000, not 0X5000"),
        ({"model": "ssd"}, "model is SSD, not ssd"),
        ({"transport": "nvme"}, "transport is sata, not nvme"),
        ({"rotational": True}, "it is not rotational"),
        ({"size": {"min": "501 GB"}}, "466 GiB is smaller than 467 GiB"),
        ({"size": {"max": "499 GB"}}, "466 GiB is larger than 465 GiB"),
    ],
    ids=str,
)
def test_what_does_not_match_says_why(match: dict[str, Any], reason: str) -> None:
    assert _reasons(match, SSD) == [reason]


def test_what_is_not_known_does_not_match() -> None:
    nameless = Disk("/dev/vda", GIB, rotational=True)
    assert _reasons({"serial": "*", "transport": "virtio", "rotational": False}, nameless) == [
        "serial is unknown, not *",
        "transport is unknown, not virtio",
        "it is rotational",
    ]


def test_none_names_every_disk_and_why_not() -> None:
    given = answers(disks=[{"match": {"serial": "X"}, "partitions": ROOT}])
    assert refusal(machine(disk("/dev/vda"), disk("/dev/vdb", serial=None)), given) == (
        "error[disk.none]: no disk matches: "
        "/dev/vda 20.0 GiB virtio serial vda (serial is vda, not X); "
        "/dev/vdb 20.0 GiB virtio (serial is unknown, not X)\n"
        "  where: answers.toml: disks[0].match\n"
        "  try:   compare with `netinstall probe`"
    )


def test_two_that_match_are_both_named() -> None:
    assert refusal(machine(disk("/dev/vda"), disk("/dev/vdb", 10 * GIB)), answers()) == (
        "error[disk.ambiguous]: 2 disks match, one is wanted: "
        "/dev/vda 20.0 GiB virtio serial vda; /dev/vdb 10.0 GiB virtio serial vdb\n"
        "  where: answers.toml: disks[0].match\n"
        "  try:   name one of them, for example by serial or by-id, "
        'or say choose = "smallest" or "largest"'
    )


@pytest.mark.parametrize(("which", "node"), [("largest", "/dev/vda"), ("smallest", "/dev/vdb")])
def test_the_owner_may_say_how_to_choose(which: str, node: str) -> None:
    given = answers(disks=[{"match": {"transport": "virtio"}, "choose": which, "partitions": ROOT}])
    made = plan(machine(disk("/dev/vda"), disk("/dev/vdb", 10 * GIB)), given)
    assert [chosen.node for chosen in made.chosen] == [node]
    (other,) = made.rejected
    assert other.reasons == (f"{node} is the {which} that matches",)


def test_equal_disks_stay_ambiguous() -> None:
    given = answers(
        disks=[{"match": {"transport": "virtio"}, "choose": "largest", "partitions": ROOT}]
    )
    assert "error[disk.ambiguous]: 2 disks match" in refusal(
        machine(disk("/dev/vda"), disk("/dev/vdb"), disk("/dev/vdc", GIB)), given
    )


def test_a_disk_in_use_is_refused() -> None:
    used = disk(in_use=("/dev/vda1 is mounted at /", "/dev/vda2 is swap"))
    assert refusal(machine(used), answers()) == (
        "error[disk.in-use]: what matches cannot be taken: /dev/vda 20.0 GiB virtio serial vda "
        "(it is in use: /dev/vda1 is mounted at /, it is in use: /dev/vda2 is swap)\n"
        "  where: answers.toml: disks[0].match\n"
        "  try:   free the disk (unmount it, swapoff, stop what holds it), or match another one; "
        'in a boot environment of its own, wipe = "force" does that'
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 0}, "it has no medium (size 0)"),
        ({"read_only": True}, "it is read-only"),
        (
            {"paths": ("/dev/sda", "/dev/sdb")},
            "it is a multipath device, whose partitions cannot be made yet",
        ),
        ({"removable": True}, 'it is removable (say transport = "usb" to take it)'),
    ],
)
def test_what_cannot_be_written_is_never_taken(changes: dict[str, Any], reason: str) -> None:
    found = replace(disk(), **changes)
    assert refusal(machine(found), answers()) == (
        f"error[disk.none]: what matches cannot be taken: {describe(found)} ({reason})\n"
        "  where: answers.toml: disks[0].match\n"
        "  try:   match another disk"
    )


def test_a_stick_is_taken_when_it_is_asked_for() -> None:
    given = answers(disks=[{"match": {"transport": "usb"}, "wipe": "force", "partitions": ROOT}])
    made = plan(saved("sata-usb"), given)
    assert [chosen.node for chosen in made.chosen] == ["/dev/sdb"]


def test_a_disk_is_taken_once() -> None:
    given = answers(
        disks=[
            {"match": {"serial": "vda"}, "partitions": ROOT},
            {
                "match": {"transport": "virtio"},
                "partitions": [{"size": "rest", "mount": "/home"}],
            },
        ]
    )
    assert [d.node for d in plan(machine(disk("/dev/vda"), disk("/dev/vdb")), given).chosen] == [
        "/dev/vda",
        "/dev/vdb",
    ]
    assert refusal(machine(disk("/dev/vda")), given) == (
        "error[disk.none]: no disk matches: /dev/vda 20.0 GiB virtio serial vda (taken already)\n"
        "  where: answers.toml: disks[1].match\n"
        "  try:   compare with `netinstall probe`"
    )


def test_what_a_disk_carries_is_told() -> None:
    assert carries(disk()) == "nothing recognised"
    assert carries(disk(filesystem="ext4")) == "ext4"
    assert carries(disk(table="mbr")) == "mbr"
    parts = (
        FoundPartition("/dev/vda1", 1, 512 * MIB, filesystem="vfat", label="EFI"),
        FoundPartition("/dev/vda2", 2, GIB),
    )
    assert carries(disk(table="gpt", partitions=parts)) == (
        'gpt: /dev/vda1 512 MiB vfat "EFI", /dev/vda2 1.00 GiB'
    )


DISKS = st.lists(
    st.builds(
        disk,
        size=st.sampled_from([0, 4 * GIB, 8 * GIB, 20 * GIB]),
        transport=st.sampled_from(["virtio", "sata", "usb", None]),
        read_only=st.booleans(),
        removable=st.booleans(),
        in_use=st.sampled_from([(), ("mounted",)]),
    ),
    max_size=5,
).map(
    lambda found: [
        replace(one, node=f"/dev/vd{letter}", serial=letter, by_id=(f"virtio-{letter}",))
        for one, letter in zip(found, "abcde", strict=False)
    ]
)


@given(DISKS, st.sampled_from([None, "smallest", "largest"]))
def test_every_disk_is_chosen_or_has_a_reason(found: list[Disk], choice: str | None) -> None:
    wanted = [
        _wanted({"transport": "virtio"}, choose=choice),
        _wanted({"size": {"min": "1 GB"}}, choose=choice),
    ]
    chosen, rejected, problems = choose(wanted, replace(machine(), disks=tuple(found)))
    taken = [one for picked in chosen for one in picked]
    assert len(problems) == chosen.count([])
    assert sorted(d.node for d in (*taken, *(r.disk for r in rejected))) == [d.node for d in found]
    assert all(other.reasons for other in rejected)
    for one in taken:
        assert one.size
        assert not one.in_use
        assert not one.read_only


@given(DISKS)
def test_only_chosen_disks_appear_in_a_step(found: list[Disk]) -> None:
    victim = disk("/dev/nvme0n1", by_id=("nvme-victim",), serial="victim", transport="nvme")
    given = answers(disks=[{"match": {"serial": "victim"}, "partitions": ROOT}])
    made = plan(machine(*found, victim), given)
    assert [other.disk for other in made.rejected] == found
    for step in made.steps:
        assert step.device in (None, "/dev/disk/by-id/nvme-victim")
        match step:
            case WipeDisk(node=node):
                assert node == "/dev/nvme0n1"
            case WriteTable(partitions=rows):
                assert {row.ref.disk for row in rows} == {"/dev/disk/by-id/nvme-victim"}
            case MakeFilesystem(devices=(PartitionRef() as ref,)):
                assert ref.disk == "/dev/disk/by-id/nvme-victim"
            case MountFilesystem(source=PartitionRef() as ref):
                assert ref.disk == "/dev/disk/by-id/nvme-victim"
            case _:
                pass
