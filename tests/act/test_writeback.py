"""The kernel's settings for writing: changed for a while, and put back.

The folder stands in for /proc/sys/vm: those settings are the whole machine's, and other tests run
beside this one.
"""

from pathlib import Path

import pytest

from installer.act.writeback import BACKGROUND, early_writeback


def _settings(folder: Path, value: str, ratio: str) -> Path:
    (folder / "dirty_background_bytes").write_text(value)
    (folder / "dirty_background_ratio").write_text(ratio)
    return folder


def _value(settings: Path, name: str = "bytes") -> str:
    return (settings / f"dirty_background_{name}").read_text()


def test_writing_begins_early_and_the_ratio_is_put_back(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "0\n", "10\n")
    with early_writeback(settings):
        assert _value(settings) == str(BACKGROUND)
        # what the kernel does when one of the two is written
        (settings / "dirty_background_ratio").write_text("0\n")
    assert _value(settings, "ratio") == "10\n"


def test_bytes_that_somebody_set_are_put_back_after_a_failure(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "1048576\n", "0\n")
    with pytest.raises(ValueError, match="stopped"), early_writeback(settings):
        raise ValueError("stopped")
    assert _value(settings) == "1048576\n"
    assert _value(settings, "ratio") == "0\n"


def test_two_at_once_do_not_put_back_each_other_s(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "0\n", "10\n")
    with early_writeback(settings), early_writeback(settings):
        pass
    assert _value(settings, "ratio") == "10\n"


def test_it_works_where_nothing_can_be_set(tmp_path: Path) -> None:
    with early_writeback(tmp_path / "missing"):
        pass
    assert list(tmp_path.iterdir()) == []
