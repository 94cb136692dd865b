"""URLs as they may be shown."""

from collections.abc import Callable
from urllib.parse import quote, urlsplit, urlunsplit


def redacted(source: str) -> str:
    """Return a URL without its secrets: user and password, and the values of its query.

    A query may be a signature that opens a private store for whoever reads the log. Paths of
    files are returned as they are.
    """
    if "://" not in source:
        return source
    try:
        parts = urlsplit(source)
    except ValueError:
        return source.partition("://")[0] + "://…"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(
        (
            parts.scheme,
            f"***@{host}" if "@" in parts.netloc else host,
            parts.path,
            "…" if parts.query else "",
            "",
        )
    )


def beside(location: str, name: str) -> str:
    """Return where a file of this name lies in the same folder as another; URL or path.

    A query stays: it is often what opens a store for everything below a folder.
    """
    return _replaced(location, lambda path: f"{path.rpartition('/')[0]}/{_quoted(location, name)}")


def inside(folder: str, name: str) -> str:
    """Return where a file of this name lies in a folder; URL or path, with or without a slash."""
    return _replaced(folder, lambda path: f"{path.rstrip('/')}/{_quoted(folder, name)}")


def file_name(location: str) -> str:
    """Return the name of the file that a URL or path leads to, as it is written there."""
    path = urlsplit(location).path if "://" in location else location
    return path.rpartition("/")[2]


def is_url(location: str) -> bool:
    """Say whether it is a URL, and not a path."""
    return location.startswith(("http://", "https://"))


def _quoted(location: str, name: str) -> str:
    # a name that was taken from a URL is quoted already, and one of a manifest has nothing to quote
    return name if not is_url(location) else quote(name, safe="%")


def _replaced(location: str, change: Callable[[str], str]) -> str:
    if not is_url(location):
        return change(location)
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc, change(parts.path), parts.query, ""))
