"""The answer file of most scenarios: the whole of one disk becomes the root file system."""

from __future__ import annotations

from typing import Literal

_TEXT = """\
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"

[system]
install = "{install}"

[network]
mode = "{network}"

[[disks]]
match = {{ serial = "{disk}" }}
{partitions}
[[disks.partitions]]
size = "rest"
mount = "/"
"""

SWAP = """
[[disks.partitions]]
size = "256 MiB"
type = "swap"
"""


def one_disk(
    *,
    install: Literal["prebuilt", "rebuild"] = "prebuilt",
    network: Literal["dhcp", "static-from-lease"] = "dhcp",
    disk: str = "netinstall-root",
    partitions: str = "",
    more: str = "",
) -> str:
    """Write it; `disk` is a serial number, `partitions` come before the root, `more` at the end."""
    return _TEXT.format(install=install, network=network, disk=disk, partitions=partitions) + more


def from_source(payload: str, *, filesystem: str = "ext4") -> str:
    """Write one with a payload of another kind, whose table is `payload`; the rest is default.

    The root has the label by which the prebuilt sample system finds it.
    """
    return f"""\
version = 1

{payload}

[[disks]]
match = {{ serial = "netinstall-root" }}

[[disks.partitions]]
size = "rest"
mount = "/"
filesystem = "{filesystem}"
label = "nixos"
"""
