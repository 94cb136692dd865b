"""`netinstall` as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "installer"]
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
}
_SECONDS = 60


def without_root(*places: Path) -> list[str]:
    """Return what to put before a command so that it has no power over the machine.

    Args:
        places: what the command must be able to read.
    """
    if os.geteuid() != 0:
        return []
    everything = (ROOT, Path(sys.prefix), *places)
    if all(folder.stat().st_mode & 0o005 == 0o005 for one in everything for folder in _above(one)):
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # a checkout that only root can read
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def _above(path: Path) -> list[Path]:
    return [folder for folder in (path, *path.parents) if folder.is_dir()]


def netinstall(
    *arguments: str | Path, cwd: Path = Path("/"), before: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end, without root."""
    return subprocess.run(
        [*(without_root(cwd) if before is None else before), *COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
