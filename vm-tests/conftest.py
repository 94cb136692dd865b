"""Fixtures and failure reports of the scenarios."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from lab import cache, requirements
from lab.bench import Bench


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A workbench whose folder outlives the test: logs always, the rest after a failure."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name).strip("-")
    with _claimed(cache.root() / "runs", name) as folder, Bench(folder) as made:
        yield made
        if request.node.stash.get(_PASSED, False):
            for file in folder.rglob("*"):
                if file.is_file() and file.suffix != ".log":
                    file.unlink()


_PASSED = pytest.StashKey[bool]()


@contextmanager
def _claimed(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder for one test; two runs at a time on one machine get two."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}.{number}")
        with (parent / f".{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            yield folder
            return


def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.skip_if_missing(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    requirements.forbid_skip(report)
    if report.when == "call":
        item.stash[_PASSED] = report.passed
        bench = getattr(item, "funcargs", {}).get("bench")
        if report.failed and isinstance(bench, Bench):
            report.sections += list(bench.findings())
    return report
