"""Reads the answer file, mounting the NFS share on which it lies if need be."""

import socket
from collections.abc import Callable
from pathlib import Path

from installer.act.run import Runner
from installer.model.errors import InstallError, fail
from installer.model.facts import Facts
from installer.observe import answers
from installer.observe.answers import NfsLocation

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
    _mount(share, runner)
    try:
        return answers.find(f"{_MOUNT_POINT}/{share.name}", facts, on_retry)
    finally:
        runner.run(["umount", "--lazy", str(_MOUNT_POINT)], timeout=60)


def _mount(share: NfsLocation, runner: Runner) -> None:
    """Mount a share read-only, with the newest version of NFS that its server speaks.

    Without mount.nfs, which the boot environment has not, the kernel itself has to be told the
    address (nfs(5), "addr"), and tries no other version.
    """
    try:
        address = socket.getaddrinfo(share.server, None, socket.AF_INET)[0][4][0]
    except OSError as error:
        raise fail(
            "network.unreachable",
            f"{share.server} has no address: {error.strerror}",
            where="the answer file",
            hint="check the name, and the name servers of this machine",
        ) from None
    problem: InstallError | None = None
    for version in ("4.2", "4.1", "4.0", "3"):
        # nolock: rpc.statd does not run here, and nothing is written
        options = f"ro,nolock,proto=tcp,vers={version},addr={address}"
        source = f"{share.server}:{share.folder}"
        try:
            runner.run(
                ["mount", "-i", "-t", "nfs", "-o", options, source, str(_MOUNT_POINT)],
                timeout=120,
                purpose=f"mounting {source} for the answer file",
            )
        except InstallError as error:
            problem = problem or error
            if error.problems[0].code != "command.failed":
                break
        else:
            return
    if problem is not None:
        raise problem
