"""Whether disks are what a plan says: questions asked in the boot environment, and the answers.

A plan comes as the JSON that the agent itself reports when it begins.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import disk as images
from lab.agent import Agent
from lab.vm import Disk

Step = Mapping[str, Any]

ROOT = "/run/inspected"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MARK = "@@ "


@dataclass(frozen=True)
class Plan:
    """What was planned, as JSON has it."""

    data: Mapping[str, Any]

    def steps(self, kind: str) -> list[Step]:
        """The steps of a kind, in order."""
        return [step for step in self.data["steps"] if step["kind"] == kind]

    def touched(self) -> list[Step]:
        """The steps that say by which path and serial number a disk is known, one for each."""
        return [*self.steps("wipe-disk"), *self.steps("edit-table")]

    def shape(self) -> list[Step]:
        """What is made, with identifiers and times replaced by the order in which they appear.

        Two runs with the same shape give the same result apart from these.
        """
        made = [
            {name: value for name, value in step.items() if name != "removed"}
            for step in self.data["steps"]
            if step["kind"] not in ("tear-down", "wipe-disk", "erase-disk")
        ]
        seen: dict[str, str] = {}
        # a FAT volume id is as long as nothing else here, and ZFS's host id is not shown
        pattern = rf"{_UUID}|\b[0-9A-F]{{4}}-?[0-9A-F]{{4}}\b|\b[0-9a-f]{{8}}(?:-[0-9a-f]{{2}})?\b"
        pattern += r"|\b(?:[0-9a-f]{8}:){3}[0-9a-f]{8}\b|\b[0-9-]{10} [0-9:]{8} UTC\b"

        # numbers are none of them, though some are as long
        def shaped(value: Any) -> Any:
            match value:
                case str():
                    return re.sub(
                        pattern, lambda found: seen.setdefault(found[0], f"id{len(seen)}"), value
                    )
                case dict():
                    return {shaped(name): shaped(inner) for name, inner in value.items()}
                case list():
                    return [shaped(inner) for inner in value]
                case _:
                    return value

        return [shaped(step) for step in made]


def last(agent: Agent) -> Plan:
    """The plan that the agent reported last."""
    events = [event for event in agent.server.web.reports if event["kind"] == "planned"]
    return Plan(events[-1]["plan"])


def node(device: Mapping[str, Any] | str) -> str:
    """A path by which the guest finds a device of a plan."""
    if isinstance(device, str):
        return device
    if "partuuid" in device:
        return f"/dev/disk/by-partuuid/{device['partuuid'].lower()}"
    return str(device["path"])


def inspect(agent: Agent, plan: Plan, *, key: str = "", leave_open: bool = False) -> Answers:
    """Assemble and mount what was made, look at it, and take it down again.

    `key` opens every LUKS; with `leave_open` everything stays mounted.
    """
    said, code = agent.script(_script(plan, key, leave_open=leave_open), 300)
    assert code == 0, said
    parts = re.split(rf"^{_MARK}(.*)\n", said, flags=re.MULTILINE)
    return Answers(dict(zip(parts[1::2], parts[2::2], strict=True)))


@dataclass(frozen=True)
class Answers:
    """What the guest said to each question."""

    said: Mapping[str, str]

    def pairs(self, question: str) -> dict[str, str]:
        """NAME=VALUE lines, as blkid and mdadm write them."""
        return dict(line.split("=", 1) for line in self.said[question].splitlines() if "=" in line)

    def json(self, question: str) -> Any:
        """A document."""
        return json.loads(self.said[question])

    def nix(self, name: str) -> str:
        """A file of the installed /etc/nixos; "" where there is none."""
        return self.said[f"nix {name}"]


@dataclass
class _Script:
    """A script of sh: commands that must succeed, questions, and commands for the end."""

    lines: list[str] = field(default_factory=list)
    close: list[str] = field(default_factory=list)

    def do(self, command: str) -> None:
        shown = shlex.quote(f"failed: {command}")
        self.lines.append(
            f"{command} >/run/said 2>&1 || {{ cat /run/said; echo {shown}; exit 1; }}"
        )

    def ask(self, question: str, command: str) -> None:
        # what was said before may lack its last line end
        self.lines.append(f"printf '\\n%s\\n' {shlex.quote(_MARK + question)}; {command} 2>&1")


def _script(plan: Plan, key: str, *, leave_open: bool) -> str:
    script = _Script()
    script.do("udevadm settle")
    for step in plan.data["steps"]:
        match step["kind"]:
            case "create-array":
                _assemble(script, step)
            case "format-luks":
                _unlock(script, step, key)
            case "create-volume-group":
                _activate(script, step)
            case "make-filesystem":
                for device in step["devices"]:
                    script.ask(f"made {node(device)}", f"blkid -p -o export {node(device)}")
            case "mount":
                _mount(script, step)
    _look(script, plan)
    if not leave_open:
        script.do(f"umount -R {ROOT}")
        for command in reversed(script.close):
            script.do(command)
    return "\n".join([*script.lines, "exit 0"]) + "\n"


def _assemble(script: _Script, step: Step) -> None:
    path = step["array"]["path"]
    script.do(f"mdadm --assemble {path} {' '.join(map(node, step['members']))}")
    script.ask(f"array {path}", f"mdadm --detail --export {path}")
    script.close.append(f"mdadm --stop {path}")


def _unlock(script: _Script, step: Step, key: str) -> None:
    on, name = node(step["on"]), step["name"]
    # a TPM would open it before the passphrase is looked at
    unlock = f"cryptsetup open --disable-external-tokens --key-file=- {on} {name}"
    script.do(f"printf %s {shlex.quote(key)} | {unlock}")
    script.ask(f"luks {name}", f"cryptsetup luksDump --dump-json-metadata {on}")
    script.ask(f"luks id {name}", f"blkid -p -o export {on}")
    script.ask(f"luks flags {name}", f"cryptsetup luksDump {on} | grep ^Flags")
    script.close.append(f"cryptsetup close {name}")


def _activate(script: _Script, step: Step) -> None:
    name = step["name"]
    # a disk that nobody named may have a group of the same name
    on = ",".join(f"$(readlink -f {node(device)})" for device in step["members"])
    columns = "vg_name,lv_name,lv_size,pool_lv,lv_layout"
    script.do(f"vgchange --devices {on} -ay {name}")
    volumes = f"lvs --devices {on} --reportformat json --units b --nosuffix -o {columns} {name}"
    script.ask(f"group {name}", volumes)
    script.ask(f"members {name}", f"pvs --devices {on} --reportformat json -o pv_name")
    script.close.append(f"vgchange --devices {on} -an {name}")


def _mount(script: _Script, step: Step) -> None:
    where, kind = step["where"], step["filesystem"]
    path = f"{ROOT}{where}"
    options = ["-o", ",".join(step["options"])] if step["options"] else []
    script.do(f"mkdir -p {path}")
    script.do(" ".join(["mount", "-t", kind, *options, node(step["source"]), path]))
    columns = "FSTYPE,SOURCE,UUID,FSROOT,OPTIONS,SIZE"
    script.ask(f"mount {where}", f"findmnt --json --mountpoint {path} -o {columns}")
    if kind == "btrfs":
        script.ask(f"subvolumes {where}", f"btrfs subvolume list {path}")
        script.ask(f"profiles {where}", f"btrfs filesystem df {path}")


def _look(script: _Script, plan: Plan) -> None:
    """Ask for files of the installed system."""
    for name in ("hardware-configuration", "storage", "networking", "boot-device", "boot-mirror"):
        # a root in memory is gone; the stand-in for a boot loader left a copy
        places = f"{ROOT}/etc/nixos/{name}.nix {ROOT}/boot/bare/{name}.nix"
        shown = f"for one in {places}; do [ ! -e $one ] || {{ cat $one; break; }}; done"
        script.ask(f"nix {name}", shown)
    for step in plan.steps("make-swap-file"):
        script.ask(f"swap file {step['path']}", f"stat -c '%s %a' {ROOT}{step['path']}")
    for step in plan.steps("format-luks"):
        if step["recovery_path"]:
            script.ask(f"recovery {step['name']}", f"stat -c %a {ROOT}{step['recovery_path']}")
    for step in plan.steps("mount"):
        if step["filesystem"] == "vfat":
            files = f"(cd {ROOT}{step['where']} && find . -type f | sort)"
            script.ask(f"files {step['where']}", files)


def check(plan: Plan, answers: Answers, disks: Mapping[str, Disk]) -> None:
    """Compare everything; `disks` maps serial numbers to the disks that the plan may use."""
    by_path = {step["disk"]: disks[step["serial"]] for step in plan.touched()}
    for step in plan.steps("write-table"):
        _check_table(step, by_path[step["disk"]], plan)
    for step in plan.steps("edit-table"):
        seen = {row.number: row for row in _table(by_path[step["disk"]]).partitions}
        assert set(seen) == {row["number"] for row in step["kept"]} | {
            row["ref"]["number"] for row in step["added"]
        }
        for row in step["added"]:
            _check_row(row, seen[row["ref"]["number"]])
        for row in step["kept"]:
            found = seen[row["number"]]
            assert (found.start, found.size) == (row["start"], row["size"])
            assert found.uuid.lower() == row["partuuid"]
    for step in plan.steps("create-array"):
        shown = answers.pairs(f"array {step['array']['path']}")
        assert shown["MD_LEVEL"] == f"raid{step['level']}"
        assert int(shown["MD_DEVICES"]) == len(step["members"])
        uuid = shown["MD_UUID"].replace(":", "")
        assert uuid == step["array"]["uuid"].replace("-", "")
    for step in plan.steps("format-luks"):
        _check_luks(step, answers)
    for step in plan.steps("create-volume-group"):
        _check_group(step, plan, answers)
    for step in plan.steps("make-filesystem"):
        for device in step["devices"]:
            shown = answers.pairs(f"made {node(device)}")
            assert shown["TYPE"] == step["filesystem"], shown
            assert shown["UUID"].lower() == step["uuid"].lower(), shown
            label = _after(step["argv"], "-L", "-n", "-l")
            assert shown.get("LABEL") == label, shown
    for step in plan.steps("mount"):
        _check_mount(step, plan, answers)
    _check_nix(plan, answers)


def _table(one: Disk) -> images.PartitionTable:
    return images.table(one.image, one.sector)


def _check_table(step: Step, one: Disk, plan: Plan) -> None:
    table = _table(one)
    assert table.label == {"gpt": "gpt", "mbr": "dos"}[step["label"]]
    complete = [mark["disks"] for mark in plan.steps("mark-complete")]
    guid = complete[0].get(step["disk"]) if complete else None
    assert table.uuid.lower() == guid, "the table does not say that it is complete"
    assert len(table.partitions) == len(step["partitions"])
    for row, found in zip(step["partitions"], table.partitions, strict=True):
        _check_row(row, found)


def _check_row(row: Mapping[str, Any], found: images.Partition) -> None:
    ref = row["ref"]
    assert (found.number, found.start, found.size) == (ref["number"], ref["start"], ref["size"])
    assert found.uuid.lower() == ref["partuuid"].lower()
    assert found.type.lower() == row["type_id"].lower()
    assert found.name == row["name"]


def _check_luks(step: Step, answers: Answers) -> None:
    name = step["name"]
    shown = answers.pairs(f"luks id {name}")
    assert (shown["TYPE"], shown["VERSION"]) == ("crypto_LUKS", "2")
    assert shown["UUID"] == step["opened"]["uuid"]
    tokens = {token["type"] for token in answers.json(f"luks {name}")["tokens"].values()}
    wanted = {"systemd-tpm2"} if step["tpm2"] else set()
    wanted |= {"systemd-recovery"} if step["recovery_path"] else set()
    assert tokens == wanted
    slots = len(answers.json(f"luks {name}")["keyslots"])
    assert slots == len(wanted) + (1 if step["passphrase"] else 0)
    # a flag in the header would stay in force when the configuration no longer says so
    assert "(no flags)" in answers.said[f"luks flags {name}"]
    assert ("allowDiscards = true;" in answers.nix("storage")) == step["discard"]
    if step["recovery_path"]:
        assert answers.said[f"recovery {name}"].strip() == "600"


def _check_group(step: Step, plan: Plan, answers: Answers) -> None:
    group = step["name"]
    (report,) = answers.json(f"group {group}")["report"]
    rows = {row["lv_name"]: row for row in report["lv"]}
    wanted = {one["name"]: one for one in plan.steps("create-volume") if one["group"] == group}
    assert set(rows) == set(wanted)
    for name, volume in wanted.items():
        size = int(rows[name]["lv_size"])
        assert size >= volume["size"] if volume["fill"] else size == volume["size"]
        assert rows[name]["pool_lv"] == (volume["pool"] or "")
        layout = {"linear": "linear", "thin-pool": "thin,pool", "thin": "thin,sparse"}
        assert rows[name]["lv_layout"] == layout[volume["type"]]
    (members,) = answers.json(f"members {group}")["report"]
    assert len(members["pv"]) == len(step["members"])


def _check_mount(step: Step, plan: Plan, answers: Answers) -> None:
    where, kind = step["where"], step["filesystem"]
    (shown,) = answers.json(f"mount {where}")["filesystems"]
    assert shown["fstype"] == kind
    if kind == "tmpfs":
        return
    if uuid := _uuid_of(step["source"], plan):
        assert shown["uuid"].lower() == uuid.lower()
    subvolume = _subvolume(step)
    assert shown["fsroot"] == (f"/{subvolume}" if subvolume else "/")
    given = {option.split("=")[0] for option in step["options"]} - {"subvol", "umask"}
    # what the kernel shows: compress=zstd becomes compress=zstd:3
    assert given <= {option.split("=")[0] for option in shown["options"].split(",")}, shown
    for made in plan.steps("make-filesystem"):
        if made["uuid"] == uuid and made["subvolumes"]:
            # ID 256 gen 7 top level 5 path @home
            shown_there = answers.said[f"subvolumes {where}"]
            listed = re.findall(r"^ID .* path (.*)$", shown_there, re.MULTILINE)
            assert {*listed} >= {*made["subvolumes"]}
            for option, what in (("-d", "Data"), ("-m", "Metadata")):
                if profile := _after(made["argv"], option):
                    shape = answers.said[f"profiles {where}"]
                    assert f"{what}, {profile.upper()}:" in shape, shape


def _uuid_of(source: Mapping[str, Any] | str, plan: Plan) -> str | None:
    for step in plan.steps("make-filesystem"):
        if source in step["devices"]:
            return str(step["uuid"])
    return None


def _subvolume(step: Step) -> str | None:
    for option in step["options"]:
        if option.startswith("subvol="):
            return str(option.removeprefix("subvol="))
    return None


def _check_nix(plan: Plan, answers: Answers) -> None:
    generated = answers.nix("hardware-configuration")
    entries = dict(_entries(generated))
    wanted = {step["where"]: step for step in plan.steps("mount")}
    assert set(entries) == set(wanted), generated
    opened = {node(step["opened"]): step for step in plan.steps("format-luks")}
    for where, step in wanted.items():
        device, kind, rest = entries[where]
        assert kind == step["filesystem"]
        uuid = _uuid_of(step["source"], plan)
        mapped = _mapped(step["source"])
        if kind != "tmpfs" and uuid is not None:
            stable = f"/dev/disk/by-uuid/{uuid}"
            # of a file system on several devices, only storage.nix says it for sure
            told = device in (stable, mapped) or f'lib.mkForce "{stable}"' in answers.nix("storage")
            assert told, (where, device)
        if subvolume := _subvolume(step):
            assert f'"subvol={subvolume}"' in rest
    for path, step in opened.items():
        name = step["name"]
        text = generated + answers.nix("storage")
        assert f"/dev/disk/by-uuid/{step['opened']['uuid']}" in text, (path, text)
        assert name in text
    for step in plan.steps("swap-on"):
        if not isinstance(step["area"], str):
            uuid = _uuid_of(step["area"], plan)
            assert f"/dev/disk/by-uuid/{uuid}" in generated or "/dev/mapper/" in generated
    for step in plan.steps("write-file"):
        name = step["path"].removeprefix("/etc/nixos/").removesuffix(".nix")
        if step["path"].startswith("/etc/nixos/"):
            # a console turns tabs and line ends into its own
            assert answers.nix(name).split() == step["content"].split(), name
    for step in plan.steps("make-swap-file"):
        assert answers.said[f"swap file {step['path']}"].split() == [str(step["size"]), "600"]
    for step in plan.steps("mirror-esp"):
        for copy in step["targets"]:
            files = answers.said[f"files {copy}"].split()
            assert files == answers.said[f"files {step['source']}"].split()


def _mapped(source: Mapping[str, Any] | str) -> str:
    """The name of a volume or opened LUKS below /dev/mapper; no name here has a hyphen."""
    path = node(source).removeprefix("/dev/").removeprefix("mapper/")
    return f"/dev/mapper/{path.replace('/', '-')}"


def _entries(generated: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Mount point, device, type and the rest of each file system of a hardware-configuration."""
    pattern = (
        r'fileSystems\."(?P<where>[^"]*)" =\s*\{\s*device = "(?P<device>[^"]*)";'
        r'\s*fsType = "(?P<type>[^"]*)";(?P<rest>[^}]*)\}'
    )
    for found in re.finditer(pattern, generated):
        yield found["where"], (found["device"], found["type"], found["rest"])


def _after(argv: Sequence[str], *options: str) -> str | None:
    for option in options:
        if option in argv:
            return argv[list(argv).index(option) + 1]
    return None
