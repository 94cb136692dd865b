"""The dirty matrix: old contents, sector sizes, a firmware; all disks hot in one machine."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from lab import agent, bare, disk, planned
from lab.agent import Agent
from lab.bench import Bench
from lab.dirt import CONTENTS, PROLOGUE, SIZES, Content
from lab.planned import Plan
from lab.vm import Disk, Vm

Firmware = Literal["bios", "uefi"]
Sector = Literal[512, 4096]
Cell = tuple[Content, Sector]

CELLS: tuple[Cell, ...] = tuple((one, sector) for sector in get_args(Sector) for one in CONTENTS)
"""Every content on every size of sectors."""

BATCHES = {
    f"{sector}-{first // 6 + 1}": [(one, sector) for one in CONTENTS[first : first + 6]]
    for sector in get_args(Sector)
    for first in range(0, len(CONTENTS), 6)
}
"""Contents that one installation goes over: alone, each would take as long as six together."""

_HEAD = """
version = 1

[payload]
url = "@URL@"
sha256 = "@SHA256@"
"""

# 260 MiB are the smallest FAT32 with sectors of 4096 bytes; the end of the disk stays free
_BOOT: dict[Firmware, str] = {
    "uefi": '[[disks.partitions]]\ntype = "esp"\nsize = "272 MiB"\nmount = "@MOUNT@"\n',
    "bios": '[[disks.partitions]]\ntype = "bios-boot"\nsize = "1 MiB"\n',
}


@dataclass
class Matrix:
    """A machine in its failure shell; `disks` by serial number, `prints` their fingerprints."""

    firmware: Firmware
    agent: Agent
    disks: Mapping[str, Disk]
    prints: dict[str, str] = field(default_factory=dict)

    def answers(self, cells: Sequence[Cell], wipe: str | None = None) -> str:
        """The answer file for some contents: their disks, and nothing else.

        Each of them gets the layout of the firmware; the system lies on the first. Without
        `wipe`, each gets the least consent that will do.
        """
        text = _HEAD
        for content, sector in cells:
            consent = wipe or ("known" if content.ours else "force")
            for number, serial in enumerate(serials(content, sector)):
                where = f"/srv/{serial}" if "[[" in text else "/"
                text += f'[[disks]]\nmatch = {{ serial = "{serial}" }}\nwipe = "{consent}"\n'
                if number == 0:
                    esp = "/boot" if where == "/" else f"/esp/{serial}"
                    text += _BOOT[self.firmware].replace("@MOUNT@", esp)
                text += f'[[disks.partitions]]\nsize = "150 MiB"\nmount = "{where}"\n'
        return text

    def refused(self, wipe: str) -> Mapping[str, str]:
        """What is said about each disk when it is taken with too little consent, by serial."""
        text, names = _HEAD, [name for cell in CELLS for name in serials(*cell)]
        for name in names:
            place = "/" if name == names[0] else f"/{name}"
            text += f'[[disks]]\nmatch = {{ serial = "{name}" }}\nwipe = "{wipe}"\n'
            text += f'[[disks.partitions]]\nsize = "rest"\nmount = "{place}"\n'
        said, code = self.agent.install(text, 600)
        assert code == 3, said
        failed = [event for event in self.agent.server.web.reports if event["kind"] == "failed"]
        about = dict.fromkeys(names, "")
        for problem in failed[-1]["problems"]:
            found = re.search(r"disks\[(\d+)\]", problem["where"])
            if found:
                about[names[int(found[1])]] += f"{problem['what']}\n"
        return about

    def misnamed(self, wipe: Literal["refuse", "known"]) -> list[str]:
        """Contents of which a refusal does not say what it should, and what it says."""
        about, wrong = self.refused(wipe), []
        for content, sector in CELLS:
            said = "".join(about[serial] for serial in serials(content, sector))
            wanted = [one.replace("@", name_of(content, sector)) for one in content.refused]
            if wipe == "known" and content.ours:
                wanted = []
                if "carries" in said:
                    wrong.append(f"{content.name}-{sector} is refused: {said}")
            missing = [one for one in wanted if not re.search(one, said)]
            wrong += [f"{content.name}-{sector} lacks {missing}: {said}"] if missing else []
        return wrong

    def install_twice(self, cells: Sequence[Cell]) -> None:
        """Install, look for what should not be there, compare with the plan; then all of it again.

        No other disk may have changed by a byte after it.
        """
        own = [serial for cell in cells for serial in serials(*cell)]
        shapes = []
        for wipe in (None, "force"):
            said, code = self.agent.install(self.answers(cells, wipe), 900)
            assert code == 0, said
            plan = planned.last(self.agent)
            assert self.leftovers(own, plan) == self.expected(own, plan)
            planned.check(plan, planned.inspect(self.agent, plan), self.disks)
            shapes.append(plan.shape())
        first, second = (json.dumps(shape, indent=1, sort_keys=True) for shape in shapes)
        different = difflib.unified_diff(first.splitlines(), second.splitlines(), lineterm="", n=6)
        assert first == second, "\n".join(["planned otherwise the second time:", *different])
        others = self.changed() - {*own}
        assert not others, f"changed, and not named: {sorted(others)}"
        self.remember(own)

    def remember(self, names: Sequence[str] | None = None) -> None:
        """Take fingerprints, of all disks or of these."""
        for name in self.disks if names is None else names:
            self.prints[name] = disk.fingerprint(self.disks[name].image)

    def changed(self) -> set[str]:
        """The disks that are not as they were when they were last remembered."""
        return {
            name
            for name, one in self.disks.items()
            if disk.fingerprint(one.image) != self.prints[name]
        }

    def leftovers(self, names: Sequence[str], plan: Plan) -> list[str]:
        """What is on some disks: signatures, also where old partitions were, and what holds them.

        udev looks at all of it once more, as it would at the next start: nothing may come back.
        """
        chosen = {one["serial"]: one for one in plan.data["chosen"]}
        paths = {one["serial"]: one["disk"] for one in plan.touched()}
        lines = []
        for serial in names:
            node, old = chosen[serial]["node"], chosen[serial]["partitions"]
            lines.append(f"udevadm trigger --action=add --settle $(echo {node} {node}[0-9]*)")
            lines.append(f"lsblk --noheadings --raw --output=TYPE,NAME,MOUNTPOINTS {node}")
            lines.append(f"wipefs --noheadings --output=TYPE,OFFSET {node}")
            # FAT has several places by which it is known
            signatures = "wipefs --noheadings --output=TYPE $p | sort -u"
            lines.append(f"for p in {node}[0-9]*; do {signatures}; done")
            new = [
                row["ref"]["start"]
                for step in plan.steps("write-table")
                for row in step["partitions"]
                if step["disk"] == paths[serial]
            ]
            for part in old:
                start, size = part["start"], part["size"]
                if start in new:
                    continue
                probe = (
                    f"blkid --probe --offset {start} --size {size} --output value -s TYPE {node}"
                )
                lines.append(f"{probe} | sed 's/^/old at {start}: /'")
        said, code = self.agent.script("\n".join([*lines, "exit 0"]), 300)
        assert code == 0, said
        return sorted(" ".join(line.split()) for line in said.splitlines() if line.strip())

    def expected(self, names: Sequence[str], plan: Plan) -> list[str]:
        """What `leftovers` says of disks that hold nothing but what the plan made."""
        chosen = {one["serial"]: one for one in plan.data["chosen"]}
        paths = {one["serial"]: one["disk"] for one in plan.touched()}
        lines: list[str] = []
        for serial in names:
            name = chosen[serial]["node"].removeprefix("/dev/")
            sector = self.disks[serial].sector
            size = self.disks[serial].image.stat().st_size
            (step,) = [one for one in plan.steps("write-table") if one["disk"] == paths[serial]]
            numbers = [row["ref"]["number"] for row in step["partitions"]]
            lines += [f"disk {name}", *(f"part {name}{number}" for number in numbers)]
            # a GPT, its second one in the last sector, and the protective MBR
            lines += [f"gpt {sector:#x}", f"gpt {size - sector:#x}", "PMBR 0x1fe"]
        for made in plan.steps("make-filesystem"):
            lines += [made["filesystem"]] * len(made["devices"])
        return sorted(lines)


def serials(content: Content, sector: Sector) -> list[str]:
    """The serial numbers of a content's disks: "luks-512", "luks-512-b"; at most 20 letters, of
    which QEMU makes the name by which udev knows a SCSI disk."""
    return [f"{content.name}-{sector}{tail}" for tail in ("", "-b")[: content.disks]]


def name_of(content: Content, sector: Sector) -> str:
    """The name that everything of a cell has in the guest."""
    return f"{content.name}-{sector}".replace(".", "")


def booted(bench: Bench, firmware: Firmware) -> Matrix:
    """A machine with all disks; the old contents are made, in use, and remembered."""
    disks: dict[str, Disk] = {}
    for sector in get_args(Sector):
        name = f"canary-{sector}"
        disks[name] = bench.disk("256M", bus="scsi", sector=sector, serial=name, canary=True)
    for content, sector in CELLS:
        made = []
        for serial, size in zip(serials(content, sector), SIZES, strict=False):
            disks[serial] = bench.disk(size, bus="scsi", sector=sector, serial=serial)
            made.append(disks[serial].image)
        if content.image is not None:
            content.image(made, sector)
    vm = Vm(name=firmware, firmware=firmware, memory=1024, disks=tuple(disks.values()))
    guest = agent.in_failure_shell(bench, vm, bare.tarball())
    matrix = Matrix(firmware, guest, disks)
    said, code = guest.script(_preparation(matrix), 1800)
    assert code == 0, said
    matrix.remember()
    return matrix


def _preparation(matrix: Matrix) -> str:
    parts = [PROLOGUE]
    for content, sector in CELLS:
        nodes = [
            f"$(readlink -e /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial})"
            for serial in serials(content, sector)
        ]
        name = name_of(content, sector)
        answers = matrix.agent.server.answers(
            matrix.answers([(content, sector)], "force"), f"{name}.toml"
        )
        parts.append(f'echo "== {name}"; n={name} answers={answers} a={nodes[0]} b={nodes[-1]}')
        parts.append(content.make)
        parts.append("settled")
    return "\n".join(parts)
