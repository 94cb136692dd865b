"""What may be destroyed, what is kept, and in which order things are taken apart."""

from dataclasses import replace
from typing import Any

import pytest
from deciding import answers, disk, machine, plan, refusal

from installer.decide.identifiers import chosen_disk_id, installed_by_us
from installer.model.facts import Disk, Facts, FoundPartition, Layer
from installer.model.storage_steps import EditTable, MarkComplete, TearDown, WipeDisk, WriteTable
from installer.model.units import GIB, MIB

ROOT = [{"size": "rest", "mount": "/"}]
HINT = '  try:   say wipe = "force" if it may, or keep what must stay'


def _part(number: int, start: int, size: int, **more: Any) -> FoundPartition:
    return FoundPartition(f"/dev/vda{number}", number, size, start, f"part-{number}", **more)


def _carrying(**changes: Any) -> Disk:
    parts = (_part(1, MIB, GIB, filesystem="ext4", label="photos"),)
    return disk(**{"table": "gpt", "partitions": parts, **changes})


def _given(wipe: str, parts: list[dict[str, Any]] = ROOT, **more: Any) -> Any:
    wanted = {"match": {"transport": "virtio"}, "wipe": wipe, "partitions": parts, **more}
    return answers(disks=[wanted])


@pytest.mark.parametrize("wipe", ["refuse", "blank-only", "known"])
def test_data_that_nobody_gave_up_is_not_destroyed(wipe: str) -> None:
    assert refusal(machine(_carrying()), _given(wipe)) == (
        "error[disk.carries-data]: /dev/vda 20.0 GiB virtio serial vda carries gpt: /dev/vda1 "
        '1.00 GiB ext4 "photos", and the answer file does not say that it may be destroyed\n'
        "  where: answers.toml: disks[0].wipe\n" + HINT
    )


@pytest.mark.parametrize("found", [{"table": "mbr"}, {"table": None, "filesystem": "xfs"}], ids=str)
def test_a_table_or_a_signature_alone_is_data(found: dict[str, Any]) -> None:
    carrying = disk(**found)
    assert "error[disk.carries-data]" in refusal(machine(carrying), _given("refuse"))
    assert plan(machine(carrying), _given("force"))


@pytest.mark.parametrize("wipe", ["refuse", "blank-only", "known", "force"])
def test_a_blank_disk_needs_no_consent(wipe: str) -> None:
    (step,) = [s for s in plan(machine(disk()), _given(wipe)).steps if isinstance(s, WipeDisk)]
    assert step.blank == (wipe == "blank-only")
    assert step.unmarked == (wipe in ("refuse", "known"))


@pytest.mark.parametrize(("state", "warned"), [("begun", True), ("complete", False)])
def test_our_own_installation_is_known_again(state: Any, warned: bool) -> None:
    carrying = _carrying(table_uuid=chosen_disk_id("0" * 32, "x", state))
    assert installed_by_us(carrying.table_uuid) == state
    made = plan(machine(carrying), _given("known"))
    assert (made.warnings != ()) == warned
    if warned:
        assert made.warnings == (
            (
                "/dev/vda carries an installation by netinstall that did not get to its end; "
                "it is done again from the beginning"
            ),
        )
    assert 'wipe = "known" for what netinstall itself installed' in refusal(
        machine(carrying), _given("refuse")
    )


def test_the_table_says_that_the_installation_is_complete() -> None:
    steps = plan(machine(disk()), _given("refuse")).steps
    (table,) = [s for s in steps if isinstance(s, WriteTable)]
    (mark,) = [s for s in steps if isinstance(s, MarkComplete)]
    assert installed_by_us(table.disk_id) == "begun"
    assert {installed_by_us(done) for done in mark.disks.values()} == {"complete"}
    assert installed_by_us("6e657469-6e73-4000-8000-000000000000") is None
    assert installed_by_us(None) is None


def _stack(*, mounted: bool) -> Facts:
    """LVM on LUKS on a RAID of two disks."""
    members = [
        disk(node, table="gpt", partitions=(FoundPartition(f"{node}1", 1, GIB),))
        for node in ("/dev/vda", "/dev/vdb")
    ]
    layers = (
        Layer("/dev/md0", "md", "md0", ("/dev/vda1", "/dev/vdb1")),
        Layer("/dev/dm-0", "crypt", "crypt-old", ("/dev/md0",)),
        Layer("/dev/dm-1", "lvm", "vg-root", ("/dev/dm-0",), "ext4", ("/mnt",) if mounted else ()),
        Layer("/dev/dm-2", "lvm", "vg-swap", ("/dev/dm-0",), "swap", swap=mounted),
    )
    return machine(*members, layers=layers)


