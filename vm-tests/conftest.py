from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as made:
        yield made
