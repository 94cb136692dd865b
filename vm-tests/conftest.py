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

# taken by test files of another name, and its assertions shall say as much as theirs
pytest.register_assert_rewrite("dirty_disks")


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A workbench whose folder outlives the test: logs always, the rest after a failure."""
    with _workbench(request.node) as made:
        yield made


@pytest.fixture(scope="module")
def shared_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A workbench for all tests of a file: one for each worker that runs some of them."""
    with _workbench(request.node) as made:
        yield made


_FAILED = pytest.StashKey[bool]()


@contextmanager
def _workbench(node: pytest.Item | pytest.Collector) -> Iterator[Bench]:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", node.name).strip("-")
    with _claimed(cache.root() / "runs", name) as folder, Bench(folder) as made:
        yield made
        if not node.stash.get(_FAILED, False):
            for file in folder.rglob("*"):
                if file.is_file() and file.suffix != ".log":
                    file.unlink()


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
    if report.failed:
        for node in (item, item.getparent(pytest.Module)):
            if node is not None:
                node.stash[_FAILED] = True
        for name in ("bench", "shared_bench"):
            bench = getattr(item, "funcargs", {}).get(name)
            if isinstance(bench, Bench):
                report.sections += list(bench.findings())
    return report
