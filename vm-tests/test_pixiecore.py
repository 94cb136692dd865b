"""The real Pixiecore with what is rendered for it, beside a router that gives the addresses.

Debian has no package of it, so the environment variable PIXIECORE names the program. Its own build
of iPXE cannot be had either: somebody types at the ROM's prompt what the script in it does.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lab import ipxe
from lab.bench import Bench
from lab.network import Namespace
from lab.site import Site, tiny_image
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

MAC = "52:54:00:00:00:11"
# what the kernel says when it powers off would get into the line
TINY = "echo READY $(cat /proc/cmdline)\nsleep 3600\n"

# no skip: most machines have no Pixiecore, and a green run there says all that it can
if "PIXIECORE" in os.environ:

    @pytest.mark.parametrize("how", ["api", "boot"])
    def test_pixiecore_boots_a_machine(bench: Bench, how: str) -> None:
        network = bench.namespace()
        bench.router(network, dhcp=True)
        tables = {"hosts": [{"mac": MAC, "arguments": ["lab.host=mac"]}]}
        image = tiny_image(bench.folder / "tiny", TINY)
        site = Site(network, bench.folder / "site", bench.web_on(network), tables, image)
        folder = site.render("pixiecore")
        run(network, site, folder, how)
        machine = bench.boot(Vm(nics=(Nic(network.tap(), MAC),)))
        ipxe.prompt(machine.console)
        ipxe.command(machine.console, "set user-class pixiecore")
        ipxe.command(machine.console, "dhcp")
        ipxe.type_line(machine.console, "chain ${filename}")
        words = machine.console.expect(r"READY (.*)", 180)[1].split()
        # without the API all machines are alike
        assert ("lab.host=mac" in words) == (how == "api")
        assert "BOOTIF=01-52-54-00-00-00-11" in words
        assert "boot=netinstall" in words


def run(network: Namespace, site: Site, folder: Path, how: str) -> None:
    """Start it, as its documents and `pixiecore-boot` say."""
    program = Path(os.environ["PIXIECORE"]).resolve()
    options = ["--listen-addr", network.server_address, "--port", "8089", "--debug"]
    argv = {
        "api": [str(program), "api", site.web.url("/pixiecore"), "--dhcp-no-bind", *options],
        "boot": [
            *("env", f"PATH={program.parent}:/usr/bin:/bin"),
            *(str(folder / "pixiecore-boot"), *options),
        ],
    }
    network.server("pixiecore", argv[how], ready="Listening|Starting|PXE")
