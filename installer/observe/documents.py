"""TOML and JSON documents that people write: read strictly, every mistake said in its place."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from installer.model.errors import InstallError, fail
from installer.observe import mistakes
from installer.observe.places import Location, Place, nearest, places

Model = TypeVar("Model", bound=BaseModel)
_DIGITS_LIMIT = 40
_NAME_LIMIT = 1000


@dataclass(frozen=True)
class Kind(Generic[Model]):
    """A kind of document: its model, and the error codes for a text that is no TOML or JSON and
    for a wrong field. `names_limit` is how many names one object of JSON may have."""

    model: type[Model]
    syntax: str
    field: str
    names_limit: int = 100_000


def load(kind: Kind[Model], text: str, name: str) -> Model:
    """Read a document, JSON if its name or its first character says so, TOML otherwise.

    Raises:
        InstallError: `kind.syntax`, or all `kind.field` problems together, each with file, line,
            column and field.
    """
    text = text.removeprefix("\ufeff")
    syntax = _syntax(text, name)
    if syntax == "json":
        parsed = _parse_json(kind.syntax, text, name, kind.names_limit)
    else:
        parsed = _parse_toml(kind.syntax, text, name)
    try:
        return kind.model.model_validate(parsed)
    except ValidationError as error:
        raise InstallError(
            mistakes.problems(
                error, name, partial(places, text, syntax), model=kind.model, code=kind.field
            )
        ) from None


def locator(text: str, name: str) -> Callable[[Location], str]:
    """Return what says where a field of a document stands: `site.toml:7:1: tftp.root`.

    The text has been read by `load` before.
    """
    text = text.removeprefix("\ufeff")
    found: dict[Location, Place] = {}

    def where(location: Location) -> str:
        if not found:
            found.update(places(text, _syntax(text, name)))
        return mistakes.position(name, nearest(found, location), location)

    return where


def _syntax(text: str, name: str) -> Literal["toml", "json"]:
    path = name.partition("?")[0]
    if path.endswith(".json") or (
        not path.endswith(".toml")
        and text.lstrip().startswith(("{", "["))
        and not text.lstrip().startswith("[[")
    ):
        return "json"
    return "toml"


def _not_valid(code: str, syntax: str, why: str, where: str, text: str) -> InstallError:
    hint = ""
    if text.lstrip().startswith("<"):
        hint = "this looks like a web page: does the server answer every address with one?"
    elif syntax == "TOML":
        hint = 'look at the line and the one before: text needs "quotes", a table [brackets]'
    return fail(code, f"this is not {syntax}: {why}", where=where, hint=hint)


def _parse_toml(code: str, text: str, name: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.fullmatch(
            r"(.*?) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)",
            str(error),
            re.DOTALL,
        )
        if match is None:
            raise _not_valid(code, "TOML", str(error), name, text) from None
        lines = text.split("\n")
        line, column = match[2] or str(len(lines)), match[3] or str(len(lines[-1]) + 1)
        why = match[1]
        if why.startswith("Cannot "):
            why = "this name was given before, or is a table in one place and a value in another"
        raise _not_valid(code, "TOML", why, f"{name}:{line}:{column}", text) from None
    except RecursionError:
        raise _not_valid(code, "TOML", "it is nested too deeply", name, text) from None
    except ValueError:
        # more digits than Python turns into a number (sys.get_int_max_str_digits)
        raise _not_valid(code, "TOML", "a number has thousands of digits", name, text) from None


class _NotStrictError(ValueError):
    """JSON that Python would take although it is ambiguous or none (RFC 8259, 4 and 6)."""


def _unique(limit: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > limit:
        raise _NotStrictError(f"an object has {len(pairs)} names, {limit} are possible")
    found: dict[str, Any] = {}
    for key, value in pairs:
        if len(key) > _NAME_LIMIT:
            # looking for the field that was meant takes a hundred times its length
            raise _NotStrictError(f"a name has {len(key)} characters, {_NAME_LIMIT} are possible")
        if key in found:
            raise _NotStrictError(f"`{key}` is given twice in one object")
        found[key] = value
    return found


def _no_constant(text: str) -> float:
    raise _NotStrictError(f"{text} is no number")


def _whole(text: str) -> int:
    # int() raises a ValueError only from sys.get_int_max_str_digits() on
    if len(text) > _DIGITS_LIMIT:
        raise _NotStrictError(f"a number has {len(text)} digits, {_DIGITS_LIMIT} are possible")
    return int(text)


def _parse_json(code: str, text: str, name: str, names_limit: int) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=partial(_unique, names_limit),
            parse_constant=_no_constant,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        raise _not_valid(code, "JSON", error.msg, where, text) from None
    except _NotStrictError as error:
        raise _not_valid(code, "JSON", str(error), name, text) from None
    except RecursionError:
        raise _not_valid(code, "JSON", "it is nested too deeply", name, text) from None
