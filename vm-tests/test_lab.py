"""Real boots of the smallest thing: they prove the lab, and nothing of the installer."""

from __future__ import annotations

import struct
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from lab import accel, disk, process, tiny
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


def test_the_probe_of_an_accelerator_believes_what_works() -> None:
    assert accel.boots("tcg", 60)


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
    again.console.expect({"bios": "No bootable device", "uefi": "BdsDxe: .*Shell"}[firmware], 60)
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


def test_a_transfer_dies_with_its_server_and_comes_back(bench: Bench) -> None:
    bootfile = publish_tiny(bench.web)
    bench.web.publish(
        "/boot.ipxe", IPXE.replace("initrd initrd", ":again\ninitrd initrd || goto again")
    )
    bench.web.fail("/initrd", Fault(stall_after=100_000))
    machine = bench.boot(Vm(nics=(Nic(UserNetwork(bootfile=bootfile)),)))
    bench.web.wait_for_request("/initrd", 60, sent=100_000)
    bench.web.stop()
    machine.console.expect(r"initrd\.\.\. .*(Connection|reset|error).*", 60)
    bench.web.heal("/initrd")
    bench.web.start()
    machine.console.expect(r"LAB-QUESTION", 60)
    bench.web.wait_for_request("/initrd", 0, complete=True)


def test_a_saved_state_goes_on_with_another_disk(bench: Bench) -> None:
    kernel = Kernel(tiny.vmlinuz(), tiny.initrd(ASK))
    first = Vm("first", kernel=kernel, disks=(bench.disk("64M"),), nics=(Nic(),))
    machine = bench.boot(first)
    machine.console.expect("LAB-QUESTION", 60)
    state = bench.folder / "state"
    machine.save(state)
    machine.kill()
    for name in ("second", "third"):
        again = bench.boot(replace(first, name=name, disks=(bench.disk("64M"),)), state=state)
        again.console.send_line(name)
        again.console.expect(f"LAB-ANSWER {name}", 20)
        assert again.wait_for_exit(20) == "reboot"


OWN_DISK = """
echo "LAB-OWN $(cat /proc/cmdline)"
poweroff -f
"""
VARIABLES = "/sys/firmware/efi/efivars"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_nvram_survives_a_reboot_and_boots_the_disk(bench: Bench) -> None:
    target = bench.disk("128M", bus="nvme", serial="N-1")
    partition = make_esp(target.image, tiny.vmlinuz(), tiny.initrd(OWN_DISK))
    option = load_option(partition, r"\vmlinuz.efi", r"console=ttyS0 initrd=\initrd own=1")
    encoded = "".join(f"\\x{byte:02x}" for byte in option)
    install = f"""
mount -t efivarfs efivarfs {VARIABLES}
printf '{encoded}' >{VARIABLES}/Boot0042-{GLOBAL}
printf '\\7\\0\\0\\0\\x42\\0' >{VARIABLES}/BootOrder-{GLOBAL}
reboot -f
"""
    vm = Vm(firmware="uefi", disks=(target,), nics=(Nic(UserNetwork(bootfile=bench.web.base)),))
    kernel = Kernel(tiny.vmlinuz(), tiny.initrd(install, ["efivarfs"]))
    assert bench.boot(replace(vm, kernel=kernel)).wait_for_exit(90) == "reboot"
    machine = bench.boot(vm.without_network_boot())
    machine.console.expect(r"LAB-OWN .*own=1", 60)
    assert machine.wait_for_exit(20) == "poweroff"
    assert bench.web.requests == []


def make_esp(image: Path, kernel: Path, initrd: Path) -> disk.Partition:
    process.run(["sfdisk", str(image)], stdin=b"label: gpt\nstart=2048, size=200000, type=uefi\n")
    (partition,) = disk.table(image).partitions
    at = ("-i", f"{image}@@{partition.start}")
    process.run(["mformat", *at, "-T", "200000", "::"])
    process.run(["mcopy", *at, str(kernel), "::/vmlinuz.efi"])
    process.run(["mcopy", *at, str(initrd), "::/initrd"])
    assert disk.list_fat(image, partition) == ["/initrd", "/vmlinuz.efi"]
    return partition


def load_option(partition: disk.Partition, file: str, arguments: str) -> bytes:
    """A boot entry as efivarfs takes it: UEFI 2.10, 3.1.3, 10.3.5.1 (HD) and 10.3.5.4 (file)."""
    sectors = (partition.start // 512, partition.size // 512)
    guid = uuid.UUID(partition.uuid).bytes_le
    path = struct.pack("<BBHIQQ16sBB", 4, 1, 42, partition.number, *sectors, guid, 2, 2)
    name = (file + "\0").encode("utf-16-le")
    path += struct.pack("<BBH", 4, 4, 4 + len(name)) + name + bytes.fromhex("7fff0400")
    described = "Own disk\0".encode("utf-16-le")
    arguments_utf16 = (arguments + "\0").encode("utf-16-le")
    return struct.pack("<IIH", 7, 1, len(path)) + described + path + arguments_utf16
