"""Draws the picture in the README from the output of `make demo`.

make demo | tee demo.log
PYTHONPATH=vm-tests .venv/bin/python -m lab.picture demo.log docs/demo.svg
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

_WIDTH = 84

# From a line that matches the first to the one that matches the second, both included.
_PARTS = (
    (r"^2\. ", r"serial console:"),
    (r"boot\.ipxe : ", r"image/initrd\.\.\. ok"),
    (r"netinstall: fetching", r"netinstall: fetching"),
    (r"netinstall \S+: unattended", r"because serial is somebody-elses"),
    (r"\[ 1/", r"done in"),
    (r"\] unpack http", r"done in"),
    (r"\] install the boot loader", r"done in"),
    (r"INSTALLED in", r"INSTALLED in"),
    (r"^3\. ", r"^3\. "),
    (r"starting Boot\d+", r"starting Boot\d+"),
    (r"^4\. ", r"together"),
)
_STYLES = (
    (r"^[1-4]\. .*$", "bold cyan"),
    (r"^  │ !.*$", "red"),
    (r"\[#+-*\]", "green"),
    (r"\+== INSTALLED.*$", "bold green"),
    (r"^  │(?= )", "dim"),
)


def excerpt(log: str) -> list[str]:
    """The lines that matter, in order, with `...` where others were left out."""
    lines = [line.rstrip() for line in log.splitlines() if not line.startswith("cache:")]
    shown: list[str] = []
    position = 0
    for begin, end in _PARTS:
        first = _find(lines, begin, position)
        last = _find(lines, end, first)
        if shown and first > position:
            shown.append("" if lines[first][:1].isdigit() else "  │ ...")
        shown += lines[first : last + 1]
        position = last + 1
    return shown


def _find(lines: list[str], pattern: str, start: int) -> int:
    for index in range(start, len(lines)):
        if re.search(pattern, lines[index]):
            return index
    raise SystemExit(f"no line matches {pattern!r} after line {start}: is this a whole run?")


def main() -> None:
    """Draw."""
    source, target = map(Path, sys.argv[1:])
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, file=nowhere, width=_WIDTH, force_terminal=True)
        for line in excerpt(source.read_text(errors="replace")):
            text = Text(line)
            for pattern, style in _STYLES:
                text.highlight_regex(pattern, style)
            console.print(text, no_wrap=True, overflow="crop")
        console.save_svg(str(target), title="make demo", theme=DIMMED_MONOKAI)


if __name__ == "__main__":
    main()
