"""Signing with a secret key of minisign; what is verified by `installer.model.minisign`.

Format: <https://jedisct1.github.io/minisign/#secret-key-format>.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from nacl.bindings import crypto_sign_BYTES
from nacl.exceptions import CryptoError
from nacl.pwhash import scrypt
from nacl.signing import SigningKey

from installer.model.errors import InstallError, fail
from installer.model.minisign import TRUSTED, UNTRUSTED, decoded

_SIZE = 158
_PLAIN = b"\0\0"
_SCRYPT = b"Sc"


@dataclass(frozen=True)
class SecretKey:
    """`number` is the key's own, 8 bytes; `seed` is Ed25519's (RFC 8032, 5.1.5)."""

    number: bytes
    seed: bytes = field(repr=False)

    def sign(self, message: bytes, comment: str) -> bytes:
        """Return the signature's file; the same for the same message and trusted comment."""
        key = SigningKey(self.seed)
        signature = key.sign(hashlib.blake2b(message).digest())[:crypto_sign_BYTES]
        whole = key.sign(signature + comment.encode())[:crypto_sign_BYTES]
        lines = (
            UNTRUSTED,
            base64.b64encode(b"ED" + self.number + signature),
            TRUSTED + comment.encode(),
            base64.b64encode(whole),
            b"",
        )
        return b"\n".join(lines)


def parse_secret_key(text: bytes, password: bytes | None, where: str) -> SecretKey:
    """Read minisign.key; without a `password` only one that has none.

    Raises:
        InstallError: `payload.key`.
    """
    lines = text.removesuffix(b"\n").split(b"\n")
    data = decoded(lines[1], _SIZE) if len(lines) == 2 else None
    if data is None or data[:2] != b"Ed" or data[2:4] not in (_PLAIN, _SCRYPT):
        raise _unusable(
            f"{where} is no secret key of minisign",
            where,
            "give minisign.key; minisign -G -p minisign.pub -s minisign.key makes a pair",
        )
    secret = data[54:]
    if data[2:4] == _SCRYPT:
        if password is None:
            raise _unusable(
                f"{where} is protected by a password", where, "give it: --password-file FILE or -"
            )
        secret = _decrypted(secret, password, data[6:54], where)
        checksum = hashlib.blake2b(data[:2] + secret[:72], digest_size=32).digest()
        if not hmac.compare_digest(checksum, secret[72:]):
            raise _unusable(
                f"the password does not open {where}", where, "is it the password of this key?"
            )
    key = SecretKey(secret[:8], secret[8:40])
    # minisign writes no checksum where there is no password
    if SigningKey(key.seed).verify_key.encode() != secret[40:72]:
        raise _unusable(f"{where} is damaged: its two halves do not match", where, "use a copy")
    return key


def _decrypted(secret: bytes, password: bytes, parameters: bytes, where: str) -> bytes:
    operations = int.from_bytes(parameters[32:40], "little")
    memory = int.from_bytes(parameters[40:48], "little")
    try:
        stream = scrypt.kdf(len(secret), password, parameters[:32], operations, memory)
    except (CryptoError, ValueError, MemoryError, OverflowError) as error:
        raise _unusable(
            f"the password of {where} cannot be tried: {error}", where, "use a copy of the key"
        ) from None
    return bytes(one ^ other for one, other in zip(secret, stream, strict=True))


def _unusable(what: str, where: str, hint: str) -> InstallError:
    return fail("payload.key", what, where=where, hint=hint)
