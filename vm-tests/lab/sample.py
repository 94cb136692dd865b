"""The sample system: what the scenarios install."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lab import cache, process

SOURCE = Path(__file__).resolve().parents[1] / "sample-system"


def tarball(variant: Literal["default", "storage", "network"] = "default") -> Path:
    """system.tar.zst, built once for each state of vm-tests/sample-system. Needs root.

    `storage` is the one that can live on arrays, LUKS, volume groups and several firmwares,
    `network` has systemd-networkd, bonds and VLANs.
    """

    def build(output: Path) -> None:
        argv = [str(SOURCE / "build"), "--output", str(output), "--variant", variant]
        process.run([*argv, "--cache", str(cache.folder("sample-packages"))], 1200)

    name = "sample" if variant == "default" else f"sample-{variant}"
    return cache.build(name, [SOURCE, variant], build) / "system.tar.zst"


def unpacked(root: Path) -> Path:
    """The sample system's tree, in a new folder. Needs root."""
    root.mkdir(mode=0o755)
    process.run(["tar", "-xpf", str(tarball()), "-C", str(root)])
    return root
