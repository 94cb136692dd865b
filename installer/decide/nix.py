"""The one encoder of values as Nix expressions (Nix manual, "Data types", "String literals")."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

NixValue: TypeAlias = (
    "str | int | bool | Sequence[NixValue] | Mapping[str, NixValue] | Forced | None"
)


@dataclass(frozen=True)
class Forced:
    """A value that wins over what other modules say (`lib.mkForce`)."""

    value: NixValue


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_KEYWORDS = frozenset(
    ("if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or", "true", "false",
     "null")
)  # fmt: skip
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "${": "\\${"}
_SPECIAL = re.compile(r'[\\"\n\r\t]|\$\{')
_INTEGER_MAX = 2**63 - 1
_LINE = 92


def nix_string(text: str) -> str:
    """Encode a string literal.

    Raises:
        ValueError: it holds NUL, which no Nix string can, or half a surrogate pair.
    """
    if "\0" in text:
        raise ValueError("a Nix string cannot hold a NUL character")
    text.encode()
    return '"' + _SPECIAL.sub(lambda match: _ESCAPES[match[0]], text) + '"'


def nix_attribute(name: str) -> str:
    """Encode an attribute name, quoted where it is no identifier or is a keyword."""
    if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS:
        return name
    return nix_string(name)


def nix_value(value: NixValue, indent: int = 0) -> str:  # noqa: PLR0911 - one line a type
    """Encode a value over as many lines as it needs, the first without indentation.

    Raises:
        ValueError: a string with NUL, or an integer beyond 64 bits.
        TypeError: a type that has no Nix counterpart here.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            if abs(value) > _INTEGER_MAX:
                raise ValueError(f"{value} does not fit a Nix integer")
            return str(value) if value >= 0 else f"({value})"
        case str():
            return nix_string(value)
        case Forced(inner):
            return f"lib.mkForce {_element(inner, indent)}"
        case Mapping():
            return _nix_set(value, indent)
        case Sequence():
            return _nix_list(value, indent)
    raise TypeError(f"{type(value).__name__} has no Nix counterpart")


def _element(value: NixValue, indent: int) -> str:
    """Encode as an operand: a function call needs parentheses there."""
    text = nix_value(value, indent)
    return f"({text})" if isinstance(value, Forced) else text


def _nix_list(values: Sequence[NixValue], indent: int) -> str:
    if not values:
        return "[ ]"
    line = f"[ {' '.join(_inline(value) for value in values)} ]"
    if indent + len(line) <= _LINE:
        return line
    pad = " " * (indent + 2)
    inner = [
        one if len(pad) + len(one := _inline(value)) <= _LINE else nix_value(value, indent + 2)
        for value in values
    ]
    return "[\n" + "".join(f"{pad}{item}\n" for item in inner) + " " * indent + "]"


def _inline(value: NixValue) -> str:
    """Encode on one line: strings hold no line breaks once they are escaped."""
    if isinstance(value, Mapping) and value:
        inner = " ".join(f"{nix_attribute(k)} = {_inline(v)};" for k, v in value.items())
        return f"{{ {inner} }}"
    return nix_value(value)


def _nix_set(values: Mapping[str, NixValue], indent: int) -> str:
    if not values:
        return "{ }"
    pad = " " * (indent + 2)
    lines = []
    for name, given in values.items():
        path, value = nix_attribute(name), given
        # `a.b = 1;` is how people write a set with one attribute
        while isinstance(value, Mapping) and len(value) == 1:
            inner, value = next(iter(value.items()))
            path += "." + nix_attribute(inner)
        lines.append(f"{pad}{path} = {nix_value(value, indent + 2)};\n")
    return "{\n" + "".join(lines) + " " * indent + "}"


def nix_module(settings: Mapping[str, NixValue], comment: str) -> str:
    """Write a NixOS module that sets `settings`, headed by a comment (one or more lines)."""
    lines = (
        "".join(character if character.isprintable() else "?" for character in line)
        for line in comment.splitlines()
    )
    head = "".join(f"# {line}\n" if line else "#\n" for line in lines)
    arguments = "{ lib, ... }" if _forces(settings) else "{ ... }"
    return f"{head}{arguments}:\n{nix_value(settings)}\n"


def _forces(value: NixValue) -> bool:
    match value:
        case Forced():
            return True
        case Mapping():
            return any(_forces(inner) for inner in value.values())
    return False
