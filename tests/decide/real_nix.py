"""Nix itself, as the judge of what we write for it."""

import json
import subprocess
from typing import Any


def evaluated(expression: str) -> Any:
    """Return the value of an expression. Its store is none, so no user needs rights to one."""
    done = subprocess.run(
        ["nix-instantiate", "--store", "dummy://", "--eval", "--strict", "--json", "-"],
        input=expression,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)
