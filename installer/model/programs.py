"""Where programs are found, when they are looked for and when they are run."""

SEARCH_PATH = (
    "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
"""The value of PATH, on a NixOS and elsewhere."""
