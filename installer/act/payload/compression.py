"""How a payload may be compressed: one row for each format, known by its first bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from installer.model.errors import InstallError, fail
from installer.model.units import MIB

HEAD = 512
"""Bytes that are enough to know a format: a tar header is the longest."""

WINDOW_LIMIT = 128 * MIB
"""What a decompressor may need to look back: all that `zstd -19`, `zstd --ultra -22` and `xz -9`
ask for. The memory is the decompressor's, beside ours."""


@dataclass(frozen=True)
class Format:
    """A compression; `argv` decompresses standard input to standard output.

    The system's programs run beside us on another core, check what the format can check, read
    concatenated streams and end with an error where a stream is cut. Python 3.11 has no zstd,
    and PyPI's zstandard takes a cut stream for a whole one.
    """

    name: str
    magic: tuple[bytes, ...]
    argv: tuple[str, ...]


FORMATS = (
    # a zstd stream may begin with a skippable frame (RFC 8878, 3.1.2), as pzstd writes it
    Format(
        "zstd",
        (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))),
        ("zstd", "--decompress", "--stdout", "--quiet", f"--memory={WINDOW_LIMIT}"),
    ),
    Format(
        "xz",
        (b"\xfd7zXZ\0",),
        ("xz", "--decompress", "--stdout", "--quiet", f"--memlimit-decompress={WINDOW_LIMIT}"),
    ),
    Format("gzip", (b"\x1f\x8b\x08",), ("gzip", "--decompress", "--stdout")),
)

_CUT_WORDS = ("premature", "unexpected end of")
_WINDOW_WORDS = ("memory", "window")

_OTHERS = (
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"hsqs", "a squashfs image"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"nix-archive-1", "a Nix archive (NAR)"),
    (b"\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1", "a Nix archive (NAR)"),
)


def recognise(head: bytes, shown: str) -> Format | None:
    """Return how a stream that begins with `head` is compressed; None for a plain tar.

    Raises:
        InstallError: `payload.format` or `payload.truncated` (it is empty).
    """
    for known in FORMATS:
        if head.startswith(known.magic):
            return known
    if head[257:262] == b"ustar":
        return None
    if not head:
        raise fail(
            "payload.truncated",
            f"{shown} is empty",
            where="payload",
            hint="copy the tarball to the server again",
        )
    text = head.lstrip()[:1] in (b"<", b"{")
    looks = next(
        (name for magic, name in _OTHERS if head.startswith(magic)),
        "a web page or a text" if text else f"something that begins with {head[:16].hex(' ')}",
    )
    raise fail(
        "payload.format",
        f"{shown} is no tarball but {looks}",
        where="payload",
        hint="a payload is a tar archive: plain, or compressed with gzip, xz or zstd",
    )


def damaged(
    known: Format, code: int, words: Sequence[str], fed: int, unpacked: int
) -> InstallError:
    """Make the error for a decompressor that did not end well.

    Args:
        known: the format.
        code: the program's exit code.
        words: what it said.
        fed: how many compressed bytes it was given.
        unpacked: how many bytes it gave.
    """
    said = "\n".join(words)
    where = f"after {fed} compressed and {unpacked} unpacked bytes"
    if any(word in said.lower() for word in _CUT_WORDS):
        return fail(
            "payload.truncated",
            f"the {known.name} stream of the payload ends in the middle: {said}",
            where=where,
            hint="make the payload again, or copy it to the server again",
        )
    if any(word in said.lower() for word in _WINDOW_WORDS):
        return fail(
            "payload.format",
            f"decompressing takes more than {WINDOW_LIMIT // MIB} MiB of memory: {said}",
            where=where,
            hint="compress it without --long, or with a smaller dictionary",
        )
    return fail(
        "payload.format",
        f"the {known.name} stream of the payload is damaged: "
        + (said or f"{known.argv[0]} ended with exit code {code}"),
        where=where,
        hint="make the payload again, or copy it to the server again",
    )
