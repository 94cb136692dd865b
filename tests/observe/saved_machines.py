"""Saved machines: what sysfs, /proc and /run held, and what udev's database said."""

import json
from dataclasses import dataclass
from pathlib import Path

from installer.observe.blocks import UdevProperties

_TREES = Path(__file__).parent / "trees"


@dataclass(frozen=True)
class Machine:
    """A tree to look at. udev's database is given as data: libudev reads none but the system's."""

    root: Path
    udev: UdevProperties


def unpack(name: str, root: Path) -> Machine:
    """Unpack a saved machine; one byte of a file is one character in the JSON."""
    saved = json.loads((_TREES / f"{name}.json").read_text())
    for path, content in saved["files"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode("latin-1"))
    for path, target in saved["links"].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return Machine(root, saved["udev"])
