"""`make demo`: a blank machine boots over the network, is installed, and runs what was installed.

Everything is real but the hardware: OVMF, iPXE, HTTP, the boot environment that `netinstall image
build` makes, and the sample system (vm-tests/sample-system/README.md says what of it is NixOS's).
"""

from __future__ import annotations

import codecs
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from installer.model.units import format_bytes, format_seconds
from lab import accel, image, report, sample
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.console import Cleaner
from lab.network import UserNetwork
from lab.vm import Machine, Nic, Vm

ANSWERS = Path(__file__).with_name("demo.toml")
HOSTNAME = "rack7"
MEMORY_MIB = 1024

_FAILED = (r"INSTALLATION FAILED",)


@dataclass
class _Clock:
    """How long each phase took, in seconds."""

    begun: float = field(default_factory=time.monotonic)
    phases: list[tuple[str, float]] = field(default_factory=list)

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.phases.append((phase, now - self.begun))
        self.begun = now


class _Mirror:
    """Shows a machine's serial console, indented, without what moves the cursor."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cleaner = Cleaner()
        self._rest = ""
        self._blank = False

    def __call__(self, data: bytes) -> None:
        text = self._rest + self._cleaner.feed(self._decoder.decode(data))
        # the boot menu's frame is drawn in a character set that this is not
        *lines, self._rest = text.replace("\r", "").replace("\ufffd", "").split("\n")
        for line in lines:
            # firmware and boot menu clear the screen with empty lines
            if line.strip() or not self._blank:
                self._out.print(f"  │ {line.rstrip()}", markup=False, highlight=False)
            self._blank = not line.strip()


def main() -> None:
    """Run the demonstration; exit 1 with the reason if it does not come to its end."""
    out = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="netinstall-demo-") as name:
        try:
            _demo(Path(name), out)
        except (AssertionError, TimeoutError, OSError) as error:
            out.print(f"\n[bold red]The demonstration failed.[/] {error}", highlight=False)
            kept = Path(tempfile.mkdtemp(prefix="netinstall-demo-logs-"))
            for log in Path(name).glob("*.log"):
                shutil.copy(log, kept)
            out.print(f"The logs are in {kept}.", highlight=False)
            sys.exit(1)


def _demo(folder: Path, out: Console) -> None:
    _title(out, "1. Build the boot environment and a sample system (cached)")
    environment, payload = image.folder(), sample.tarball()
    for label, path in (
        ("kernel", environment / "vmlinuz"),
        ("initrd", environment / "initrd"),
        ("root file system", environment / "root.squashfs"),
        ("sample system", payload),
    ):
        out.print(f"  {label:17} {format_bytes(path.stat().st_size):>9}", highlight=False)

    with Bench(folder) as bench:
        server = BootServer(bench.web, environment, payload, arguments="quiet")
        server.answers(ANSWERS.read_text())
        vm = Vm(
            firmware="uefi",
            memory=MEMORY_MIB,
            disks=(
                bench.disk("4G", serial="demo-disk"),
                # nobody names this one, so nothing may happen to it
                bench.disk("1G", serial="somebody-elses"),
            ),
            nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname=HOSTNAME)),),
        )
        _title(out, "2. Switch a blank UEFI machine on; it boots over iPXE and HTTP")
        out.print(
            f"  {MEMORY_MIB} MiB of RAM, a blank disk of 4 GiB and somebody else's of 1 GiB, "
            f"QEMU with {accel.accelerator().upper()}. Its serial console:",
            highlight=False,
        )
        clock = _Clock()
        machine = bench.boot(vm, on_bytes=_Mirror(out))
        _install(machine, bench, clock)

        _title(out, "3. The machine reboots; the network is gone from its boot order")
        installed = bench.boot(vm.without_network_boot(), on_bytes=_until_report(_Mirror(out)))
        up = report.wait(installed.console, 300)
        clock.lap("the installed system boots from its own disk")
        installed.kill()
        events = bench.web.reports

    _title(out, "4. What came up")
    _show_system(out, up)
    _show_times(out, clock, events)


def _install(machine: Machine, bench: Bench, clock: _Clock) -> None:
    bench.web.wait_for_request(r"/boot\.ipxe", 120)
    clock.lap("firmware, until iPXE has its script")
    bench.web.wait_for_request(r"/image/root\.squashfs", 120)
    clock.lap("kernel and initrd, until they ask for the root")
    machine.console.expect(r"netinstall \d\S*: unattended", 240)
    clock.lap("root over HTTP, init, until the agent has looked around")
    machine.console.expect(r"INSTALLED in", 600, fail_on=_FAILED)
    clock.lap("the installation")
    if machine.wait_for_exit(60) != "reboot":
        raise AssertionError("the machine did not reboot")
    clock.lap("until it reboots")


def _until_report(mirror: _Mirror) -> _Mirror | Any:
    """Show the boot, not the system's report about itself, which is shown as a table."""
    seen = b""
    ended = False

    def show(data: bytes) -> None:
        nonlocal seen, ended
        if ended:
            return
        seen += data
        before, mark, _ = seen.partition(report.BEGIN.encode())
        if mark:
            ended = True
            mirror(before[len(seen) - len(data) :] if len(before) > len(seen) - len(data) else b"")
        else:
            mirror(data)

    return show


def _title(out: Console, text: str) -> None:
    out.print()
    out.print(Rule(text, align="left", characters="─"))


def _show_system(out: Console, up: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    interfaces = up["network"]["interfaces"].items()
    rows = [
        ("host name", up["hostname"]),
        ("NixOS", f"{up['nixos_version']} ({up['configured_from']})"),
        ("system", up["toplevel"]),
        ("booted by", up["booted_via"].upper()),
        (
            "address",
            ", ".join(f"{name} {' '.join(nic['addresses'])}" for name, nic in interfaces)
            + f" ({up['network']['mode']})",
        ),
        ("name servers", " ".join(up["network"]["nameservers"])),
        *(
            ("file system", f"{row['mount']} {row['fstype']} on {row['device']}")
            for row in up["mounts"]
        ),
        *(("swap", row["device"]) for row in up["swaps"]),
        ("Nix store", f"{up['nix']['valid_paths']} paths, verified: {up['nix']['verify']}"),
    ]
    for label, value in rows:
        table.add_row(f"  {label}", value)
    out.print(table, highlight=False)


def _show_times(out: Console, clock: _Clock, events: Sequence[dict[str, Any]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    steps = [event for event in events if event["kind"] == "finished"]
    for phase, seconds in clock.phases:
        table.add_row(f"  {phase}", format_seconds(seconds))
        if phase == "the installation" and steps:
            slowest = sorted(steps[-1]["phases"].items(), key=lambda item: -item[1])[:4]
            for step, took in slowest:
                table.add_row(f"    of that {step}", format_seconds(took))
    table.add_row("  together", format_seconds(sum(seconds for _, seconds in clock.phases)))
    out.print()
    out.print(table, highlight=False)


if __name__ == "__main__":
    main()
