"""Erasing: what the host's kernel can do, for real; firmware's part from its tools' words.

QEMU's disks have neither ATA security nor a sanitize command, so `Scripted` stands for the
programs that talk to such firmware; what they say is what hdparm and nvme-cli print.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab.steps import run, signatures

from installer.act import erase
from installer.act.devices import device_size
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.events import AnyEvent, StepProgress
from installer.model.storage import Erase
from installer.model.storage_steps import EraseDisk
from installer.model.units import MIB


@dataclass(frozen=True)
class Scripted(Runner):
    """Answers in place of programs, by the beginning of their command lines."""

    answers: Mapping[str, str | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], **_: Any) -> str:
        command = " ".join(argv)
        self.asked.append(command)
        answer = next((a for start, a in self.answers.items() if command.startswith(start)), "")
        if isinstance(answer, Exception):
            raise answer
        return answer


def _step(node: Path, method: Erase, size: int | None = None) -> EraseDisk:
    count = device_size(node) if size is None else size
    return EraseDisk(str(node), str(node), count, None, None, method, 60)


@pytest.mark.loop
@pytest.mark.parametrize("method", ["discard", "overwrite"])
def test_nothing_can_be_read_any_more(loop_disk: Path, method: Erase) -> None:
    places = (0, 700 * MIB + 17, device_size(loop_disk) - 8)
    with loop_disk.open("r+b") as stream:
        for place in places:
            stream.seek(place)
            stream.write(b"precious")
    run("mkfs.ext4", "-q", "-E", "nodiscard", loop_disk)
    events: list[AnyEvent] = []
    erase.erase(_step(loop_disk, method), Runner(), Narrator(events.append))
    assert signatures(loop_disk) == []
    with loop_disk.open("rb") as stream:
        for place in places:
            stream.seek(place)
            assert stream.read(8) == bytes(8)
    if method == "overwrite":
        last = [event for event in events if isinstance(event, StepProgress)][-1]
        assert last.done == last.total == device_size(loop_disk)


@pytest.mark.loop
def test_another_disk_than_planned_is_not_erased(loop_disk: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    with pytest.raises(InstallError) as caught:
        erase.erase(_step(loop_disk, "overwrite", MIB), Runner(), Narrator(lambda _: None))
    assert caught.value.problems[0].code == "disk.changed"
    assert signatures(loop_disk) == ["ext4"]


@pytest.mark.loop
def test_a_disk_that_is_no_nvme_is_told(loop_disk: Path) -> None:
    with pytest.raises(InstallError) as caught:
        erase.erase(_step(loop_disk, "nvme-format"), Runner(), Narrator(lambda _: None))
    assert str(caught.value).startswith(
        f"error[disk.erase]: {loop_disk} cannot be erased by nvme-format: its last words: "
    )
    assert str(caught.value).endswith(
        f"  where: {loop_disk}\n"
        "  try:   is it an NVMe disk that can be formatted?; choose another method, "
        "or leave erase out"
    )


HDPARM = """
/dev/sda:

