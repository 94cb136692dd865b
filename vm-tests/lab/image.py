"""The boot environment, as `netinstall image build` makes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab import cache, process

REPOSITORY = Path(__file__).resolve().parents[2]


def folder(initrd: str = "initramfs-tools") -> Path:
    """vmlinuz, initrd, root.squashfs, image.json and root/ (for NFS). Needs root.

    Built once for each state of the agent and of the hooks, and for each program that makes the
    initrd.
    """

    # for the edit loop: an image that was made otherwise
    variable = "NETINSTALL_IMAGE" + ("_DRACUT" if initrd == "dracut" else "")
    if given := os.environ.get(variable):
        return Path(given)

    def build(output: Path) -> None:
        netinstall = ["env", "-C", str(REPOSITORY), sys.executable, "-m", "installer"]
        options = ["--kernel", "linux-image-cloud-amd64", "--format", "squashfs", "nfs"]
        options += ["--initrd", initrd]
        process.run([*netinstall, "image", "build", "--output", str(output), *options], 1800)

    inputs = ["installer", "initrd-hooks", "pyproject.toml"]
    name = "image" if initrd == "initramfs-tools" else f"image-{initrd}"
    return cache.build(name, [initrd, *(REPOSITORY / one for one in inputs)], build)