def test_a_stack_is_taken_apart_from_the_top() -> None:
    raid = {"name": "r", "level": 1, "members": ["a"], "mount": "/"}
    disks = {"match": {"transport": "virtio"}, "wipe": "force", "count": 2}
    wanted = [disks | {"partitions": [{"name": "a", "size": "rest"}]}]
    facts = _stack(mounted=True)
    tools = dict(facts.tools) | dict.fromkeys(("mdadm", "dmsetup"), "x")
    made = plan(replace(facts, tools=tools), answers(disks=wanted, raid=[raid]))
    down = [step for step in made.steps if isinstance(step, TearDown)]
    assert [step.title for step in down] == [
        "stop swapping to /dev/dm-2, wipe and stop lvm vg-swap (/dev/dm-2)",
        "unmount /mnt, wipe and stop lvm vg-root (/dev/dm-1)",
        "wipe and stop crypt crypt-old (/dev/dm-0)",
        "wipe and stop md md0 (/dev/md0)",
    ]
    assert made.steps.index(down[-1]) < next(
        number for number, step in enumerate(made.steps) if isinstance(step, WipeDisk)
    )
    assert "lvm vg-root (/dev/dm-1 on /dev/dm-0): ext4" in made.destroyed


def test_what_is_mounted_is_not_taken_without_force() -> None:
    text = refusal(_stack(mounted=True), _given("known"))
    assert "error[disk.in-use]" in text
    assert "/dev/dm-1 (vg-root) is mounted at /mnt" in text
    assert "/dev/dm-2 (vg-swap) is swapped to" in text


def test_a_stack_that_lies_on_another_disk_too_is_refused() -> None:
    given = answers(disks=[{"match": {"serial": "vda"}, "wipe": "force", "partitions": ROOT}])
    text = refusal(_stack(mounted=False), given)
    assert (
        "error[disk.shared]: md md0 (/dev/md0) lies on /dev/vda and on /dev/vdb 20.0 GiB virtio "
        "serial vdb, which the answer file does not name: it cannot be stopped without writing "
        "there\n"
        "  where: answers.toml: disks[0].match\n"
        "  try:   match these disks, too, or take the disk out of it by hand"
    ) in text


ARRAY = {"name": "root", "level": 1, "members": ["m"], "mount": "/"}
GROUP = {
    "name": "root",
    "members": ["m"],
    "volumes": [{"name": "vol", "size": "rest", "mount": "/"}],
}
DATASETS = [{"path": "r", "mount": "/"}]
LUKS = {"name": "root", "passphrase": "http://192.0.2.1/key"}
MEMBERS = [{"name": "m", "size": "rest"}]


@pytest.mark.parametrize(
    ("kind", "name", "made"),
    [
        ("md", "root", {"raid": [ARRAY], "count": 2}),
        ("lvm", "root-old", {"lvm": [GROUP]}),
        ("crypt", "root", {"luks": LUKS}),
        ("zfs", "root", {"zfs": [{"name": "root", "members": ["m"], "datasets": DATASETS}]}),
    ],
)
def test_a_name_that_a_disk_has_which_stays_is_refused(
    kind: Any, name: str, made: dict[str, Any]
) -> None:
    stays = disk("/dev/vdz", size=GIB)
    above = Layer("/dev/above", kind, name, ("/dev/vdz",))
    text = _refused_beside(stays, above, made)
    assert (
        f"error[storage.name-taken]: {kind} {name} (/dev/above) has the name root already" in text
    )
    assert "it lies on /dev/vdz 1.00 GiB virtio serial vdz, which stays\n" in text
    assert "  try:   take another name, or match that disk, too" in text
    # another's name, and device-mapper's form of a group named root-old
    for other in (f"old{name}", "root--old-vol"):
        assert "name-taken" not in _refused_beside(stays, replace(above, name=other), made)
    # it goes with its disk
    gone = _refused_beside(stays, replace(above, on=("/dev/vda",)), made)
    assert "name-taken" not in gone


def test_the_name_of_a_pool_that_is_not_imported_is_refused() -> None:
    part = FoundPartition("/dev/vdz1", 1, GIB, MIB, filesystem="zfs_member", label="root")
    stays = disk("/dev/vdz", size=2 * GIB, table="gpt", partitions=(part,))
    above = Layer("/dev/md0", "md", "other", ("/dev/vdz",))
    pool = {"zfs": [{"name": "root", "members": ["m"], "datasets": DATASETS}]}
    assert (
        "error[storage.name-taken]: /dev/vdz1 belongs to a ZFS pool named root already; it lies on "
        "/dev/vdz 2.00 GiB virtio serial vdz, which stays\n"
        "  where: answers.toml: zfs[0].name\n"
    ) in _refused_beside(stays, above, pool)
    other = replace(stays, partitions=(replace(part, label="tank"),))
    assert "name-taken" not in _refused_beside(other, above, pool)


