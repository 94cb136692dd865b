"""What a test needs from the host, and whether it may be skipped without."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_TOOLS = {
    "vm": ("qemu-system-x86_64", "setpriv", "cpio", "modprobe", "ip", "dnsmasq", "ganesha.nfsd"),
    "loop": ("losetup", "mount"),
}


def missing(marker: str) -> str | None:
    """Why a test with this marker cannot run here; None if it can."""
    tools = [tool for tool in _TOOLS.get(marker, ()) if not shutil.which(tool)]
    if tools:
        return f"needs {', '.join(tools)}: install what debian-packages.txt lists"
    if marker in ("root", "loop") and os.geteuid() != 0:
        return "needs root"
    if marker == "loop" and not Path("/dev/loop-control").exists():
        return "needs loop devices (/dev/loop-control)"
    return None


def skip_if_missing(item: pytest.Item) -> None:
    """For pytest_runtest_setup: skip a test that cannot run here, and say why."""
    for marker in item.iter_markers():
        if reason := missing(marker.name):
            pytest.skip(reason)


def forbid_skip(report: pytest.TestReport) -> None:
    """For pytest_runtest_makereport: where CI=true or NETINSTALL_NO_SKIP=1, a skip is a failure.

    A green run there means that all of it ran.
    """
    forbidden = os.environ.get("CI") == "true" or os.environ.get("NETINSTALL_NO_SKIP") == "1"
    if forbidden and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI=true and NETINSTALL_NO_SKIP=1 allow no skips. {reason}"
