"""Mistakes in an answer file or another document of ours, said for the person who wrote it."""

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from installer.model.errors import Problem
from installer.model.urls import redacted
from installer.observe.places import Location, Place, nearest

_FORMS = {
    "sha256": "a SHA-256 is 64 hexadecimal digits in lower case; sha256sum FILE prints it",
    "toplevel": "a toplevel is /nix/store/, a hash of 32 characters, a hyphen and a name",
    "label": "a label holds letters, digits and . _ + - only",
}
"""What the patterns of the model mean, by the field's name."""

_LONGEST_SHOWN = 80

_SECRET = ("url",)
"""Fields whose value is never repeated: a URL can hold a password, a mistyped one anywhere."""


def problems(
    error: ValidationError,
    source: str,
    where: Callable[[Collection[Location]], dict[Location, Place]],
    *,
    model: type[BaseModel],
    code: str,
) -> list[Problem]:
    """Turn what pydantic found into problems with this code, in the order of the file.

    `where` is asked for the places of the fields.
    """
    details = error.errors()
    found = where([detail["loc"] for detail in details])
    placed = []
    for detail in details:
        location = detail["loc"]
        place = nearest(found, location)
        what, hint = _sentence(model, detail)
        placed.append(
            (place or (0, 0), Problem(code, what, position(source, place, location), hint))
        )
    return [problem for _, problem in sorted(placed, key=lambda pair: pair[0])]


def position(source: str, place: Place | None, location: Location) -> str:
    """Write where something is: `answers.toml:12:3: disks[0].match`."""
    name = field_name(location)
    line = f":{place[0]}:{place[1]}" if place else ""
    return f"{source}{line}" + (f": {name}" if name else "")


def field_name(location: Location) -> str:
    """Write a location as people do: `disks[0].partitions[1].size`."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


_SENTENCES = {
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "has not the right form",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "is empty",
    "too_short": "is empty",
    "too_long": "has more than {max_length} elements",
    "string_type": 'must be text in quotes, "like this"',
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a table",
}
"""What pydantic's error types mean; the values in braces are in the error's context."""


def _sentence(root: type[BaseModel], detail: ErrorDetails) -> tuple[str, str]:
    """Say what is wrong, and what to try."""
    location, kind = detail["loc"], detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(root, location)
    if kind == "value_error":
        return str(context["error"]), ""
    name = str(location[-1]) if location else "the file"
    if len(location) > 1 and isinstance(location[-1], int):
        name = f"{location[-2]}[{location[-1]}]"
    if kind == "missing":
        return f"`{name}` is missing", _description(root, location)
    message = detail["msg"]
    said = _SENTENCES.get(kind, f"is wrong: {message[:1].lower()}{message[1:]}").format(**context)
    given = _given(detail)
    if given:
        said += f", not {given}" if said.startswith("must") else f": {given}"
    return f"`{name}` {said}", _FORMS.get(name, "")


def _given(detail: ErrorDetails) -> str:
    """Repeat the value, if it is short and cannot hold a secret."""
    value = detail["input"]
    if any(part in _SECRET for part in detail["loc"]) or value in ("", []):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = repr(redacted(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else ""


def _unknown(root: type[BaseModel], location: Location) -> tuple[str, str]:
    model = _model_at(root, location[:-1])
    known = [info.alias or name for name, info in model.model_fields.items()] if model else []
    name = str(location[-1])
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1)
    if close:
        return f"unknown field `{name}`; did you mean `{close[0]}`?", ""
    return f"unknown field `{name}`", "known here: " + ", ".join(f"`{each}`" for each in known)


def _description(root: type[BaseModel], location: Location) -> str:
    model = _model_at(root, location[:-1])
    for info in model.model_fields.values() if model else ():
        if info.alias == location[-1]:
            return info.description or ""
    return ""


def _model_at(root: type[BaseModel], location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, str) and model is not None:
            fields = [info for info in model.model_fields.values() if info.alias == part]
            model = next((m for info in fields for m in _models_in(info.annotation)), None)
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
