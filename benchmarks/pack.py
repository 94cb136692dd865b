"""Packing: `netinstall payload pack` against `tar | zstd -T0`, side by side in one run.

    python benchmarks/pack.py FOLDER [--pairs 5] [--level 9] [--folder WHERE]

Needs root (to read everything). Both read the same tree from page cache with GNU tar, compress at
the same level on all cores and write a file; each pair runs one after the other, in turn. Ours also
vets every member, cuts frames and hashes all of it twice. Memory is that of the largest process.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024**2


@dataclass(frozen=True)
class Run:
    """What one run took: seconds of the clock and of the processors, and bytes."""

    seconds: float
    cpu: float
    memory: int
    size: int


def ours(source: Path, output: Path, level: int) -> list[str]:
    """The verb, as a person runs it."""
    options = ["--output", str(output), "--name", "bench", "--compression", str(level)]
    return [sys.executable, "-m", "installer", "payload", "pack", str(source), *options]


def shell(source: Path, output: Path, level: int) -> list[str]:
    """What people write by hand."""
    script = (
        'tar -C "$1" --sort=name --numeric-owner --format=posix --xattrs --xattrs-include="*" '
        '-c . | zstd -q -T0 "-$3" -o "$2/bench.tar.zst"'
    )
    return ["bash", "-o", "pipefail", "-c", script, "-", str(source), str(output), str(level)]


def measured(argv: Sequence[str], output: Path) -> Run:
    """Run a program to its end in an empty folder."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    begun = time.monotonic()
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr is not None else b""
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[0]} ended with {process.returncode}:\n{said.decode(errors='replace')}")
    size = (output / "bench.tar.zst").stat().st_size
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, size)


def spread(values: Sequence[float]) -> str:
    """Least, median and most."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


def main() -> None:
    """Print each pair, then the table of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--level", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    arguments = parser.parse_args()
    source: Path = arguments.source.resolve()
    pairs: list[tuple[Run, Run]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        output = Path(name) / "out"
        # warms the page cache
        count = ["bash", "-c", 'tar -C "$1" -c . | wc -c', "-", str(source)]
        total = int(subprocess.run(count, stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(arguments.pairs):
            theirs = measured(shell(source, output, arguments.level), output)
            mine = measured(ours(source, output, arguments.level), output)
            pairs.append((theirs, mine))
            print(
                f"shell {theirs.seconds:6.1f} s {theirs.cpu:6.1f} CPU s   "
                f"ours {mine.seconds:6.1f} s {mine.cpu:6.1f} CPU s   "
                f"ratio {mine.seconds / theirs.seconds:.2f}",
                flush=True,
            )
    files = sum(len(files) for _, _, files in os.walk(source))
    print(
        f"\n{total / MIB:.0f} MiB of tar, {files} files, level {arguments.level}, "
        f"{os.cpu_count()} cores, {len(pairs)} pairs\n"
    )
    print("| | `tar \\| zstd -T0` | ours | ratio: least / median / most |")
    print("|---|---|---|---|")
    rows: tuple[tuple[str, str, Callable[[Run], float]], ...] = (
        ("time", "s", lambda run: run.seconds),
        ("processors", "CPU s", lambda run: run.cpu),
        ("memory", "MiB", lambda run: run.memory / MIB),
        ("size", "MiB", lambda run: run.size / MIB),
    )
    for label, unit, get in rows:
        columns = [statistics.median(get(run) for run in side) for side in zip(*pairs, strict=True)]
        ratios = spread([get(mine) / get(theirs) for theirs, mine in pairs])
        print(f"| {label} | {columns[0]:.1f} {unit} | {columns[1]:.1f} {unit} | {ratios} |")


if __name__ == "__main__":
    main()
