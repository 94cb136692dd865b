"""The boot environment, as `netinstall image build` makes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab import cache, process

REPOSITORY = Path(__file__).resolve().parents[2]


def folder(initrd: str = "initramfs-tools", *, nix: bool = False) -> Path:
    """vmlinuz, initrd, root.squashfs, image.json and root/ (for NFS). Needs root.

    Built once for each state of the agent and of the hooks, for each program that makes the
    initrd, and with and without Nix.
    """

    # for the edit loop: an image that was made otherwise
    variable = "NETINSTALL_IMAGE" + ("_DRACUT" if initrd == "dracut" else "_NIX" if nix else "")
    if given := os.environ.get(variable):
        return Path(given)

    def build(output: Path) -> None:
        netinstall = ["env", "-C", str(REPOSITORY), sys.executable, "-m", "installer"]
        options = ["--kernel", "linux-image-cloud-amd64", "--format", "squashfs", "nfs"]
        options += ["--initrd", initrd, *(["--nix"] if nix else [])]
        process.run([*netinstall, "image", "build", "--output", str(output), *options], 1800)

    inputs = ["installer", "initrd-hooks", "pyproject.toml"]
    kinds = [initrd] if initrd != "initramfs-tools" else []
    name = "-".join(["image", *kinds, *(["nix"] if nix else [])])
    return cache.build(name, [initrd, *(REPOSITORY / one for one in inputs)], build)
