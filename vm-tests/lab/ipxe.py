"""Typing at the prompt of iPXE, on a serial console."""

from __future__ import annotations

import re

from lab.console import Console

_PROMPT = r"iPXE> ?$"
_CTRL_B, _ENTER = b"\x02", b"\r"


def prompt(console: Console) -> None:
    """Interrupt a ROM that is about to boot. Raises ConsoleError."""
    console.expect_prompt(r"Ctrl-B for the iPXE command line", 120)
    console.send(_CTRL_B)
    console.expect_prompt(_PROMPT, 60)


def command(console: Console, line: str) -> None:
    """Type a command, and wait until it is done. Raises ConsoleError."""
    type_line(console, line)
    console.expect_prompt(_PROMPT, 90)


def type_line(console: Console, line: str) -> None:
    """Type as slowly as iPXE reads: it looks at its serial port now and then."""
    for character in line:
        console.send(character.encode())
        console.expect_prompt(re.escape(character), 30)
    console.send(_ENTER)
