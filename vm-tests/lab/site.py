"""A site of a Namespace, rendered by the command and read by real daemons."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import daemons, image, process, sample, tiny
from lab.boot_server import sha256
from lab.http import HttpServer
from lab.network import Namespace

LOADERS = Path("/usr/lib/ipxe")
"""Debian's package ipxe."""


@dataclass
class Site:
    """Publishes an image, a payload and what `netinstall boot render` writes.

    `tables` are merged over the site file's, one level deep. The TFTP root is `folder/tftp`, the
    HTTP root `folder/http`; `web` publishes exactly the latter.
    """

    network: Namespace
    folder: Path
    web: HttpServer
    tables: Mapping[str, Any] = field(default_factory=dict)
    image: Path = field(default_factory=image.folder)

    def __post_init__(self) -> None:
        self.tftp, self.http = self.folder / "tftp", self.folder / "http"
        self.file = self.folder / "site.json"
        for name in ("vmlinuz", "initrd", "root.squashfs", "image.json"):
            link(self.image / name, self.http / "image" / name)
        for name in ("undionly.kpxe", "ipxe.efi", "snponly.efi"):
            link(LOADERS / name, self.tftp / name)
            # UEFI HTTP boot
            link(LOADERS / name, self.http / name)
        self.file.write_text(json.dumps(self.document(), indent=2))
        self.web.publish_folder("", self.http)

    def document(self) -> dict[str, Any]:
        """The site file."""
        address = self.network.server_address
        common: dict[str, Any] = {
            "version": 1,
            "answers": self.web.url("/answers/"),
            "http": {"url": self.web.base, "root": str(self.http)},
            # dnsmasq's secure mode: files of the user that it runs as
            "tftp": {"address": address, "root": str(self.tftp), "user": "root"},
            "dhcp": {
                "interface": "br0",
                "subnet": "192.0.2.0/24",
                "range": {"first": "192.0.2.100", "last": "192.0.2.199"},
                "dns": [address],
                "domain": "lab.test",
            },
            "images": [{"name": "netinstall", "folder": "image"}],
            "kernel": {"arguments": [f"netinstall.report={self.web.url('/report')}"]},
            "serial": {},
        }
        for name, table in self.tables.items():
            merged = isinstance(table, dict) and isinstance(common.get(name), dict)
            common[name] = common[name] | table if merged else table
        return common

    def render(self, dialect: str) -> Path:
        """Write one dialect where its program looks for it; return the folder."""
        output = {"ipxe": self.http, "grub": self.tftp, "pixiecore": self.http}.get(
            dialect, self.folder / dialect
        )
        netinstall("boot", "render", self.file, "--for", dialect, "--output", output)
        if output == self.http:
            self.web.publish_folder("", self.http)
        return output

    def answers(self, text: str, name: str = "default.toml") -> str:
        """Publish an answer file; @URL@ and @SHA256@ in it stand for the sample's payload."""
        payload = sample.tarball()
        url = self.web.publish("/system.tar.zst", payload)
        filled = text.replace("@URL@", url).replace("@SHA256@", sha256(payload))
        return self.web.publish(f"/answers/{name}", filled)

    def loader(self) -> Path:
        """Make GRUB with the site's grub.cfg, as tftp.uefi says, and what it reads."""
        self.render("grub")
        target = self.tftp / str(self.document()["tftp"]["uefi"])
        netinstall("boot", "loader", self.file, "--output", target)
        return target

    def dhcpd(self) -> process.Server:
        """Run ISC dhcpd with what is rendered for it."""
        config = self.render("dhcpd") / "dhcpd.conf"
        leases = config.with_name("dhcpd.leases")
        leases.touch()
        return self.network.server(
            "dhcpd",
            [
                *(str(daemons.unpacked() / "usr/sbin/dhcpd"), "-4", "-f", "-cf", str(config)),
                *("-lf", str(leases), "-pf", str(config.with_name("dhcpd.pid")), "br0"),
            ],
            ready="Sending on   Socket",
        )

    def tftp_server(self) -> process.Server:
        """Run a TFTP server and nothing else, for a DHCP server that has none."""
        return self.network.server(
            "tftp",
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file"),
                *("--log-facility=-", "--port=0", "--user=root", "--enable-tftp"),
                f"--tftp-root={self.tftp}",
            ],
            ready="started, version",
        )

    def ganesha(self) -> process.Server:
        """Run nfs-ganesha with what is rendered for it, on NFS's own port."""
        config = self.render("ganesha") / "ganesha.conf"
        return self.network.server(
            "ganesha",
            [
                *("ganesha.nfsd", "-F", "-L", "STDERR", "-N", "NIV_EVENT", "-f", str(config)),
                *("-p", str(config.with_name("ganesha.pid"))),
            ],
            ready="NFS SERVER INITIALIZED",
        )

    def dnsmasq(self) -> process.Server:
        """Run dnsmasq with what is rendered for it, and nothing else but where it logs."""
        return self.network.own_dnsmasq(self.render("dnsmasq") / "dnsmasq.conf")


def tiny_image(folder: Path, init: str) -> Path:
    """A folder that looks like an image, whose initrd runs a shell script (see lab.tiny)."""
    for name, source in (("vmlinuz", tiny.vmlinuz()), ("initrd", tiny.initrd(init))):
        link(source, folder / name)
    root = folder / "root.squashfs"
    root.write_text("the tiny guest has no root\n")
    files = {root.name: {"bytes": root.stat().st_size, "sha256": sha256(root)}}
    (folder / "image.json").write_text(json.dumps({"files": files}))
    return folder


def netinstall(*arguments: str | Path) -> str:
    """Run the command; return what it printed. Raises ProcessError."""
    argv = [sys.executable, "-m", "installer", *(str(one) for one in arguments)]
    return process.run(["env", "-C", str(image.REPOSITORY), *argv], 300).decode()


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file lies on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
