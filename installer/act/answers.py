"""Reads the answer file, mounting the NFS share on which it lies if need be."""

from collections.abc import Callable
from pathlib import Path

from installer.act.run import Runner
from installer.model.facts import Facts
from installer.observe import answers

_MOUNT_POINT = Path("/run/netinstall/answers")


def fetch(
    location: str, facts: Facts, runner: Runner, on_retry: Callable[[str], None]
) -> tuple[str, str]:
    """Return the text of the answer file for this machine, and its name for errors.

    Raises:
        InstallError: `answers.not-found`, `arguments`, `network.unreachable`, or mount's error.
    """
    share = answers.nfs_location(location, facts)
    if share is None:
        return answers.find(location, facts, on_retry)
    _MOUNT_POINT.mkdir(parents=True, exist_ok=True)
    runner.run(
        # nolock: rpc.statd does not run here, and nothing is written
        [
            "mount",
            "-t",
            "nfs",
            "-o",
            "ro,nolock",
            f"{share.server}:{share.folder}",
            str(_MOUNT_POINT),
        ],
        timeout=120,
        purpose=f"mounting {share.server}:{share.folder} for the answer file",
    )
    try:
        return answers.find(f"{_MOUNT_POINT}/{share.name}", facts, on_retry)
    finally:
        runner.run(["umount", "--lazy", str(_MOUNT_POINT)], timeout=60)
