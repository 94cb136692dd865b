"""Performing a plan: the order of telling, cleaning up and giving up."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.steps import edited, gpt, row, run, signatures, wiped

from installer.act import disk, engine
from installer.act.devices import node_of
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.events import AnyEvent, Failed, Finished, Message, StepStarted
from installer.model.facts import Disk, FoundPartition
from installer.model.payload_steps import CheckPayload
from installer.model.plan import (
    InstallBootLoader,
    LeaveTarget,
    Plan,
    RegisterStore,
    Step,
)
from installer.model.steps import PartitionRef, StackedRef
from installer.model.storage import Tpm2
from installer.model.storage_steps import (
    FormatLuks,
    MakeFilesystem,
    MountFilesystem,
    TearDown,
    WipeDisk,
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


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it by itself: a shell starts what runs in the background without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
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
    root = row(loop_disk, 1, 1, 1500)
    uuid = "5b193300-fc78-40cd-8002-e86c45580b47"
    steps = (
        wiped(loop_disk),
        gpt(loop_disk, root),
        MakeFilesystem((root.ref,), "ext4", uuid, ("mkfs.ext4", "-q", "-U", uuid)),
        MountFilesystem(root.ref, "ext4", "/", ()),
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


@pytest.mark.loop
def test_a_disk_of_which_something_is_kept_keeps_its_table(loop_disk: Path, tmp_path: Path) -> None:
    old = row(loop_disk, 1, 1, 100)
    disk.write_table(gpt(loop_disk, old), Runner())
    node = node_of(old.ref)
    run("mkfs.ext4", "-q", node)
    kept = FoundPartition(str(node), 1, old.ref.size, old.ref.start, old.ref.partuuid)
    added = row(loop_disk, 2, 101, 300)
    steps = (
        edited(loop_disk, kept=[kept], added=[added]),
        MakeFilesystem((added.ref,), "ext4", "u", ("mkfs.ext4", "-q")),
        MountFilesystem(added.ref, "ext4", "/", ()),
        InstallBootLoader("bios"),
    )
    with pytest.raises(InstallError, match="which is no system"):
        engine.perform(
            _plan(*steps, chosen=(Disk(str(loop_disk), 2 * GIB),)),
            Narrator(lambda _: None),
            target=tmp_path / "mnt",
            logs=None,
        )
    assert signatures(node_of(old.ref)) == ["ext4"]
    run("fsck.ext4", "-fn", node_of(old.ref))


def _crypt(passphrase: str | None, tpm2: Tpm2 | None = None) -> FormatLuks:
    return FormatLuks(
        PartitionRef("/dev/nowhere", 1, "u", MIB, MIB),
        StackedRef("/dev/mapper/x"),
        "x",
        ("cryptsetup", "luksFormat"),
        passphrase,
        tpm2,
        None,
        discard=False,
    )


@pytest.mark.loop
@pytest.mark.parametrize(
    ("later", "text"),
    [
        (
            _crypt("/nowhere/passphrase"),
            "error[secret.not-found]: the passphrase cannot be read from /nowhere/passphrase",
        ),
        (
            _crypt(None, Tpm2()),
            "error[tpm.missing]: x is to be unlocked by a TPM, and this machine shows none",
        ),
        (
            WipeDisk("/dev/null", "/dev/null", MIB, None, None, ""),
            "error[disk.changed]: /dev/null is no block device",
        ),
    ],
)
def test_nothing_is_destroyed_before_all_is_checked(
    loop_disk: Path, tmp_path: Path, later: Step, text: str
) -> None:
    """Not even the first step is begun: what another one lacks is known before."""
    run("mkfs.ext4", "-q", loop_disk)
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", loop_disk, where)
    try:
        with pytest.raises(InstallError) as caught:
            engine.perform(
                _plan(
                    TearDown(str(loop_disk), (str(where),), False, None), wiped(loop_disk), later
                ),
                Narrator(lambda _: None),
                target=tmp_path / "mnt",
                logs=None,
            )
    finally:
        run("umount", where)
    assert str(caught.value).startswith(text)
    assert signatures(loop_disk) == ["ext4"]


@pytest.mark.loop
def test_what_was_in_use_is_wiped_after_it_was_let_go(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", loop_disk, where)
    engine.perform(
        _plan(TearDown(str(loop_disk), (str(where),), False, None), wiped(loop_disk)),
        Narrator(lambda _: None),
        target=tmp_path / "mnt",
        logs=None,
    )
    assert signatures(loop_disk) == []
