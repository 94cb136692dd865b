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
    """Return all Nix files that are kept in Git, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.nix"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # a file that was deleted is still listed until that is committed
    return [ROOT / name for name in sorted(set(listed.splitlines())) if (ROOT / name).exists()]


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
