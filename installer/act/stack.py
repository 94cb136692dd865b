"""What is stacked on partitions: arrays, LUKS, volume groups, pools. All of it is closed again."""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from installer.act import secrets
from installer.act.devices import WAIT_SECONDS, device_size, node_of, settle
from installer.act.disk import blank_ends
from installer.act.filesystems import load_module
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.act.target import Opened, Target
from installer.model.errors import InstallError, fail
from installer.model.steps import Device, StackedRef
from installer.model.storage_steps import (
    CreateArray,
    CreatePool,
    CreateVolume,
    CreateVolumeGroup,
    FormatLuks,
)

_STEP_SECONDS = 300
_KEY_SECONDS = 600
"""A key derivation is measured to take 2 s on an idle machine; emulated ones are slower."""

_TPM = Path("/dev/tpmrm0")


@dataclass
class Stack:
    """What was made on top of the partitions so far; `target` closes it at the end.

    `passphrases` and `recovery_keys` are in this process only, the first by the name of the opened
    device, the second by their paths in the installed system.
    """

    target: Target
    runner: Runner
    narrator: Narrator
    groups: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    passphrases: dict[str, bytes] = field(default_factory=dict, repr=False)
    recovery_keys: dict[str, str] = field(default_factory=dict, repr=False)

    def prepare(self, step: FormatLuks) -> None:
        """Get hold of what an encryption needs, before anything is destroyed.

        Raises:
            InstallError: `tpm.missing`, `secret.not-found`, `network.unreachable`.
        """
        if step.tpm2 is not None:
            load_module("tpm_crb", self.runner)
            load_module("tpm_tis", self.runner)
            if not _TPM.exists():
                raise fail(
                    "tpm.missing",
                    f"{step.name} is to be unlocked by a TPM, and this machine shows none",
                    where=str(_TPM),
                    hint="switch it on in the firmware's setup (fTPM, PTT), or leave tpm2 out",
                )
        if step.passphrase is not None:
            self.passphrases[step.name] = secrets.read(step.passphrase, self.narrator.say)

    def require_name(self, made: StackedRef, released: Collection[str]) -> None:
        """Refuse a name below /dev that leads to something which stays.

        Args:
            made: what will be made under this name.
            released: nodes that are let go of before.

        Raises:
            InstallError: `storage.name-taken`. mdadm would make its array under another name, and
                whatever comes next would be done to the old one.
        """
        node = Path(made.path).resolve()
        if node.is_block_device() and str(node) not in released:
            raise fail(
                "storage.name-taken",
                f"{made.path} is there already ({node}), and stays",
                where=made.path,
                hint="take another name, or match its disk, too",
            )

    def require_group_name(self, step: CreateVolumeGroup, released: Collection[str]) -> None:
        """Refuse the name of a volume group that something else has, whether it is active or not.

        Args:
            step: what will be made.
            released: nodes that are let go of or wiped before.

        Raises:
            InstallError: `storage.name-taken`. Of two groups of one name LVM activates none
                ("Multiple VGs found with the same name: skipping"), so that the installed system
                would not start.
        """
        config = "devices{use_devicesfile=0 scan_lvs=1}"
        argv = ["pvs", "--reportformat=json", "--options=pv_name,vg_name", "--config", config]
        try:
            said = self.runner.run(argv, timeout=_STEP_SECONDS, capture=True)
        except InstallError as error:
            if error.problems[0].code != "command.failed":
                raise
            # a disk that cannot be read, and that nobody named, is no reason to stop
            self.narrator.say(
                f"other volume groups named {step.name} cannot be ruled out: {error}", "warning"
            )
            return
        for row in json.loads(said)["report"][0]["pv"]:
            # of a member that is missing, LVM says [unknown]
            node = Path(row["pv_name"]).resolve()
            if row["vg_name"] == step.name and node.exists() and str(node) not in released:
                raise fail(
                    "storage.name-taken",
                    f"{node} belongs to a volume group named {step.name} already, and stays",
                    where=step.name,
                    hint="take another name, or match its disk, too; NixOS would find two groups "
                    "of this name when it starts",
                )

    def create_array(self, step: CreateArray) -> None:
        """Make an array. It may be used at once; its members become equal meanwhile.

        Raises:
            InstallError: `device.timeout`, or a command's error.
        """
        members = self._nodes(step.members)
        load_module("md_mod", self.runner)
        self.runner.run(
            [*step.argv, *members],
            timeout=_STEP_SECONDS,
            purpose=f"making {step.array} of {', '.join(members)}",
        )
        self._close(str(step.array), "mdadm", "--stop", step.array.path)
        self._clean(node_of(step.array))

    def format_luks(self, step: FormatLuks) -> None:
        """Make a LUKS2 header, open it, and enroll what else unlocks it.

        Raises:
            InstallError: `device.timeout`, or a command's error.
        """
        node = str(node_of(step.on))
        secret = self.passphrases.pop(step.name, None) or secrets.random_secret()
        self._with_key(secret, [*step.argv, "--key-file=-", node], "encrypting")
        discard = ["--allow-discards"] if step.discard else []
        # its own module is loaded by device-mapper, the cipher's not always
        load_module("dm_crypt", self.runner)
        opening = ["cryptsetup", "open", "--type=luks2", "--key-file=-", *discard]
        self._with_key(secret, [*opening, node, step.name], "opening")
        self._close(str(step.opened), "cryptsetup", "close", step.name)
        with secrets.in_memory(secret) as stream:
            enroll = ["systemd-cryptenroll", f"--unlock-key-file={secrets.path_of(stream)}"]
            if step.recovery_path is not None:
                # only the key goes to standard output; what goes to standard error is for a
                # person who sees the key, and not heard
                said = self._enroll(Runner(), [*enroll, "--recovery-key", node])
                self.recovery_keys[step.recovery_path] = said.strip()
            if step.tpm2 is not None:
                pcrs = "+".join(map(str, step.tpm2.pcrs))
                self._enroll(
                    self.runner, [*enroll, "--tpm2-device=auto", f"--tpm2-pcrs={pcrs}", node]
                )
            if step.passphrase is None:
                self._enroll(self.runner, [*enroll, "--wipe-slot=password", node])
        self._clean(node_of(step.opened))

    def create_volume_group(self, step: CreateVolumeGroup) -> None:
        """Make physical volumes and a group of them.

        Raises:
            InstallError: `device.timeout`, or a command's error.
        """
        members = self._nodes(step.members)
        self.groups[step.name] = tuple(map(Path, members))
        load_module("dm_mod", self.runner)
        create = self._lvm(step.name, "pvcreate", "--yes", "--force", "--force", *members)
        self.runner.run(create, timeout=_STEP_SECONDS, purpose=f"making {step.name}'s members")
        create = self._lvm(step.name, "vgcreate", "--yes", step.name, *members)
        self.runner.run(create, timeout=_STEP_SECONDS, purpose=f"making {step.name}")
        close = self._lvm(step.name, "vgchange", "--activate", "n", step.name)
        self._close(f"volume group {step.name}", *close)

    def create_volume(self, step: CreateVolume, *, seconds: float = WAIT_SECONDS) -> None:
        """Make a logical volume, a thin pool, or a thin volume, and wait for its node.

        Raises:
            InstallError: `device.timeout`, or a command's error.
        """
        size = ["--extents", "100%FREE"] if step.fill else ["--size", f"{step.size}b"]
        match step.type:
            case "linear":
                what = [*size, "--wipesignatures", "y", "--zero", "y"]
            case "thin-pool":
                load_module("dm_thin_pool", self.runner)
                what = [*size, "--type", "thin-pool"]
            case "thin":
                what = ["--type", "thin", "--thinpool", str(step.pool)]
                what += ["--virtualsize", f"{step.size}b", "--wipesignatures", "y"]
        self.runner.run(
            self._lvm(step.group, "lvcreate", "--yes", "--name", step.name, *what, step.group),
            timeout=_STEP_SECONDS,
            purpose=f"making {step.group}/{step.name}",
        )
        if step.type != "thin-pool":
            self._clean(node_of(step.volume, seconds=seconds))

    def create_pool(self, step: CreatePool) -> None:
        """Make a ZFS pool and its data sets, parents first.

        Raises:
            InstallError: `device.timeout`, `tool.missing`, or a command's error.
        """
        members = self._nodes(step.members)
        load_module("zfs", self.runner)
        topology = [step.topology] if step.topology else []
        self.runner.run(
            [*step.argv, *topology, *members],
            timeout=_STEP_SECONDS,
            purpose=f"making the pool {step.name}",
        )
        self._close(f"pool {step.name}", "zpool", "export", step.name)
        for path, properties in sorted(step.datasets.items()):
            options = [
                word for name, value in properties.items() for word in ("-o", f"{name}={value}")
            ]
            self.runner.run(
                ["zfs", "create", "-p", *options, f"{step.name}/{path}"], timeout=_STEP_SECONDS
            )

    def keep_recovery_keys(self) -> None:
        """Write the recovery keys into the installed system, for root only, once.

        Raises:
            InstallError: `payload.hostile`.
            OSError: there is no room for them.
        """
        for inside, key in self.recovery_keys.items():
            folder = self.target.confined(str(PurePosixPath(inside).parent))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.target.confined(inside)
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as stream:
                stream.write(key + "\n")
        self.recovery_keys.clear()

    def _nodes(self, devices: tuple[Device, ...]) -> list[str]:
        return [str(node_of(device)) for device in devices]

    def _close(self, what: str, *argv: str) -> None:
        self.target.opened.append(Opened(what, argv))

    def _clean(self, node: Path) -> None:
        """Overwrite where signatures could be: members hold what they held before, moved a bit."""
        with node.open("r+b", buffering=0) as stream:
            blank_ends(stream.fileno(), 0, device_size(node))
            os.fsync(stream.fileno())
        settle(self.runner)

    def _with_key(self, secret: bytes, argv: list[str], doing: str) -> None:
        with secrets.in_memory(secret) as stream:
            self.runner.run(argv, timeout=_KEY_SECONDS, stdin=stream, purpose=f"{doing} {argv[-1]}")

    def _enroll(self, runner: Runner, argv: list[str]) -> str:
        return runner.run(
            argv,
            timeout=_KEY_SECONDS,
            capture=True,
            # in another locale, it draws the recovery key as a QR code on standard error
            environment={"LC_ALL": "C"},
            purpose="enrolling a key",
        )

    def _lvm(self, group: str, command: str, *arguments: str) -> list[str]:
        """Return a command of LVM that sees nothing but the members of one group.

        What other disks hold, a group of the same name among it, does not exist for it.
        """
        devices = ",".join(map(str, self.groups[group]))
        # without a copy of its metadata LVM warns at each step, and below /etc it would outlive
        # the group; dmeventd does not run here
        config = 'backup{backup_dir="/run/netinstall/lvm" archive=0} '
        config += "devices{scan_lvs=1} activation{monitoring=0}"
        if not Path("/run/udev/control").exists():
            config += " activation{udev_sync=0 udev_rules=0}"
        return [command, "--devices", devices, "--config", config, *arguments]
