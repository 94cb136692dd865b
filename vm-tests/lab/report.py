"""What the installed sample system says about itself on its console."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from lab.console import Console

BEGIN = "NETINSTALL-SAMPLE-BEGIN"
END = "NETINSTALL-SAMPLE-END"

# A kernel message can stand between the lines, even when it was told to be quiet.
_KERNEL_LINE = re.compile(r"^\[ *\d+\.\d{6}\] .*\n", re.MULTILINE)


def wait(console: Console, deadline_s: float, fail_on: Sequence[str] = ()) -> dict[str, Any]:
    """The report of a system that is booting. Raises ConsoleError, and ValueError for bad JSON."""
    found = console.expect(rf"(?s){BEGIN}\n(.*?){END}", deadline_s, fail_on)
    return parse(found[1])


def parse(text: str) -> dict[str, Any]:
    """The JSON object between the two marks. Raises ValueError, which shows the text."""
    plain = _KERNEL_LINE.sub("", text)
    try:
        found = json.loads(plain)
    except ValueError as error:
        raise ValueError(f"the sample system's report is no JSON ({error}):\n{plain}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the sample system's report is no object:\n{plain}")  # noqa: TRY004
    return found
