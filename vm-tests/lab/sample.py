"""The sample system: what the scenarios install."""

from __future__ import annotations

from pathlib import Path

from lab import cache, process

SOURCE = Path(__file__).resolve().parents[1] / "sample-system"


def tarball() -> Path:
    """system.tar.zst, built once for each state of vm-tests/sample-system. Needs root."""

    def build(output: Path) -> None:
        argv = [str(SOURCE / "build"), "--output", str(output)]
        process.run([*argv, "--cache", str(cache.folder("sample-packages"))], 1200)

    return cache.build("sample", [SOURCE], build) / "system.tar.zst"
