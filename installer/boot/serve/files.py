"""Names in URLs, and files below a root: nothing else is ever opened."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes


class NotPublishedError(Exception):
    """There is no such file for a client; the text says why, for the log.

    `remarkable`: something is there, or was asked for in a way that no loader has.
    """

    def __init__(self, why: str, *, remarkable: bool = True) -> None:
        super().__init__(why)
        self.remarkable = remarkable


def name_of(path: str) -> str:
    """Return the name below the root that a URL's path asks for, decoded once.

    Args:
        path: as it was sent, with its first slash.

    Raises:
        NotPublishedError: it cannot be the name of a published file: an empty, hidden or dotted
            part, a backslash, a control character, or no UTF-8.
    """
    try:
        name = unquote_to_bytes(path.removeprefix("/")).decode()
    except UnicodeDecodeError:
        raise NotPublishedError("its name is not UTF-8") from None
    if any(part == "" or part.startswith(".") for part in name.split("/")):
        raise NotPublishedError("its name has an empty part, or one that begins with a dot")
    if "\\" in name or not name.isprintable():
        raise NotPublishedError("its name has a backslash or a control character")
    return name


@contextmanager
def opened(root: Path, name: str) -> Iterator[int]:
    """Open a regular file below a root for reading, and give its descriptor.

    Symbolic links are followed within the root. Files that not everybody may read are not given
    out: this server may run as root.

    Raises:
        NotPublishedError: there is none.
    """
    path = root / name
    try:
        # before open, which does things to devices and waits at pipes
        _published(path.stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotPublishedError(reason, remarkable=False) from None
    try:
        _published(os.fstat(descriptor))
        # what was opened, however links have changed meanwhile
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not real.is_relative_to(root.resolve()):
            raise NotPublishedError(f"it leads to {real}, outside of the root")
        yield descriptor
    finally:
        os.close(descriptor)


def _published(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotPublishedError("it is not a regular file")
    if not status.st_mode & stat.S_IROTH:
        raise NotPublishedError("not everybody may read it (chmod a+r)")
