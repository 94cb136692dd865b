"""A packed payload and the key that signs it."""

from __future__ import annotations

import base64
from pathlib import Path

from nacl.signing import SigningKey

from installer.model.manifest import Manifest
from installer.pack.payload import Wishes, pack
from installer.pack.sign import SecretKey

SECRET = SecretKey(b"netinst1", bytes(range(32)))
PUBLIC = base64.b64encode(
    b"Ed" + SECRET.number + SigningKey(SECRET.seed).verify_key.encode()
).decode()


def packed(source: Path, folder: Path) -> Manifest:
    """Pack a tree or a tarball into a folder as sample.tar.zst and sample.json, signed."""
    wishes = Wishes(str(source), folder, name="sample", key=SECRET, level=3)
    return pack(wishes, lambda _text: None, lambda _done, _total: None)
