"""A virtual machine: its description, its QEMU argv, and the running thing.

`argv` is pure. A machine's NVRAM lives beside its logs, so that booting a description of the same
name in the same folder again is the same machine switched on again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from lab import process
from lab.accel import OVMF_CODE, Accelerator, accelerator, arguments
from lab.console import KERNEL_PANIC, Console
from lab.network import Attachment, UserNetwork, options
from lab.qmp import Qmp

Bus = Literal["virtio", "nvme", "sata", "scsi", "usb"]
Ending = Literal["reboot", "poweroff", "killed", "crashed"]
BootDevice = Literal["disk", "network"]

OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

# What firmware says when it turns to the network: iPXE's ROM, OVMF's PXE and HTTP boot.
NETWORK_BOOT = r"^iPXE .*|>>Start (PXE|HTTP Boot) over IP.*|Booting from ROM.*"


@dataclass(frozen=True)
class Disk:
    """A disk image (raw) and how the guest sees it.

    `sector` is the logical block size in bytes. `serial` reaches the guest over every bus;
    `wwn` (a 64-bit number), `model` and `rotational` only over sata and scsi (Linux ignores the
    EUI-64 of QEMU's NVMe disks: its quirk BOGUS_NID). SATA disks have 512-byte sectors.
    """

    image: Path
    bus: Bus = "virtio"
    sector: Literal[512, 4096] = 512
    serial: str | None = None
    wwn: int | None = None
    model: str | None = None
    rotational: bool | None = None
    read_only: bool = False

    def __post_init__(self) -> None:
        unable = [
            name
            for name, given, buses in (
                ("wwn", self.wwn is not None, ("sata", "scsi")),
                ("model", self.model is not None, ("sata", "scsi")),
                ("rotational", self.rotational is not None, ("sata", "scsi")),
                ("4096-byte sectors", self.sector != 512, ("virtio", "nvme", "scsi", "usb")),
                ("read_only", self.read_only, ("virtio", "nvme", "scsi", "usb")),
            )
            if given and self.bus not in buses
        ]
        if unable:
            raise ValueError(f"QEMU cannot give a {self.bus} disk: {', '.join(unable)}")


@dataclass(frozen=True)
class Nic:
    """A network card. `rom` "ipxe" is QEMU's own ROM (BIOS and UEFI); "none" leaves UEFI's PXE."""

    network: Attachment = field(default_factory=UserNetwork)
    mac: str = "52:54:00:00:00:01"
    rom: Literal["ipxe", "none"] = "ipxe"
    model: Literal["virtio-net-pci", "e1000", "e1000e"] = "virtio-net-pci"


@dataclass(frozen=True)
class Kernel:
    """A kernel that QEMU loads itself, for scenarios that need neither firmware nor loader."""

    image: Path
    initrd: Path | None = None
    append: str = "console=ttyS0"


@dataclass(frozen=True)
class Vm:
    """A machine. `memory` is in MiB; `cores` above 1 make an emulated machine no faster.

    `boot` is the order in which the firmware tries things. ("disk", "network") is the factory's
    order: a blank disk falls through to the network. ("disk",) takes the network out of it while
    the NIC stays. `cpu` "max" is for user lands that want x86-64-v2. `files` are extra fw_cfg
    items: name (opt/…) and content.
    """

    name: str = "machine"
    firmware: Literal["bios", "uefi"] = "bios"
    memory: int = 512
    cpu: Literal["qemu64", "max"] = "qemu64"
    cores: int = 1
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    boot: tuple[BootDevice, ...] = ("disk", "network")
    kernel: Kernel | None = None
    serial_ports: int = 1
    smbios_serial: str | None = None
    smbios_uuid: str | None = None
    fw_cfg: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()

    def without_network_boot(self) -> Vm:
        """The same machine after its owner took the network out of the boot order."""
        return replace(self, boot=("disk",))

    def without(self, disk: Disk) -> Vm:
        """The same machine with one of its disks pulled out."""
        return replace(self, disks=tuple(one for one in self.disks if one != disk))


@dataclass(frozen=True)
class Wiring:
    """What a run adds to a description: open sockets, the NVRAM's copy, the accelerator."""

    accel: Accelerator
    qmp_fd: int
    serial_fds: tuple[int, ...]
    nvram: Path | None = None
    state_fd: int | None = None


def argv(vm: Vm, wiring: Wiring) -> list[str]:
    """QEMU's command line for this machine."""
    return [
        "qemu-system-x86_64",
        *("-name", options(vm.name), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-vga", "none", "-machine", _machine(vm), *arguments(wiring.accel, vm.cpu)),
        *("-smp", str(vm.cores), "-m", str(vm.memory), *_firmware(vm, wiring), *_kernel(vm.kernel)),
        # A guest's reboot ends QEMU, so that a test sees it and decides what is booted next.
        *("-action", "reboot=shutdown,shutdown=poweroff"),
        *("-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *_serial(wiring.serial_fds),
        *("-device", "virtio-rng-pci", *_smbios(vm), *_fw_cfg(vm), *_buses(vm.disks)),
        *(part for number, disk in enumerate(vm.disks) for part in _disk(vm, disk, number)),
        *(part for number, nic in enumerate(vm.nics) for part in _nic(vm, nic, number)),
        *vm.extra,
        *(("-incoming", f"fd:{wiring.state_fd}") if wiring.state_fd is not None else ()),
    ]


def _machine(vm: Vm) -> str:
    # graphics=off makes SeaBIOS, and with it iPXE's ROM, talk on the serial port.
    return "pc,graphics=off" if vm.firmware == "bios" else "q35,graphics=off"


def _firmware(vm: Vm, wiring: Wiring) -> list[str]:
    if vm.firmware == "bios":
        letters = "".join({"disk": "c", "network": "n"}[device] for device in vm.boot)
        return ["-boot", f"order={letters}"]
    return [
        *("-drive", options("if=pflash", format="raw", readonly="on", file=str(OVMF_CODE))),
        *("-drive", options("if=pflash", format="raw", file=str(wiring.nvram))),
    ]


def _kernel(kernel: Kernel | None) -> list[str]:
    if kernel is None:
        return []
    initrd = ["-initrd", str(kernel.initrd)] if kernel.initrd else []
    return ["-kernel", str(kernel.image), *initrd, "-append", kernel.append]


def _serial(fds: Sequence[int]) -> list[str]:
    return [
        part
        for number, fd in enumerate(fds)
        for part in (
            *("-chardev", f"socket,id=serial{number},fd={fd}"),
            *("-serial", f"chardev:serial{number}"),
        )
    ]


def _smbios(vm: Vm) -> list[str]:
    if vm.smbios_serial is None and vm.smbios_uuid is None:
        return []
    return ["-smbios", options("type=1", serial=vm.smbios_serial, uuid=vm.smbios_uuid)]


def _fw_cfg(vm: Vm) -> list[str]:
    items = list(vm.fw_cfg)
    if vm.firmware == "uefi" and "network" not in vm.boot:
        # OvmfPkg/RUNTIME_CONFIG.md: no PXE entries are made for the NICs that are found.
        items += [(f"opt/org.tianocore/IPv{version}PXESupport", "n") for version in (4, 6)]
    return [
        part for name, value in items for part in ("-fw_cfg", options(f"name={name}", string=value))
    ]


def _buses(disks: Sequence[Disk]) -> list[str]:
    needed = {disk.bus for disk in disks}
    return [
        part
        for bus, device in (
            ("sata", "ich9-ahci,id=sata"),
            ("scsi", "virtio-scsi-pci,id=scsi"),
            ("usb", "qemu-xhci,id=usb"),
        )
        if bus in needed
        for part in ("-device", device)
    ]


def _format(disk: Disk, number: int) -> dict[str, Any]:
    # The guest's flushes are ignored: the images need to outlive QEMU, not the host.
    return {
        "driver": "raw",
        "node-name": f"disk{number}",
        "read-only": disk.read_only,
        "cache": {"no-flush": True},
        "discard": "unmap",
    }


def _disk(vm: Vm, disk: Disk, number: int) -> list[str]:
    backend: dict[str, Any] = {
        **_format(disk, number),
        "file": {
            "driver": "file",
            "node-name": f"file{number}",
            "filename": str(disk.image),
            "cache": {"no-flush": True},
        },
    }
    common: dict[str, Any] = {"drive": f"disk{number}", "id": f"drive{number}"}
    if vm.firmware == "uefi" and "network" not in vm.boot:
        # OVMF then takes everything else that is a device out of the NVRAM's BootOrder, and keeps
        # the order of the entries that lie on a disk (OvmfPkg, QemuBootOrderLib). Its HTTP boot
        # has no switch of its own.
        common["bootindex"] = number
    if vm.firmware == "uefi" and vm.boot == ("network", "disk"):
        # As soon as one device has an index, OVMF connects no others: GRUB would see no disk.
        common["bootindex"] = len(vm.nics) + number
    sizes = {"logical_block_size": disk.sector, "physical_block_size": disk.sector}
    serial = {"serial": disk.serial}
    identity = {**serial, "wwn": disk.wwn, **_rotation(disk)}
    device: dict[Bus, dict[str, Any]] = {
        "virtio": {"driver": "virtio-blk-pci", **common, **serial, **sizes},
        # QEMU refuses an NVMe disk without a serial number.
        "nvme": {"driver": "nvme", **common, "serial": disk.serial or f"nvme{number}", **sizes},
        "sata": {"driver": "ide-hd", "bus": f"sata.{number}", **common, **identity}
        | {"model": disk.model},
        # QEMU itself stops a machine whose disk has no space left, unless told to tell the guest
        "scsi": {"driver": "scsi-hd", "bus": "scsi.0", **common, **identity, **sizes}
        | {"product": disk.model, "werror": "report"},
        "usb": {"driver": "usb-storage", "bus": "usb.0", **common, **serial, **sizes},
    }
    return ["-blockdev", json.dumps(backend), "-device", json.dumps(_given(device[disk.bus]))]


def _rotation(disk: Disk) -> dict[str, int | None]:
    # ATA8-ACS, word 217: 1 is a device that does not rotate, otherwise revolutions a minute.
    return {"rotation_rate": {None: None, True: 7200, False: 1}[disk.rotational]}


def _given(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _nic(vm: Vm, nic: Nic, number: int) -> list[str]:
    networked = "network" in vm.boot
    device: dict[str, Any] = {
        "driver": nic.model,
        "netdev": f"net{number}",
        "mac": nic.mac,
        "romfile": None if nic.rom == "ipxe" and networked else "",
    }
    if vm.firmware == "uefi" and vm.boot[0] == "network":
        # Overrides the NVRAM's BootOrder, which is otherwise what decides.
        device["bootindex"] = number
    return [
        *("-netdev", nic.network.netdev(f"net{number}")),
        *("-device", json.dumps(_given(device))),
    ]


class Machine:
    """A running virtual machine. Leaving its context kills it."""

    def __init__(
        self,
        vm: Vm,
        folder: Path,
        *,
        accel: Accelerator | None = None,
        on_bytes: Callable[[bytes], None] | None = None,
        state: Path | None = None,
    ) -> None:
        """Switch the machine on, or go on from a saved `state` of the same description.

        Logs and NVRAM are kept in `folder`. `on_bytes` mirrors the first serial port.
        Raises ProcessError when QEMU does not start.
        """
        self.vm = vm
        folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        boot = 1 + len(list(folder.glob(f"{vm.name}-*.qemu.log")))
        stem = f"{vm.name}-{boot}"
        self.qemu_log = folder / f"{stem}.qemu.log"
        ours, theirs = zip(*(socket.socketpair() for _ in range(vm.serial_ports + 1)), strict=True)
        state_fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC) if state else None
        wiring = Wiring(
            accel=accel or accelerator(),
            qmp_fd=theirs[0].fileno(),
            serial_fds=tuple(end.fileno() for end in theirs[1:]),
            nvram=_nvram(vm, folder),
            state_fd=state_fd,
        )
        inherited = [end.fileno() for end in theirs] + ([] if state_fd is None else [state_fd])
        self.argv = argv(vm, wiring)
        prefix = next((nic.network.prefix for nic in vm.nics if nic.network.prefix), ())
        with self.qemu_log.open("wb") as output:
            self._process = process.start(
                self.argv,
                output.fileno(),
                prefix=prefix,
                pass_fds=inherited,
            )
        if state_fd is not None:
            os.close(state_fd)
        for end in theirs:
            end.close()
        self.consoles = [
            Console(
                f"{stem} ttyS{number}",
                end,
                folder / f"{stem}.ttyS{number}.log",
                fail_on=KERNEL_PANIC if "network" in vm.boot else (*KERNEL_PANIC, NETWORK_BOOT),
                on_bytes=on_bytes if number == 0 else None,
                started=self.started,
            )
            for number, end in enumerate(ours[1:])
        ]
        self.qmp = Qmp(vm.name, ours[0])
        self._killed = False
        try:
            self.qmp.connect()
            # What is typed while the state is loaded would be overwritten by it.
            if state and self.qmp.execute("query-status")["status"] == "inmigrate":
                self.qmp.wait_for_event("RESUME", 60)
        except (OSError, TimeoutError) as error:
            self.kill()
            raise process.ProcessError(f"QEMU did not start: {error}\n{self.said()}") from error

    @property
    def console(self) -> Console:
        """The first serial port."""
        return self.consoles[0]

    def wait_for_exit(self, deadline_s: float) -> Ending:
        """How the machine ended: "reboot" and "poweroff" are the guest's own doing.

        Raises TimeoutError, with the console's tail, if it still runs after `deadline_s` seconds.
        """
        status = process.wait(self._process, deadline_s)
        if status is None:
            raise TimeoutError(
                f"{self.vm.name}: waited {deadline_s:g} s for the machine to end\n"
                f"--- last lines (all of it: {self.console.log}) ---\n{self.console.tail()}\n---"
            )
        for console in self.consoles:
            console.wait_closed(10)
        self.qmp.wait_closed(10)
        reasons = {
            event["data"]["reason"] for event in self.qmp.events() if event["event"] == "SHUTDOWN"
        }
        if self._killed:
            return "killed"
        if status == 0 and "guest-reset" in reasons:
            return "reboot"
        if status == 0 and "guest-shutdown" in reasons:
            return "poweroff"
        return "crashed"

    def save(self, state: Path) -> None:
        """Write memory and devices to a file; the machine is frozen afterwards.

        Disks are no part of it: go on with disks of the same content as at this moment (a copy, or
        an equally blank one). QEMU cannot save a machine with an NVMe disk. Guests that go on
        from a state have a stale clock. Raises ProcessError, qemu.qmp.QMPError, TimeoutError.
        """
        events = {"capability": "events", "state": True}
        self.qmp.execute("migrate-set-capabilities", {"capabilities": [events]})
        self.qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        with state.open("xb") as file:
            self.qmp.send_descriptor("state", file.fileno())
            self.qmp.execute("migrate", {"uri": "fd:state"})
            end = self.qmp.wait_for_event("MIGRATION", 120, status=("completed", "failed"))
        if end["data"]["status"] == "failed":
            raise process.ProcessError(f"{self.vm.name}: {self.qmp.execute('query-migrate')}")

    def break_disk(self, number: int, error: int, *, once: bool = False) -> None:
        """Let every write to a disk (0 is the first) fail from now on, or the next one only.

        `error` is an errno of the host's. A SCSI disk tells the guest of ENOSPC (SPC-4, "space
        allocation failed"), for everything else and over other buses it is an I/O error.
        Raises qemu.qmp.QMPError.
        """
        rule = {"event": "none", "iotype": "write", "errno": error, "once": once}
        fault = {"driver": "blkdebug", "node-name": f"fault{number}", "image": f"file{number}"}
        self.qmp.execute("blockdev-add", {**fault, "inject-error": [rule]})
        options = {**_format(self.vm.disks[number], number), "file": f"fault{number}"}
        self.qmp.execute("blockdev-reopen", {"options": [options]})

    def remount_read_only(self) -> None:
        """Let the guest's kernel make all file systems on disks read-only (sysrq.rst, "u").

        A BREAK on the console is the magic key there; one letter must follow within 5 s. It passes
        btrfs by.
        """
        self.qmp.execute("chardev-send-break", {"id": "serial0"})
        self.console.send(b"u")

    def kill(self) -> None:
        """Pull the plug. May be called at any time and again."""
        if self._process.returncode is None:
            self._killed = True
            process.stop(self._process)
        for console in self.consoles:
            console.wait_closed(10)
            console.close()
        self.qmp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.kill()

    def said(self) -> str:
        """What QEMU itself complained about."""
        return self.qemu_log.read_text(errors="replace").strip()


def _nvram(vm: Vm, folder: Path) -> Path | None:
    if vm.firmware == "bios":
        return None
    nvram = folder / f"{vm.name}.nvram.fd"
    if not nvram.exists():
        shutil.copyfile(OVMF_VARS, nvram)
    return nvram
