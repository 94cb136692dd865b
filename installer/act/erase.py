"""Erasing every block of a disk, by what the device offers."""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from installer.act.devices import SYSFS, settle
from installer.act.disk import planned
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.storage_steps import EraseDisk
from installer.model.units import MIB

_PIECE = 4 * MIB
_FLUSH = 256 * MIB
_POLL_SECONDS = 2.0
_ATA_PASSWORD = "netinstall"  # noqa: S105 - no secret: it lasts until the erasure is done
_LEAST_SECONDS = 3600


def erase(step: EraseDisk, runner: Runner, narrator: Narrator) -> None:
    """Erase a disk.

    Raises:
        InstallError: `disk.erase` when the device cannot do it that way; see `disk.examine`; or a
            command's error.
    """
    # four times what was expected, at least an hour: a device that hangs must not hang us
    seconds = max(_LEAST_SECONDS, 4 * step.seconds)
    with planned(step) as (node, descriptor):
        match step.method:
            case "discard":
                # --force: the disk is held exclusively already, by us
                argv = ["blkdiscard", "--force", str(node)]
                _tool(argv, step, runner, seconds, "it has no discard")
            case "nvme-format":
                _only_namespace(node, step)
                # --ses=1: user data erase (NVM Express Base 2.0, 5.14)
                argv = ["nvme", "format", str(node), "--ses=1", "--force"]
                _tool(argv, step, runner, seconds, "is it an NVMe disk that can be formatted?")
            case "nvme-sanitize":
                _only_namespace(node, step)
                _sanitize(node, step, runner, narrator, seconds)
            case "ata-secure-erase":
                _secure_erase(node, step, runner, seconds)
            case "overwrite":
                overwrite(descriptor, step.disk_size, narrator.progress(step.disk_size))
    settle(runner)


def overwrite(descriptor: int, size: int, progress: Callable[[int], None]) -> None:
    """Write zeros over everything, through to the medium."""
    nothing = bytes(_PIECE)
    done = 0
    while done < size:
        done += os.pwrite(descriptor, nothing[: size - done], done)
        # what is said to be done shall lie on the disk, not in memory
        if done % _FLUSH == 0 or done == size:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, done, os.POSIX_FADV_DONTNEED)
        progress(done)


def _tool(argv: list[str], step: EraseDisk, runner: Runner, seconds: float, hint: str) -> None:
    try:
        runner.run(argv, timeout=seconds, purpose=f"erasing {step.disk}")
    except InstallError as error:
        if error.problems[0].code != "command.failed":
            raise
        raise _cannot(step, error.problems[0].hint.replace("\n", " "), hint) from None


def _cannot(step: EraseDisk, why: str, hint: str) -> InstallError:
    return fail(
        "disk.erase",
        f"{step.disk} cannot be erased by {step.method}: {why}",
        where=step.node,
        hint=f"{hint}; choose another method, or leave erase out",
    )


def _only_namespace(node: Path, step: EraseDisk) -> None:
    """Refuse a controller with other namespaces: they would be erased, too."""
    controller = (SYSFS / node.name / "device").resolve()
    others = {
        path.name
        for path in controller.glob("nvme*n*")
        if re.fullmatch(r"nvme[0-9]+n[0-9]+", path.name) and path.name != node.name
    }
    if others:
        raise _cannot(
            step,
            f"the same controller has {', '.join(sorted(others))}, which would be erased, too",
            "nothing was erased",
        )


_SANITIZE_ACTIONS = ((0b010, "start-block-erase"), (0b001, "start-crypto-erase"))
"""Bits of SANICAP, and nvme-sanitize(1)'s actions for them, the more thorough first."""


def _sanitize(
    node: Path, step: EraseDisk, runner: Runner, narrator: Narrator, seconds: float
) -> None:
    said = runner.run(["nvme", "id-ctrl", str(node), "-o", "json"], timeout=60, capture=True)
    able = int(json.loads(said).get("sanicap", 0))
    action = next((name for bit, name in _SANITIZE_ACTIONS if able & bit), None)
    if action is None:
        raise _cannot(step, "it offers neither block nor crypto erase", "nothing was erased")
    runner.run(["nvme", "sanitize", str(node), f"--sanact={action}"], timeout=60)
    progress = narrator.progress(65536)
    deadline = time.monotonic() + seconds
    while True:
        argv = ["nvme", "sanitize-log", str(node), "-o", "json"]
        status, done = sanitize_status(runner.run(argv, timeout=60, capture=True))
        progress(done)
        if status in (1, 4):
            return
        if status == 3:
            raise _cannot(step, "the device says that it failed", "the disk may be broken")
        if time.monotonic() > deadline:
            raise _cannot(step, f"it was not done after {seconds:.0f} s", "it goes on by itself")
        # the device tells nobody when it is done
        time.sleep(_POLL_SECONDS)


def sanitize_status(said: str) -> tuple[int, int]:
    """Return the status and the progress (of 65536) of a sanitize log.

    Status: 0 never done, 1 done, 2 going on, 3 failed, 4 done without deallocation (NVM Express
    Base 2.0, 5.16.1.25, "SSTAT"). nvme-cli wraps it in the device's name, and its number in words.
    """
    found: Mapping[str, Any] = json.loads(said)
    if "sstat" not in found:
        found = next(value for value in found.values() if isinstance(value, dict))
    status: Any = found["sstat"]
    if isinstance(status, dict):
        status = status["status"]
    number = re.search(r"[0-9]+", str(status))
    return (int(number[0]) if number else 0) & 0b111, int(found.get("sprog", 0)) + 1


def _secure_erase(node: Path, step: EraseDisk, runner: Runner, seconds: float) -> None:
    said = runner.run(["hdparm", "-I", str(node)], timeout=60, capture=True)
    security = ata_security(said)
    if not security.get("supported", False):
        raise _cannot(step, "it has no ATA security", "is it a SATA disk, and not behind RAID?")
    if security.get("frozen", False):
        raise _cannot(
            step,
            "the firmware froze its security",
            "suspend and wake the machine, or plug the disk in while it runs",
        )
    if security.get("locked", False) or security.get("enabled", False):
        raise _cannot(step, "it has a password already", "remove it with `hdparm`")
    user = ["hdparm", "--user-master", "u"]
    runner.run([*user, "--security-set-pass", _ATA_PASSWORD, str(node)], timeout=60)
    kind = "--security-erase-enhanced" if security.get("enhanced", False) else "--security-erase"
    try:
        runner.run([*user, kind, _ATA_PASSWORD, str(node)], timeout=seconds)
    except InstallError as error:
        raise _cannot(
            step,
            error.problems[0].what,
            f"it is locked with the password {_ATA_PASSWORD} now: "
            f"`hdparm --security-disable {_ATA_PASSWORD} {node}` opens it",
        ) from None


def ata_security(said: str) -> Mapping[str, bool]:
    """Read the table "Security" of `hdparm -I`: supported, enabled, locked, frozen, enhanced."""
    _, _, table = said.partition("\nSecurity:")
    found: dict[str, bool] = {}
    for line in table.splitlines():
        words = line.replace(":", " ").split()
        if words[:1] == ["Checksum"]:
            break
        no, words = words[:1] == ["not"], words[1:] if words[:1] == ["not"] else words
        if words == ["supported", "enhanced", "erase"]:
            found["enhanced"] = not no
        elif len(words) == 1 and words[0] in ("supported", "enabled", "locked", "frozen"):
            found[words[0]] = not no
    return found
