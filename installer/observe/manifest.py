"""Manifests as they come: bounded, strict, with every mistake in its place."""

from installer.model.errors import InstallError, fail
from installer.model.manifest import FRAMES_LIMIT, MANIFEST_LIMIT, PIECES_LIMIT, Manifest
from installer.model.units import format_bytes
from installer.observe import documents

KIND = documents.Kind(Manifest, "payload.manifest", "payload.manifest", names_limit=64)

_TOLD = 20
_HEAD = 400
"""Values outside the frames: there are some 100, lists in `system` among them."""

_COMMAS = FRAMES_LIMIT * 7 + PIECES_LIMIT + _HEAD
_BRACKETS = FRAMES_LIMIT * 2 + _HEAD
_BACKSLASHES = _HEAD


def load(data: bytes, name: str) -> Manifest:
    """Read a manifest's file; `name` is what to call it.

    Whatever the bytes are, it takes less than 60 MiB of memory. Verify the signature first all
    the same: it is cheaper to refuse than a document.

    Raises:
        InstallError: `payload.manifest`, up to 20 mistakes together; of the frames only those of
            the first one that has any.
    """
    if len(data) > MANIFEST_LIMIT:
        raise _no_manifest(f"it has more than {format_bytes(MANIFEST_LIMIT)}", name)
    # Counted before it is parsed: two bytes of JSON can become a hundred in memory. No value of a
    # manifest holds these characters.
    if (
        data.count(b",") > _COMMAS
        or data.count(b"{") + data.count(b"[") > _BRACKETS
        or data.count(b"\\") > _BACKSLASHES
    ):
        raise _no_manifest(f"it has more values than {FRAMES_LIMIT} frames have", name)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _no_manifest(f"byte {error.start} is not UTF-8", name) from None
    try:
        # braces first: whatever the file is called, a manifest is JSON
        return documents.load(KIND, text, name if name.endswith(".json") else f"{name}.json")
    except InstallError as error:
        raise InstallError(error.problems[:_TOLD]) from None


def _no_manifest(what: str, name: str) -> InstallError:
    return fail(
        "payload.manifest",
        what,
        where=name,
        hint="is this the manifest (NAME.json), and not the archive?",
    )
