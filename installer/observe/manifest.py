"""Manifests as they come: bounded, strict, with every mistake in its place."""

from pydantic import ValidationError

from installer.model.errors import InstallError, fail
from installer.model.manifest import MANIFEST_LIMIT, Manifest
from installer.model.units import format_bytes
from installer.observe import documents

KIND = documents.Kind(Manifest, "payload.manifest", "payload.manifest")

_TOLD = 20
_PLACED = 64 * 1024


def load(data: bytes, name: str) -> Manifest:
    """Read a manifest's file; `name` is what to call it.

    Verify its signature first: a signature is cheaper to refuse than a document.

    Raises:
        InstallError: `payload.manifest`, up to 20 mistakes together.
    """
    if len(data) > MANIFEST_LIMIT:
        raise fail(
            "payload.manifest",
            f"it has more than {format_bytes(MANIFEST_LIMIT)}",
            where=name,
            hint="is this the manifest (NAME.json), and not the archive?",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise fail(
            "payload.manifest",
            f"byte {error.start} is not UTF-8",
            where=name,
            hint="is this the manifest (NAME.json), and not the archive?",
        ) from None
    if len(data) > _PLACED:
        # places and spelling take far more memory and time than the document
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise fail(
                "payload.manifest",
                "; ".join(
                    f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
                    for each in error.errors(include_url=False, include_input=False)[:_TOLD]
                ),
                where=name,
                hint="pack the payload again",
            ) from None
    try:
        # braces first: whatever the file is called, a manifest is JSON
        return documents.load(KIND, text, name if name.endswith(".json") else f"{name}.json")
    except InstallError as error:
        raise InstallError(error.problems[:_TOLD]) from None
