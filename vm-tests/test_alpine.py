"""From a diskless Alpine, as its initramfs-init leaves it, to the agent."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from lab import alpine, answers, image, tiny
from lab.agent import prose
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Kernel, Nic, Vm

from installer.boot import apkovl

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

MAC = "52:54:00:00:00:09"

ANSWERS = answers.one_disk()

# What initramfs-init (mkinitfs 3.12) does with ip=dhcp and apkovl=, in its order. Debian's static
# busybox stands in for what its apk installs: alpine-base, which is busybox and its links.
INITRAMFS_INIT = """
ip link set dev eth0 up
udhcpc -i eth0 -f -q >/dev/null
mkdir /sysroot /tmp
mount -t tmpfs -o mode=0755 tmpfs /sysroot
for word in $(cat /proc/cmdline); do
    case $word in apkovl=*) url=${word#*=} ;; esac
done
url=$(echo "$url" | sed -e "s/{MAC}/$(cat /sys/class/net/eth0/address)/")
wget -q -O /tmp/x.apkovl.tar.gz "$url" && tar -C /sysroot -zxf /tmp/x.apkovl.tar.gz
mkdir -p /sysroot/bin /sysroot/sbin /sysroot/usr/bin /sysroot/usr/sbin /sysroot/lib /sysroot/tmp
cp /bin/busybox /sysroot/bin
chroot /sysroot /bin/busybox --install -s
echo "ttyS0::respawn:/sbin/getty -L 0 ttyS0 vt100" >>/sysroot/etc/inittab
for folder in dev proc sys; do
    mkdir /sysroot/$folder
    mount -o move /$folder /sysroot/$folder
done
exec switch_root -c /dev/ttyS0 /sysroot /sbin/init
"""
BOOT = ("virtio_pci", "virtio_net", "af_packet", "loop", "squashfs")


def _arguments(server: BootServer, root: str) -> str:
    """Publish overlay and modules; the kernel command line that names them."""
    overlay = server.web.publish(f"/alpine/{MAC}.apkovl.tar.gz", apkovl.build())
    modules = server.web.publish("/alpine/modloop-lts", alpine.modloop())
    line = server.kernel_arguments(root).replace("boot=netinstall ", "")
    return (
        f"ip=dhcp apkovl={overlay.replace(MAC, '{MAC}')} modloop={modules} "
        f"netinstall.modloop-sha256={alpine.sha256(alpine.modloop())} "
        f"BOOTIF=01-{MAC.replace(':', '-')} {line}"
    )


def _boot(bench: Bench, kernel: Kernel) -> None:
    """Boot with an initramfs of Alpine's, and see the plan; leaves the machine in its shell."""
    machine = bench.boot(
        Vm(
            memory=768,
            disks=(bench.disk("4G", serial="netinstall-root", canary=True),),
            nics=(Nic(UserNetwork(hostname="rack9"), MAC),),
            kernel=kernel,
        )
    )
    console = machine.console
    version = re.escape(alpine.kernel_version())
    console.expect(r"netinstall: fetching \S+/modloop-lts", 240)
    console.expect(r"netinstall: the root is there\. Alpine's init ends now", 300)
    # what Alpine's initramfs appended is not started
    console.expect(r"the root is writable", 180, fail_on=[r".*login:.*"])
    console.expect("DRY RUN: no disk was changed", 300, fail_on=["INSTALLATION FAILED"])
    assert "WILL BE DESTROYED" in prose(console.text)
    console.expect_prompt(r"netinstall# $", 60)
    # Alpine's kernel and modules, our root; nothing of Alpine's is left
    console.send_line("echo IS $(uname -r) $(ls /usr/lib/modules) $(hostname) $(ls /newroot)")
    console.expect(f"^IS {version} {version} rack9$", 30)


def test_the_overlay_leads_from_alpine_to_the_agent(bench: Bench) -> None:
    server = BootServer(bench.web, arguments="netinstall.dry-run=1")
    server.answers(ANSWERS)
    arguments = _arguments(server, server.http_root())
    _boot(bench, Kernel(tiny.vmlinuz(), tiny.initrd(INITRAMFS_INIT, BOOT), arguments))


if {"MKINITFS_SOURCE", "APK"} <= set(os.environ):

    def test_alpines_own_initramfs_leads_to_the_agent(bench: Bench) -> None:
        sources = alpine.Sources(Path(os.environ["MKINITFS_SOURCE"]), Path(os.environ["APK"]))
        server = BootServer(bench.web, arguments="netinstall.dry-run=1")
        server.answers(ANSWERS)
        made = alpine.repository(sources, bench.folder / "alpine")
        main = server.web.publish_folder("/alpine/main", made / "main")
        initramfs = bench.folder / "initramfs"
        features = image.REPOSITORY / "initrd-hooks/mkinitfs/features.d"
        alpine.initramfs(sources, made / "keys", features, initramfs)
        arguments = f"alpine_repo={main} {_arguments(server, server.http_root())}"
        _boot(bench, Kernel(tiny.vmlinuz(), initramfs, arguments))
        asked = [one.path for one in server.web.requests]
        assert f"/alpine/{MAC}.apkovl.tar.gz" in asked
        assert "/alpine/main/x86_64/alpine-base-3.99.0-r0.apk" in asked
