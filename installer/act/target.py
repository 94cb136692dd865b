"""The target: what is mounted where, and everything undone in reverse order."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from installer.act.devices import node_of
from installer.act.holders import holders
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.plan import EnterTarget
from installer.model.storage_steps import EnableSwap, MountFilesystem

_UNMOUNT_SECONDS = 300
_SYNC_SECONDS = 7200
_API_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "etc", "root", "var/log")


@dataclass(frozen=True)
class Opened:
    """Something that has to be closed again: how, and how when it is still in use, if at all."""

    what: str
    close: tuple[str, ...]
    force: tuple[str, ...] | None = None
    mount: Path | None = None


@dataclass
class Target:
    """The root of the system that is being installed, and what was opened for it, in order.

    `filesystems` are the mount points in it of those of the plan that can be written to.
    """

    root: Path
    runner: Runner
    opened: list[Opened] = field(default_factory=list)
    filesystems: list[str] = field(default_factory=list)

    @property
    def mounts(self) -> list[Path]:
        """What is mounted, in the order in which it was."""
        return [one.mount for one in self.opened if one.mount is not None]

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

    def has(self, inside: str) -> bool:
        """Say whether the installed system has a file, its symbolic links read as it reads them."""
        parts = [part for part in inside.split("/") if part]
        at: list[str] = []
        links = 40
        while parts:
            part = parts.pop(0)
            if part in (".", ".."):
                del at[len(at) - (part == "..") :]
                continue
            place = self.root.joinpath(*at, part)
            if not place.is_symlink():
                at.append(part)
                continue
            links -= 1
            # as the kernel's own limit (path_resolution(7))
            if links == 0:
                return False
            leads = str(place.readlink())
            at = [] if leads.startswith("/") else at
            parts[:0] = [step for step in leads.split("/") if step]
        return self.root.joinpath(*at).exists()

    def mount(self, step: MountFilesystem) -> None:
        """Mount a new file system."""
        where = self.confined(step.where)
        where.mkdir(parents=True, exist_ok=True)
        source = step.source if isinstance(step.source, str) else str(node_of(step.source))
        argv = ["mount", "-t", step.filesystem]
        if step.options:
            argv += ["-o", ",".join(step.options)]
        self._mount([*argv, source, str(where)], where)
        # one that the answer file wants read-only did not become so by a failure
        if "ro" not in step.options:
            self.filesystems.append(step.where)

    def flush(self) -> None:
        """Write everything out, and hear of what was lost on the way.

        Raises:
            InstallError: `device.io` when something did not reach its disk.
        """
        # devices that are written to directly, as boot records are
        os.sync()
        where = [str(self.confined(inside)) for inside in self.filesystems]
        if not where:
            return
        # a page that could not be written is gone, and sync(2) says nothing of it; syncfs(2) tells
        # whoever asks first, however long ago it was (Linux 5.8, fs/sync.c)
        try:
            self.runner.run(
                ["sync", "--file-system", *where],
                timeout=_SYNC_SECONDS,
                purpose="writing everything to the disk",
            )
        except InstallError as error:
            if error.problems[0].code != "command.failed":
                raise
            raise fail(
                "device.io",
                "what was written to the new system did not all reach the disk",
                where=", ".join(where),
                hint=error.problems[0].hint,
            ) from None

    def swap_on(self, step: EnableSwap) -> None:
        """Switch a swap area on: a device, or a file of the installed system."""
        area = self.confined(step.area) if isinstance(step.area, str) else node_of(step.area)
        self.runner.run(["swapon", str(area)], timeout=60, purpose=f"swap on {area}")
        self.opened.append(Opened(f"swap on {area}", ("swapoff", str(area))))

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
        while self.opened:
            one = self.opened.pop()
            try:
                self.runner.run(one.close, timeout=_UNMOUNT_SECONDS)
            except InstallError as error:
                programs = ", ".join(holders(one.mount)) if one.mount is not None else ""
                warn(
                    f"{one.what} is still used by {programs or 'the kernel'}: "
                    f"{error.problems[0].what}"
                )
                if one.force is not None:
                    self._try(one.force)
        os.sync()

    def abandon(self) -> None:
        """Undo what can be undone after a failure; say what could not. Never raises."""
        while self.opened:
            one = self.opened.pop()
            if not self._try(one.close) and one.force is not None:
                self._try(one.force)

    def _mount(self, argv: list[str], where: Path) -> None:
        self.runner.run(argv, timeout=120, purpose=f"mounting {where}")
        umount = ("umount", "--recursive")
        self.opened.append(
            Opened(str(where), (*umount, str(where)), (*umount, "--lazy", str(where)), where)
        )

    def _try(self, argv: tuple[str, ...]) -> bool:
        try:
            self.runner.run(argv, timeout=_UNMOUNT_SECONDS)
        except (InstallError, OSError) as error:
            self.runner.on_line(str(error))
            return False
        return True
