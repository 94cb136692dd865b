"""What all verbs that write files for a server say when they cannot."""

from pathlib import Path

from installer.model.errors import InstallError, fail


def unwritable(
    path: Path | str, error: OSError, hint: str = "name a folder that you may write to"
) -> InstallError:
    """Make the error for what `--output` names: `arguments`."""
    return fail(
        "arguments", f"{path} cannot be written: {error.strerror}", where="--output", hint=hint
    )