def _refused_beside(stays: Disk, above: Layer, made: dict[str, Any]) -> str:
    """What is said of the disks beside one that stays; it is too small for the system."""
    made = dict(made)
    count, luks = made.pop("count", 1), made.pop("luks", None)
    part = {"size": "rest", "mount": "/", "luks": luks} if luks else MEMBERS[0]
    taken = [disk(f"/dev/vd{letter}") for letter in "ab"[:count]]
    wanted = {
        "match": {"serial": "vd[ab]"},
        "count": count,
        "wipe": "force",
        "partitions": [part],
    }
    facts = machine(*taken, stays, layers=(above,), tools={})
    return refusal(facts, answers(disks=[wanted], **made))


def test_the_disk_that_the_system_runs_from_is_never_taken() -> None:
    text = refusal(machine(disk(boot_medium="/ is mounted from /dev/vda1")), _given("force"))
    assert "the running system needs it: / is mounted from /dev/vda1" in text


WINDOWS = (
    _part(1, MIB, 100 * MIB, filesystem="vfat", name="EFI system partition"),
    _part(2, 101 * MIB, 16 * MIB, name="Microsoft reserved partition"),
    _part(3, 117 * MIB, 8 * GIB, filesystem="ntfs", label="Windows"),
    _part(4, 117 * MIB + 8 * GIB, 4 * GIB, filesystem="ext4", label="old-linux"),
)
KEEPING: list[dict[str, Any]] = [
    {"type": "esp", "keep": {"number": 1}},
    {"keep": {"number": 2}},
    {"keep": {"label": "Windows"}},
    {"size": "2 GiB", "filesystem": "swap"},
    {"size": "rest", "mount": "/"},
]


def _windows(**changes: Any) -> Facts:
    return machine(disk(**{"table": "gpt", "table_uuid": "t", "partitions": WINDOWS, **changes}))


def test_windows_stays() -> None:
    made = plan(_windows(), _given("force", KEEPING))
    assert not [s for s in made.steps if isinstance(s, WipeDisk | WriteTable | MarkComplete)]
    (edit,) = [s for s in made.steps if isinstance(s, EditTable)]
    assert [part.number for part in edit.kept] == [1, 2, 3]
    assert [part.number for part in edit.removed] == [4]
    added = {row.name: row.ref for row in edit.added}
    assert (added["swap"].number, added["root"].number) == (4, 5)
    assert added["swap"].start == 117 * MIB + 8 * GIB
    assert added["root"].start == added["swap"].start + 2 * GIB
    assert edit.destroys == "of /dev/disk/by-id/virtio-vda: /dev/vda4 4.00 GiB ext4"
    # the ESP is used as it is
    assert {s.filesystem for s in made.steps if s.kind == "make-filesystem"} == {"ext4", "swap"}


def test_a_partition_that_is_not_named_needs_consent() -> None:
    assert refusal(_windows(), _given("refuse", KEEPING)) == (
        "error[disk.carries-data]: /dev/vda 20.0 GiB virtio serial vda carries gpt: /dev/vda4 "
        '4.00 GiB ext4 "old-linux", and the answer file does not say that it may be destroyed\n'
        "  where: answers.toml: disks[0].wipe\n" + HINT
    )


@pytest.mark.parametrize(
    ("facts", "parts", "text"),
    [
        (
            _windows(table="mbr"),
            KEEPING,
            (
                "error[disk.keep]: /dev/vda has a table of type mbr, and something of one of type "
                "gpt is to be kept\n  where: answers.toml: disks[0]\n"
                "  try:   compare with `netinstall probe`"
            ),
        ),
        (
            _windows(),
            [{"keep": {"label": "Window"}}, *KEEPING[3:]],
            "error[disk.keep]: no partition of /dev/vda fits label Window: it has 1 100 MiB vfat",
        ),
        (
            _windows(),
            [{"keep": {"label": "Windows"}, "mount": "/win", "filesystem": "ext4"}, *KEEPING[3:]],
            (
                "error[disk.keep]: /dev/vda3 holds ntfs, and is to be used as ext4 without being "
                "formatted"
            ),
        ),
        (
            _windows(),
            [*KEEPING[:3], {"size": "18 GiB", "mount": "/"}],
            "error[disk.too-small]: the partitions need 18.0 GiB, /dev/vda has room for 11.9 GiB",
        ),
    ],
)
def test_what_cannot_be_kept_is_told(facts: Facts, parts: list[Any], text: str) -> None:
    assert text in refusal(facts, _given("force", parts))


def test_what_is_kept_and_formatted_is_told_as_lost() -> None:
    parts = [*KEEPING[:3], {"keep": {"number": 4}, "format": True, "mount": "/"}]
    made = plan(_windows(), _given("refuse", parts))
    assert made.destroyed == ("/dev/vda4 (ext4)",)
    assert not [step for step in made.steps if isinstance(step, EditTable)]
