"""Sizes and times: how people write them, how we print them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

MIB = 1024**2
GIB = 1024**3

_UNITS = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_ABSOLUTE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%")


@dataclass(frozen=True)
class Absolute:
    """So many bytes."""

    bytes: int


@dataclass(frozen=True)
class Percent:
    """A share of the disk's usable space, in percent (0 < value <= 100)."""

    value: float


@dataclass(frozen=True)
class Rest:
    """Whatever the other partitions of the disk leave."""


Size = Absolute | Percent | Rest


def parse_bytes(text: str) -> int:
    """Read an absolute size such as `512 MiB` or `2TB`; return bytes.

    IEC prefixes (MiB) are powers of 1024, SI prefixes (MB) powers of 1000, as IEC 80000-13 has it.

    Raises:
        ValueError: not a size.
    """
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write for example 512 MiB or 2 TB")
    return (
        int(float(match[1]) * _UNITS[match[2]])
        if "." in match[1]
        else int(match[1]) * _UNITS[match[2]]
    )


def parse_size(text: str) -> Size:
    """Read a partition size: absolute (`512 MiB`), a share (`25 %`) or `rest`.

    Raises:
        ValueError: none of these.
    """
    if text == "rest":
        return Rest()
    if match := _PERCENT.fullmatch(text):
        value = float(match[1])
        if not 0 < value <= 100:
            raise ValueError(f"{text!r} is not a share between 0 % and 100 %")
        return Percent(value)
    try:
        return Absolute(parse_bytes(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is not a size; write for example 512 MiB, 25 % or rest"
        ) from None


def format_bytes(count: float) -> str:
    """Print a number of bytes with an IEC prefix and three significant digits: `1.46 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{count:.0f} B"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def format_seconds(seconds: float) -> str:
    """Print a duration as a person says it: `0.4 s`, `38 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_moment(when: datetime) -> str:
    """Print a moment in UTC, to the second; one without a zone is taken as UTC already."""
    if when.tzinfo is not None:
        try:
            when = when.astimezone(UTC)
        except OverflowError:
            # the first or last hours that there are: a clock that nobody set
            when = when.replace(tzinfo=UTC)
    return when.replace(tzinfo=None).isoformat(" ", "seconds") + " UTC"
