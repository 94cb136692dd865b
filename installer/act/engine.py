"""Performs a plan: one function for each kind of step, in order, and cleans up after a failure."""

import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer.act import configuration, disk, erase, filesystems, nixos, teardown
from installer.act import payload as payloads
from installer.act.devices import disk_node, no_assembly, partition_nodes
from installer.act.logs import keep_logs
from installer.act.narrator import Narrator
from installer.act.payload import Inventory, closure, squashfs
from installer.act.run import Runner
from installer.act.stack import Stack
from installer.act.target import Target
from installer.act.trouble import explained, few, survived
from installer.act.writeback import early_writeback
from installer.model.errors import InstallError, fail
from installer.model.facts import Disk
from installer.model.manifest import Manifest
from installer.model.payload_steps import (
    CheckClosure,
    CheckPayload,
    CheckSquashfs,
    CopyClosure,
    UnpackFrames,
    UnpackPayload,
    UnpackSquashfs,
)
from installer.model.plan import (
    EnterTarget,
    Flush,
    GenerateConfig,
    InstallBootLoader,
    LeaveTarget,
    Plan,
    RebuildSystem,
    RegisterStore,
    SetProfile,
    Step,
    WriteFile,
)
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    EditTable,
    EnableSwap,
    EraseDisk,
    FormatLuks,
    MakeFilesystem,
    MakeSwapFile,
    MarkComplete,
    MirrorEsp,
    MountFilesystem,
    TearDown,
    WipeDisk,
    WriteTable,
)
from installer.observe.kernel_log import KernelLog

_DESTRUCTIVE = (TearDown, EraseDisk, WipeDisk, EditTable)
_BOOTABLE = (InstallBootLoader, MirrorEsp, MarkComplete)
"""Steps after whose beginning a disk may look bootable."""


@dataclass
class _Work:
    """What one performance of a plan knows so far."""

    target: Target
    runner: Runner
    narrator: Narrator
    logs: Path | None
    stack: Stack
    log: KernelLog
    chosen: tuple[Disk, ...]
    manifest: Manifest | None = None
    inventory: Inventory | None = None

    @property
    def toplevel(self) -> str:
        if self.inventory is None:
            raise RuntimeError("a plan uses the system before it unpacks one")
        return self.inventory.toplevel


def perform(
    plan: Plan,
    narrator: Narrator,
    *,
    target: Path,
    logs: Path | None,
    manifest: Manifest | None = None,
) -> None:
    """Do what the plan says, telling each step.

    Args:
        plan: what to do.
        narrator: is told what happens; a failure is told before anything is cleaned up.
        target: an empty folder below which the new system is mounted.
        logs: a folder whose files are copied onto the target at the end; None to keep none.
        manifest: that of a packed payload, which was verified when the machine was looked at.

    Raises:
        InstallError: a step failed; everything is unmounted and closed, and no disk is bootable,
            except one of which something is kept: of that, only new partitions were touched.
    """
    runner = Runner(on_line=few(narrator.output))
    made = Target(target, runner)
    stacked = Stack(made, runner, narrator)
    log = KernelLog()
    work = _Work(made, runner, narrator, logs, stacked, log, plan.chosen, manifest)
    begun = time.monotonic()
    first = next((step for step in plan.steps if isinstance(step, _DESTRUCTIVE)), None)
    armed = False
    try:
        target.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if first is not None:
                stack.enter_context(no_assembly(runner))
                stack.enter_context(early_writeback())
            for number, step in enumerate(plan.steps, start=1):
                armed = isinstance(step, _BOOTABLE)
                if step is first:
                    # no part of it: whoever reads of a failure here must not fear for the disks
                    _examine(plan, work)
                with narrator.step(step, number, len(plan.steps)):
                    _perform_step(step, work)
    except BaseException as error:
        with _uninterrupted():
            stopped = explained(
                as_install_error(error, narrator),
                disks=plan.chosen,
                root=target,
                mounts=work.target.filesystems,
                log=log,
            )
            narrator.failed(stopped)
            work.target.abandon()
            if armed:
                _disarm(plan, narrator)
        raise stopped from error
    finally:
        log.close()
    narrator.finished(time.monotonic() - begun)


def _examine(plan: Plan, work: _Work) -> None:
    """Check all that can be checked before the first thing is destroyed.

    No disk is touched while another one would be refused, or a passphrase cannot be had.
    """
    released: set[str] = set()
    wiped: set[str] = set()
    for step in plan.steps:
        match step:
            case TearDown():
                released |= {step.node, *(step.layer.on if step.layer is not None else ())}
            case WipeDisk():
                node = disk_node(step.disk)
                wiped |= {str(node), *map(str, partition_nodes(node))}
            case EditTable():
                wiped |= {part.node for part in step.removed}
            case _:
                pass
    for step in plan.steps:
        match step:
            case WipeDisk() | EraseDisk() | EditTable():
                disk.examine(step, released)
            case CreateArray():
                work.stack.require_name(step.array, released)
            case FormatLuks():
                work.stack.require_name(step.opened, released)
                work.stack.prepare(step)
            case CreateVolumeGroup():
                work.stack.require_group_name(step, released | wiped)
            case CreateVolume():
                work.stack.require_name(step.volume, released)
            case _:
                pass


