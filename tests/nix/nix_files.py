"""The Nix files of this project, and what the checks of them share."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_LIB = ROOT / "vm-tests/sample-system/nixpkgs/lib"

# a whole nixpkgs, and a Nix that is new enough for it (Debian 12's is not)
NIXPKGS = os.environ.get("NETINSTALL_NIXPKGS")
NIX = os.environ.get("NETINSTALL_NIX_INSTANTIATE", "nix-instantiate")


def files() -> list[Path]:
    """Return all Nix files of the checkout, without those of virtual environments and the like.

    Not by Git: it refuses to look at somebody else's checkout, and `make test` runs as root.
    """
    return sorted(
        path
        for path in ROOT.rglob("*.nix")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


def instantiate(
    *arguments: str, store: str = "dummy://", program: str = NIX
) -> subprocess.CompletedProcess[str]:
    """Run nix-instantiate with a store of one's own: it needs nothing of /nix, nor of root."""
    return subprocess.run(
        [program, "--store", store, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "NIX_CONFIG": "build-users-group =",
        },
    )
