"""Installing over whatever disks held before, with BIOS layouts."""

from __future__ import annotations

from typing import Literal

import pytest
from dirty_disks import dirty, test_a_refusal_names_what_is_there, test_over_what_was_there

__all__ = ["dirty", "test_a_refusal_names_what_is_there", "test_over_what_was_there"]

FIRMWARE: Literal["bios"] = "bios"

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.loop]
