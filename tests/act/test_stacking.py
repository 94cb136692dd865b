"""What cannot be stacked on this kernel, by its command lines; for real in vm-tests.

ZFS is on no kernel that tests run on: `Heard` stands for its programs, and shows what they would be
told.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from lab.steps import gpt, row

from installer.act import disk
from installer.act.devices import node_of
from installer.act.engine import perform
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.act.stack import Stack
from installer.act.target import Target
from installer.model.errors import InstallError
from installer.model.events import AnyEvent, Failed
from installer.model.plan import Plan
from installer.model.steps import StackedRef
from installer.model.storage_steps import (
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    MountFilesystem,
    TearDown,
)


@dataclass(frozen=True)
class Heard(Runner):
    """Does nothing, and remembers what it was told to do."""

    commands: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], **_: Any) -> str:
        self.commands.append(" ".join(argv))
        return ""


def _stack(root: Path, runner: Runner) -> Stack:
    return Stack(Target(root, runner), runner, Narrator(lambda _: None))


@pytest.mark.loop
def test_a_zfs_pool(loop_disk: Path, tmp_path: Path) -> None:
    rows = (row(loop_disk, 1, 1, 100), row(loop_disk, 2, 101, 100))
    disk.write_table(gpt(loop_disk, *rows), Runner())
    one, two = (node_of(part.ref) for part in rows)
    runner = Heard()
    stack = _stack(tmp_path, runner)
    datasets = {
        "root/home": {"mountpoint": "legacy"},
        "root": {"mountpoint": "legacy", "compression": "zstd"},
    }
    argv = ("zpool", "create", "-f", "-o", "ashift=12", "tank")
    step = CreatePool("tank", tuple(part.ref for part in rows), "mirror", argv, datasets)
    stack.create_pool(step)
    stack.target.mount(MountFilesystem("tank/root", "zfs", "/", ()))
    stack.target.leave(lambda _: None)
    assert runner.commands == [
        f"zpool create -f -o ashift=12 tank mirror {one} {two}",
        "zfs create -p -o mountpoint=legacy -o compression=zstd tank/root",
        "zfs create -p -o mountpoint=legacy tank/root/home",
        f"mount -t zfs tank/root {tmp_path}",
        f"umount --recursive {tmp_path}",
        "zpool export tank",
    ]


@pytest.mark.loop
def test_the_name_of_a_volume_group_on_a_disk_that_stays_is_refused(
    loop_disk: Path, tmp_path: Path
) -> None:
    rows = (row(loop_disk, 1, 1, 100), row(loop_disk, 2, 101, 100))
    disk.write_table(gpt(loop_disk, *rows), Runner())
    other, ours = (node_of(part.ref) for part in rows)
    # the kernel of the host has no device-mapper: it is only written
    lvm = ["--quiet", "--driverloaded=n", f"--devices={other}"]
    subprocess.run(["vgcreate", *lvm, "vg0", other], check=True, capture_output=True)
    plan = Plan(
        1,
        "uefi",
        chosen=(),
        rejected=(),
        steps=(
            TearDown(str(ours), (), False, None),
            CreateVolumeGroup("vg0", (rows[1].ref,)),
        ),
    )
    events: list[AnyEvent] = []
    with pytest.raises(InstallError) as caught:
        perform(plan, Narrator(events.append), target=tmp_path, logs=None)
    # no step had begun
    (failed,) = events
    assert isinstance(failed, Failed)
    assert failed.step is None
    assert str(caught.value) == (
        f"error[storage.name-taken]: {other} belongs to a volume group named vg0 already, and "
        "stays\n"
        "  where: vg0\n"
        "  try:   take another name, or match its disk, too; NixOS would find two groups of this "
        "name when it starts"
    )
    step = CreateVolumeGroup("vg0", (rows[1].ref,))
    stack = _stack(tmp_path, Runner())
    stack.require_group_name(step, {str(other)})
    stack.require_group_name(replace(step, name="vg1"), set())


@pytest.mark.loop
def test_the_node_of_a_disk_that_stays_is_refused(loop_disk: Path, tmp_path: Path) -> None:
    # /dev/mapper and /dev/md hold such links
    link = tmp_path / "root"
    link.symlink_to(loop_disk)
    made = StackedRef(str(link))
    stack = _stack(tmp_path, Runner())
    with pytest.raises(InstallError) as caught:
        stack.require_name(made, {"/dev/md0"})
    assert str(caught.value) == (
        f"error[storage.name-taken]: {link} is there already ({loop_disk}), and stays\n"
        f"  where: {link}\n"
        "  try:   take another name, or match its disk, too"
    )
    stack.require_name(made, {str(loop_disk)})
    stack.require_name(StackedRef(str(tmp_path / "nothing")), set())


@pytest.mark.parametrize(
    ("kind", "fill", "words"),
    [
        ("linear", False, "--size 1048576b --wipesignatures y --zero y"),
        ("linear", True, "--extents 100%FREE --wipesignatures y --zero y"),
        ("thin-pool", True, "--extents 100%FREE --type thin-pool"),
        ("thin-pool", False, "--size 1048576b --type thin-pool"),
    ],
)
def test_lvm_sees_its_members_only(tmp_path: Path, kind: Any, *, fill: bool, words: str) -> None:
    runner = Heard()
    stack = _stack(tmp_path, runner)
    stack.groups["vg0"] = (Path("/dev/sda1"), Path("/dev/mapper/crypt"))
    volume = CreateVolume(
        volume=StackedRef("/dev/null"),
        group="vg0",
        name="root",
        size=1 << 20,
        fill=fill,
        type=kind,
        pool=None,
    )
    if kind == "thin-pool":
        stack.create_volume(volume)
    else:
        # the node is another thing, which nobody makes here
        with pytest.raises(InstallError, match="did not appear"):
            stack.create_volume(volume, seconds=0.1)
    (command,) = runner.commands
    assert command.startswith("lvcreate --devices /dev/sda1,/dev/mapper/crypt --config backup{")
    assert command.endswith(f" --yes --name root {words} vg0")


def test_recovery_keys_are_for_root_only(tmp_path: Path) -> None:
    stack = _stack(tmp_path, Runner())
    stack.recovery_keys["/var/lib/netinstall/recovery-crypt"] = "abcd-efgh"
    assert "abcd" not in repr(stack)
    stack.keep_recovery_keys()
    path = tmp_path / "var/lib/netinstall/recovery-crypt"
    assert path.read_text() == "abcd-efgh\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert stack.recovery_keys == {}


def test_a_recovery_key_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "root/var/lib").mkdir(parents=True)
    (tmp_path / "root/var/lib/netinstall").symlink_to(tmp_path)
    stack = _stack(tmp_path / "root", Runner())
    stack.recovery_keys["/var/lib/netinstall/recovery-crypt"] = "abcd-efgh"
    with pytest.raises(InstallError, match="is a symbolic link in the payload"):
        stack.keep_recovery_keys()
    assert not (tmp_path / "recovery-crypt").exists()