def _disarm(plan: Plan, narrator: Narrator) -> None:
    """Take the table from each disk that would boot half a system, but none that keeps things."""
    wiped = {step.disk for step in plan.steps if isinstance(step, WipeDisk)}
    for chosen in plan.chosen:
        if chosen.stable_path in wiped:
            disk.disarm(chosen, lambda text: narrator.say(text, "warning"))


def _perform_step(step: Step, work: _Work) -> None:  # noqa: PLR0912, PLR0915 - a table
    target, runner, narrator = work.target, work.runner, work.narrator
    match step:
        case CheckPayload():
            work.inventory = payloads.check(step, narrator)
        case TearDown():
            teardown.tear_down(step, runner)
        case WipeDisk():
            disk.wipe(step, runner)
        case EraseDisk():
            erase.erase(step, runner, narrator)
        case WriteTable():
            disk.write_table(step, runner)
        case EditTable():
            disk.edit_table(step, runner)
        case CreateArray():
            work.stack.create_array(step)
        case FormatLuks():
            work.stack.format_luks(step)
        case CreateVolumeGroup():
            work.stack.create_volume_group(step)
        case CreateVolume():
            work.stack.create_volume(step)
        case MakeFilesystem():
            filesystems.make(step, runner)
        case CreatePool():
            work.stack.create_pool(step)
        case MountFilesystem():
            target.mount(step)
        case EnableSwap():
            target.swap_on(step)
        case UnpackPayload():
            work.inventory = payloads.unpack(step, target.root, runner, narrator, work.inventory)
        case UnpackFrames():
            if work.manifest is None:
                raise RuntimeError("a manifest is to be unpacked that nobody looked at")
            work.inventory = payloads.unpack_packed(
                step, work.manifest, target.root, runner, narrator
            )
        case CheckSquashfs():
            squashfs.check(step, narrator, runner)
        case UnpackSquashfs():
            work.inventory = squashfs.unpack(step, target.root, runner, narrator)
        case CheckClosure():
            closure.check(step, narrator, runner)
        case CopyClosure():
            work.inventory = closure.copy(step, target.root, runner, narrator)
        case MakeSwapFile():
            filesystems.make_swap_file(step, target, runner)
        case EnterTarget():
            target.enter(step)
        case RegisterStore():
            nixos.register_store(target, runner, work.toplevel)
        case GenerateConfig():
            nixos.generate_config(target, runner, work.toplevel)
        case WriteFile():
            configuration.write_file(step, target, runner, narrator, work.toplevel)
        case SetProfile():
            nixos.set_profile(target, runner, work.toplevel)
        case RebuildSystem():
            nixos.rebuild(step, target, runner, work.toplevel)
        case Flush():
            # a system that only its recovery key may open one day is not complete without it
            work.stack.keep_recovery_keys()
            nixos.flush(target, runner, whole_store=step.whole_store)
        case InstallBootLoader():
            nixos.install_boot_loader(step, target, runner)
        case MirrorEsp():
            filesystems.mirror_esp(step, target)
        case MarkComplete():
            for name, guid in step.disks.items():
                disk.mark(name, guid, runner)
        case LeaveTarget():
            work.stack.keep_recovery_keys()
            # a file system with two copies of something goes on with the other one
            for text in survived(work.chosen, work.log):
                narrator.say(text, "warning")
            _keep_logs(step, work)
            target.leave(lambda text: narrator.say(text, "warning"))


def _keep_logs(step: LeaveTarget, work: _Work) -> None:
    """Keep the log, but never lose an installed machine because there is no room for it."""
    if work.logs is None:
        return
    try:
        keep_logs(work.logs, work.target, step.log_path)
    except (InstallError, OSError) as error:
        work.narrator.say(f"the log is not kept on the new system: {error}", "warning")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Finish cleaning up although somebody presses Ctrl-C again, or init asks a second time.

    Every command of the cleaning up has a deadline. A handler, not SIG_IGN: children would
    inherit that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def as_install_error(error: BaseException, narrator: Narrator) -> InstallError:
    """Put whatever stopped the work into the one form; the log keeps the traceback of others."""
    if isinstance(error, InstallError):
        return error
    narrator.say("".join(traceback.format_exception(error)), "debug")
    match error:
        case KeyboardInterrupt():
            return fail("interrupted", "interrupted by a person or by the system going down")
        case OSError():
            return fail(
                "device.io",
                f"{error.strerror or error}",
                where=str(error.filename or ""),
                hint="look at the kernel's log (dmesg)",
            )
    return fail(
        "internal",
        f"{type(error).__name__}: {error}",
        hint="this is a mistake of netinstall: please report it with the log",
    )
