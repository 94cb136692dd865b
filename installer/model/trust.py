"""Whose signature counts: what the boot image says, and within that what the answer file says.

The answer file is found by the kernel command line, and that may come from a DHCP server. So an
image with keys of its own is the last word: an answer file can choose among them, no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from installer.model.errors import InstallError, Problem, fail
from installer.model.facts import ImageFacts
from installer.model.minisign import PublicKey, parse_public_key, signed_with
from installer.model.minisign import verify as verify_signature
from installer.model.payload import Payload

IMAGE_KEYS = "/etc/netinstall/trusted-keys"
IMAGE_BUILT = "/etc/netinstall/built"
"""The image's date, as a manifest writes it: a clock before it is wrong."""


@dataclass(frozen=True)
class Trusted:
    """Keys, any of which may have signed; `unsigned` says that no signature is asked for."""

    keys: tuple[PublicKey, ...]
    unsigned: bool = False


def problems(payload: Payload, image: ImageFacts) -> Iterator[Problem]:
    """Say what an answer file asks for that nobody vouches for, or that the image forbids."""
    trust = payload.trust
    if image.trusted_keys and payload.kind != "manifest":
        yield Problem(
            "payload.signature",
            f"this boot image has trusted keys, and takes no {payload.kind} that none of them "
            "signed",
            f"payload.{payload.kind}",
            f"pack and sign it (netinstall payload pack), or boot an image without {IMAGE_KEYS}",
        )
    if image.trusted_keys and trust.allow_unsigned:
        yield Problem(
            "payload.signature",
            "this boot image has trusted keys, and takes nothing that is not signed",
            "payload.trust.allow-unsigned",
            f"sign the payload, or boot an image without {IMAGE_KEYS}",
        )
    foreign = [key for key in trust.public_keys if key not in image.trusted_keys]
    if image.trusted_keys and foreign:
        yield Problem(
            "payload.key",
            f"this boot image does not trust the key {', '.join(foreign)}",
            "payload.trust.public-keys",
            f"take one of the image's keys ({IMAGE_KEYS}), or none for all of them",
        )
    if payload.kind == "manifest" and not (
        image.trusted_keys or trust.public_keys or trust.allow_unsigned
    ):
        yield Problem(
            "payload.signature",
            "no public key is known that the manifest could be verified with",
            "payload.trust",
            'say public-keys = ["RW…"], the second line of minisign.pub; or accept any content '
            "with allow-unsigned = true",
        )


def trusted(payload: Payload, image: ImageFacts) -> Trusted:
    """Return whose signature counts. Raises InstallError: what `problems` says, `payload.key`."""
    found = list(problems(payload, image))
    if found:
        raise InstallError(found)
    lines = payload.trust.public_keys or image.trusted_keys
    return Trusted(
        tuple(parse_public_key(line.encode(), "payload.trust.public-keys") for line in lines),
        unsigned=payload.trust.allow_unsigned,
    )


def verified(message: bytes, signature: bytes, keys: tuple[PublicKey, ...], where: str) -> str:
    """Check a signature that any of these keys may have made; return the key's number as shown.

    Raises:
        InstallError: `payload.signature`.
    """
    number = signed_with(signature)
    key = next((key for key in keys if key.number == number), None)
    if key is None and number is not None and len(keys) > 1:
        raise fail(
            "payload.signature",
            f"the signature was made with the key {PublicKey(number, b'').shown}, trusted are "
            + ", ".join(key.shown for key in keys),
            where=where,
            hint="fetch manifest and signature again; if it stays, do not use this payload",
        )
    key = key or keys[0]
    verify_signature(message, signature, key, where)
    return key.shown
