"""Unpacking: the agent's way, other ways and the bounds, side by side in one run.

    python benchmarks/material.py FOLDER
    python benchmarks/unpack.py FOLDER [--pairs 5] [--only NAME ...] [--rate MBIT] [--save FILE]

Needs root, curl, and what material.py needs. Every run unpacks onto a fresh ext4 on a loop device
(its image in `--disk`), from a server on loopback that reads from page cache, and ends with the
flush of that file system. Each pair is a run of ours and a run of the other, in turn. Memory is
the sum of the peaks (VmHWM) of all processes of a run; the kernel's own threads are not counted.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from material import MIB, Material

HERE = Path(__file__).resolve().parent
CORES = os.cpu_count() or 1
_SAMPLE_SECONDS = 0.1
_FRAME_BYTES, _SEGMENT_BYTES = 1514, 1448
"""What a full Ethernet frame has in all (as the kernel counts it: IEEE 802.3 without preamble,
checksum and gap), and of a file: without 14 of Ethernet, 20 of IPv4 and 32 of TCP (RFC 7323)."""

# as an installer for a NixOS would write it by hand
_TAR = 'tar -xpC "$2" --numeric-owner'
_OURS_TAR = (
    'tar -x --blocking-factor=256 -p --same-owner --numeric-owner --xattrs --xattrs-include="*" '
    '--delay-directory-restore --warning=no-timestamp -C "$2"'
)


@dataclass(frozen=True)
class Run:
    """Seconds of the clock with and without the last flush, of the processors, and bytes."""

    seconds: float
    unflushed: float
    cpu: float
    memory: int
    agent: int
    """Of the first process: the agent, or a shell."""


@dataclass(frozen=True)
class Way:
    """A way to unpack; `argv` takes the server's address and the target."""

    name: str
    label: str
    argv: Callable[[str, Path, Material], Sequence[object]]
    bound: bool = False
    waits: bool = False
    environment: tuple[tuple[str, str], ...] = ()


def _shell(script: str) -> Callable[[str, Path, Material], Sequence[object]]:
    """`$1` is the server, `$2` the target, `$3` the material's folder."""
    return lambda url, target, material: (
        "bash",
        "-o",
        "pipefail",
        "-c",
        script,
        "-",
        url,
        target,
        material.folder,
    )


def _each(script: str) -> str:
    """Run a script with `$n` for every core, at once."""
    return f"for n in {' '.join(map(str, range(CORES)))}; do {script} & done; wait"


_NIX_CONFIG = """
extra-experimental-features = nix-command
build-users-group =
substituters =
require-sigs = false
"""

