"""Performing a plan: the order of telling, cleaning up and giving up."""

import os
import signal
from pathlib import Path

import pytest

from installer.act import engine
from installer.act.narrator import Narrator
from installer.decide.layout import lay_out
from installer.model.answers import Partition
from installer.model.errors import InstallError
from installer.model.events import AnyEvent, Failed, Finished, Message, StepStarted
from installer.model.facts import Disk
from installer.model.plan import (
    CheckPayload,
    InstallBootLoader,
    LeaveTarget,
    MakeFilesystem,
    MountFilesystem,
    Plan,
    RegisterStore,
    Step,
    WipeDisk,
    WriteTable,
)
from installer.model.units import GIB, MIB

MISSING = CheckPayload("/nowhere/system.tar", None, {"/": 1}, None, 0)


def _plan(*steps: Step, chosen: tuple[Disk, ...] = ()) -> Plan:
    return Plan(1, "bios", chosen, (), steps)


def _texts(events: list[AnyEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message)]


def test_a_failure_is_told_with_its_step(tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    with pytest.raises(InstallError) as caught:
        engine.perform(_plan(MISSING), Narrator(events.append), target=tmp_path / "mnt", logs=None)
    started, failed = events
    assert isinstance(started, StepStarted)
    assert isinstance(failed, Failed)
    assert failed.step == "check-payload"
    assert failed.problems == caught.value.problems
    assert failed.exit_code == 4


def test_cleaning_up_is_not_interrupted(tmp_path: Path) -> None:
    events: list[AnyEvent] = []

    def impatient(event: AnyEvent) -> None:
        events.append(event)
        if isinstance(event, Failed):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InstallError):
        engine.perform(_plan(MISSING), Narrator(impatient), target=tmp_path, logs=None)
    assert isinstance(events[-1], Failed)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_is_told_and_has_its_code(tmp_path: Path) -> None:
    events: list[AnyEvent] = []

    def interrupted(event: AnyEvent) -> None:
        events.append(event)
        if isinstance(event, StepStarted):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InstallError) as caught:
        engine.perform(_plan(MISSING), Narrator(interrupted), target=tmp_path, logs=None)
    assert caught.value.exit_code == 130
    assert str(caught.value) == (
        "error[interrupted]: interrupted by a person or by the system going down"
    )
    assert isinstance(events[-1], Failed)


def test_a_mistake_of_ours_is_told_as_one(tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    with pytest.raises(InstallError) as caught:
        # a plan that boots what it never unpacked cannot come from decide
        engine.perform(_plan(RegisterStore()), Narrator(events.append), target=tmp_path, logs=None)
    assert str(caught.value) == (
        "error[internal]: RuntimeError: a plan uses the system before it unpacks one\n"
        "  try:   this is a mistake of netinstall: please report it with the log"
    )
    assert any("Traceback" in text for text in _texts(events))


def test_an_error_of_the_system_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError) as caught:
        engine.perform(
            _plan(MISSING), Narrator(lambda _: None), target=tmp_path / "file/mnt", logs=None
        )
    assert str(caught.value) == (
        f"error[device.io]: Not a directory\n"
        f"  where: {tmp_path}/file/mnt\n"
        "  try:   look at the kernel's log (dmesg)"
    )


def test_a_log_that_cannot_be_kept_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/log.txt").touch()
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt/var").symlink_to(tmp_path / "logs")
    events: list[AnyEvent] = []
    engine.perform(
        _plan(LeaveTarget("/var/log/netinstall")),
        Narrator(events.append),
        target=tmp_path / "mnt",
        logs=tmp_path / "logs",
    )
    (text,) = _texts(events)
    assert text.startswith("the log is not kept on the new system: error[payload.hostile]: var is")
    assert isinstance(events[-1], Finished)


@pytest.mark.loop
def test_a_disk_is_not_left_bootable(loop_disk: Path, tmp_path: Path) -> None:
    found = Disk(str(loop_disk), 2 * GIB)
    laid, _ = lay_out(
        found, [Partition.model_validate({"size": "rest", "mount": "/"})], "0" * 32, ""
    )
    (ref,) = [row.planned.ref for row in laid]
    uuid = "5b193300-fc78-40cd-8002-e86c45580b47"
    steps = (
        WipeDisk(str(loop_disk), str(loop_disk), 2 * GIB, None, None, ""),
        WriteTable(str(loop_disk), uuid, 512, tuple(row.planned for row in laid)),
        MakeFilesystem(ref, "ext4", uuid, ("mkfs.ext4", "-q", "-U", uuid)),
        MountFilesystem(ref, "ext4", "/", ()),
        InstallBootLoader("bios"),
    )
    events: list[AnyEvent] = []
    mounts = Path("/proc/self/mounts").read_text()
    with pytest.raises(InstallError) as caught:
        engine.perform(
            _plan(*steps, chosen=(found,)),
            Narrator(events.append),
            target=tmp_path / "mnt",
            logs=None,
        )
    assert str(caught.value) == (
        "error[command.failed]: /nix/var/nix/profiles/system leads to "
        "/nix/var/nix/profiles/system, which is no system\n"
        "  where: setting the system profile\n"
        "  try:   look at the log for what Nix said"
    )
    assert isinstance(events[-1], Failed)
    assert Path("/proc/self/mounts").read_text() == mounts
    with loop_disk.open("rb") as stream:
        assert stream.read(MIB) == bytes(MIB)
