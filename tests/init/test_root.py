"""A read-only root becomes writable: real mounts in namespaces, the host's files as lower layer."""

import subprocess
import sys
from pathlib import Path

import pytest

STACKED = Path(__file__).with_name("stacked.py")


def _stack(folder: Path, kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *("unshare", "--pid", "--mount", "--fork", "--kill-child"),
            *(sys.executable, str(STACKED), str(folder), kind),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "name", "mounted"),
    [("overlay", "overlayfs", "overlay overlay"), ("union", "unionfs-fuse", "fuse.unionfs")],
)
def test_a_read_only_root_becomes_writable(
    tmp_path: Path, kind: str, name: str, mounted: str
) -> None:
    hostname = Path("/etc/hostname").read_text()
    result = _stack(tmp_path, kind)
    assert result.returncode == 0, result.stdout + result.stderr
    said, root, handed_over, lower, null, again = result.stdout.splitlines()
    assert said == f"the root is read-only, {name} makes it writable in memory"
    assert root.startswith(f"root: {mounted}")
    assert handed_over == "handed over: dev proc run sys"
    assert lower == "lower: True"
    assert null == "null: True"
    assert again == "again: the root is writable"
    assert not Path("/written").exists()
    assert Path("/etc/hostname").read_text() == hostname


@pytest.mark.root
def test_a_root_that_cannot_be_made_writable_is_an_error(tmp_path: Path) -> None:
    result = _stack(tmp_path, "neither")
    assert result.returncode == 1, result.stderr
    assert result.stdout == (
        "error[root.not-writable]: the root file system could not be made writable: "
        "unionfs-fuse: unionfs-fuse: No such file or directory\n"
        "  where: /\n"
        "  try:   a kernel that has overlay or fuse, and more memory\n"
    )
