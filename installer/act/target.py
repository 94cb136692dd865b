"""The target: what is mounted where, and everything undone in reverse order."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from installer.act.disk import partition_node
from installer.act.holders import holders
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.plan import EnableSwap, EnterTarget, MountFilesystem

_UNMOUNT_SECONDS = 300
_API_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "etc", "root", "var/log")


@dataclass
class Target:
    """The root of the system that is being installed. `mounts` are in the order they were made."""

    root: Path
    runner: Runner
    mounts: list[Path] = field(default_factory=list)
    swaps: list[Path] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        """Where an absolute path of the installed system lies for us."""
        return self.root / inside.lstrip("/")

    def confined(self, inside: str) -> Path:
        """Like `path`, for what we write ourselves: no link of the payload may lead it elsewhere.

        Raises:
            InstallError: `payload.hostile`.
        """
        path = self.path(inside)
        for part in (path, *path.parents):
            if part == self.root:
                break
            if part.is_symlink():
                raise fail(
                    "payload.hostile",
                    f"{part.relative_to(self.root)} is a symbolic link in the payload",
                    where=f"{path} (it leads to {part.readlink()})",
                    hint="the payload must hold a plain file or folder there, or nothing",
                )
        return path

    def mount(self, step: MountFilesystem) -> None:
        """Mount a new file system."""
        where = self.confined(step.where)
        where.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", step.filesystem]
        if step.options:
            argv += ["-o", ",".join(step.options)]
        self._mount([*argv, str(partition_node(step.partition)), str(where)], where)

    def swap_on(self, step: EnableSwap) -> None:
        """Switch a swap area on."""
        node = partition_node(step.partition)
        self.runner.run(["swapon", str(node)], timeout=60, purpose=f"swap on {node}")
        self.swaps.append(node)

    def enter(self, step: EnterTarget) -> None:
        """Make the target a place where its own programs run: what nixos-enter(8) mounts too."""
        folders = [self.confined(name) for name in _API_FOLDERS]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        dev, run = self.root / "dev", self.root / "run"
        # --rbind brings devpts; rslave, so that unmounting here never reaches the original
        self._mount(["mount", "--rbind", "--make-rslave", "/dev", str(dev)], dev)
        for kind in ("proc", "sysfs"):
            where = self.root / {"proc": "proc", "sysfs": "sys"}[kind]
            self._mount(["mount", "-t", kind, kind, str(where)], where)
        if step.efivars:
            where = self.root / "sys/firmware/efi/efivars"
            self._mount(["mount", "-t", "efivarfs", "efivarfs", str(where)], where)
        self._mount(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(run)], run)
        if Path("/run/udev").is_dir():
            # nixos-generate-config asks udev's database for UUIDs
            udev = run / "udev"
            udev.mkdir()
            self._mount(["mount", "--bind", "/run/udev", str(udev)], udev)

    def share_resolver(self) -> None:
        """Let programs in the target resolve names as we do (for binary caches)."""
        inside = self.root / "etc/resolv.conf"
        if not Path("/etc/resolv.conf").exists() or inside.is_symlink():
            return
        inside.touch()
        self._mount(["mount", "--bind", "/etc/resolv.conf", str(inside)], inside)

    def leave(self, warn: Callable[[str], None]) -> None:
        """Undo everything in reverse order, then flush. Idempotent; never raises.

        The system is complete by now: what lingers on it is told through `warn`, and no reason to
        give it up.
        """
        while self.swaps:
            area = self.swaps.pop()
            try:
                self.runner.run(["swapoff", str(area)], timeout=_UNMOUNT_SECONDS)
            except InstallError as error:
                warn(f"{area} stays in use as swap: {error.problems[0].what}")
        while self.mounts:
            where = self.mounts.pop()
            try:
                self.runner.run(["umount", "--recursive", str(where)], timeout=_UNMOUNT_SECONDS)
            except InstallError as error:
                programs = ", ".join(holders(where)) or "the kernel"
                warn(f"{where} is still used by {programs}: {error.problems[0].what}")
                self._try(["umount", "--recursive", "--lazy", str(where)])
        os.sync()

    def abandon(self) -> None:
        """Undo what can be undone after a failure; say what could not. Never raises."""
        for area in reversed(self.swaps):
            self._try(["swapoff", str(area)])
        for where in reversed(self.mounts):
            self._try(["umount", "--recursive", "--lazy", str(where)])
        self.swaps.clear()
        self.mounts.clear()

    def _mount(self, argv: list[str], where: Path) -> None:
        self.runner.run(argv, timeout=120, purpose=f"mounting {where}")
        self.mounts.append(where)

    def _try(self, argv: list[str]) -> None:
        try:
            self.runner.run(argv, timeout=_UNMOUNT_SECONDS)
        except (InstallError, OSError) as error:
            self.runner.on_line(str(error))
