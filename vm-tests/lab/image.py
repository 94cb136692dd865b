"""The boot environment, as `netinstall image build` makes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab import cache, process

REPOSITORY = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """vmlinuz, initrd, root.squashfs, image.json and root/ (for NFS). Needs root.

    Built once for each state of the agent and of the hooks.
    """

    # for the edit loop: an image that was made otherwise
    if given := os.environ.get("NETINSTALL_IMAGE"):
        return Path(given)

    def build(output: Path) -> None:
        netinstall = ["env", "-C", str(REPOSITORY), sys.executable, "-m", "installer"]
        options = ["--kernel", "linux-image-cloud-amd64", "--format", "squashfs", "nfs"]
        process.run([*netinstall, "image", "build", "--output", str(output), *options], 1800)

    inputs = ["installer", "initrd-hooks", "pyproject.toml"]
    return cache.build("image", [REPOSITORY / name for name in inputs], build)
