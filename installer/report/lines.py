"""Lines of text for people: safe to show on any terminal, wrapped, in frames and tables."""

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

WIDTH = 79
"""An 80-column terminal wraps after the 80th character, so a line of 80 leaves an empty one."""

Style = Literal["", "title", "danger", "warning", "good", "dim"]

RICH_STYLES: dict[Style, str] = {
    "": "",
    "title": "bold",
    "danger": "bold red",
    "warning": "yellow",
    "good": "bold green",
    "dim": "dim",
}

_ASCII = str.maketrans(
    {
        "…": "...",
        "–": "-",
        "—": "-",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "•": "*",
        "×": "x",
        "µ": "u",
        "→": "->",
        "✓": "*",
    }
)


@dataclass(frozen=True)
class Line:
    """A line without its end; `style` says what it means, and is lost where there is no colour."""

    text: str = ""
    style: Style = ""


def neutral(text: str) -> str:
    """Return foreign text without what could command a terminal or deceive its reader.

    Control characters (C0, C1, DEL: ECMA-48), the invisible ones of Unicode (bidirectional
    overrides, tags, private use), line separators and lone surrogates become escapes such as
    `\\x1b`; a tab becomes a space. Split into lines first: a line feed is escaped as well.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_neutral_character(character) for character in text)


def _neutral_character(character: str) -> str:
    if character == "\t" or unicodedata.category(character) == "Zs":
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def ascii_only(text: str) -> str:
    """Return text that a serial console of any age shows: accents go, the rest is escaped."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return plain.encode("ascii", "backslashreplace").decode("ascii")


def paragraphs(text: str) -> list[str]:
    """Split foreign text into lines, neutralised, without empty ones at the end."""
    return [neutral(line.rstrip("\r")) for line in text.rstrip().split("\n")]


def wrap(text: str, *, first: str = "", rest: str | None = None, width: int = WIDTH) -> list[str]:
    """Wrap text to `width` columns; `first` and `rest` precede the first and the other lines.

    The result is neutral ASCII, so that its width is known wherever it is shown. Line breaks and
    the indentation after them are kept; a word longer than a line (a URL) is broken.
    """
    if rest is None:
        rest = " " * len(first)
    lines: list[str] = []
    for paragraph in map(ascii_only, paragraphs(text)):
        inner = " " * min(len(paragraph) - len(paragraph.lstrip()), 16)
        lead = rest if lines else first
        lines += textwrap.wrap(
            paragraph.lstrip(),
            width,
            initial_indent=lead + inner,
            subsequent_indent=rest + inner,
            break_on_hyphens=False,
        ) or [lead.rstrip()]
    return lines


def labelled(rows: Iterable[tuple[str, str]], *, indent: str = "", width: int = WIDTH) -> list[str]:
    """Return `label  value` lines, the values in one column and wrapped; no value, no line."""
    shown = [(label, value) for label, value in rows if value]
    column = max((len(label) for label, _ in shown), default=0)
    lines: list[str] = []
    for label, value in shown:
        lines += wrap(value, first=f"{indent}{label:<{column}}  ", width=width)
    return lines


def table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return rows of ASCII with aligned columns, two spaces between; `right` are flushed right."""
    cells = [[ascii_only(neutral(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    flush = set(right)
    return [
        "  ".join(
            f"{cell:>{width}}" if index in flush else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def framed(
    title: str, body: Iterable[str], style: Style, *, corner: str = "+", bar: str = "-"
) -> list[Line]:
    """Put lines of ASCII, at most `WIDTH - 4` columns, into a frame with a title."""
    side = "|" if corner == "+" else corner
    head = f"{corner}{bar * 2} {title} "
    return [
        Line(head + bar * (WIDTH - 1 - len(head)) + corner, style),
        *(Line(f"{side} {line:<{WIDTH - 4}} {side}", style) for line in body),
        Line(corner + bar * (WIDTH - 2) + corner, style),
    ]


def as_text(lines: Iterable[Line]) -> str:
    """Return the lines as one text, with a line end after each."""
    return "".join(f"{line.text}\n" for line in lines)


def show(lines: Iterable[Line], stream: TextIO) -> None:
    """Print lines: in colour on a terminal, and otherwise as they are."""
    if not stream.isatty():
        ascii_stream = (stream.encoding or "ascii").lower() not in ("utf-8", "utf8")
        stream.write(ascii_only(as_text(lines)) if ascii_stream else as_text(lines))
        stream.flush()
        return
    # rich takes a second to import on a slow machine, and most callers do not need it
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line.text, style=RICH_STYLES[line.style]))
