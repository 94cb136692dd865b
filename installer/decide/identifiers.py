"""UUIDs that a plan chooses, so that nothing has to be read back later."""

import hashlib
import re
from typing import Literal
from uuid import UUID

_MARK = "6e657469-6e73-"
"""`netins` in ASCII: the GUID of a disk whose table netinstall wrote begins so.

The rest is as random as any. RFC 9562, 5.8: version 8 leaves the bits to whoever makes the UUID.
"""

_STATES = {"begun": "8000", "complete": "8001"}

State = Literal["begun", "complete"]


def chosen_uuid(entropy: str, purpose: str) -> str:
    """Return the UUID for one purpose of one plan: the same for the same arguments.

    It has the form of a random UUID (RFC 9562, version 4), since to everybody else it is one.
    """
    digest = hashlib.sha256(f"netinstall\0{entropy}\0{purpose}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=4))


def chosen_volume_id(entropy: str, purpose: str) -> str:
    """Return a FAT volume id as Linux writes it: `1A2B-3C4D` (32 bits)."""
    digits = chosen_uuid(entropy, purpose).replace("-", "")[:8].upper()
    return f"{digits[:4]}-{digits[4:]}"


def chosen_disk_id(entropy: str, disk: str, state: State = "begun") -> str:
    """Return the GUID for a disk's GPT, by which a later run knows whose it is."""
    tail = chosen_uuid(entropy, f"disk {disk}")[19:]
    return f"{_MARK}{_STATES[state]}-{tail}"


def installed_by_us(disk_id: str | None) -> State | None:
    """Tell from a GPT's GUID whether netinstall wrote it, and whether it got to its end."""
    for state, digits in _STATES.items():
        if re.fullmatch(rf"{_MARK}{digits}-.*", (disk_id or "").lower()):
            return "begun" if state == "begun" else "complete"
    return None
