"""Kinds of values that tables of answer file and site file share."""

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from installer.model.units import Absolute, Percent, Rest, Size, parse_bytes, parse_size


class Strict(BaseModel):
    """A table of a file: unknown fields are mistakes, values are never coerced."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        # Only the form of the file is accepted; code constructs through model_validate.
        validate_by_name=False,
        validate_by_alias=True,
    )


def _size(value: object) -> Size:
    if isinstance(value, Absolute | Percent | Rest):
        return value
    if not isinstance(value, str):
        raise ValueError('write a size as text, for example "512 MiB", "25 %" or "rest"')  # noqa: TRY004 - pydantic reports ValueError
    return parse_size(value)


def _write_size(size: Size) -> str:
    match size:
        case Absolute(count):
            return f"{count} B"
        case Percent(value):
            return f"{value:g} %"
        case Rest():
            return "rest"


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return parse_bytes(value)
    raise ValueError('write a size as text, for example "100 GB"')


def _mount_point(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a mount point is an absolute path")
    # two slashes at the beginning mean something else to POSIX, and PurePosixPath keeps them
    if value != "/" and (str(PurePosixPath(value)) != value or value.startswith("//")):
        raise ValueError("write the mount point without a trailing slash or doubled slashes")
    if ".." in value.split("/") or not re.fullmatch(r"[A-Za-z0-9/._@+-]+", value):
        raise ValueError("a mount point holds letters, digits and / . _ @ + - only, and no ..")
    if value == "/etc" or value.split("/")[1] in ("proc", "sys", "dev", "run"):
        raise ValueError(f"{value} cannot be a file system of its own")
    return value


def _hostname(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", value):
        raise ValueError(
            "a host name is 1 to 63 letters, digits and hyphens, without dots (RFC 1123, 2.1)"
        )
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(?:[/?#]\S*)?", value):
        raise ValueError("write a URL that starts with http:// or https://")
    return value


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("write an absolute path")
    return value


def _location(value: str) -> str:
    if value.startswith("/") and "\0" not in value:
        return value
    if not re.fullmatch(r"https?://[^\s/?#]+(?:[/?#]\S*)?", value):
        raise ValueError("write a URL that starts with http:// or https://, or an absolute path")
    return value


PartitionSize = Annotated[
    Size,
    BeforeValidator(_size),
    PlainSerializer(_write_size, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(rest|[0-9.]+ ?%|[0-9.]+ ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB))$",
            "examples": ["512 MiB", "25 %", "rest"],
        }
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    PlainSerializer(lambda count: f"{count} B", return_type=str),
    WithJsonSchema({"type": "string", "examples": ["100 GB", "1.5 TB"]}),
]
MountPoint = Annotated[str, AfterValidator(_mount_point)]
HostName = Annotated[str, AfterValidator(_hostname)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Location = Annotated[str, AfterValidator(_location)]
AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Glob = Annotated[NonEmpty, Field(description="exact, or with the wildcards * ? [] of fnmatch(3)")]
