"""The log goes with the machine: it is copied onto the installed system."""

import shutil
from pathlib import Path


def keep_logs(source: Path, folder: Path) -> None:
    """Copy the log files into a folder of the target, readable by root only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for log in sorted(source.glob("log.*")):
        shutil.copyfile(log, folder / log.name)
        (folder / log.name).chmod(0o600)
