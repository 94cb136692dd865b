"""Marks that need more than a plain user say why they skip; in CI nothing may skip."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# how long an example takes says something about the machine's other work only
settings.register_profile("netinstall", deadline=None)
settings.load_profile("netinstall")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `root` or `loop` for other users, with the reason."""
    for mark in ("root", "loop"):
        if item.get_closest_marker(mark) is not None and os.geteuid() != 0:
            reason = f"needs root ({mark}): run `sudo make test`"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)


_CLONE_NEWNS = 0x00020000  # linux/sched.h


@pytest.fixture(scope="session", autouse=True)
def _mounts_of_its_own() -> None:
    """Let no worker see what another one mounts.

    `ip netns exec` gives its program a copy of all mounts: a daemon that one worker starts would
    keep the file system of another one's loop device in use after it was unmounted.
    """
    if os.geteuid() != 0:
        return
    # os.unshare exists from Python 3.12 on
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare of mounts")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@pytest.fixture
def loop_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A loop device of its own over a sparse file: 2 GiB, 512-byte sectors unless `param` says."""
    size, sector = getattr(request, "param", (2 * 1024**3, 512))
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(size)
    node = subprocess.run(
        ["losetup", "--find", "--show", f"--sector-size={sector}", str(image)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        yield Path(node)
    finally:
        # partitions outlive what they lie on, and the next test would find them on its disk
        subprocess.run(["partx", "--delete", node], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["losetup", "--detach", node], check=True)
