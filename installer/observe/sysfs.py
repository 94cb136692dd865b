"""Reading sysfs and /proc: small files that may be missing, with text that may be anybody's."""

import re
from pathlib import Path


def content(path: Path) -> bytes:
    """The bytes of a file, none when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def clean(raw: bytes) -> str | None:
    """One line that may be printed: names come from the device, which may be anybody's."""
    text = raw.replace(b"\0", b"").decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text) or None


def text(path: Path) -> str | None:
    """The contents of a file in sysfs without white space around them, None without any."""
    return clean(content(path))


def number(path: Path, default: int) -> int:
    """A number in decimal digits; the default for anything else."""
    found = text(path) or ""
    return int(found) if re.fullmatch(r"[0-9]{1,20}", found) else default


def lines(path: Path) -> list[str]:
    """The lines of a file."""
    return content(path).decode("utf-8", "replace").split("\n")


def entries(folder: Path) -> list[Path]:
    """What a folder holds, nvme10n1 after nvme2n1; nothing when there is no such folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError:
        return []


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by their value."""
    return [
        (int(part), "") if part.isascii() and part.isdigit() else (0, part)
        for part in re.split(r"([0-9]+)", name)
    ]


def unescaped(text: str) -> str:
    r"""Undo the kernel's octal escapes in /proc: `\040` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def decoded(text: str | None) -> str | None:
    r"""Undo udev's encoding of what would break its database: `\x20` for a space."""
    if text is None:
        return None
    raw = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), text.encode())
    return clean(raw)
