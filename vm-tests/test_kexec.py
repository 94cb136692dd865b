"""A running system turns itself into the installer: no PXE, no loader, only what it was given."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from lab import agent, answers, cache, disk, image, process, tiny
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Kernel, Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:07"

ANSWERS = answers.one_disk(disk="has-data")

# A system as small as they come: no systemd, busybox's shell, kexec outside of its PATH.
RUNNING = """
ifconfig lo up
udhcpc -q -n -i eth0 >/dev/null
mkdir -p /tmp
cd /tmp
wget -q -O tree.tar http://@SERVER@/tree.tar && tar -xf tree.tar
cd /
"/tmp/the tree/kexec-boot"
echo "RUNNING without kexec: $?"
export PATH=$PATH:/opt
"/tmp/the tree/kexec-boot" --dry-run extra=1
"/tmp/the tree/kexec-boot" extra=1
echo "RUNNING still: $?"
"""
KEXEC_TOOLS = (
    *("kexec-tools", "libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1"),
    *("libxenforeignmemory1", "libxengnttab1", "libxenhypfs1", "libxenstore4", "libxentoolcore1"),
    *("libxentoollog1", "libyajl2"),
)
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "af_packet")


@pytest.mark.parametrize("firmware", ["bios", pytest.param("uefi", marks=pytest.mark.slow)])
def test_a_running_system_becomes_the_installer(
    bench: Bench, tmp_path: Path, firmware: Literal["bios", "uefi"]
) -> None:
    server = BootServer(bench.web)
    url = server.answers(ANSWERS, "rack7.toml")
    bench.web.publish("/tree.tar", kexec_tree(tmp_path, bench.web.base, server.image, url))
    target = bench.disk("4G", serial="has-data", canary=True)
    before = disk.fingerprint(target.image)
    running = tiny.initrd(
        RUNNING.replace("@SERVER@", bench.web.base.removeprefix("http://")), MODULES, kexec_tools()
    )
    vm = Vm(
        firmware=firmware,
        memory=512,
        disks=(target,),
        nics=(Nic(UserNetwork(), MAC),),
        kernel=Kernel(tiny.vmlinuz(), running),
    )
    machine = bench.boot(vm)
    console = machine.console
    console.expect(r"kexec-boot: there is no kexec here\. Install the package kexec-tools:", 120)
    console.expect(r"RUNNING without kexec: 127", 10)
    console.expect(r"kexec -s '--load' '/tmp/the tree/bzImage' .* extra=1'", 20)
    console.expect(r"kexec-boot: leaving the running system", 60, fail_on=[r"RUNNING still.*"])
    console.expect(r".*has-data", 300, fail_on=[r"RUNNING still.*", r"INSTALLATION FAILED"])
    console.expect(r"DRY RUN: no disk was changed", 120, fail_on=[r"INSTALLATION FAILED"])
    console.expect_prompt(agent.PROMPT, 60)
    said, _ = agent.Agent(machine, server).run("cat /proc/cmdline", 60)
    assert said.startswith("BOOTIF=01-52-54-00-00-00-07 boot=netinstall ")
    assert said.endswith(" extra=1")
    assert disk.fingerprint(target.image) == before
    # the tree brought kernel and initrd
    assert {one.path for one in bench.web.requests} >= {"/tree.tar", "/image/root.squashfs"}
    assert not {one.path for one in bench.web.requests} & {"/image/vmlinuz", "/image/initrd"}


def kexec_tree(folder: Path, base: str, built: Path, answers: str) -> Path:
    """What `netinstall boot kexec` makes of a site, for the host rack7, as an archive."""
    (folder / "http").mkdir()
    (folder / "http/image").symlink_to(built)
    site = folder / "site.json"
    site.write_text(
        json.dumps(
            {
                "version": 1,
                "http": {"url": base, "root": str(folder / "http")},
                "tftp": {"address": "192.0.2.1", "root": "/srv/tftp"},
                "dhcp": {
                    "interface": "lan0",
                    "subnet": "192.0.2.0/24",
                    "range": {"first": "192.0.2.100", "last": "192.0.2.199"},
                },
                "images": [{"name": "netinstall", "folder": "image"}],
                "kernel": {"arguments": ["netinstall.dry-run=1"]},
                "serial": {"unit": 0},
                "hosts": [{"mac": MAC, "hostname": "rack7", "answers": answers}],
            }
        )
    )
    tree = folder / "the tree.tar"
    netinstall = ["env", "-C", str(image.REPOSITORY), sys.executable, "-m", "installer"]
    process.run([*netinstall, "boot", "kexec", str(site), "--output", str(tree), "--host", "rack7"])
    return tree


def kexec_tools() -> dict[str, Path]:
    """Debian's kexec and its libraries, by their paths in the guest.

    Only unpacked: on installation the package would put itself into the host's shutdown.
    """

    def fetch(output: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lab-kexec-") as folder:
            process.run(["env", "-C", folder, "apt-get", "download", *KEXEC_TOOLS], 300)
            # not into the folder itself: it would get the package's date, and be forgotten
            output.mkdir()
            for archive in Path(folder).glob("*.deb"):
                process.run(["dpkg-deb", "--extract", str(archive), str(output / "root")])

    versions = process.run(["apt-cache", "show", "--no-all-versions", *KEXEC_TOOLS]).decode()
    root = cache.build("kexec-tools", [versions], fetch) / "root"
    path = f"LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu"
    said = process.run(["env", path, "ldd", str(root / "sbin/kexec")]).decode()
    libraries = (Path(name) for name in re.findall(r"(/\S+) \(0x", said))
    return {
        "/opt/kexec": root / "sbin/kexec",
        **{_in_guest(path): path for path in libraries},
    }


def _in_guest(library: Path) -> str:
    # the loader is named by the program, with its folder; what it looks for lies in /lib
    return f"/lib64/{library.name}" if "ld-linux" in library.name else f"/lib/{library.name}"
