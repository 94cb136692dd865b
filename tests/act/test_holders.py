"""Who is in the way: real processes that hold a real device or folder."""

import subprocess
from pathlib import Path

import pytest

from installer.act.holders import holders


def _holding(argv: list[str]) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_process_in_a_folder_or_with_an_open_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = _holding(["sh", "-c", 'cd "$1"; echo ready; read x', "sh", str(tmp_path)])
    reading = _holding(["sh", "-c", 'exec 9<"$1/file"; echo ready; read x', "sh", str(tmp_path)])
    try:
        assert set(holders(tmp_path)) == {f"sh (pid {inside.pid})", f"sh (pid {reading.pid})"}
    finally:
        inside.communicate()
        reading.communicate()
    assert holders(tmp_path) == []


@pytest.mark.loop
def test_a_process_with_an_open_device_is_named(loop_disk: Path) -> None:
    process = _holding(["sh", "-c", 'exec 9<"$1"; echo ready; read x', "sh", str(loop_disk)])
    try:
        assert holders(loop_disk) == [f"sh (pid {process.pid})"]
    finally:
        process.communicate()
