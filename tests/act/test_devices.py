"""Finding, awaiting, locking and holding device nodes."""

import fcntl
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lab.steps import gpt, row, run

from installer.act import devices, disk
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.steps import PartitionRef, StackedRef
from installer.model.units import MIB


@pytest.mark.loop
def test_a_partition_that_is_not_there_or_elsewhere_is_told(loop_disk: Path) -> None:
    step = gpt(loop_disk, row(loop_disk, 1, 1, 100))
    disk.write_table(step, Runner())
    ref = step.partitions[0].ref
    assert devices.node_of(ref).is_block_device()
    with pytest.raises(InstallError) as caught:
        devices.node_of(replace(ref, number=9), seconds=0.2)
    assert str(caught.value) == (
        f"error[device.timeout]: the kernel does not show partition 9 of {loop_disk} after 0.2 s\n"
        f"  where: {loop_disk}\n"
        "  try:   look at the kernel's log (dmesg) and `lsblk`"
    )
    with pytest.raises(InstallError) as caught:
        devices.node_of(PartitionRef(ref.disk, 1, ref.partuuid, 2 * MIB, ref.size), seconds=0.2)
    assert (
        f"error[device.timeout]: partition 1 of {loop_disk} lies at {MIB} with {100 * MIB} "
        f"bytes, planned were {2 * MIB} and {100 * MIB}\n"
    ) in str(caught.value)
    assert "try:   something else changed the table meanwhile; install again" in str(caught.value)


@pytest.mark.loop
def test_a_partition_that_comes_later_is_awaited(loop_disk: Path) -> None:
    step = gpt(loop_disk, row(loop_disk, 1, 1, 100))
    disk.write_table(step, Runner())
    run("partx", "--delete", loop_disk)
    later = threading.Timer(0.5, run, ("partx", "--add", loop_disk))
    later.start()
    try:
        node = devices.node_of(step.partitions[0].ref)
    finally:
        later.join()
    assert node.is_block_device()


def test_a_stacked_device_that_does_not_come_is_told(tmp_path: Path) -> None:
    path = tmp_path / "crypt"
    with pytest.raises(InstallError) as caught:
        devices.node_of(StackedRef(str(path)), seconds=0.2)
    assert str(caught.value) == (
        f"error[device.timeout]: {path} did not appear within 0.2 s\n"
        f"  where: {path}\n"
        "  try:   look at the kernel's log (dmesg) and `lsblk`"
    )


def test_waiting_ends_with_the_condition() -> None:
    begun = time.monotonic()
    assert devices.wait_for(lambda: time.monotonic() - begun > 0.3, 30)
    assert not devices.wait_for(lambda: False, 0.2)
    assert time.monotonic() - begun < 20


def test_a_disk_that_somebody_keeps_locked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    with path.open() as theirs, path.open() as ours:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        with pytest.raises(InstallError) as caught:
            devices.lock(ours.fileno(), path, seconds=0.2)
        assert str(caught.value) == (
            f"error[device.timeout]: another program kept {path} locked for 0.2 s\n"
            f"  where: {path}\n"
            "  try:   end that program; udev only locks a disk while it looks at it"
        )
        fcntl.flock(theirs, fcntl.LOCK_UN)
        devices.lock(ours.fileno(), path, seconds=0.2)
