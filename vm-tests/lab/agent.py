"""An agent that stands in its failure shell, and what it says to what is typed there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import UserNetwork
from lab.vm import Machine, Nic, Vm

PROMPT = r"netinstall# $"


@dataclass
class Agent:
    """A machine in its failure shell, and the server it boots from."""

    machine: Machine
    server: BootServer

    def run(self, command: str, deadline_s: float) -> tuple[str, int]:
        """Type a command; return what it said (see `prose`) and its exit code.

        What it wrote to disks is in their images then.
        """
        said, code = self._type(command, deadline_s)
        return prose(said), code

    def script(self, text: str, deadline_s: float) -> tuple[str, int]:
        """Run a script of sh; return what it said, as it is, and its exit code.

        The kernel says nothing more on the console from then on.
        """
        url = self.server.web.publish("/script", text)
        # busybox's own -T crashes in Debian 12 (busybox 1.35)
        fetch = f"timeout 60 wget -q -O /run/script {url}"
        return self._type(f"dmesg -n 1; {fetch} && sh /run/script", deadline_s)

    def _type(self, command: str, deadline_s: float) -> tuple[str, int]:
        console = self.machine.console
        # the echo of what is typed must not be mistaken for the answer
        console.send_line(f"echo BE''GIN; {command}; code=$?; sync; echo EN''D $code")
        found = console.expect(r"(?s)^BEGIN\n(.*?)^END (\d+)$", deadline_s)
        return found[1], int(found[2])

    def install(self, answers: str, deadline_s: float = 90) -> tuple[str, int]:
        """Publish an answer file and install with it."""
        url = self.server.answers(answers, "case.toml")
        return self.run(f"netinstall install {url}", deadline_s)


def in_failure_shell(bench: Bench, vm: Vm, payload: Path | None = None) -> Agent:
    """Boot a machine over HTTP that finds no answer file, and wait for its shell.

    `payload` is published in place of the sample system.
    """
    server = BootServer(bench.web) if payload is None else BootServer(bench.web, payload=payload)
    machine = bench.boot(replace(vm, nics=(Nic(UserNetwork(bootfile=server.ipxe())),)))
    machine.console.expect("INSTALLATION FAILED", 180)
    machine.console.expect_prompt(PROMPT, 60)
    return Agent(machine, server)


def prose(text: str) -> str:
    """What was said, without frames and with every gap as one blank: a text that can be searched.

    A console breaks its lines wherever they are full.
    """
    plain = re.sub(r"^[!|] | +[!|]$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", plain).strip()
