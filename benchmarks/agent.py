"""Unpacking as the agent does it: `python benchmarks/agent.py MANIFEST-URL TARGET`.

It says "ready" once everything is imported, and begins at a line on its standard input: in an
installation the agent has long been running. Its own processor time until then is said, too.
"""

import os
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import requests  # noqa: E402, F401 - so that it is there
import zstandard  # noqa: E402, F401

from installer.act import payload  # noqa: E402
from installer.act.narrator import Narrator  # noqa: E402
from installer.act.run import Runner  # noqa: E402
from installer.act.writeback import early_writeback  # noqa: E402
from installer.model.events import Event, Message, StepProgress  # noqa: E402
from installer.model.payload_steps import UnpackFrames  # noqa: E402
from installer.observe.manifest import load  # noqa: E402

_BOTTLENECKS: dict[str | None, int] = {}


def _emit(event: Event) -> None:
    if isinstance(event, Message):
        print(event.text, file=sys.stderr)
    elif isinstance(event, StepProgress):
        _BOTTLENECKS[event.bottleneck] = _BOTTLENECKS.get(event.bottleneck, 0) + 1


def main() -> None:
    """Fetch the manifest, then unpack."""
    url, target = sys.argv[1], Path(sys.argv[2])
    narrator = Narrator(_emit)
    spent = os.times()
    print("ready", spent.user + spent.system, flush=True)
    sys.stdin.readline()
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the server on loopback
        manifest = load(answer.read(), url)
    step = UnpackFrames(url, (), None, {"/": 2**50}, None, 4, 20, 30)
    with early_writeback():
        payload.unpack_packed(step, manifest, target, Runner(on_line=narrator.output), narrator)
    if os.environ.get("BENCH_STAGES"):
        print(_BOTTLENECKS, file=sys.stderr)


if __name__ == "__main__":
    main()
