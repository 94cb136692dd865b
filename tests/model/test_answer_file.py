"""What an answer file may not say, beside the forms of single values."""

from typing import Any

import pytest
from pydantic import ValidationError

from installer.model.answers import AnswerFile
from installer.model.storage import Match, Partition

ANSWERS: dict[str, Any] = {
    "version": 1,
    "payload": {"url": "http://192.0.2.1/x.tar", "unverified": True},
    "disks": [{"match": {"serial": "1"}, "partitions": [{"size": "rest", "mount": "/"}]}],
}


@pytest.mark.parametrize("match", [{}, {"serial": None}, {"by-id": None, "size": None}], ids=str)
def test_a_match_that_says_nothing_would_be_any_disk(match: dict[str, Any]) -> None:
    # JSON has null where TOML has no field
    with pytest.raises(ValidationError, match="say at least one thing about the disk"):
        Match.model_validate(match)


@pytest.mark.parametrize("mount", ["//", "//home", "/home/", "/a//b", "/./a"])
def test_a_mount_point_is_written_in_one_way(mount: str) -> None:
    with pytest.raises(ValidationError, match="trailing slash or doubled slashes"):
        Partition.model_validate({"size": "rest", "mount": mount})


@pytest.mark.parametrize("mount", ["/etc", "/proc", "/sys/fs", "/dev/shm", "/run/x"])  # noqa: S108
def test_what_the_kernel_or_the_configuration_fills_is_no_mount_point(mount: str) -> None:
    with pytest.raises(ValidationError, match=f"{mount} cannot be a file system of its own"):
        Partition.model_validate({"size": "rest", "mount": mount})


@pytest.mark.parametrize("kind", [{"type": "esp"}, {"filesystem": "vfat"}], ids=str)
def test_fat_holds_no_nixos(kind: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="vfat cannot hold a NixOS root"):
        Partition.model_validate({"size": "rest", "mount": "/", **kind})


@pytest.mark.parametrize("label", ["nixos\n", "", "a b", "ä"])
def test_a_pattern_holds_to_the_very_end(label: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        Partition.model_validate({"size": "rest", "mount": "/", "label": label})


def test_a_whole_answer_file() -> None:
    assert AnswerFile.model_validate(ANSWERS).disks[0].partitions[0].mount == "/"
    with pytest.raises(ValidationError, match="two file systems are mounted at /boot"):
        AnswerFile.model_validate(
            {
                **ANSWERS,
                "disks": [
                    {
                        "match": {"serial": "1"},
                        "partitions": [
                            {"size": "rest", "mount": "/"},
                            {"size": "1 GiB", "mount": "/boot"},
                            {"size": "1 GiB", "type": "esp"},
                        ],
                    }
                ],
            }
        )
