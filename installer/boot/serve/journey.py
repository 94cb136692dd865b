"""The way of each machine through its boot: from what servers saw to lines for a person.

Pure: it is fed with times and events and returns lines. Times are seconds of any one clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from installer.boot.serve.reports import AgentEvent
from installer.model.units import format_bytes, format_seconds

Step = Literal[
    "dhcp", "loader", "script", "kernel", "initrd", "linux", "root", "answers", "agent", "file"
]
"""In their order; `linux` is the lease of a kernel that runs, `file` anything else."""

ORDER: tuple[Step, ...] = (
    *("dhcp", "loader", "script", "kernel", "initrd", "linux", "root", "answers", "agent"),
)

Client = Literal["BIOS", "UEFI", "UEFI HTTP", "iPXE", "other"]
"""Who asks for a lease, as the rendered dnsmasq.conf tells them apart."""

State = Literal["done", "progress", "missing", "broken", "refused", "hangs", "failed", "installed"]

_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Offered:
    """A client was offered an address, and has not taken it yet."""

    mac: str
    client: Client


@dataclass(frozen=True)
class Leased:
    """A client has a lease. `name` is what it is called, "" if nothing."""

    mac: str
    ip: str
    client: Client
    name: str = ""


@dataclass(frozen=True)
class Proxied:
    """A proxy told a client, which has its address from elsewhere, what to boot."""

    mac: str
    client: Client
    ip: str = ""


@dataclass(frozen=True)
class Refused:
    """DHCP said no, and why."""

    mac: str
    why: str


@dataclass(frozen=True)
class Transfer:
    """A file on its way.

    `name` is its path below the root, `size` and `done` are bytes (None: not known), `seconds` how
    long it took. `mac` is "" where only the address is known; `host` is what the file says about
    who asks for it (each host has a script of its own). `unneeded`: the client has it already, or
    asked for a part that is none.
    """

    ip: str
    mac: str
    step: Step
    name: str
    by: Literal["TFTP", "HTTP"]
    state: Literal["begun", "moved", "done", "broken", "missing", "unneeded"]
    done: int = 0
    size: int | None = None
    seconds: float | None = None
    host: str = ""


@dataclass(frozen=True)
class Reported:
    """The agent said something."""

    ip: str
    mac: str
    event: AgentEvent


Event = Offered | Leased | Proxied | Refused | Transfer | Reported


@dataclass(frozen=True)
class Site:
    """What the journey has to know of the site to say what comes next.

    `names` are the hosts' names by MAC. `answers` and `reports`: whether answer files and reports
    come to this server.
    """

    names: Mapping[str, str]
    url: str
    bios: str
    uefi: str
    answers: bool
    reports: bool


@dataclass(frozen=True)
class Line:
    """One line of the log; strings may hold anything that a client sent."""

    time: float
    mac: str
    ip: str
    host: str
    step: Step
    state: State
    text: str
    file: str = ""
    bytes: int | None = None
    seconds: float | None = None


@dataclass
class _Machine:
    mac: str
    ip: str
    alive: float
    name: str = ""
    client: Client = "other"
    step: Step = "dhcp"
    text: str = "asks for an address"
    boots: bool = False
    leased: bool = False
    told: bool = False
    why: str = ""
    refused: str = ""
    ended: State | None = None
    starts: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    moving: dict[str, Transfer] = field(default_factory=dict)
    shown: float = 0.0

    @property
    def rank(self) -> int:
        return ORDER.index(self.step)


class Journeys:
    """All machines that were seen.

    Args:
        site: what is served.
        patience: seconds at one step after which a machine is said to hang.
    """

    def __init__(self, site: Site, patience: float) -> None:
        self._site = site
        self._patience = patience
        self._machines: dict[str, _Machine] = {}

    def feed(self, time: float, event: Event) -> list[Line]:
        """Take what happened; return the lines that are worth saying."""
        match event:
            case Offered():
                return list(self._offered(time, event))
            case Leased():
                return list(self._leased(time, event))
            case Proxied():
                return list(self._proxied(time, event))
            case Refused():
                return list(self._refused(time, event))
            case Transfer():
                return list(self._transfer(time, event))
            case Reported():
                return list(self._reported(time, event))

    def tick(self, time: float) -> list[Line]:
        """Return a line for each machine that has been at its step for too long."""
        lines = []
        for machine in self._machines.values():
            waited = time - machine.alive
            if machine.told or machine.ended or waited < self._patience:
                continue
            why = self._why(machine)
            if why:
                machine.told, machine.why = True, why
                text = f"nothing new for {format_seconds(waited)}: {why}"
                lines.append(self._line(time, machine, machine.step, "hangs", text))
        return lines

    def summary(self) -> list[Line]:
        """Return the last step of each machine that booted, oldest first."""
        return [
            self._line(
                machine.alive,
                machine,
                machine.step,
                machine.ended or ("hangs" if machine.told else "done"),
                machine.why if machine.told else machine.text,
            )
            for machine in self._machines.values()
            if machine.boots
        ]

    def mac_of(self, ip: str) -> str:
        """Return who has a lease for an address, "" if nobody is known."""
        return next((one.mac for one in self._machines.values() if ip and one.ip == ip), "")

    def _machine(self, time: float, mac: str, ip: str) -> _Machine:
        mac = mac or self.mac_of(ip)
        machine = self._machines.get(mac or ip)
        if machine is None and mac and ip in self._machines:
            # its address was all that was known of it
            machine = self._machines.pop(ip)
            machine.mac = mac
            self._machines[mac] = machine
        if machine is None:
            machine = self._machines[mac or ip] = _Machine(mac, "", time)
        machine.name = self._site.names.get(mac) or machine.name
        if ip and machine.ip != ip:
            for other in self._machines.values():
                if other.ip == ip and other is not machine:
                    other.ip = ""
            machine.ip = ip
        return machine

    def _offered(self, time: float, event: Offered) -> Iterator[Line]:
        machine = self._machine(time, event.mac, "")
        yield from self._start(time, machine, event.client)
        machine.client = event.client
        machine.boots |= event.client != "other"

    def _start(self, time: float, machine: _Machine, client: Client) -> Iterator[Line]:
        """A firmware asks, or iPXE does after more than a script: the machine starts again."""
        firmware = client in ("BIOS", "UEFI", "UEFI HTTP")
        again = (firmware and machine.rank > 0) or (client == "iPXE" and machine.rank > 2)
        if not again and (machine.boots or client == "other"):
            return
        machine.starts += 1
        if again:
            before = f"it came as far as {machine.step} before ({machine.text})"
            machine.step, machine.text, machine.leased = "dhcp", "asks for an address", False
            machine.ended, machine.boots = None, True
            machine.missing.clear()
            machine.moving.clear()
            machine.alive, machine.told = time, False
            text = f"start number {machine.starts}: {before}"
            yield self._line(time, machine, "dhcp", "progress", text)

    def _leased(self, time: float, event: Leased) -> Iterator[Line]:
        machine = self._machine(time, event.mac, event.ip)
        yield from self._start(time, machine, event.client)
        machine.name = machine.name or event.name
        machine.boots |= event.client != "other"
        machine.leased = True
        if event.client == "other":
            if machine.rank < ORDER.index("kernel"):
                what = "somebody who does not boot from here" if not machine.boots else "its loader"
                yield from self._say(time, machine, "dhcp", "done", f"{event.ip} for {what}")
            elif machine.rank <= ORDER.index("linux"):
                text = f"the kernel runs; {event.ip} for its initrd"
                yield from self._say(time, machine, "linux", "done", text)
            return
        machine.client = event.client
        text = f"{event.ip} for {self._who(event.client)}, which is to fetch {self._next(event)}"
        yield from self._say(time, machine, "dhcp", "done", text)

    def _refused(self, time: float, event: Refused) -> Iterator[Line]:
        machine = self._machine(time, event.mac, "")
        if machine.refused != event.why:
            machine.refused = event.why
            yield self._line(time, machine, "dhcp", "refused", event.why)

    def _proxied(self, time: float, event: Proxied) -> Iterator[Line]:
        machine = self._machine(time, event.mac, event.ip)
        yield from self._start(time, machine, event.client)
        machine.boots = machine.leased = True
        machine.client = event.client
        text = f"told {self._who(event.client)} to fetch {self._next(event)}"
        yield from self._say(time, machine, "dhcp", "done", text)

    @staticmethod
    def _who(client: Client) -> str:
        return {"iPXE": "iPXE", "other": "a client"}.get(client, f"the firmware ({client})")

    def _next(self, event: Leased | Proxied) -> str:
        return {
            "BIOS": f"{self._site.bios} by TFTP",
            "UEFI": f"{self._site.uefi} by TFTP",
            "UEFI HTTP": f"{self._site.url}/{self._site.uefi}",
        }.get(event.client, f"{self._site.url}/ipxe/boot.ipxe")

    def _transfer(self, time: float, event: Transfer) -> Iterator[Line]:
        machine = self._machine(time, event.mac, event.ip)
        machine.boots = True
        machine.name = machine.name or event.host
        if event.state == "missing":
            yield from self._missing(time, machine, event)
        elif event.state in ("begun", "moved"):
            yield from self._moved(time, machine, event)
        else:
            machine.moving.pop(event.name, None)
            if event.state == "broken":
                yield from self._broken(time, machine, event)
            elif event.state == "done":
                yield from self._arrived(time, machine, event)

    def _moved(self, time: float, machine: _Machine, event: Transfer) -> Iterator[Line]:
        known = machine.moving.get(event.name)
        machine.moving[event.name] = event
        if known is None or event.done > known.done:
            machine.alive, machine.told = time, False
        if known is None:
            machine.shown = time
        elif time - machine.shown >= _PROGRESS_SECONDS and event.size:
            machine.shown = time
            share = f"{event.done * 100 // event.size} % of {format_bytes(event.size)}"
            text = f"{event.name}: {share}"
            yield self._line(time, machine, event.step, "progress", text, event=event)

    def _broken(self, time: float, machine: _Machine, event: Transfer) -> Iterator[Line]:
        text = f"{event.name} broke off"
        if event.size is not None:
            # by TFTP, it is not known how far it was
            text += f" after {format_bytes(event.done)} of {format_bytes(event.size)}"
        yield self._line(time, machine, event.step, "broken", text, event=event)
        machine.text = text

    def _arrived(self, time: float, machine: _Machine, event: Transfer) -> Iterator[Line]:
        how = [event.name]
        if event.size is not None:
            how.append(format_bytes(event.done))
        if event.seconds is not None:
            how.append(f"in {format_seconds(event.seconds)}")
        text = f"{' '.join(how)} by {event.by}"
        if event.step == "answers" and machine.missing:
            text += f", after {len(machine.missing)} names that are not there"
        machine.missing.clear()
        if event.step == "file":
            machine.alive, machine.told = time, False
            yield self._line(time, machine, "file", "done", text, event=event)
        else:
            yield from self._say(time, machine, event.step, "done", text, event=event)

    def _missing(self, time: float, machine: _Machine, event: Transfer) -> Iterator[Line]:
        """No sign of life: a loader that asks again and again for what is not there hangs."""
        if event.by == "TFTP" and event.step in ("script", "file"):
            # GRUB asks for one name after the other, and so do firmwares
            return
        times = machine.missing[event.name] = machine.missing.get(event.name, 0) + 1
        if event.step == "answers":
            # the agent asks for one name after the other
            machine.step, machine.text = "answers", "looks for its answer file"
            if times == 1:
                machine.alive, machine.told = time, False
        elif times == 1:
            text = f"{event.name} is not there ({event.by})"
            yield self._line(time, machine, event.step, "missing", text, event=event)

    def _reported(self, time: float, event: Reported) -> Iterator[Line]:
        machine = self._machine(time, event.mac, event.ip)
        machine.boots = True
        said = event.event
        match said.kind:
            case "observed":
                text = f"netinstall {said.version} looked at the machine"
            case "planned":
                text = "everything is decided, nothing changed yet"
            case "step-started":
                text = f"step {said.number} of {said.count}, {said.step}: {said.title}"
                machine.shown = time
            case "step-progress" if time - machine.shown >= _PROGRESS_SECONDS and said.total:
                machine.shown = time
                text = f"{said.step}: {said.done * 100 // said.total} %"
                machine.alive, machine.told = time, False
                yield self._line(time, machine, "agent", "progress", text)
                return
            case "message" if said.level == "warning":
                text = f"warning: {said.text}"
                yield self._line(time, machine, "agent", "progress", text)
                return
            case "failed":
                what = "; ".join(f"{one.code}: {one.what}" for one in said.problems)
                where = f" in {said.step}" if said.step else ""
                yield from self._say(time, machine, "agent", "failed", f"failed{where}: {what}")
                machine.ended = "failed"
                return
            case "finished":
                text = f"installed in {format_seconds(said.seconds)}"
                yield from self._say(time, machine, "agent", "installed", text)
                machine.ended = "installed"
                return
            case _:
                machine.alive, machine.told = time, False
                return
        machine.ended = None
        yield from self._say(time, machine, "agent", "done", text)

    def _say(
        self,
        time: float,
        machine: _Machine,
        step: Step,
        state: State,
        text: str,
        *,
        event: Transfer | None = None,
    ) -> Iterator[Line]:
        """The machine got to a step; the same words twice in a row are said once."""
        same = (machine.step, machine.text) == (step, text)
        machine.alive, machine.told = time, False
        machine.step, machine.text = step, text
        if not same:
            yield self._line(time, machine, step, state, text, event=event)

    @staticmethod
    def _line(
        time: float,
        machine: _Machine,
        step: Step,
        state: State,
        text: str,
        *,
        event: Transfer | None = None,
    ) -> Line:
        about = (event.name, event.done, event.seconds) if event else ("", None, None)
        return Line(time, machine.mac, machine.ip, machine.name, step, state, text, *about)

    def _why(self, machine: _Machine) -> str:
        """What it usually means to stay at a step; "" where nothing more can be expected."""
        # without a network card's address it is somebody who looks at the files
        if not machine.boots or not machine.mac:
            return ""
        for name, transfer in machine.moving.items():
            return (
                f"{name} stopped at {format_bytes(transfer.done)}: "
                "the cable, or the machine was switched off"
            )
        if machine.step == "answers" and machine.missing:
            return (
                f"it asked for {', '.join(sorted(machine.missing))}, and none is there: "
                "make default.toml"
            )
        for name, times in machine.missing.items():
            return f"it asked {times} times for {name}, which is not there"
        return self._usual(machine)

    def _usual(self, machine: _Machine) -> str:
        site, text = self._site, ""
        match machine.step:
            case "dhcp" if not machine.leased:
                text = (
                    "it was offered an address and did not take it: another DHCP server answered, "
                    "or the answer does not reach it (VLAN, firewall, relay)"
                )
            case "dhcp" if machine.client == "iPXE":
                text = (
                    f"iPXE has an address and never asked for {site.url}/ipxe/boot.ipxe: a "
                    "firewall for that port, or no route to the server"
                )
            case "dhcp" if machine.client == "UEFI HTTP":
                text = (
                    f"it has an address and never asked for {site.url}/{site.uefi}: firmware "
                    "that allows https only, or a firewall for that port"
                )
            case "dhcp":
                name = site.bios if machine.client == "BIOS" else site.uefi
                text = (
                    f"it has an address and has not fetched {name}: a firewall for UDP port 69, "
                    "or another server's answer was taken; a transfer by TFTP shows at its end only"
                )
            case "loader":
                text = (
                    "it has the loader, which never came back: Secure Boot refused it, it has no "
                    "driver for the network card (try snponly.efi), or it is for another firmware"
                )
            # asked for by Pixiecore, which fetches the rest itself
            case "script" if not machine.ip:
                pass
            case "script":
                text = (
                    "it has the script and did not ask for the kernel: see the machine's screen; "
                    "a transfer by TFTP shows at its end only"
                )
            case "kernel":
                text = "it has the kernel and did not go on: too little memory, or a broken image"
            case "initrd" | "linux":
                after = "the kernel runs" if machine.step == "linux" else "the kernel should run"
                text = (
                    f"{after}, and was not heard of since: no driver or no link on the network "
                    "card (the initrd waits up to 180 s), too little memory, or the NFS server "
                    "does not answer; see its console"
                )
            case "root" if site.answers or site.reports:
                text = (
                    "it has its root and the agent was not heard of: too little memory, or it "
                    "still unpacks; see its console"
                )
            case "answers" if site.reports:
                text = "it has its answer file and reports nothing: see its console"
            case "agent":
                text = f"the agent reports nothing more since: {machine.text}"
        return text
