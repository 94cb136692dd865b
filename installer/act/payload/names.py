"""Names that an archive made so far, and as what: a table of 8 bytes for each.

A dict takes ten times as much, and an archive of nothing but names is a megabyte that unpacks to
a million of them.
"""

from collections.abc import Sequence

LIMIT = 2_000_000
"""Names that are kept track of, in 32 MiB; a large NixOS has a few hundred thousand."""

_KEY = 2**62 - 1


class FullError(Exception):
    """There are more names than `LIMIT`."""


class Names:
    """Maps names to one of at most three kinds.

    What is kept of a name is 62 bits of its hash, which is keyed by a secret of this process
    (PEP 456): of two million names two are taken for one once in a million archives, and nobody
    can choose them.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._count = 0
        self._slots = memoryview(bytearray(8 * 4096)).cast("Q")

    def get(self, name: bytes) -> str | None:
        """Return as what a name was made, None if it was not."""
        found = self._slots[self._place(hash(name) & _KEY)]
        return self._kinds[(found & 3) - 1] if found else None

    def put(self, name: bytes, kind: str) -> None:
        """Note a name, or as what it was made last. Raises FullError."""
        key = hash(name) & _KEY
        place = self._place(key)
        if not self._slots[place]:
            if self._count == LIMIT:
                raise FullError
            self._count += 1
            if 2 * self._count > len(self._slots):
                self._grow()
                place = self._place(key)
        self._slots[place] = key << 2 | self._kinds.index(kind) + 1

    def _place(self, key: int) -> int:
        """Find where a key is, or else may be put (open addressing, linear probing)."""
        slots = self._slots
        mask = len(slots) - 1
        place = key & mask
        while (found := slots[place]) and found >> 2 != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before = self._slots
        self._slots = memoryview(bytearray(16 * len(before))).cast("Q")
        for found in before:
            if found:
                self._slots[self._place(found >> 2)] = found