WAYS = (
    Way(
        "ours",
        "`unpack-frames`, 4 connections",
        lambda url, target, _: (
            sys.executable,
            HERE / "agent.py",
            f"{url}/bench.json",
            target,
        ),
        waits=True,
    ),
    Way(
        "zstd",
        "`curl \\| zstd -d \\| tar x`",
        _shell(f'curl -sf "$1/plain.tar.zst" | zstd -dc | {_TAR}'),
    ),
    Way(
        "gzip",
        "`curl \\| tar xz`, `chown -R`",
        _shell(f'curl -sf "$1/plain.tar.gz" | {_TAR} -z && chown -R 0:0 "$2"'),
    ),
    Way(
        "xz",
        "`curl \\| xz -d \\| tar x`",
        _shell(f'curl -sf "$1/plain.tar.xz" | xz -dc | {_TAR}'),
    ),
    Way(
        "squashfs",
        "`unsquashfs` (file in page cache)",
        _shell('unsquashfs -q -n -f -d "$2" "$3/web/plain.squashfs" >/dev/null'),
    ),
    Way(
        "nix",
        "`nix copy` from a binary cache",
        lambda url, target, material: (
            "nix",
            "copy",
            "--from",
            f"{url}/cache",
            "--to",
            f"local?root={target}",
            "--no-check-sigs",
            *material.paths,
        ),
        environment=(("NIX_USER_CONF_FILES", "/dev/null"), ("NIX_CONFIG", _NIX_CONFIG)),
    ),
    Way(
        "ftar",
        "FAI's `ftar` (file in page cache)",
        lambda _url, target, material: (
            "bash",
            os.environ.get("FTAR", "/usr/sbin/ftar"),
            "-s",
            material.folder / "fai",
            "-t",
            target,
            "-c",
            "BENCH",
            "/",
        ),
    ),
    Way(
        "one-tar",
        "one tar, nothing compressed",
        _shell(f'{_OURS_TAR} -f "$3/web/plain.tar"'),
        bound=True,
    ),
    Way(
        "tars",
        f"{CORES} tars, nothing compressed",
        _shell(_each(f'{_OURS_TAR} -f "$3/share$n"of{CORES}.tar')),
        bound=True,
    ),
    Way(
        "decompress",
        f"decompress only, {CORES} times `zstd -d`",
        _shell(_each(f'zstd -dcq "$3/share$n"of{CORES}.zst >/dev/null')),
        bound=True,
    ),
    Way(
        "both",
        f"our frames by {CORES} times `zstd -d \\| tar x`, not verified",
        _shell(
            f'zstd -dcq "$3/folders.zst" | {_OURS_TAR};'
            + _each(f'zstd -dcq "$3/share$n"of{CORES}.zst | {_OURS_TAR}')
            + f'; zstd -dcq "$3/attributes.zst" | {_OURS_TAR}'
        ),
        bound=True,
    ),
    Way(
        "write",
        "raw write of as many bytes",
        _shell('dd if="$3/web/plain.tar" of="$2/raw" bs=1M status=none'),
        bound=True,
    ),
)


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[Callable[[], Path]]:
    """Give a function that makes a fresh ext4 on a loop device, and mounts it."""
    image, target = folder / "disk.img", folder / "target"
    target.mkdir()

    def umount() -> None:
        if os.path.ismount(target):
            subprocess.run(["umount", target], check=True)

    def fresh() -> Path:
        umount()
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        # the inode tables now, not by a thread of the kernel in the middle of a run
        options = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run(["mkfs.ext4", *options, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
        os.sync()
        return target

    try:
        yield fresh
    finally:
        umount()
        image.unlink(missing_ok=True)


@contextlib.contextmanager
def linked(rate: float | None) -> Iterator[tuple[str, Sequence[str]]]:
    """Give the server's address and what its command begins with.

    A link of `rate` Mbit/s is a pair of veth devices, whose far end lies in a network namespace
    and is shaped by the kernel (tc-tbf(8)); a pause in a program would lose what TCP keeps in
    flight. The addresses are those for benchmarks (RFC 2544, appendix C.2.2).
    """
    if not rate:
        yield "127.0.0.1", ()
        return
    name = f"bench{os.getpid()}"
    inside = ("ip", "netns", "exec", name)
    # a burst holds what passes between two ticks of a kernel with 100 Hz; a switch has such a queue
    burst, queue = max(int(rate * 1e6 / 8 / 100), 16 * 1024), 1024**2
    shape = ("tbf", "rate", f"{rate}mbit", "burst", str(burst), "limit", str(queue))
    try:
        for argv in (
            ("ip", "netns", "add", name),
            ("ip", "link", "add", name, "type", "veth", "peer", "name", "far", "netns", name),
            ("ip", "address", "add", "198.18.0.1/30", "dev", name),
            ("ip", "link", "set", name, "up"),
            (*inside, "ip", "address", "add", "198.18.0.2/30", "dev", "far"),
            (*inside, "ip", "link", "set", "far", "up"),
            (*inside, "tc", "qdisc", "add", "dev", "far", "root", *shape),
        ):
            subprocess.run(argv, check=True)
        yield "198.18.0.2", inside
    finally:
        # a namespace goes when the last socket in it does, and its devices with it
        subprocess.run(("ip", "link", "delete", name), check=False)
        subprocess.run(("ip", "netns", "delete", name), check=False)


@contextlib.contextmanager
def served(folder: Path, rate: float | None) -> Iterator[str]:
    """Start the server, in a process of its own."""
    with linked(rate) as (address, inside):
        argv = [*inside, sys.executable, str(HERE / "server.py"), str(folder)]
        argv += ["--address", address]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            try:
                port = process.stdout.readline() if process.stdout is not None else ""
                yield f"http://{address}:{int(port)}"
            finally:
                process.terminate()


class _Peaks(threading.Thread):
    """Looks at all descendants of a process now and then."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, int] = {}
        self._root = root
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(_SAMPLE_SECONDS):
            waiting = [self._root]
            while waiting:
                pid = waiting.pop()
                with contextlib.suppress(OSError, ValueError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
                    # of what it runs now: before exec(2) a child has our own
                    self.peaks[pid] = peak
                    for task in Path(f"/proc/{pid}/task").iterdir():
                        waiting += map(int, (task / "children").read_text().split())


def measured(way: Way, url: str, target: Path, material: Material) -> Run:
    """Run a way to its end."""
    environment = {**os.environ, **dict(way.environment)}
    process = subprocess.Popen(
        [str(word) for word in way.argv(url, target, material)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if way.waits else subprocess.DEVNULL,
        stderr=None if way.waits else subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    peaks = _Peaks(process.pid)
    peaks.start()
    before = 0.0
    if way.waits and process.stdout is not None:
        before = float(process.stdout.readline().split()[1])
    begun = time.monotonic()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"go\n")
            process.stdin.close()
    try:
        said = process.stderr.read() if process.stderr is not None else b""
        _, status, used = os.wait4(process.pid, 0)
    except BaseException:
        # the whole pipeline, or the disk stays busy
        os.killpg(process.pid, signal.SIGKILL)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unflushed = time.monotonic() - begun
    peaks.over.set()
    subprocess.run(["sync", "-f", str(target)], check=True)
    seconds = time.monotonic() - begun
    peaks.join()
    if process.returncode:
        sys.exit(f"{way.name} ended with {process.returncode}:\n{said.decode(errors='replace')}")
    cpu = used.ru_utime + used.ru_stime - before
    return Run(seconds, unflushed, cpu, sum(peaks.peaks.values()), peaks.peaks.get(process.pid, 0))


def count(target: Path) -> int:
    """How many files and links there are: all ways must agree."""
    store = target / "nix/store"
    return sum(len(names) for place, _, names in os.walk(store) if "/.links" not in place)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Least, median and most."""
    middle = statistics.median(values)
    return f"{min(values):.{digits}f} / {middle:.{digits}f} / {max(values):.{digits}f}"


def row(way: Way, pairs: Sequence[tuple[Run, Run]]) -> str:
    """A line of the table; pairs of ours and the other."""
    others = [other for _, other in pairs]
    ratios = spread([ours.seconds / other.seconds for ours, other in pairs])
    memory = max(run.memory for run in others) / MIB
    return (
        f"| {way.label} | {spread([run.seconds for run in others], 1)} | {ratios} | "
        f"{statistics.median(run.cpu for run in others):.1f} | {memory:.0f} | {len(pairs)} |"
    )


def main() -> None:  # noqa: PLR0915 - a program's story, told once
    """Print each run, then the table."""
    # so that disks are unmounted and servers ended
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what material.py made")
    parser.add_argument("--pairs", type=int, default=5)
    names = [way.name for way in WAYS[1:]]
    parser.add_argument("--only", action="append", choices=names)
    parser.add_argument("--few", type=int, default=0, help="pairs of xz, nix and ftar")
    parser.add_argument("--rate", type=float, help="Mbit/s of a link to the server")
    parser.add_argument("--disk", type=Path, help="where the image of the disk is made")
    parser.add_argument("--disk-size", type=int, default=8192, help="MiB")
    parser.add_argument("--save", type=Path, help="write all runs there, as JSON")
    arguments = parser.parse_args()
    material = Material(arguments.folder.resolve())
    fai = material.folder / "fai/BENCH.tar.zst"
    if not fai.exists():
        fai.parent.mkdir(exist_ok=True)
        fai.symlink_to(material.file("tar.zst"))
    chosen = [way for way in WAYS[1:] if not arguments.only or way.name in arguments.only]
    pairs: dict[str, list[tuple[Run, Run]]] = {way.name: [] for way in chosen}
    files: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(dir=arguments.disk) as name,
        mounted(Path(name), arguments.disk_size * MIB) as fresh,
        served(material.folder / "web", arguments.rate) as url,
    ):

        def run(way: Way) -> Run:
            target = fresh()
            result = measured(way, url, target, material)
            if way.name not in ("decompress", "write"):
                files[way.name] = count(target)
            print(
                f"{way.name:10} {result.seconds:7.2f} s ({result.unflushed:.2f} before the flush) "
                f"{result.cpu:6.1f} CPU s {result.memory / MIB:5.0f} MiB "
                f"(first process {result.agent / MIB:.0f})",
                flush=True,
            )
            return result

        # ended early, the table has what there is
        with contextlib.suppress(KeyboardInterrupt):
            for number in range(arguments.pairs):
                for way in chosen:
                    slow = way.name in ("xz", "nix", "ftar")
                    if slow and arguments.few and number >= arguments.few:
                        continue
                    ours = run(WAYS[0])
                    pairs[way.name].append((ours, run(way)))
    if len(set(files.values())) > 1:
        sys.exit(f"not everybody made as many files: {files}")
    for made in set(files.values()):
        print(
            f"\n{made} files and links, {material.file('tar').stat().st_size / MIB:.0f} MiB of tar"
        )
    if not any(pairs.values()):
        sys.exit("no pair was measured")
    mine = [pair[0] for each in pairs.values() for pair in each]
    print(
        f"ours: {spread([run.seconds for run in mine], 1)} s, "
        f"{statistics.median(run.cpu for run in mine):.1f} CPU s, "
        f"{max(run.memory for run in mine) / MIB:.0f} MiB, the agent alone "
        f"{max(run.agent for run in mine) / MIB:.0f} MiB"
    )
    archive = material.manifest.with_name("bench.tar.zst").stat().st_size
    if arguments.rate:
        needs = archive * _FRAME_BYTES / _SEGMENT_BYTES * 8 / (arguments.rate * 1e6)
        print(
            f"the link needs {needs:.2f} s for ours ({archive / MIB:.0f} MiB): "
            f"{spread([run.unflushed / needs for run in mine], 3)} before the flush, "
            f"{spread([run.seconds / needs for run in mine], 3)} with it"
        )
    print("\n| | seconds: least / median / most | ours against it | CPU s | MiB | pairs |")
    print("|---|---|---|---|---|---|")
    for way in chosen:
        if pairs[way.name]:
            print(row(way, pairs[way.name]))
    if arguments.save:
        document = {
            "rate": arguments.rate,
            "archive": archive,
            "pairs": {
                name: [[asdict(ours), asdict(other)] for ours, other in each]
                for name, each in pairs.items()
            },
        }
        arguments.save.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
