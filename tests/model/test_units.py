"""Sizes as people write and read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.model.units import (
    Absolute,
    Percent,
    Rest,
    format_bytes,
    format_moment,
    format_seconds,
    parse_bytes,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512 MiB", Absolute(512 * 1024**2)),
        ("512MiB", Absolute(512 * 1024**2)),
        ("1.5 GB", Absolute(1_500_000_000)),
        ("2 TB", Absolute(2 * 10**12)),
        ("7 B", Absolute(7)),
        ("25 %", Percent(25)),
        ("12.5%", Percent(12.5)),
        ("rest", Rest()),
    ],
)
def test_sizes(text: str, size: object) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "512", "512 mib", "-1 MiB", "1e3 MiB", "0 %", "101 %", "rest\n", "١ MiB", "1 MiB\n"],
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"512 MiB|share"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_bytes_round_trip(count: int) -> None:
    assert parse_bytes(f"{count} B") == count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.50 KiB"), (10 * 1024**3, "10.0 GiB"),
     (256 * 1024**3, "256 GiB"), (4096 * 1024**4, "4096 TiB")],
)  # fmt: skip
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (38.2, "38 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (datetime(2026, 11, 21, 13, 5, 7, 999, tzinfo=UTC), "2026-11-21 13:05:07 UTC"),
        (datetime(2026, 11, 21, 13, 5, tzinfo=timezone(timedelta(hours=2))),
         "2026-11-21 11:05:00 UTC"),
        (datetime(2026, 11, 21, 13, 5), "2026-11-21 13:05:00 UTC"),  # noqa: DTZ001
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "0001-01-01 00:00:00 UTC"),
    ],
)  # fmt: skip
def test_format_moment(when: datetime, text: str) -> None:
    assert format_moment(when) == text
