"""Installing over whatever disks held before, with BIOS layouts: see lab/matrix.py, lab/dirt.py.

The batches are independent, but what is refused must be asked before anything is destroyed.
"""

from __future__ import annotations

from typing import Literal

import pytest
from lab import matrix
from lab.bench import Bench
from lab.matrix import BATCHES, Matrix

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.loop]


@pytest.fixture(scope="module")
def dirty(shared_bench: Bench) -> Matrix:
    return matrix.booted(shared_bench, "bios")


@pytest.mark.parametrize("wipe", ["refuse", "known"])
def test_what_is_refused_is_named(dirty: Matrix, wipe: Literal["refuse", "known"]) -> None:
    assert dirty.misnamed(wipe) == []


@pytest.mark.parametrize("batch", BATCHES)
def test_over_what_was_there(dirty: Matrix, batch: str) -> None:
    dirty.install_twice(BATCHES[batch])
