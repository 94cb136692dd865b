"""Taking apart what is mounted, swapped to, or held. Arrays and LVM: vm-tests."""

import subprocess
from pathlib import Path

import pytest
from lab.steps import run, signatures, wiped

from installer.act import disk, teardown
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.facts import Layer
from installer.model.storage_steps import TearDown

pytestmark = pytest.mark.loop


def test_what_is_mounted_and_swapped_to_is_let_go(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    where, inside = tmp_path / "a b", tmp_path / "a b/inside"
    where.mkdir()
    # one above the other, and something else below
    run("mount", loop_disk, where)
    run("mount", "--bind", where, where)
    inside.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", inside)
    mounts = (str(where),)
    teardown.tear_down(TearDown(str(loop_disk), mounts, False, None), Runner())
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    teardown.tear_down(TearDown(str(loop_disk), mounts, False, None), Runner())
    run("mkswap", loop_disk)
    run("swapon", loop_disk)
    for _ in range(2):
        teardown.tear_down(TearDown(str(loop_disk), (), True, None), Runner())
    assert str(loop_disk) not in Path("/proc/swaps").read_text()
    disk.wipe(wiped(loop_disk), Runner())


def test_who_keeps_it_mounted_is_named(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    where = tmp_path / "mounted"
    where.mkdir()
    run("mount", loop_disk, where)
    try:
        with subprocess.Popen(
            ["sh", "-c", 'cd "$1"; echo ready; read x', "sh", str(where)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(InstallError) as caught:
                teardown.tear_down(TearDown(str(loop_disk), (str(where),), False, None), Runner())
            process.communicate()
    finally:
        run("umount", where)
    assert str(caught.value) == (
        f"error[disk.in-use]: {where} cannot be unmounted: it is used by sh (pid {process.pid})\n"
        f"  where: umount --recursive {where}\n"
        "  try:   end what uses it; nothing was written to its disk"
    )
    assert signatures(loop_disk) == ["ext4"]


def test_a_loop_device_on_a_disk_is_wiped_and_detached(loop_disk: Path) -> None:
    above = Path(run("losetup", "--find", "--show", loop_disk).strip())
    run("mkfs.ext4", "-q", above)
    layer = Layer(str(above), "other", above.name, (str(loop_disk),))
    step = TearDown(str(above), (), False, layer)
    teardown.tear_down(step, Runner())
    assert run("losetup", "--associated", loop_disk) == ""
    assert signatures(loop_disk) == []


def test_a_layer_that_is_held_names_its_holder(loop_disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", loop_disk)
    run("mount", loop_disk, tmp_path)
    try:
        # no array, and mdadm says so
        layer = Layer(str(loop_disk), "md", "md0", ("/dev/sda1", "/dev/sdb1"))
        with pytest.raises(InstallError) as caught:
            teardown.tear_down(TearDown(str(loop_disk), (), False, layer), Runner())
    finally:
        run("umount", tmp_path)
    text = str(caught.value)
    assert text.startswith(
        f"error[disk.in-use]: md md0 cannot be stopped: {loop_disk} is in use "
        f"({loop_disk} is mounted at {tmp_path})\n"
        "  where: /dev/sda1, /dev/sdb1\n"
        "  try:   its last words:\n"
    )


def test_what_nobody_knows_how_to_stop_is_told() -> None:
    # a character device that is there everywhere
    layer = Layer("/dev/null", "other", "drbd0", ("/dev/sda",))
    with pytest.raises(InstallError) as caught:
        teardown.tear_down(TearDown("/dev/null", (), False, layer), Runner())
    assert str(caught.value) == (
        "error[disk.in-use]: /dev/null (drbd0) is of a kind that cannot be stopped here\n"
        "  where: /dev/sda\n"
        "  try:   stop it by hand, and install again"
    )


def test_a_layer_that_is_gone_already_is_no_problem() -> None:
    layer = Layer("/dev/dm-99", "lvm", "vg0-root", ("/dev/sda",))
    teardown.tear_down(TearDown("/dev/dm-99", (), False, layer), Runner())
