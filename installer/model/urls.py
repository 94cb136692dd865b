"""URLs as they may be shown."""

from urllib.parse import urlsplit, urlunsplit


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
