"""`netinstall boot render` and `netinstall boot check`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from installer.boot import site as sites
from installer.boot.check import check, conflicts
from installer.boot.dialects import DIALECTS
from installer.boot.output import unwritable
from installer.model.errors import InstallError, fail


def render(site_file: Path, dialect: str, output: Path) -> list[Path]:
    """Write a site in a dialect into a folder, which is made if missing; other files there stay.

    Returns:
        the files that were written.

    Raises:
        InstallError: `site.not-found`, `site.syntax`, `site.field`, `site.file` (no image.json),
            `site.conflict` or `site.value`, all of one kind together; nothing is written then.
            Or `arguments`: no such dialect, or the folder cannot be written.
    """
    if dialect not in DIALECTS:
        raise fail(
            "arguments",
            f"there is no dialect {dialect!r}",
            where="netinstall boot render --for",
            hint="\n         ".join(f"{name}: {each.what}" for name, each in DIALECTS.items()),
        )
    site, problems = sites.load(site_file)
    problems += conflicts(site)
    if problems:
        raise InstallError(problems)
    chosen = DIALECTS[dialect]
    written = []
    for name, text in sorted(chosen.render(site).items()):
        path = output / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
            if name in chosen.executable:
                path.chmod(0o755)
        except OSError as error:
            raise unwritable(path, error) from None
        written.append(path)
    return written


def run_render(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """`netinstall boot render`. Raises InstallError."""
    for path in render(arguments.site, arguments.dialect, arguments.output):
        say(str(path))


def run_check(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """`netinstall boot check`. Raises InstallError with everything that was found."""
    problems = check(*sites.load(arguments.site))
    if problems:
        raise InstallError(problems)
    say(f"{arguments.site}: no mistakes found")
