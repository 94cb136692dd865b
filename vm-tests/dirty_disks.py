"""What is shown of dirty disks, whatever the firmware: see lab/matrix.py, lab/dirt.py.

A test file for each firmware takes all of it, and two workers share them; `FIRMWARE` of that file
says which it is. The batches are independent, but what is refused must be asked before anything is
destroyed: tests run in the order in which their names are imported.
"""

from __future__ import annotations

from typing import Literal

import pytest
from lab import matrix
from lab.bench import Bench
from lab.matrix import BATCHES, Matrix


@pytest.fixture(scope="module")
def dirty(request: pytest.FixtureRequest, shared_bench: Bench) -> Matrix:
    return matrix.booted(shared_bench, request.module.FIRMWARE)


@pytest.mark.parametrize("wipe", ["refuse", "known"])
def test_a_refusal_names_what_is_there(dirty: Matrix, wipe: Literal["refuse", "known"]) -> None:
    assert dirty.misnamed(wipe) == []


@pytest.mark.parametrize("batch", BATCHES)
def test_over_what_was_there(dirty: Matrix, batch: str) -> None:
    dirty.install_twice(BATCHES[batch])