ATA device, with non-removable media
\tModel Number:       INTEL SSDSC2BB480G4
Security:
\tMaster password revision code = 65534
\t\tsupported
\tnot\tenabled
\tnot\tlocked
\t{frozen}
\tnot\texpired: security count
\t\tsupported: enhanced erase
\t4min for SECURITY ERASE UNIT. 4min for ENHANCED SECURITY ERASE UNIT.
Logical Unit WWN Device Identifier: 55cd2e404b6dd1b5
Checksum: correct
"""
THAWED = HDPARM.format(frozen="not\tfrozen")


@pytest.mark.parametrize(
    ("said", "why", "hint"),
    [
        (
            HDPARM.format(frozen="\tfrozen"),
            "the firmware froze its security",
            "suspend and wake the machine, or plug the disk in while it runs",
        ),
        (
            THAWED.replace("not\tenabled", "\tenabled"),
            "it has a password already",
            "remove it with `hdparm`",
        ),
        (
            "/dev/sda:\n\nChecksum: correct\n",
            "it has no ATA security",
            "is it a SATA disk, and not behind RAID?",
        ),
    ],
)
@pytest.mark.loop
def test_a_disk_that_cannot_be_erased_securely_is_told(
    loop_disk: Path, said: str, why: str, hint: str
) -> None:
    runner = Scripted(answers={"hdparm -I": said})
    with pytest.raises(InstallError) as caught:
        erase.erase(_step(loop_disk, "ata-secure-erase"), runner, Narrator(lambda _: None))
    assert str(caught.value) == (
        f"error[disk.erase]: {loop_disk} cannot be erased by ata-secure-erase: {why}\n"
        f"  where: {loop_disk}\n"
        f"  try:   {hint}; choose another method, or leave erase out"
    )
    assert runner.asked == [f"hdparm -I {loop_disk}"]


@pytest.mark.loop
def test_a_secure_erase_that_fails_says_how_to_open_the_disk(loop_disk: Path) -> None:
    broken = fail("command.failed", "hdparm ended with exit code 5")
    answers: dict[str, str | Exception] = {
        "hdparm -I": THAWED,
        "hdparm --user-master u --security-erase-enhanced": broken,
    }
    runner = Scripted(answers=answers)
    with pytest.raises(InstallError) as caught:
        erase.erase(_step(loop_disk, "ata-secure-erase"), runner, Narrator(lambda _: None))
    assert "cannot be erased by ata-secure-erase: hdparm ended with exit code 5" in str(
        caught.value
    )
    assert (
        "it is locked with the password netinstall now: "
        f"`hdparm --security-disable netinstall {loop_disk}` opens it"
    ) in str(caught.value)
    assert runner.asked[1:] == [
        f"hdparm --user-master u --security-set-pass netinstall {loop_disk}",
        f"hdparm --user-master u --security-erase-enhanced netinstall {loop_disk}",
    ]


NVME_LOG = """{{
  "nvme0n1":{{
    "sprog":{sprog},
    "sstat":{{ "global_erased":0, "no_cmplted_passes":0, "status":"({status}) whatever." }},
    "cdw10_info":2
  }}
}}"""


@pytest.mark.parametrize(
    ("said", "status", "done"),
    [
        (NVME_LOG.format(sprog=65535, status=1), 1, 65536),
        (NVME_LOG.format(sprog=100, status=2), 2, 101),
        ('{"sprog": 65535, "sstat": 257}', 1, 65536),
    ],
)
def test_the_log_of_a_sanitize_command_is_read(said: str, status: int, done: int) -> None:
    assert erase.sanitize_status(said) == (status, done)


def _sanitized(loop_disk: Path, capabilities: int, log: str) -> list[str]:
    runner = Scripted(
        answers={"nvme id-ctrl": f'{{"sanicap": {capabilities}}}', "nvme sanitize-log": log}
    )
    erase.erase(_step(loop_disk, "nvme-sanitize"), runner, Narrator(lambda _: None))
    return runner.asked


@pytest.mark.loop
def test_the_more_thorough_sanitize_is_taken(loop_disk: Path) -> None:
    done = NVME_LOG.format(sprog=65535, status=1)
    for capabilities, action in ((0b011, "start-block-erase"), (0b001, "start-crypto-erase")):
        asked = _sanitized(loop_disk, capabilities, done)
        assert asked[1] == f"nvme sanitize {loop_disk} --sanact={action}"


@pytest.mark.loop
@pytest.mark.parametrize(
    ("capabilities", "status", "why"),
    [
        (0, 1, "it offers neither block nor crypto erase"),
        (1, 3, "the device says that it failed"),
    ],
)
def test_a_disk_that_cannot_sanitize_is_told(
    loop_disk: Path, capabilities: int, status: int, why: str
) -> None:
    with pytest.raises(InstallError, match=f"cannot be erased by nvme-sanitize: {why}"):
        _sanitized(loop_disk, capabilities, NVME_LOG.format(sprog=7, status=status))


def test_overwriting_ends_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(9 * MIB + 3))
    told: list[int] = []
    progress: Callable[[int], None] = told.append
    with path.open("r+b", buffering=0) as stream:
        erase.overwrite(stream.fileno(), 9 * MIB, progress)
    assert path.read_bytes()[: 9 * MIB] == bytes(9 * MIB)
    assert path.stat().st_size == 9 * MIB + 3
    assert told == [4 * MIB, 8 * MIB, 9 * MIB]
