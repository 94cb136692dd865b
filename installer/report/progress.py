"""How far a long step is, as one line, and when such a line is due."""

import math
from dataclasses import dataclass

from installer.model.events import StepProgress
from installer.model.units import format_bytes

_BAR = 20
_SHORT_BAR = 8


@dataclass
class Pace:
    """Decides which of many progress events become a line: at each tenth, but not more often
    than each `least` seconds; otherwise each `most` seconds, as a sign of life. The end of a step
    that had a line has one too. Goes by the uptime in the events."""

    least: float = 2.0
    most: float = 10.0
    _last: float = 0.0
    _tenth: int = 0
    _told: bool = False

    def begin(self, uptime: float) -> None:
        """Start a step."""
        self._last, self._tenth, self._told = uptime, 0, False

    def due(self, event: StepProgress) -> bool:
        """Say whether this event becomes a line."""
        tenth = 10 * event.done // event.total if event.total else 0
        waited = event.uptime - self._last
        at_end = self._told and event.done == event.total and tenth > self._tenth
        if not at_end and (waited < self.least or (tenth <= self._tenth and waited < self.most)):
            return False
        self._last, self._tenth, self._told = event.uptime, tenth, True
        return True


def progress_text(event: StepProgress) -> str:
    """Return `[####----]  45 %  21.6 of 48.0 MiB  12.1 MiB/s  2 s left`, 71 columns at most.

    Where the slowest part of a pipeline is known, it stands at the end, and the bar is shorter.
    """
    rate = f"{format_bytes(event.rate)}/s"
    if not event.total:
        return f"{format_bytes(event.done)}  {rate}"
    share = min(event.done / event.total, 1.0)
    bar = _BAR if event.bottleneck is None else _SHORT_BAR
    filled = int(share * bar)
    words = [
        f"[{'#' * filled}{'-' * (bar - filled)}] {int(share * 100):3d} %",
        amount_text(event.done, event.total),
        rate,
    ]
    if event.seconds_left is not None and event.done < event.total:
        words.append(f"{left_text(event.seconds_left)} left")
    if event.bottleneck is not None:
        words.append(event.bottleneck)
    return "  ".join(words)


def amount_text(done: int, total: int) -> str:
    """Return `21.6 of 48.0 MiB`: both in the unit and with the digits of the total."""
    whole = format_bytes(total)
    number, unit = whole.split(" ")
    size = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    digits = len(number.partition(".")[2])
    return f"{done / size:.{digits}f} of {whole}"


def left_text(seconds: float) -> str:
    """Return `38 s`, `12 min` or `25 h`: an estimate deserves two digits."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds / size < 99:
            return f"{math.ceil(seconds / size)} {unit}"
    return "days"
