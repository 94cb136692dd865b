"""What cannot be installed is told, with an exit code, before any disk is touched.

One machine for all cases: its first boot finds no answer file and ends in the failure shell, where
each case is typed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import agent, disk, sample
from lab.agent import Agent
from lab.bench import Bench
from lab.boot_server import sha256
from lab.http import Fault
from lab.vm import Vm

pytestmark = pytest.mark.vm

WRONG = "0" * 64
PAYLOAD = 'url = "@URL@"\nsha256 = "@SHA256@"'


def answers(
    serial: str = "target", payload: str = PAYLOAD, partition: str = "", more: str = ""
) -> str:
    return f"""version = 1
[payload]
{payload}
[[disks]]
match = {{ serial = "{serial}" }}
[[disks.partitions]]
size = "rest"
mount = "/"
{partition}
{more}
"""


@dataclass(frozen=True)
class Case:
    """An answer file, and what has to be said about it: the exit code and parts of the text."""

    answers: str
    code: int
    says: tuple[str, ...]


MISTAKES = f"""version = 2
[payload]
url = "@URL@"
sha265 = "{WRONG}"
sha256 = "{WRONG}"
[[disks]]
match = {{ serial = "target" }}
[[disks.partitions]]
size = "lots"
mount = "/"
"""

ESP = """
[[disks.partitions]]
type = "esp"
size = "256 MiB"
"""

CASES = {
    "three-mistakes": Case(
        MISTAKES,
        2,
        (
            "what `version` must be 1, not 2 where @ANSWERS@:1:1: version",
            "what unknown field `sha265`; did you mean `sha256`? where @ANSWERS@:4:1:",
            "what 'lots' is not a size; write for example 512 MiB, 25 % or rest",
            "where @ANSWERS@:9:1: disks[0].partitions[0].size",
        ),
    ),
    "ambiguous-disks": Case(
        answers("twin-*"),
        3,
        (
            "what 2 disks match, one is wanted: /dev/vdb 1.00 GiB virtio serial twin-1; ",
            "; /dev/vdc 1.00 GiB virtio serial twin-2",
            "where @ANSWERS@: disks[0].match",
            'or say choose = "smallest" or "largest"',
        ),
    ),
    "uefi-layout-on-bios": Case(
        answers(more=f'{ESP}[boot]\nfirmware = "uefi"'),
        3,
        (
            "what the answer file wants UEFI, this machine booted in BIOS mode",
            "where @ANSWERS@: boot.firmware",
            "what this machine booted in BIOS mode, but the layout has an ESP and no BIOS boot",
        ),
    ),
    "wrong-sha256": Case(
        answers(payload=f'url = "@URL@"\nsha256 = "{WRONG}"'),
        4,
        (
            "system.tar.zst is not the announced payload: its SHA-256 is @SHA256@",
            f"announced was {WRONG}",
            "error payload.hash",
        ),
    ),
    "404": Case(
        answers(payload=f'url = "@BASE@/nothing.tar.zst"\nsha256 = "{WRONG}"'),
        4,
        ("what the server answered 404 for @BASE@/nothing.tar.zst", "where payload.url"),
    ),
    "no-nixos": Case(
        answers(payload='url = "@BASE@/no-nixos.tar"\nunverified = true'),
        4,
        ("what the payload is no NixOS system: it holds no store (nix/store)",),
    ),
    "larger-than-the-disk": Case(
        answers("tiny"),
        4,
        ("what the unpacked payload needs", "MiB too much", "error payload.too-large"),
    ),
    # the server announces more than it sends, and again each time
    "broken-off": Case(
        answers(
            payload='url = "@BASE@/broken-off.tar.zst"\nsha256 = "@SHA256@"\nretry-seconds = 3'
        ),
        6,
        (
            "retry 1 in",
            "broken-off.tar.zst: the connection was closed after 1000000 of",
            "nothing more came in 3.0 s",
            "error network.lost",
        ),
    ),
    # the server sends what it announces, which is a part of the file
    "cut-file": Case(
        answers(payload='url = "@BASE@/cut.tar.zst"\nsha256 = "@SHA256@"'),
        4,
        (
            "what the zstd stream of the payload ends in the middle",
            "where after 2000000 compressed",
            "error payload.truncated",
        ),
    ),
}


@pytest.fixture(scope="module")
def shell(shared_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Agent:
    disks = tuple(
        shared_bench.disk(size, serial=serial, canary=True)
        for serial, size in (("target", "2G"), ("twin-1", "1G"), ("twin-2", "1G"), ("tiny", "96M"))
    )
    web, folder = shared_bench.web, tmp_path_factory.mktemp("payloads")
    web.publish("/no-nixos.tar", no_nixos(folder / "no-nixos.tar"))
    web.publish("/broken-off.tar.zst", sample.tarball())
    web.fail("/broken-off.tar.zst", Fault(cut_after=1_000_000, ignore_range=True))
    with sample.tarball().open("rb") as whole:
        web.publish("/cut.tar.zst", whole.read(2_000_000))
    return agent.in_failure_shell(shared_bench, Vm(memory=1024, disks=disks))


def no_nixos(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, text in (("etc/hostname", b"box\n"), ("etc/os-release", b"ID=debian\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


@pytest.fixture(autouse=True)
def _no_disk_is_touched(shell: Agent) -> Iterator[None]:
    images = [one.image for one in shell.machine.vm.disks]
    before = [disk.fingerprint(image) for image in images]
    yield
    assert [disk.fingerprint(image) for image in images] == before


def test_a_machine_without_an_answer_file_ends_in_the_failure_shell(shell: Agent) -> None:
    said = agent.prose(shell.machine.console.text)
    assert "answers/ has no answer file for this machine; tried 52:54:00:00:00:01.toml," in said
    assert "exit 2 (the answer file or an argument) disks no disk was changed" in said


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_and_no_disk_touched(shell: Agent, name: str) -> None:
    case = CASES[name]
    base = shell.server.web.base
    said, code = shell.install(case.answers.replace("@BASE@", base))
    for mark, value in (
        (base, "@BASE@"),
        ("@BASE@/answers/case.toml", "@ANSWERS@"),
        (sha256(shell.server.payload), "@SHA256@"),
    ):
        said = said.replace(mark, value)
    for wanted in case.says:
        assert wanted in said
    assert f"exit {case.code} (" in said
    assert "disks no disk was changed" in said
    assert code == case.code


def test_a_missing_program_is_told(shell: Agent) -> None:
    _, code = shell.run('rm "$(command -v mkfs.xfs)"', 20)
    assert code == 0
    said, code = shell.install(answers(partition='filesystem = "xfs"'))
    assert "mkfs.xfs is not in this boot environment; it is needed for xfs file systems" in said
    assert "build the boot environment with Debian's package xfsprogs" in said
    assert "disks no disk was changed" in said
    assert code == 3
