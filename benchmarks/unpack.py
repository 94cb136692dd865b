"""Unpacking: the agent's way against `curl | zstd -d | tar x`, side by side in one run.

    python benchmarks/unpack.py [PAYLOAD.tar.zst] [--pairs 5]

Needs root (owners are restored) and curl. Both read the same file from the same HTTP server on
loopback and unpack it into fresh folders of one file system; each pair runs one after the other,
in turn, so that both see the same page cache. Ours also hashes the payload and vets each member.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "vm-tests")]

from lab import sample  # noqa: E402
from lab.http import HttpServer  # noqa: E402
from lab.network import UserNetwork  # noqa: E402

from installer.act import payload  # noqa: E402
from installer.act.narrator import Narrator  # noqa: E402
from installer.act.run import Runner  # noqa: E402
from installer.model.plan import UnpackPayload  # noqa: E402


def ours(url: str, target: Path) -> None:
    """The step of a plan that unpacks."""
    step = UnpackPayload(url, None, {"/": 2**50}, None, 30)
    payload.unpack(step, target, Runner(), Narrator(lambda _event: None), None)


def shell(url: str, target: Path) -> None:
    """What people write by hand."""
    subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            'curl -sf "$1" | zstd -dc | tar -xpC "$2"',
            "-",
            url,
            target,
        ],
        check=True,
    )


def timed(work: Callable[[str, Path], None], url: str, folder: Path) -> float:
    """Seconds, without the time that removing takes."""
    target = Path(tempfile.mkdtemp(dir=folder))
    begun = time.monotonic()
    work(url, target)
    seconds = time.monotonic() - begun
    shutil.rmtree(target)
    return seconds


def main() -> None:
    """Print the ratio of each pair, then least, median and most."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("payload", type=Path, nargs="?", help="the sample system by default")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to unpack (a temporary folder)")
    arguments = parser.parse_args()
    source = arguments.payload or sample.tarball()
    ratios = []
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        HttpServer(UserNetwork()) as web,
    ):
        url = web.publish("/payload", source).replace("10.0.2.2", "127.0.0.1")
        for work in (shell, ours):
            timed(work, url, Path(name))  # warms the page cache
        for _ in range(arguments.pairs):
            theirs, mine = timed(shell, url, Path(name)), timed(ours, url, Path(name))
            ratios.append(mine / theirs)
            print(f"shell {theirs:6.2f} s   ours {mine:6.2f} s   ratio {ratios[-1]:.2f}")
    print(
        f"ratio: least {min(ratios):.2f}, median {statistics.median(ratios):.2f}, "
        f"most {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
