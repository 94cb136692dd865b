"""What a boot server hands out for one scenario: image, payload, answer file, iPXE script."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from lab import image, sample
from lab.http import HttpServer

CONSOLE = "console=tty0 console=ttyS0,115200"


@dataclass
class BootServer:
    """Publishes on an HTTP server; `arguments` are added to the agent's kernel command line."""

    web: HttpServer
    image: Path = field(default_factory=image.folder)
    payload: Path = field(default_factory=sample.tarball)
    arguments: str = ""

    def __post_init__(self) -> None:
        for name in ("vmlinuz", "initrd", "root.squashfs"):
            self.web.publish(f"/image/{name}", self.image / name)
        self.payload_url = self.web.publish("/system.tar.zst", self.payload)

    def answers(self, text: str, name: str = "default.toml") -> str:
        """Publish an answer file; @URL@ and @SHA256@ in it stand for the payload."""
        filled = text.replace("@URL@", self.payload_url).replace("@SHA256@", sha256(self.payload))
        return self.web.publish(f"/answers/{name}", filled)

    def http_root(self) -> str:
        """The kernel arguments for a root over HTTP."""
        digest = json.loads((self.image / "image.json").read_text())["files"]["root.squashfs"]
        url = self.web.url("/image/root.squashfs")
        return f"netinstall.root={url} netinstall.root-sha256={digest['sha256']}"

    def kernel_arguments(self, root: str | None = None) -> str:
        """The agent's kernel command line; `root` says where its root is, by default HTTP."""
        return " ".join(
            [
                "boot=netinstall",
                self.http_root() if root is None else root,
                f"netinstall.answers={self.web.url('/answers/')}",
                f"netinstall.report={self.web.url('/report')}",
                self.arguments,
                CONSOLE,
            ]
        )

    def ipxe(self, root: str | None = None) -> str:
        """Publish the iPXE script; return its URL. `root`: see kernel_arguments."""
        return self.web.publish(
            "/boot.ipxe",
            "#!ipxe\n"
            "kernel image/vmlinuz initrd=initrd BOOTIF=01-${netX/mac:hexhyp} "
            f"{self.kernel_arguments(root)}\n"
            "initrd image/initrd\n"
            "boot\n",
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; remembered while the file stays as it is."""
    status = path.stat()
    key = (os.fspath(path), status.st_mtime_ns, status.st_size)
    if key not in _KNOWN:
        with path.open("rb") as stream:
            _KNOWN[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _KNOWN[key]


_KNOWN: dict[tuple[str, int, int], str] = {}
