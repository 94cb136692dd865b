"""An ISO's own system over iPXE and HTTP: no ISO, no disk.

The ISO is the sample system in the shape of NixOS's; stage 1 is a stand-in (see lab/iso.py).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from lab import image, iso, process
from lab.bench import Bench
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]


STAGES_1 = [
    pytest.param("scripted", None, id="scripted"),
    pytest.param("systemd", None, id="systemd", marks=pytest.mark.slow),
]
if "NIXPKGS" in os.environ:
    # NixOS's own stage-1-init.sh, which we have no copy of
    STAGES_1.append(pytest.param("scripted", Path(os.environ["NIXPKGS"]), id="nixpkgs"))


@pytest.mark.parametrize(("kind", "nixpkgs"), STAGES_1)
def test_an_iso_boots_from_the_network(
    bench: Bench, tmp_path: Path, kind: iso.Kind, nixpkgs: Path | None
) -> None:
    output = tmp_path / "out"
    netinstall = ["env", "-C", str(image.REPOSITORY), sys.executable, "-m", "installer"]
    argv = [
        *netinstall,
        "boot",
        "from-iso",
        str(iso.of_the_sample(kind, nixpkgs)),
        "--output",
        str(output),
    ]
    said = process.run_merged([*argv, "--argument", "console=ttyS0"], 300)
    needed = re.search(r"a machine needs (\d+) MiB", said)
    assert needed, said
    bench.web.publish_folder("/live", output)
    bench.web.publish("/first.ipxe", "#!ipxe\nset cmdline added=1\nchain live/boot.ipxe\n")
    network = UserNetwork(bootfile=bench.web.url("/first.ipxe"))
    machine = bench.boot(Vm(memory=int(needed[1]), nics=(Nic(network),)))
    found = machine.console.expect(
        r"STAGE-1 ends: (.*)", 240, fail_on=[r"STAGE-1 (FAILED|waits).*"]
    )
    assert found[1].split() == [
        *("/iso=tmpfs", "/nix/.ro-store=squashfs", "/nix/.rw-store=tmpfs"),
        "/nix/store=overlay",
    ]
    machine.console.expect(r"SAMPLE-UP", 180)
    machine.console.send_line("echo SAID $(cat /proc/cmdline)")
    line = machine.console.expect(r"^SAID (.*)", 30)[1]
    assert re.search(r"init=/nix/store/\S+/init loglevel=4 boot\.shell_on_fail", line)
    assert line.endswith("console=ttyS0 added=1")
    assert ("root=" in line) == (kind == "systemd")
