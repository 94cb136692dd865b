"""The one error style: what happened, where, what to try, a stable code and an exit code."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What `netinstall` ends with; docs/errors.md repeats it for people."""

    DONE = 0
    ANSWERS = 2
    HARDWARE = 3
    PAYLOAD = 4
    COMMAND = 5
    NETWORK = 6
    INTERRUPTED = 130


CODES: dict[str, tuple[ExitCode, str]] = {
    "answers.not-found": (ExitCode.ANSWERS, "the answer file could not be found or read"),
    "answers.syntax": (ExitCode.ANSWERS, "the answer file is not valid TOML or JSON"),
    "answers.field": (ExitCode.ANSWERS, "a field of the answer file is wrong or missing"),
    "site.not-found": (ExitCode.ANSWERS, "the site file could not be read"),
    "site.syntax": (ExitCode.ANSWERS, "the site file is not valid TOML or JSON"),
    "site.field": (ExitCode.ANSWERS, "a field of the site file is wrong or missing"),
    "site.value": (ExitCode.ANSWERS, "a value of the site file cannot be written in a dialect"),
    "site.conflict": (ExitCode.ANSWERS, "values of the site file contradict each other"),
    "site.file": (ExitCode.ANSWERS, "a file that a client will ask for is missing or wrong"),
    "serve.rights": (ExitCode.HARDWARE, "serving needs rights that this user does not have"),
    "serve.interface": (ExitCode.HARDWARE, "the interface to serve on is not there or not set up"),
    "serve.address": (ExitCode.HARDWARE, "this machine cannot serve under the address"),
    "serve.port": (ExitCode.HARDWARE, "another program has the port"),
    "serve.dhcp": (ExitCode.NETWORK, "the network has a DHCP server already"),
    "secret.not-found": (ExitCode.ANSWERS, "a passphrase could not be read"),
    "arguments": (ExitCode.ANSWERS, "a command line or kernel argument is wrong"),
    "iso.not-nixos": (ExitCode.ANSWERS, "the file is no ISO of NixOS that is understood"),
    "iso.too-large": (ExitCode.ANSWERS, "what is made of the ISO is too large"),
    "facts.invalid": (ExitCode.ANSWERS, "the saved facts could not be read"),
    "disk.none": (ExitCode.HARDWARE, "no disk matches"),
    "disk.ambiguous": (ExitCode.HARDWARE, "more disks match than are wanted"),
    "disk.in-use": (ExitCode.HARDWARE, "the disk is in use by the running system"),
    "disk.too-small": (ExitCode.HARDWARE, "the disk is too small for what is asked"),
    "disk.carries-data": (ExitCode.HARDWARE, "the disk carries data that may not be destroyed"),
    "disk.shared": (ExitCode.HARDWARE, "what lies on the disk lies on another one, too"),
    "disk.keep": (ExitCode.HARDWARE, "what is to be kept is not there, or not as described"),
    "storage.name-taken": (
        ExitCode.HARDWARE,
        "something on a disk that stays has the name already",
    ),
    "storage.members": (ExitCode.HARDWARE, "an array or pool has too few members"),
    "disk.changed": (ExitCode.HARDWARE, "the disk is not the one that was planned"),
    "disk.table": (ExitCode.HARDWARE, "the partition table is damaged, and some of it is kept"),
    "disk.erase": (ExitCode.HARDWARE, "the disk cannot be erased that way"),
    "storage.swap-file": (ExitCode.HARDWARE, "the file system cannot hold a swap file"),
    "tpm.missing": (ExitCode.HARDWARE, "the machine shows no TPM"),
    "firmware.mismatch": (ExitCode.HARDWARE, "layout or boot loader do not fit the firmware"),
    "tool.missing": (ExitCode.HARDWARE, "the boot environment lacks a program"),
    "network.no-lease": (ExitCode.HARDWARE, "no DHCP lease is known for the interface"),
    "network.no-interface": (ExitCode.HARDWARE, "the named network interface does not exist"),
    "network.value": (
        ExitCode.HARDWARE,
        "the lease or interface has a value that NixOS cannot take",
    ),
    "network.ambiguous": (ExitCode.HARDWARE, "a name means more than one network interface"),
    "network.described": (
        ExitCode.HARDWARE,
        "the described network contradicts itself or this machine",
    ),
    "root.not-writable": (ExitCode.HARDWARE, "the root could not be made writable"),
    "payload.not-found": (ExitCode.PAYLOAD, "the server or path does not have the payload"),
    "payload.hash": (ExitCode.PAYLOAD, "the payload is not the one that was announced"),
    "payload.truncated": (ExitCode.PAYLOAD, "the payload ended too early"),
    "payload.format": (ExitCode.PAYLOAD, "the payload is not the kind of archive it should be"),
    "payload.hostile": (ExitCode.PAYLOAD, "the payload holds what may not be unpacked"),
    "payload.too-large": (ExitCode.PAYLOAD, "the unpacked payload does not fit"),
    "payload.not-nixos": (ExitCode.PAYLOAD, "the archive holds no NixOS system"),
    "payload.source": (ExitCode.PAYLOAD, "what is to be packed cannot be packed"),
    "payload.manifest": (ExitCode.PAYLOAD, "the manifest of the payload is wrong"),
    "payload.signature": (ExitCode.PAYLOAD, "the signature is missing or not right"),
    "payload.key": (ExitCode.PAYLOAD, "a key could not be read or used"),
    "payload.expired": (ExitCode.PAYLOAD, "the payload is no longer valid"),
    "payload.old": (ExitCode.PAYLOAD, "the payload is older than the answer file wants"),
    "payload.unfit": (ExitCode.PAYLOAD, "the payload is made for other machines"),
    "payload.changed": (ExitCode.PAYLOAD, "the payload changed while it was being read"),
    "command.failed": (ExitCode.COMMAND, "a program ended with an error"),
    "command.timeout": (ExitCode.COMMAND, "a program did not end in time"),
    "device.timeout": (ExitCode.COMMAND, "a device node did not appear in time"),
    "device.io": (ExitCode.COMMAND, "reading or writing a device failed"),
    "nix.registration": (ExitCode.COMMAND, "the store paths could not be registered"),
    "image.build": (ExitCode.COMMAND, "the boot environment could not be built"),
    "network.unreachable": (ExitCode.NETWORK, "a server could not be reached"),
    "network.lost": (ExitCode.NETWORK, "the connection broke and did not come back"),
    "interrupted": (ExitCode.INTERRUPTED, "somebody interrupted the installation"),
    "internal": (ExitCode.COMMAND, "a mistake of this program"),
}
"""Every error code, its exit code and its meaning. Codes are stable: scripts match on them."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in words for the person who has to mend it."""

    code: str
    what: str
    where: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown error code {self.code!r}")

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        for label, text in (("where: ", self.where), ("try:   ", self.hint)):
            if text:
                lines.append(f"  {label}" + text.replace("\n", "\n         "))
        return "\n".join(lines)


class InstallError(Exception):
    """One or more problems that stop the work.

    All problems of one error have been found together (an answer file is checked to its end);
    the exit code is that of the first.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("an error without a problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def exit_code(self) -> ExitCode:
        return CODES[self.problems[0].code][0]


def fail(code: str, what: str, *, where: str = "", hint: str = "") -> InstallError:
    """Make an `InstallError` with one problem: `raise fail("disk.none", "…")`."""
    return InstallError([Problem(code, what, where, hint)])
