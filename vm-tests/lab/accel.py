"""Whether KVM works here, proved by tiny boots."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lab import cache

Accelerator = Literal["kvm", "tcg"]

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")

# xor ax,ax · mov dx,0x3f8 · mov al,"!" · out dx,al · hlt · jmp $-1
_BOOT_SECTOR = bytes.fromhex("31c0baf803b021eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_DEADLINE_S = 15.0


def arguments(accel: Accelerator, tcg_cpu: str) -> list[str]:
    """QEMU's arguments for an accelerator; under KVM the guest gets the host's processor."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", tcg_cpu]


def accelerator() -> Accelerator:
    """The accelerator for this machine; the answer is kept for as long as the host is up."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def decide(output: Path) -> None:
        output.write_text("kvm" if _openable() and boots("kvm") else "tcg")

    answer = cache.build("accelerator", [boot_id, str(_openable())], decide).read_text()
    return "kvm" if answer == "kvm" else "tcg"


def boots(accel: Accelerator, deadline_s: float = _DEADLINE_S) -> bool:
    """Whether guests run: a boot sector in real mode, and OVMF, which lives in long mode.

    That /dev/kvm exists proves nothing. Under some hypervisors QEMU aborts at the first MSR; under
    some, 16-bit code runs and the guest hangs for ever when it enters long mode.
    """
    with tempfile.TemporaryDirectory(prefix="lab-accel-") as folder:
        disk = Path(folder, "disk.img")
        disk.write_bytes(_BOOT_SECTOR)
        return _says(
            accel, ["-machine", "pc", "-drive", f"file={disk},format=raw,if=ide"], b"!", deadline_s
        ) and _says(
            accel,
            ["-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}"],
            b"BdsDxe",
            deadline_s,
        )


def _openable() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _says(accel: Accelerator, machine: Sequence[str], word: bytes, deadline_s: float) -> bool:
    argv = [
        *("qemu-system-x86_64", *machine, *arguments(accel, "qemu64"), "-nodefaults"),
        *("-no-user-config", "-display", "none", "-m", "128", "-serial", "stdio"),
    ]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as guest:
        deadline = threading.Timer(deadline_s, guest.kill)
        deadline.start()
        assert guest.stdout is not None
        said = b""
        while word not in said and (data := os.read(guest.stdout.fileno(), 4096)):
            said += data
        deadline.cancel()
        guest.kill()
    return word in said
