r"""minisign's signatures: which bytes are one, and whether it is right.

Format: <https://jedisct1.github.io/minisign/#signature-format>; minisign(1). Only prehashed
signatures ("ED", BLAKE2b-512 of the message) are taken, which minisign makes since 0.10.

A signature has one way to be written here, so that no byte of it can change: minisign itself does
not look at the untrusted comment and at what base64 leaves unused. libsodium, by minisign's own
author, does the mathematics (PyNaCl).
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from installer.model.errors import InstallError, fail

KEY_LIMIT = SIGNATURE_LIMIT = 16 * 1024
"""Bytes of a key's or a signature's file; minisign's comments have at most 8 KiB."""

UNTRUSTED = b"untrusted comment: signature from minisign secret key"
TRUSTED = b"trusted comment: "

_PREHASHED = b"ED"
_ED25519 = b"Ed"
_COMMENT = re.compile(rb"[\t -~\x80-\xff]*")


@dataclass(frozen=True)
class PublicKey:
    """`number` is the key's own, 8 random bytes; `key` is Ed25519's (RFC 8032, 5.1.5)."""

    number: bytes
    key: bytes

    @property
    def shown(self) -> str:
        """The number as minisign prints it."""
        return f"{int.from_bytes(self.number, 'little'):016X}"


def parse_public_key(text: bytes, where: str) -> PublicKey:
    """Read a public key: minisign.pub, or its second line alone.

    Raises:
        InstallError: `payload.key`.
    """
    lines = text.removesuffix(b"\n").split(b"\n")
    comment = lines[0].startswith(b"untrusted comment: ")
    data = decoded(lines[-1], 42) if len(lines) == (2 if comment else 1) else None
    if data is None or not data.startswith(_ED25519):
        secret = b"secret key" in lines[0]
        raise fail(
            "payload.key",
            f"{where} is no public key of minisign" + (", but a secret one" if secret else ""),
            where=where,
            hint="give minisign.pub, or the line in it that begins with RW",
        )
    return PublicKey(data[2:10], data[10:])


def verify(message: bytes, signature: bytes, key: PublicKey, where: str) -> str:
    """Check a detached signature; return its trusted comment.

    Args:
        message: the signed file.
        signature: the signature's file.
        key: whose signature it must be.
        where: what to call the signature's file.

    Raises:
        InstallError: `payload.signature`.
    """
    # libsodium's binding is needed by nobody else, and start-up under emulation costs seconds
    from nacl.exceptions import BadSignatureError  # noqa: PLC0415
    from nacl.signing import VerifyKey  # noqa: PLC0415

    lines = signature.split(b"\n")
    if len(signature) > SIGNATURE_LIMIT or len(lines) != 5 or lines[4]:
        raise _refused("is not the four lines that minisign writes", where)
    if lines[0] != UNTRUSTED:
        raise _refused(
            "has another untrusted comment than minisign's own",
            where,
            hint="sign without -c: what nobody vouches for is not taken",
        )
    data = decoded(lines[1], 74)
    whole = decoded(lines[3], 64)
    if data is None or whole is None or not lines[2].startswith(TRUSTED):
        raise _refused("is damaged", where)
    comment = lines[2].removeprefix(TRUSTED)
    if not _COMMENT.fullmatch(comment):
        raise _refused("has control characters in its comment", where)
    if data[:2] != _PREHASHED:
        raise _refused(
            "is of the old kind without hashing", where, hint="sign with minisign 0.10 or newer"
        )
    if data[2:10] != key.number:
        other = PublicKey(data[2:10], b"")
        raise _refused(f"was made with the key {other.shown}, trusted is {key.shown}", where)
    try:
        VerifyKey(key.key).verify(hashlib.blake2b(message).digest(), data[10:])
    except BadSignatureError:
        raise _refused("is not right: manifest or signature were changed", where) from None
    try:
        VerifyKey(key.key).verify(data[10:] + comment, whole)
    except BadSignatureError:
        raise _refused("is not right: its trusted comment was changed", where) from None
    return comment.decode("utf-8", "backslashreplace")


def signed_with(signature: bytes) -> bytes | None:
    """Return the number of the key that a signature names; None if it is not readable so far.

    Nothing is verified by it: it says which key to verify with.
    """
    lines = signature[:SIGNATURE_LIMIT].split(b"\n")
    data = decoded(lines[1], 74) if len(lines) > 1 else None
    return None if data is None else data[2:10]


def decoded(line: bytes, size: int) -> bytes | None:
    """Decode base64 that is written as an encoder writes it; None if it is not, or not so long."""
    try:
        data = base64.b64decode(line, validate=True)
    except binascii.Error:
        return None
    return data if len(data) == size and base64.b64encode(data) == line else None


def _refused(what: str, where: str, *, hint: str = "") -> InstallError:
    return fail(
        "payload.signature",
        f"the signature {what}",
        where=where,
        hint=hint or "fetch manifest and signature again; if it stays, do not use this payload",
    )
