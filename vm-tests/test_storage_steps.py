"""The steps that the host's kernel cannot perform: arrays, LUKS, LVM, TPM, and taking them apart.

One machine in its failure shell; each scenario is a function of guest_storage.py that runs there
with the agent's own code. They build on each other: the first leaves a stack that is in use, the
second takes it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import agent, disk, process
from lab.agent import Agent
from lab.bench import Bench
from lab.tpm import Tpm
from lab.vm import Vm

pytestmark = pytest.mark.vm

FOLDER = Path(__file__).parent
PYTHON = "PYTHONPATH=/usr/lib/netinstall:/tmp/guest PYTHONDONTWRITEBYTECODE=1 python3"


@pytest.fixture(scope="module")
def storage(shared_bench: Bench) -> Iterator[tuple[Agent, str, Path]]:
    """A machine with four disks and a canary, the passphrase's URL, and the canary's image."""
    canary = shared_bench.disk("512M", serial="canary", canary=True)
    cached = shared_bench.disk("1G", serial="three")
    # the boot environment makes no bcache, it only takes it apart
    process.run(["make-bcache", "--bdev", str(cached.image)])
    cache = shared_bench.disk("1G", serial="one")
    process.run(["make-bcache", "--cache", str(cache.image)])
    disks = (
        cache,
        shared_bench.disk("1G", serial="two"),
        cached,
        canary,
        shared_bench.disk("256M", bus="nvme", serial="four"),
    )
    with Tpm(shared_bench.folder / "tpm") as tpm:
        machine = Vm(firmware="bios", memory=1024, disks=disks, extra=tpm.extra)
        guest = agent.in_failure_shell(shared_bench, machine)
        for name, path in (("guest_storage.py", FOLDER), ("steps.py", FOLDER / "lab")):
            guest.server.web.publish(f"/guest/{name}", path / name)
        url = guest.server.web.publish("/secret", "secret passphrase\n")
        base = guest.server.web.url("/guest/")
        said, code = guest.run(
            "mkdir -p /tmp/guest/lab && touch /tmp/guest/lab/__init__.py && "
            f"wget -q -O /tmp/guest/lab/steps.py {base}steps.py && "
            f"wget -q -O /tmp/guest/guest_storage.py {base}guest_storage.py",
            60,
        )
        assert code == 0, said
        yield guest, url, canary.image


@pytest.mark.parametrize(
    "scenario",
    [
        "a_bcache",
        "an_erase",
        "names_that_stay",
        "the_stack",
        "without_a_passphrase",
        "what_is_broken",
        "a_failure_closes_everything",
        "an_edit",
        "a_btrfs_on_two",
    ],
)
def test_on_a_real_kernel(storage: tuple[Agent, str, Path], scenario: str) -> None:
    guest, url, canary = storage
    before = disk.fingerprint(canary)
    said, code = guest.run(f"{PYTHON} /tmp/guest/guest_storage.py {scenario} {url}", 400)
    assert code == 0, said
    assert f"{scenario}: all is well" in said
    assert disk.fingerprint(canary) == before
