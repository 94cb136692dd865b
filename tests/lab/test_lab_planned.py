"""Two plans are compared by what they make, whatever their identifiers."""

from __future__ import annotations

from typing import Any

from lab.planned import Plan


def _plan(uuid: str, size: int) -> Plan:
    steps: list[dict[str, Any]] = [
        {"kind": "make-filesystem", "uuid": uuid, "argv": ["mkfs", "-U", uuid], "size": size},
        {"kind": "write-file", "content": f"/dev/disk/by-uuid/{uuid}", "free": None},
        {"kind": "mark-complete", "disks": {"/dev/disk/by-id/x": uuid}},
    ]
    return Plan({"steps": steps})


def test_identifiers_do_not_count_and_numbers_do() -> None:
    one = _plan("84BE-EC56", 16777216)
    assert one.shape() == _plan("0969-65D7", 16777216).shape()
    assert one.shape() != _plan("84BE-EC56", 16777217).shape()
    assert one.shape()[0]["size"] == 16777216
    long = "e14b4e12-781a-4bc5-80e8-50f3a5fe677d"
    assert one.shape() == _plan(long, 16777216).shape()
