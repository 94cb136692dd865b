"""Sites for tests."""

import json
from pathlib import Path
from typing import Any

from installer.boot.site import KIND, Site
from installer.observe import documents

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples/sites/small.toml"

MINIMAL: dict[str, Any] = {
    "version": 1,
    "answers": "http://192.0.2.1/answers/",
    "http": {"url": "http://192.0.2.1", "root": "/srv/http"},
    "tftp": {"address": "192.0.2.1", "root": "/srv/tftp"},
    "dhcp": {
        "interface": "lo",
        "subnet": "192.0.2.0/24",
        "range": {"first": "192.0.2.100", "last": "192.0.2.199"},
    },
    "images": [{"name": "one", "folder": "image"}],
}


def site_of(text: str, name: str = "site.toml") -> Site:
    """Read a site whose images all have the same hash, without looking for image.json."""
    file = documents.load(KIND, text, name)
    digests = {image.name: "5a" * 32 for image in file.images}
    return Site(file, digests, documents.locator(text, name), digests)


def changed(**tables: Any) -> Site:
    """The minimal site with other tables."""
    return site_of(json.dumps(MINIMAL | tables, indent=1), "site.json")


HOSTILE = (
    *("'", '"', "\\", "$", "`", ";", "#", ",", "=", "*", "%", "!", "&", "|", "(", ")", "{", "}"),
    *("${net0/mac}", "$(reboot)", "`reboot`", "||", "&&", "{{", "}}", "\\n", "%s", "~", "[", "]"),
    *("option:router,6.6.6.6", "tag:x", '";}', "<", ">", "-", "--", "192.0.2.66", "00:11", "1"),
    *("a", "image", "quiet", "console=ttyS9", "init=/bin/sh", "x y", "\\'", '\\"', "b/c"),
)
"""Pieces of text that the site file takes, and that mean something in one language or another."""
