"""A chart of what unpack.py saved: `python benchmarks/chart.py RUNS.json CHART.svg`."""

import html
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from unpack import WAYS

_LEFT, _WIDTH, _ROW, _TOP = 330, 420, 26, 34
_OURS, _OTHER, _BOUND = "#2f6f4f", "#8a8f98", "#c9ccd1"


def draw(rows: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Make an SVG of bars: label, colour, seconds; a bar is the median, its line least to most."""
    longest = max(max(values) for _, _, values in rows)
    height = _TOP + _ROW * len(rows) + 14
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 80}" '
            f'height="{height}" font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" fill="#333">seconds, median; the line is least to most</text>',
    ]
    for number, (label, colour, values) in enumerate(rows):
        top = _TOP + _ROW * number
        low, middle, high = (
            value / longest * _WIDTH
            for value in (min(values), statistics.median(values), max(values))
        )
        centre = top + 9
        parts += [
            (
                f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end" fill="#222">'
                f"{html.escape(label)}</text>"
            ),
            f'<rect x="{_LEFT}" y="{top}" width="{middle:.1f}" height="18" fill="{colour}"/>',
            (
                f'<line x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" y1="{centre}" y2="{centre}" '
                'stroke="#222"/>'
            ),
            (
                f'<text x="{_LEFT + high + 6:.1f}" y="{top + 14}" fill="#222">'
                f"{statistics.median(values):.1f}</text>"
            ),
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Draw it."""
    pairs = json.loads(Path(sys.argv[1]).read_text())["pairs"]
    mine = [ours["seconds"] for each in pairs.values() for ours, _ in each]
    rows = [("ours", _OURS, mine)]
    for way in WAYS:
        if pairs.get(way.name):
            label = way.label.replace("`", "").replace("\\", "")
            colour = _BOUND if way.bound else _OTHER
            rows.append((label, colour, [other["seconds"] for _, other in pairs[way.name]]))
    Path(sys.argv[2]).write_text(draw(rows))


if __name__ == "__main__":
    main()
