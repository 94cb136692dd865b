"""UUIDs that a plan chooses, so that nothing has to be read back later."""

import hashlib
from uuid import UUID


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
