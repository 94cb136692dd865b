"""Taking apart what lies on the disks: unmount, stop swapping, wipe, stop, from the top."""

import os
from collections.abc import Callable
from pathlib import Path

from installer.act.devices import SYSFS, device_size, settle, wait_for
from installer.act.disk import blank_ends
from installer.act.holders import device_holders, holders, is_mount_point, swap_areas
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.facts import Layer
from installer.model.storage_steps import TearDown

_STOP_SECONDS = 120


def tear_down(step: TearDown, runner: Runner) -> None:
    """Let go of one device; what lay on it was torn down before.

    Raises:
        InstallError: `disk.in-use`, naming who holds it; or a command's error.
    """
    # what is mounted deeper goes first
    for where in sorted(step.mounts, key=lambda path: path.count("/"), reverse=True):
        _unmount(where, runner)
    if step.swap:
        _stop_swapping(Path(step.node), runner)
    if step.layer is None:
        return
    if step.layer.kind == "zfs":
        _destroy_pool(step.layer.node, runner)
        return
    if step.layer.kind == "bcache" and not step.node.startswith("/dev/"):
        _stop_cache_set(step.layer)
        return
    node = Path(step.node)
    # a thin pool goes with its last volume, an array with its container
    if step.layer.kind == "btrfs" or not node.exists():
        return
    _wipe(node, runner)
    # a partition of an array goes with the array
    if not (SYSFS / node.resolve().name / "partition").exists():
        _stop(step.layer, node.resolve(), runner)
    settle(runner)


def _unmount(where: str, runner: Runner) -> None:
    # one above the other: umount takes the topmost
    while is_mount_point(where):
        try:
            runner.run(["umount", "--recursive", where], timeout=_STOP_SECONDS)
        except InstallError as error:
            if not is_mount_point(where):
                return
            programs = ", ".join(holders(Path(where))) or "the kernel (loop, NFS export, swap?)"
            raise fail(
                "disk.in-use",
                f"{where} cannot be unmounted: it is used by {programs}",
                where=error.problems[0].where,
                hint="end what uses it; nothing was written to its disk",
            ) from None


def _stop_swapping(node: Path, runner: Runner) -> None:
    for area in swap_areas():
        if area.resolve() == node.resolve():
            runner.run(["swapoff", str(area)], timeout=_STOP_SECONDS, purpose=f"swap on {area}")


def _wipe(node: Path, runner: Runner) -> None:
    """Destroy the signatures on a device that is about to vanish.

    One that cannot be written to (a full thin pool, a broken array) is no reason to stop: what is
    made in its place is wiped again when it is made.
    """
    if device_size(node) == 0:
        return
    try:
        runner.run(["wipefs", "--all", "--force", "--quiet", str(node)], timeout=_STOP_SECONDS)
        descriptor = os.open(node, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            blank_ends(descriptor, 0, device_size(node))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except InstallError as error:
        runner.on_line(f"{node} is stopped without being wiped: {error.problems[0].what}")
    except OSError as error:
        runner.on_line(f"{node} is stopped without being wiped: {error.strerror}")


def _stop(layer: Layer, node: Path, runner: Runner) -> None:
    name = _dm_name(node)
    try:
        match layer.kind:
            case "md":
                # by its node: names and UUIDs may be those of another array
                runner.run(["mdadm", "--stop", str(node)], timeout=_STOP_SECONDS)
            case "bcache":
                # admin-guide/bcache.rst
                (SYSFS / node.name / "bcache/stop").write_text("1", encoding="ascii")
            case _ if name is not None:
                # What the kernel has is removed, whatever metadata on the disks says: a volume
                # group without some of its members, or with another's name, cannot be deactivated
                # by name. --retry is for udev, which may be looking at it.
                runner.run(["dmsetup", "remove", "--retry", name], timeout=_STOP_SECONDS)
            case _ if node.name.startswith("loop"):
                runner.run(["losetup", "--detach", str(node)], timeout=_STOP_SECONDS)
            case _:
                raise fail(
                    "disk.in-use",
                    f"{node} ({layer.name}) is of a kind that cannot be stopped here",
                    where=", ".join(layer.on),
                    hint="stop it by hand, and install again",
                )
    except InstallError as error:
        if error.problems[0].code not in ("command.failed", "command.timeout"):
            raise
        raise _held(layer, node, error.problems[0].hint) from None
    if not wait_for(_gone(node), _STOP_SECONDS):
        raise _held(layer, node, f"it was still there after {_STOP_SECONDS} s")


def _held(layer: Layer, node: Path, said: str) -> InstallError:
    held = ", ".join(device_holders(node)) or "the kernel does not say by what"
    return fail(
        "disk.in-use",
        f"{layer.kind} {layer.name} cannot be stopped: {node} is in use ({held})",
        where=", ".join(layer.on),
        hint=said,
    )


def _gone(node: Path) -> Callable[[], bool]:
    # a stopped array may stay as a node without a size
    return lambda: not (SYSFS / node.name).exists() or device_size(node) == 0


def _dm_name(node: Path) -> str | None:
    try:
        return (SYSFS / node.name / "dm/name").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _stop_cache_set(layer: Layer) -> None:
    """Stop a set of bcache, by its UUID: it holds its devices when nothing is cached, too."""
    folder = Path("/sys/fs/bcache") / layer.node
    if not folder.exists():
        return
    (folder / "stop").write_text("1", encoding="ascii")
    if not wait_for(lambda: not folder.exists(), _STOP_SECONDS):
        raise fail(
            "disk.in-use",
            f"{layer.name} cannot be stopped: it was still there after {_STOP_SECONDS} s",
            where=", ".join(layer.on),
            hint="look at the kernel's log (dmesg)",
        )


def _destroy_pool(pool: str, runner: Runner) -> None:
    """Destroy a ZFS pool; its labels go with the disks. One that is broken is only let go."""
    try:
        runner.run(["zpool", "destroy", "-f", pool], timeout=_STOP_SECONDS)
    except InstallError as error:
        if error.problems[0].code != "command.failed":
            raise
        runner.run(["zpool", "export", "-f", pool], timeout=_STOP_SECONDS)
