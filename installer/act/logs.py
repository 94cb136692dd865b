"""The log goes with the machine: it is copied onto the installed system."""

import os
from pathlib import Path

from installer.act.target import Target


def keep_logs(source: Path, target: Target, folder: str) -> None:
    """Copy the log files into a folder of the target, readable by root only.

    Raises:
        InstallError: `payload.hostile` when a link of the payload leads out of the folder.
        OSError: there is no room for them.
    """
    target.confined(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    for log in sorted(source.glob("log.*")):
        kept = target.confined(f"{folder}/{log.name}")
        kept.unlink(missing_ok=True)
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with log.open("rb") as read, os.fdopen(descriptor, "wb") as written:
            while piece := read.read(1 << 20):
                written.write(piece)
