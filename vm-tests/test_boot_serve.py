"""Machines boot from nothing but `netinstall boot serve`, which says how far they come."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from lab import image, process
from lab.bench import Bench
from lab.network import Namespace
from lab.site import link
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:07"
URL = "http://192.0.2.1:8080/lab"

# everything can be decided, and then the payload is no archive
ANSWERS = f"""
version = 1

[payload]
url = "{URL}/payload.tar"
sha256 = "{"5a" * 32}"

[[disks]]
match = {{ serial = "netinstall-root" }}

[[disks.partitions]]
size = "rest"
mount = "/"
"""


def _furnish(folder: Path, **tables: Any) -> Path:
    """Write a site and what it publishes below `folder`; return the site file."""
    http = folder / "http"
    for name in ("vmlinuz", "initrd", "root.squashfs", "image.json"):
        link(image.folder() / name, http / "image" / name)
    (http / "answers").mkdir()
    (http / "answers/rack7.toml").write_text(ANSWERS)
    (http / "payload.tar").write_bytes(bytes(10240))
    site: dict[str, Any] = {
        "version": 1,
        "answers": f"{URL}/answers/",
        "http": {"url": URL, "root": str(http)},
        "tftp": {"address": "192.0.2.1", "root": str(folder / "tftp")},
        "dhcp": {
            "interface": "br0",
            "subnet": "192.0.2.0/24",
            "range": {"first": "192.0.2.100", "last": "192.0.2.199"},
        },
        "images": [{"name": "netinstall", "folder": "image"}],
        "kernel": {"arguments": ["netinstall.on-failure=poweroff", "netinstall.failure-delay=0"]},
        "serial": {},
        "hosts": [{"mac": MAC, "ip": "192.0.2.77", "hostname": "rack7"}],
    }
    file = folder / "site.json"
    file.write_text(json.dumps(site | tables, indent=2))
    return file


@contextmanager
def _serving(network: Namespace, site: Path, *options: str) -> Iterator[process.Server]:
    argv = [sys.executable, "-m", "installer", "boot", "serve", str(site), *options]
    server = process.Server(
        "serve",
        ["env", "-C", str(image.REPOSITORY), *argv],
        network.folder / "serve.log",
        ready="Ctrl-C ends it",
        prefix=network.prefix,
        deadline_s=90,
    )
    with server:
        try:
            yield server
        finally:
            assert server.terminate(30) == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; published files have to lie in one."""
    with TemporaryDirectory(prefix="netinstall-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_machine_boots_and_each_step_is_logged(bench: Bench, folder: Path) -> None:
    network = bench.namespace()
    site = _furnish(folder)
    vm = Vm(
        firmware="uefi",
        memory=1024,
        disks=(bench.disk("4G", serial="netinstall-root"),),
        nics=(Nic(network.tap(), MAC, rom="none"),),
    )
    with _serving(network, site, "--patience", "600") as server:
        machine = bench.boot(vm)
        for step, text in (
            (
                "dhcp",
                r"192\.0\.2\.77 for the firmware \(UEFI\), which is to fetch ipxe\.efi by TFTP",
            ),
            ("loader", r"ipxe\.efi by TFTP"),
            ("dhcp", rf"192\.0\.2\.77 for iPXE, which is to fetch {URL}/ipxe/boot\.ipxe"),
            ("script", r"ipxe/boot\.ipxe \d+ B by HTTP"),
            ("script", r"ipxe/mac-52-54-00-00-00-07\.ipxe .* by HTTP"),
            ("kernel", r"image/vmlinuz .* MiB in .* by HTTP"),
            ("initrd", r"image/initrd .* MiB in .* by HTTP"),
            ("linux", r"the kernel runs; 192\.0\.2\.77 for its initrd"),
            ("root", r"image/root\.squashfs .* MiB in .* by HTTP"),
            ("answers", r"answers/rack7\.toml .* by HTTP, after \d+ names that are not there"),
            ("agent", r"everything is decided, nothing changed yet"),
            ("agent", r"step 1 of \d+, check-payload: .*"),
            ("agent", r"FAILED: failed in check-payload: payload\.format: .*"),
        ):
            server.said.expect(rf"^\d\d:\d\d:\d\d  {MAC}  rack7 +{step} +{text}$", 240)
        assert machine.wait_for_exit(120) == "poweroff"
    # reports are gathered for a moment: this comes before or after the answer file
    looked = r"rack7 +agent +netinstall .* looked at the machine$"
    assert re.search(looked, server.said.text, re.MULTILINE)
    server.said.expect(r"^How far each machine came:\n.* rack7 +agent +FAILED: .*payload", 5)


def test_a_machine_that_hangs_is_told(bench: Bench, folder: Path) -> None:
    network = bench.namespace()
    site = _furnish(folder)
    vm = Vm(memory=512, nics=(Nic(network.tap(), MAC),))
    with _serving(network, site, "--patience", "15") as server:
        (folder / "http/image/vmlinuz").unlink()
        bench.boot(vm)
        server.said.expect(rf"{MAC}  rack7 +kernel +image/vmlinuz is not there \(HTTP\)$", 120)
        server.said.expect(
            rf"{MAC}  rack7 +script +HANGS: nothing new for \d+ s: "
            r"it asked \d+ times for image/vmlinuz, which is not there$",
            120,
        )
