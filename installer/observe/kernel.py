"""The kernel command line: which of its words are for us, and what they say.

Its grammar is that of the kernel (Documentation/admin-guide/kernel-parameters.rst and
lib/cmdline.c): words are separated by white space outside of double quotes, `-` and `_` are the
same in names, the last of several values counts, and what follows `--` belongs to init.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from installer.model.errors import Problem
from installer.model.urls import redacted

EndOnFailure = Literal["shell", "reboot", "poweroff"]


@dataclass(frozen=True)
class KernelArguments:
    """What the command line says to us; None where it says nothing.

    `failure_delay` is in seconds, `boot_mac` lower case with colons, `ip` as it was written
    (Documentation/admin-guide/nfs/nfsroot.rst). `others` holds further `netinstall.*` values by
    their name, which are for the hooks of the initrd and are not checked here. A `dry_run` with a
    value that is none counts as given: whoever wrote it wants to keep the disks.
    """

    answers: str | None = None
    report: str | None = None
    on_failure: EndOnFailure | None = None
    failure_delay: int | None = None
    dry_run: bool = False
    ip: str | None = None
    boot_mac: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> dict[str, str]:
        """Return what was said, by name, without the secrets that URLs may hold."""
        values = {
            "netinstall.answers": self.answers,
            "netinstall.report": self.report,
            "netinstall.on-failure": self.on_failure,
            "netinstall.failure-delay": None
            if self.failure_delay is None
            else str(self.failure_delay),
            "netinstall.dry-run": "1" if self.dry_run else None,
            **{f"netinstall.{name}": value for name, value in self.others.items()},
            "ip": self.ip,
            "BOOTIF": None if self.boot_mac is None else "01-" + self.boot_mac.replace(":", "-"),
        }
        return {name: redacted(value) for name, value in values.items() if value is not None}


FOR_THE_INITRD = ("root", "root-sha256", "modloop-sha256", "network-timeout", "overlay")
"""`netinstall.*` names that the initrd's hooks and init read before there is an agent."""

_NAMES = ("answers", "report", "on-failure", "failure-delay", "dry-run", *FOR_THE_INITRD)
_BOOTIF = re.compile(r"(?:[0-9a-f]{2}[:-])?((?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})", re.IGNORECASE)
_ENDS: tuple[EndOnFailure, ...] = ("shell", "reboot", "poweroff")
_LONGEST_DELAY = 86400


def read(root: Path = Path("/")) -> tuple[KernelArguments, tuple[Problem, ...]]:
    """Read /proc/cmdline; see `parse`. Nothing is said where it cannot be read."""
    try:
        text = (root / "proc/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        text = ""
    return parse(text)


def parse(text: str) -> tuple[KernelArguments, tuple[Problem, ...]]:
    """Find our words on a kernel command line.

    Returns:
        what they say, and all problems (`arguments`); a value with a problem counts as not given.
    """
    problems: list[Problem] = []
    said = _collect(text, problems)
    arguments = KernelArguments(
        answers=_answers(said.pop("answers", None), problems),
        report=_report(said.pop("report", None), problems),
        on_failure=_on_failure(said.pop("on-failure", None), problems),
        failure_delay=_delay(said.pop("failure-delay", None), problems),
        dry_run=_dry_run(said.pop("dry-run", None), problems),
        ip=said.pop("ip", None),
        boot_mac=_boot_mac(said.pop("BOOTIF", None), problems),
        others=said,
    )
    return arguments, tuple(problems)


def words(text: str) -> list[tuple[str, str | None]]:
    """Split a command line into names and values as the kernel's next_arg() does (lib/cmdline.c).

    A quote may stand around the whole word or around its value, and is removed there; a word
    without `=` has the value None. Whatever follows `--` is left out.
    """
    found: list[tuple[str, str | None]] = []
    for word in re.findall(r'(?:[^\s"]|"[^"]*(?:"|\Z))+', text):
        if word == "--":
            break
        quoted = word.startswith('"')
        name, equals, value = (word[1:] if quoted else word).partition("=")
        if quoted or value.startswith('"'):
            value = value.removeprefix('"')
            if equals:
                value = value.removesuffix('"')
            else:
                name = name.removesuffix('"')
        found.append((name, value if equals else None))
    return found


def _collect(text: str, problems: list[Problem]) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, value in words(text):
        if name in ("ip", "BOOTIF"):
            if value:
                said[name] = value
            continue
        if not name.startswith("netinstall."):
            continue
        key = name.removeprefix("netinstall.").replace("_", "-")
        if key not in _NAMES:
            problems.append(_unknown(name, key))
        elif key == "dry-run" and value is None:
            said[key] = "1"
        elif not value:
            problems.append(_problem(name, "it has no value", f"write {name}=VALUE"))
        else:
            said[key] = value
    return said


def _answers(text: str | None, problems: list[Problem]) -> str | None:
    if text is None or text.isprintable():
        return text
    problems.append(
        _problem(
            "netinstall.answers",
            "it holds control characters",
            "give a URL, a file or a directory",
        )
    )
    return None


def _report(text: str | None, problems: list[Problem]) -> str | None:
    if text is None or re.fullmatch(r"https?://[^\s/]\S*", text):
        return text
    problems.append(
        _problem(
            "netinstall.report",
            f"{redacted(text)!r} is no http(s) URL",
            "write netinstall.report=http://SERVER/PATH",
        )
    )
    return None


def _on_failure(text: str | None, problems: list[Problem]) -> EndOnFailure | None:
    for end in _ENDS:
        if text == end:
            return end
    if text is not None:
        problems.append(
            _problem(
                "netinstall.on-failure",
                f"{text!r} is not known",
                "write one of " + ", ".join(_ENDS),
            )
        )
    return None


def _boot_mac(text: str | None, problems: list[Problem]) -> str | None:
    if text is None:
        return None
    match = _BOOTIF.fullmatch(text)
    if match is not None:
        return match[1].lower().replace("-", ":")
    problems.append(
        _problem("BOOTIF", f"{text!r} is no MAC address", "write BOOTIF=01-aa-bb-cc-dd-ee-ff")
    )
    return None


def _delay(text: str | None, problems: list[Problem]) -> int | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= _LONGEST_DELAY:
        return int(text)
    problems.append(
        _problem(
            "netinstall.failure-delay",
            f"{text!r} is no number of seconds",
            f"write a number from 0 to {_LONGEST_DELAY}",
        )
    )
    return None


def _dry_run(text: str | None, problems: list[Problem]) -> bool:
    if text not in (None, "0", "1"):
        problems.append(_problem("netinstall.dry-run", f"{text!r} is neither 0 nor 1", "write 1"))
    return text not in (None, "0")


def _unknown(name: str, key: str) -> Problem:
    close = difflib.get_close_matches(key, _NAMES, n=1)
    return _problem(
        name,
        "this name is not known",
        f"did you mean netinstall.{close[0]}?"
        if close
        else "known are " + ", ".join(f"netinstall.{known}" for known in _NAMES),
    )


def _problem(name: str, what: str, hint: str) -> Problem:
    return Problem("arguments", f"{name}: {what}", "the kernel command line", hint)
