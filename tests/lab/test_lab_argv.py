"""QEMU's command line, whole: a changed quirk has to show in a diff."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from lab.network import Dhcp, Host, Tap, UserNetwork, dnsmasq_config
from lab.nfs import ganesha_config
from lab.vm import Disk, Kernel, Nic, Vm, Wiring, argv

BACKEND = {
    "driver": "raw",
    "node-name": "disk0",
    "read-only": False,
    "cache": {"no-flush": True},
    "discard": "unmap",
    "file": {
        "driver": "file",
        "node-name": "file0",
        "filename": "/d,0.img",
        "cache": {"no-flush": True},
    },
}


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def values(arguments: list[str], option: str) -> list[str]:
    return [two for one, two in itertools.pairwise(arguments) if one == option]


def test_bios_from_disk_or_network() -> None:
    vm = Vm(
        disks=(Disk(Path("/d,0.img"), serial="S1"),),
        nics=(Nic(UserNetwork(bootfile="http://10.0.2.2:1/a,b", hostname="h")),),
    )
    assert argv(vm, Wiring("tcg", qmp_fd=7, serial_fds=(8,))) == [
        *("qemu-system-x86_64", "-name", "machine", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-vga", "none", "-machine", "pc,graphics=off"),
        *("-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "1", "-m", "512"),
        *("-boot", "order=cn", "-action", "reboot=shutdown,shutdown=poweroff"),
        *("-chardev", "socket,id=qmp,fd=7", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=serial0,fd=8", "-serial", "chardev:serial0"),
        *("-device", "virtio-rng-pci"),
        *("-blockdev", json.dumps(BACKEND)),
        "-device",
        (
            '{"driver": "virtio-blk-pci", "drive": "disk0", "id": "drive0", "serial": "S1", '
            '"logical_block_size": 512, "physical_block_size": 512}'
        ),
        *("-netdev", "user,id=net0,bootfile=http://10.0.2.2:1/a,,b,hostname=h"),
        "-device",
        '{"driver": "virtio-net-pci", "netdev": "net0", "mac": "52:54:00:00:00:01"}',
    ]


def test_uefi_after_the_network_left_the_boot_order() -> None:
    vm = Vm(
        name="box",
        firmware="uefi",
        memory=1024,
        disks=(Disk(Path("/d,0.img"), bus="nvme", sector=4096),),
        nics=(Nic(Tap("lab-1-1", "tap0"), mac="52:54:00:00:00:0a"),),
        serial_ports=2,
        smbios_serial="SN,1",
        smbios_uuid="11111111-2222-3333-4444-555555555555",
    ).without_network_boot()
    wiring = Wiring("kvm", qmp_fd=7, serial_fds=(8, 9), nvram=Path("/vars.fd"))
    assert argv(vm, wiring) == [
        *("qemu-system-x86_64", "-name", "box", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-vga", "none", "-machine", "q35,graphics=off"),
        *("-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "1024"),
        "-drive",
        "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
        *("-drive", "if=pflash,format=raw,file=/vars.fd"),
        *("-action", "reboot=shutdown,shutdown=poweroff"),
        *("-chardev", "socket,id=qmp,fd=7", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=serial0,fd=8", "-serial", "chardev:serial0"),
        *("-chardev", "socket,id=serial1,fd=9", "-serial", "chardev:serial1"),
        *("-device", "virtio-rng-pci"),
        *("-smbios", "type=1,serial=SN,,1,uuid=11111111-2222-3333-4444-555555555555"),
        *("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"),
        *("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"),
        *("-blockdev", json.dumps(BACKEND)),
        "-device",
        (
            '{"driver": "nvme", "drive": "disk0", "id": "drive0", "bootindex": 0, '
            '"serial": "nvme0", "logical_block_size": 4096, "physical_block_size": 4096}'
        ),
        *("-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"),
        "-device",
        '{"driver": "virtio-net-pci", "netdev": "net0", "mac": "52:54:00:00:00:0a", "romfile": ""}',
    ]


def test_a_kernel_loaded_by_qemu() -> None:
    vm = Vm(kernel=Kernel(Path("/k"), Path("/i"), "console=ttyS0 quiet"), extra=("-S",))
    arguments = argv(vm, Wiring("tcg", qmp_fd=3, serial_fds=(), state_fd=5))
    assert value(arguments, "-kernel") == "/k"
    assert value(arguments, "-initrd") == "/i"
    assert value(arguments, "-append") == "console=ttyS0 quiet"
    assert arguments[-3:] == ["-S", "-incoming", "fd:5"]


def test_network_first_overrides_the_nvram() -> None:
    vm = Vm(firmware="uefi", nics=(Nic(rom="none"),), boot=("network", "disk"))
    arguments = argv(vm, Wiring("tcg", qmp_fd=3, serial_fds=(), nvram=Path("/v")))
    device = json.loads(values(arguments, "-device")[-1])
    assert device["bootindex"] == 0
    assert device["romfile"] == ""
    assert value(argv(replace(vm, firmware="bios"), Wiring("tcg", 3, ())), "-boot") == "order=nc"


def test_each_bus_brings_its_controller_once() -> None:
    disks = (
        Disk(Path("/a"), bus="sata", model="M", serial="1", wwn=5, rotational=True),
        Disk(Path("/b"), bus="scsi", model="M", serial="2", wwn=6, rotational=False, sector=4096),
        Disk(Path("/c"), bus="usb", serial="3"),
        Disk(Path("/d"), bus="sata"),
    )
    devices = values(argv(Vm(disks=disks), Wiring("tcg", 3, ())), "-device")
    assert devices[1:4] == ["ich9-ahci,id=sata", "virtio-scsi-pci,id=scsi", "qemu-xhci,id=usb"]
    assert [json.loads(device) for device in devices[4:]] == [
        {
            "driver": "ide-hd",
            "bus": "sata.0",
            "drive": "disk0",
            "id": "drive0",
            "serial": "1",
            "wwn": 5,
            "rotation_rate": 7200,
            "model": "M",
        },
        {
            "driver": "scsi-hd",
            "bus": "scsi.0",
            "drive": "disk1",
            "id": "drive1",
            "serial": "2",
            "wwn": 6,
            "rotation_rate": 1,
            "product": "M",
            "werror": "report",
            "logical_block_size": 4096,
            "physical_block_size": 4096,
        },
        {
            "driver": "usb-storage",
            "bus": "usb.0",
            "drive": "disk2",
            "id": "drive2",
            "serial": "3",
            "logical_block_size": 512,
            "physical_block_size": 512,
        },
        {"driver": "ide-hd", "bus": "sata.3", "drive": "disk3", "id": "drive3"},
    ]


def test_what_qemu_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot give a sata disk: 4096-byte sectors, read_only"):
        Disk(Path("/d"), bus="sata", sector=4096, read_only=True)
    with pytest.raises(ValueError, match="cannot give a virtio disk: wwn, model, rotational"):
        Disk(Path("/d"), wwn=1, model="M", rotational=True)


def test_dnsmasq_configuration() -> None:
    config = dnsmasq_config(
        Dhcp(
            boot=(("bios", "undionly.kpxe"), ("http", "http://192.0.2.1/x.efi")),
            tftp=Path("/tftp"),
            hosts=(Host("52:54:00:00:00:01", "192.0.2.10", "box"), Host("52:54:00:00:00:02", "x")),
            options=((42, "192.0.2.1"),),
            extra=("quiet-ra",),
        )
    )
    assert config == (
        "no-resolv\nno-hosts\nlog-dhcp\n"
        "dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,3600\n"
        "enable-ra\ndhcp-range=fd77::,ra-only\nno-ping\ndhcp-authoritative\n"
        "domain=lab.test\nhost-record=server.lab.test,192.0.2.1,fd77::1\n"
        "enable-tftp\ntftp-root=/tftp\n"
        "dhcp-match=set:bios,option:client-arch,0\n"
        "dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe\n"
        "dhcp-match=set:http,option:client-arch,16\n"
        "dhcp-boot=tag:!ipxe,tag:http,http://192.0.2.1/x.efi\n"
        "dhcp-option-force=tag:http,60,HTTPClient\n"
        "dhcp-match=set:ipxe,175\n"
        "dhcp-host=52:54:00:00:00:01,192.0.2.10,box\n"
        "dhcp-host=52:54:00:00:00:02,x\n"
        "dhcp-option-force=42,192.0.2.1\n"
        "quiet-ra\n"
    )


def test_ganesha_serves_numeric_owners_read_only() -> None:
    config = ganesha_config(Path("/srv"), "127.0.0.1", 2049, Path("/state"))
    for line in ("Only_Numeric_Owners = true;", "Access_Type = RO;", "NFS_Port = 2049;"):
        assert line in config
