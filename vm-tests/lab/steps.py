"""Steps as a plan has them, for a disk of a test."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from installer.act.devices import device_size
from installer.model.facts import FoundPartition
from installer.model.steps import PartitionRef
from installer.model.storage_steps import EditTable, PlannedPartition, WipeDisk, WriteTable
from installer.model.units import MIB

GUID = "5b193300-fc78-40cd-8002-e86c45580b47"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"


def wiped(node: Path, size: int | None = None, *, blank: bool = False) -> WipeDisk:
    """The step that wipes a disk."""
    count = device_size(node) if size is None else size
    return WipeDisk(str(node), str(node), count, None, None, "", blank=blank)


def row(
    node: Path,
    number: int,
    start: int,
    size: int,
    name: str = "data",
    *,
    type_id: str = LINUX,
    attributes: tuple[int, ...] = (),
) -> PlannedPartition:
    """A new partition; `start` and `size` in MiB."""
    ref = PartitionRef(str(node), number, str(uuid4()), start * MIB, size * MIB)
    return PlannedPartition(ref, name, type_id, attributes)


def gpt(node: Path, *rows: PlannedPartition, sector: int = 512) -> WriteTable:
    """The step that writes a GPT."""
    return WriteTable(str(node), "gpt", GUID, sector, rows)


def edited(
    node: Path,
    *,
    kept: Sequence[FoundPartition],
    removed: Sequence[FoundPartition] = (),
    added: Sequence[PlannedPartition] = (),
    label: str = "gpt",
    sector: int = 512,
) -> EditTable:
    """The step that changes a table."""
    size = device_size(node)
    shared = (str(node), str(node), size, None, None)
    assert label in ("gpt", "mbr")
    return EditTable(
        *shared,
        "gpt" if label == "gpt" else "mbr",
        sector,
        tuple(kept),
        tuple(removed),
        tuple(added),
    )


def run(*argv: str | Path, stdin: str | None = None, ok: Sequence[int] = (0,)) -> str:
    """Run a program that a person would use; return what it said."""
    done = subprocess.run(
        list(map(str, argv)), check=False, capture_output=True, text=True, input=stdin
    )
    assert done.returncode in ok, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def signatures(node: Path) -> list[str]:
    """What libblkid finds on a device: types of all signatures."""
    return run("wipefs", "--noheadings", "--output=TYPE", node).split()
