"""Real boots of the smallest thing: they prove the lab, and nothing of the installer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from lab import disk, tiny
from lab.bench import Bench
from lab.console import ConsoleError
from lab.http import Fault, HttpServer
from lab.network import Dhcp, Host, UserNetwork
from lab.vm import Kernel, Nic, Vm

pytestmark = pytest.mark.vm

Firmware = Literal["bios", "uefi"]

MAC = "52:54:00:00:00:01"

ASK = """
echo "LAB-HELLO $(cat /proc/cmdline)"
echo "LAB-DISKS $(cd /sys/block && echo *)"
echo "LAB-QUESTION"
read -r answer
echo "LAB-ANSWER $answer"
reboot -f
"""

IPXE = """#!ipxe
kernel vmlinuz initrd=initrd console=ttyS0 hostname=${hostname} mac=${net0/mac} root=${17:string}
initrd initrd
boot
"""


def publish_tiny(web: HttpServer, init: str = ASK) -> str:
    web.publish("/vmlinuz", tiny.vmlinuz())
    web.publish("/initrd", tiny.initrd(init))
    return web.publish("/boot.ipxe", IPXE)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_boots_over_ipxe_and_http_and_then_without_the_network(
    bench: Bench, firmware: Firmware
) -> None:
    network = UserNetwork(bootfile=publish_tiny(bench.web), hostname="lab-guest")
    vm = Vm(firmware=firmware, disks=(bench.disk("64M"),), nics=(Nic(network),))
    machine = bench.boot(vm)
    said = machine.console.expect(r"LAB-HELLO (.*)", 120)
    assert f"hostname=lab-guest mac={MAC}" in said[1]
    machine.console.expect(r"LAB-DISKS .*vda", 20)
    machine.console.send_line("typed")
    machine.console.expect(r"LAB-ANSWER typed", 20)
    assert machine.wait_for_exit(30) == "reboot"
    assert bench.web.wait_for_request("/initrd", 0, complete=True).status == 200

    asked = len(bench.web.requests)
    again = bench.boot(vm.without_network_boot())
    nothing = {"bios": "No bootable device", "uefi": "No bootable option or device"}[firmware]
    again.console.expect(nothing, 60)
    assert "iPXE" not in again.console.text
    assert "PXE" not in again.console.text
    assert len(bench.web.requests) == asked


@pytest.mark.root
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_boots_in_a_namespace_with_dnsmasq(bench: Bench, firmware: Firmware) -> None:
    network = bench.namespace()
    web = bench.web_on(network)
    network.dhcp(
        Dhcp(
            boot=(("ipxe", publish_tiny(web)),),
            hosts=(Host(MAC, "192.0.2.10", "lab-guest"),),
            options=((17, "192.0.2.1:/root"),),
        )
    )
    vm = Vm(firmware=firmware, disks=(bench.disk("64M"),), nics=(Nic(network.tap(), MAC),))
    machine = bench.boot(vm)
    said = machine.console.expect(r"LAB-HELLO (.*)", 120)
    assert f"hostname=lab-guest mac={MAC} root=192.0.2.1:/root" in said[1]
    machine.console.expect(r"LAB-QUESTION", 20)
    machine.console.send_line("typed")
    assert machine.wait_for_exit(30) == "reboot"


MOUNT_NFS = """
ifconfig lo up
udhcpc -q -n -i eth0 || echo "LAB-DHCP failed"
address=$(ifconfig eth0 | sed -n 's/.*inet addr:\\([0-9.]*\\).*/\\1/p')
server=$(sed -n 's/.*lab.server=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
port=$(sed -n 's/.*lab.port=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
mount -i -t nfs4 -o "ro,vers=4.1,proto=tcp,port=$port,addr=$server,clientaddr=$address" \\
    "$server:/root" /mnt
echo "LAB-NFS $(cat /mnt/greeting) $(stat -c %u:%g:%a /mnt/greeting)"
touch /mnt/new 2>&1 | sed 's/^/LAB-WRITE /'
poweroff -f
"""
NFS_MODULES = ("virtio_pci", "virtio_net", "af_packet", "nfsv4")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["user", "namespace"])
def test_mounts_an_nfs_export(bench: Bench, tmp_path: Path, kind: str) -> None:
    (tmp_path / "greeting").write_text("hello over NFS")
    (tmp_path / "greeting").chmod(0o640)
    if kind == "namespace":
        network = bench.namespace()
        network.dhcp(Dhcp())
        nfs, nic = bench.nfs(tmp_path, network), Nic(network.tap())
    else:
        nfs, nic = bench.nfs(tmp_path, UserNetwork()), Nic(UserNetwork())
    kernel = Kernel(
        tiny.vmlinuz(),
        tiny.initrd(MOUNT_NFS, NFS_MODULES),
        f"console=ttyS0 lab.server={nfs.address} lab.port={nfs.port}",
    )
    machine = bench.boot(Vm(kernel=kernel, nics=(nic,)))
    machine.console.expect(r"LAB-NFS hello over NFS 0:0:640", 60, fail_on=[r"LAB-DHCP failed"])
    machine.console.expect(r"LAB-WRITE .*Read-only file system", 20)
    assert machine.wait_for_exit(30) == "poweroff"


def test_a_kernel_panic_is_found_at_once(bench: Bench) -> None:
    kernel = Kernel(tiny.vmlinuz(), tiny.initrd("exit 1\n"))
    machine = bench.boot(Vm(kernel=kernel))
    with pytest.raises(ConsoleError, match="but it said: Kernel panic - not syncing"):
        machine.console.expect("never said", 120)
    machine.kill()
    assert machine.wait_for_exit(1) == "killed"


DISKS = """
until [ -e /sys/block/sdc ]; do sleep 1; done
for one in /sys/block/*; do
    read -r size <"$one/queue/logical_block_size"
    read -r rotational <"$one/queue/rotational"
    said=$(cat "$one/serial" "$one/device/serial" "$one/device/wwid" "$one/device/model" \\
        "$one/device/vpd_pg80" 2>/dev/null | tr -cd ' -~')
    echo "LAB-DISK ${one##*/} sector=$size rotational=$rotational $said"
done
printf 'written by the guest' >/dev/vda
sync
poweroff -f
"""
DISK_MODULES = (
    *("virtio_pci", "virtio_blk", "nvme", "ahci", "virtio_scsi", "sd_mod"),
    *("xhci_pci", "usb_storage"),
)


def test_disks_are_seen_as_described(bench: Bench) -> None:
    disks = (
        bench.disk("64M", canary=True, serial="V-1", sector=4096),
        bench.disk("64M", canary=True, bus="nvme", serial="N-1", sector=4096),
        bench.disk("64M", bus="sata", wwn=0x5000C500A1B2C3D5, model="SPIN", rotational=True),
        bench.disk("64M", bus="scsi", serial="C-1", sector=4096, rotational=False),
        bench.disk("64M", bus="usb", serial="U-1"),
    )
    before = [disk.fingerprint(one.image) for one in disks]
    kernel = Kernel(tiny.vmlinuz(), tiny.initrd(DISKS, DISK_MODULES))
    machine = bench.boot(Vm(firmware="uefi", kernel=kernel, disks=disks))
    machine.console.expect(r"LAB-DISK nvme0n1 sector=4096 rotational=0 N-1", 60)
    machine.console.expect(r"LAB-DISK sda sector=512 rotational=1 naa\.5000c500a1b2c3d5 *SPIN", 10)
    machine.console.expect(r"LAB-DISK sdb sector=4096 rotational=0 .*C-1", 10)
    machine.console.expect(r"LAB-DISK sdc sector=512 .*QEMU HARDDISK", 10)
    machine.console.expect(r"LAB-DISK vda sector=4096 rotational=1 V-1", 10)
    assert machine.wait_for_exit(30) == "poweroff"
    after = [disk.fingerprint(one.image) for one in disks]
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, *[True] * 4]


def test_a_transfer_dies_with_its_server(bench: Bench) -> None:
    bootfile = publish_tiny(bench.web)
    bench.web.fail("/initrd", Fault(cut_after=100_000))
    machine = bench.boot(Vm(nics=(Nic(UserNetwork(bootfile=bootfile)),)))
    machine.console.expect(r"initrd\.\.\. .*(Error|Connection|reset|error).*", 60)
    assert bench.web.wait_for_request("/initrd", 0, sent=100_000).complete is False
