"""Where partitions lie."""

from typing import Any

import pytest
from deciding import CASES, answers, disk, machine, plan, refusal, saved
from hypothesis import assume, given
from hypothesis import strategies as st

from installer.decide.boot_partitions import with_boot_partitions
from installer.decide.tables import Table, alignment, lay_out, minimum_bytes
from installer.model.errors import Problem
from installer.model.facts import Disk, Firmware
from installer.model.filesystems import FILESYSTEMS
from installer.model.plan import WriteFile
from installer.model.storage import Disk as WantedDisk
from installer.model.storage import Partition
from installer.model.storage_steps import WriteTable
from installer.model.units import GIB, MIB, Absolute, Percent, Rest

ENTROPY = "00" * 16


def _partition(**given: Any) -> Partition:
    return Partition.model_validate(given)


def _lay_out(found: Disk, partitions: list[Partition]) -> tuple[Table | None, list[Problem]]:
    want = WantedDisk.model_validate(
        {"match": {"serial": "x"}, "partitions": [{"size": "rest", "mount": "/"}]}
    )
    return lay_out(found, want, partitions, index=0, copy=0, entropy=ENTROPY, used_by={})


def _rows(facts_firmware: Firmware, *partitions: dict[str, Any]) -> list[tuple[str, int]]:
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": list(partitions)}])
    made = plan(machine(disk(), firmware=facts_firmware), given)
    (table,) = [step for step in made.steps if isinstance(step, WriteTable)]
    return [(row.name, row.ref.size // MIB) for row in table.partitions]


def test_what_the_firmware_needs_is_added() -> None:
    root = {"size": "rest", "mount": "/"}
    assert _rows("uefi", root) == [("ESP", 1024), ("root", 19 * 1024 - 2)]
    assert _rows("bios", root) == [("bios-boot", 1), ("root", 20 * 1024 - 3)]


def test_what_the_firmware_needs_is_not_added_twice() -> None:
    root = {"size": "rest", "mount": "/"}
    esp = {"type": "esp", "size": "300 MiB", "mount": "/efi"}
    bios = {"type": "bios-boot", "size": "2 MiB"}
    assert _rows("uefi", root, esp)[1:] == [("ESP", 300)]
    # a disk that boots both ways
    assert _rows("uefi", bios, esp, root)[:2] == [("bios-boot", 2), ("ESP", 300)]
    assert _rows("bios", bios, esp, root)[:2] == [("bios-boot", 2), ("ESP", 300)]


@pytest.mark.parametrize(
    ("firmware", "partition", "text"),
    [
        (
            "uefi",
            {"type": "bios-boot", "size": "1 MiB"},
            (
                "error[firmware.mismatch]: this machine booted in UEFI mode, but the layout has "
                "a BIOS boot partition and no ESP\n"
                "  where: answers.toml: disks\n"
                "  try:   leave boot partitions out (what the firmware needs is added), "
                "add an ESP, or switch the firmware to BIOS (CSM) boot"
            ),
        ),
        (
            "bios",
            {"type": "esp", "size": "300 MiB"},
            (
                "error[firmware.mismatch]: this machine booted in BIOS mode, but the layout has "
                "an ESP and no BIOS boot partition\n"
                "  where: answers.toml: disks\n"
                "  try:   leave boot partitions out (what the firmware needs is added), "
                "add a BIOS boot partition, or switch the firmware to UEFI boot"
            ),
        ),
    ],
)
def test_a_layout_for_the_other_firmware_is_refused(
    firmware: str, partition: dict[str, Any], text: str
) -> None:
    root = {"size": "rest", "mount": "/"}
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": [partition, root]}])
    assert refusal(machine(disk(), firmware=firmware), given) == text


def test_the_added_esp_does_not_hide_another_boot() -> None:
    parts = [{"size": "rest", "mount": "/"}, {"size": "1 GiB", "mount": "/boot"}]
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": parts}])
    assert refusal(machine(disk()), given) == (
        "error[firmware.mismatch]: this machine boots through UEFI, and the ESP that is added "
        "for it is mounted at /boot, where the layout has another file system\n"
        "  where: answers.toml: disks[0].partitions[1].mount\n"
        '  try:   leave this partition out, make it the ESP (type = "esp"), '
        'or add an ESP with another mount, for example "/efi"'
    )
    assert plan(machine(disk(), firmware="bios"), given)


def test_grub_goes_to_the_disk_with_its_partition() -> None:
    given = answers(
        disks=[
            {"match": {"serial": "vda"}, "partitions": [{"size": "rest", "mount": "/"}]},
            {
                "match": {"serial": "vdb"},
                "partitions": [
                    {"type": "bios-boot", "size": "1 MiB"},
                    {"size": "1 GiB", "mount": "/boot"},
                ],
            },
        ]
    )
    made = plan(machine(disk("/dev/vda"), disk("/dev/vdb"), firmware="bios"), given)
    (text,) = [s.content for s in made.steps if isinstance(s, WriteFile) and "boot" in s.path]
    assert 'boot.loader.grub.device = "/dev/disk/by-id/virtio-vdb";' in text


def test_too_much_is_told_with_both_sizes() -> None:
    parts = [{"size": "30 GiB", "mount": "/"}]
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": parts}])
    assert refusal(machine(disk()), given) == (
        "error[disk.too-small]: the partitions need 31.0 GiB, /dev/vda has room for 20.0 GiB\n"
        "  where: answers.toml: disks[0]\n"
        '  try:   make a partition smaller (or "rest"), or match a larger disk'
    )


def test_a_partition_below_what_its_file_system_needs_is_told() -> None:
    parts = [
        {"type": "esp", "size": "100 MiB"},
        {"size": "200 MiB", "mount": "/home", "filesystem": "xfs"},
        {"size": "rest", "mount": "/", "filesystem": "btrfs"},
    ]
    given = answers(disks=[{"match": {"transport": "virtio"}, "partitions": parts}])
    assert refusal(machine(disk(size=400 * MIB, logical_sector=4096)), given) == (
        "error[disk.too-small]: ESP would get 100 MiB on /dev/vda, it needs at least 260 MiB\n"
        "  where: answers.toml: disks[0].partitions\n"
        "  try:   give it more, or match a larger disk\n"
        "error[disk.too-small]: home would get 200 MiB on /dev/vda, it needs at least 300 MiB\n"
        "  where: answers.toml: disks[0].partitions\n"
        "  try:   give it more, or match a larger disk\n"
        "error[disk.too-small]: root would get 98.0 MiB on /dev/vda, it needs at least 256 MiB\n"
        "  where: answers.toml: disks[0].partitions\n"
        "  try:   give it more, or match a larger disk"
    )


def test_a_tiny_disk_has_no_room_at_all() -> None:
    assert "/dev/vda has room for 0 B" in refusal(machine(disk(size=4096)), answers())


SIZES = st.one_of(
    st.integers(1, 40 * GIB).map(lambda count: f"{count} B"),
    st.floats(0.1, 60).map(lambda share: f"{share:.2f} %"),
)
KINDS = st.sampled_from(
    [
        {"type": "esp", "mount": "/efi"},
        {"type": "swap"},
        {"type": "bios-boot"},
        {"filesystem": "ext4"},
        {"filesystem": "xfs"},
        {"filesystem": "btrfs"},
    ]
)


@st.composite
def layouts(draw: st.DrawFn) -> list[Partition]:
    """Return partitions that an answer file could ask for."""
    rows = draw(st.lists(st.tuples(KINDS, SIZES), min_size=1, max_size=8))
    rest = draw(st.none() | st.integers(0, len(rows) - 1))
    return [
        _partition(
            **kind,
            **({} if "type" in kind else {"mount": f"/m{number}"}),
            size="rest" if number == rest else size,
        )
        for number, (kind, size) in enumerate(rows)
    ]


@given(
    layouts(),
    st.integers(3 * MIB, 64 * GIB).map(lambda size: size // 4096 * 4096),
    st.sampled_from([512, 4096]),
)
def test_every_layout_is_sound(partitions: list[Partition], size: int, sector: int) -> None:
    found = disk(size=size, logical_sector=sector)
    table, problems = _lay_out(found, partitions)
    laid = table.rows if table is not None else ()
    # UEFI 2.10, 5.3.2: 16 KiB of entries, a header, and in front the protective record
    first, last = 16384 + 2 * sector, size - 16384 - sector
    refs = [row.ref for row in laid]
    assert [row.wanted for row in laid] == (partitions if laid else [])
    assert {problem.code for problem in problems} <= {"disk.too-small"}
    assert bool(laid) != bool(problems)
    end = first
    for ref in refs:
        assert ref.start % alignment(found) == 0
        assert ref.size % alignment(found) == 0
        assert ref.start >= end
        end = ref.start + ref.size
    assert end <= last
    assert len({ref.partuuid for ref in refs}) == len(refs)
    assert [ref.number for ref in refs] == list(range(1, len(refs) + 1))
    for row in laid:
        assert row.ref.size >= minimum_bytes(row.wanted, sector)
        match row.wanted.size:
            case Absolute(count):
                assert count <= row.ref.size < count + alignment(found)
            case Percent(share):
                # of what lies between aligned borders, rounded down to one
                exact = (
                    (last // alignment(found) * alignment(found) - alignment(found)) * share / 100
                )
                assert exact - alignment(found) < row.ref.size <= exact
            case Rest():
                assert sum(ref.size for ref in refs) > last - 2 * alignment(found) - sector
    assert (table, problems) == _lay_out(found, partitions)


@given(layouts(), st.sampled_from(["uefi", "bios"]))
def test_a_boot_partition_is_added_to_the_disk_of_the_root_only(
    partitions: list[Partition], firmware: Firmware
) -> None:
    types = {part.type for part in partitions}
    assume(not types & {"esp", "bios-boot"})
    data = WantedDisk.model_validate(
        {"match": {"serial": "x"}, "partitions": [{"size": "rest", "mount": "/data"}]}
    )
    root = WantedDisk.model_validate(
        {"match": {"serial": "y"}, "partitions": [{"size": "rest", "mount": "/"}]}
    )
    given = answers(disks=[data.model_dump(by_alias=True), root.model_dump(by_alias=True)])
    (first, second), problems = with_boot_partitions(given, firmware)
    assert not problems
    assert [part.type for part in first] == ["linux"]
    assert [part.type for part in second] == [
        "esp" if firmware == "uefi" else "bios-boot",
        "linux",
    ]


@given(st.sampled_from(sorted(FILESYSTEMS)), st.integers(0, 2**50))
def test_capacity_is_below_the_size(filesystem: str, size: int) -> None:
    assert 0 <= FILESYSTEMS[filesystem].capacity(size) <= size


def test_all_identifiers_of_a_plan_differ() -> None:
    made = plan(saved("nvme-server"), answers((CASES / "nvme-server/answers.toml").read_text()))
    (table,) = [step for step in made.steps if isinstance(step, WriteTable)]
    made_uuids = [step.uuid for step in made.steps if step.kind == "make-filesystem"]
    uuids = [table.disk_id, *(row.ref.partuuid for row in table.partitions), *made_uuids]
    assert len(uuids) == 11
    assert len(set(uuids)) == len(uuids)
