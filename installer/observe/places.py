"""Where each field of a TOML or JSON text stands: tomllib and json do not tell.

Used only when something is wrong, on texts that have been parsed already.
"""

import json
import tomllib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tree_sitter import Node

Location = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, both from 1; columns count characters."""


def places(
    text: str, syntax: Literal["toml", "json"], wanted: Collection[Location] | None = None
) -> dict[Location, Place]:
    """Map every field, table and element to where it first stands.

    A field stands where its name begins, an element of an array where its value begins. With
    `wanted`, only these and what they stand in: a document may have a hundred thousand places, or
    be nested as deeply as its parser can go.
    """
    # only a mistake in the answer file needs this parser
    from tree_sitter import Language, Parser  # noqa: PLC0415

    if syntax == "toml":
        import tree_sitter_toml  # noqa: PLC0415

        language = Language(tree_sitter_toml.language())
    else:
        import tree_sitter_json  # noqa: PLC0415

        language = Language(tree_sitter_json.language())
    tree = Parser(language).parse(text.encode())
    around = None if wanted is None else {one[:depth] for one in wanted for depth in range(99)}
    found: dict[Location, tuple[int, int]] = {}
    for location, node in (
        _toml(tree.root_node) if syntax == "toml" else _json(tree.root_node, around)
    ):
        if around is None or location in around:
            found.setdefault(location, (node.start_point.row, node.start_point.column))
    # split as tree-sitter does: str.splitlines knows more ends of lines than TOML and JSON
    lines = text.encode().split(b"\n")
    return {
        location: (row + 1, len(lines[row][:column].decode("utf-8", "replace")) + 1)
        for location, (row, column) in found.items()
    }


def nearest(found: dict[Location, Place], location: Location) -> Place | None:
    """Return the place of a field, or of the innermost table around it that stands in the text."""
    for length in range(len(location), 0, -1):
        if location[:length] in found:
            return found[location[:length]]
    return None


def _json(root: "Node", around: set[Location] | None) -> Iterator[tuple[Location, "Node"]]:
    for child in root.named_children:
        yield from _json_value(child, (), around)


def _json_value(
    node: "Node", location: Location, around: set[Location] | None
) -> Iterator[tuple[Location, "Node"]]:
    if around is not None and location not in around:
        return
    if node.type == "object":
        for pair in node.named_children:
            key, value = pair.child_by_field_name("key"), pair.child_by_field_name("value")
            if key is None or value is None:
                continue
            inner = (*location, str(json.loads(_source(key))))
            yield inner, key
            yield from _json_value(value, inner, around)
    elif node.type == "array":
        for index, element in enumerate(node.named_children):
            yield (*location, index), element
            yield from _json_value(element, (*location, index), around)


def _toml(root: "Node") -> Iterator[tuple[Location, "Node"]]:
    lengths: dict[Location, int] = {}
    for node in root.named_children:
        if node.type == "pair":
            yield from _toml_pair(node, ())
        elif node.type in ("table", "table_array_element"):
            key, *pairs = (child for child in node.named_children if child.type != "comment")
            header: Location = ()
            parts = list(_toml_key(key))
            for number, (part, part_node) in enumerate(parts, 1):
                header = (*header, part)
                yield header, part_node
                if node.type == "table_array_element" and number == len(parts):
                    lengths[header] = lengths.get(header, 0) + 1
                if header in lengths:
                    header = (*header, lengths[header] - 1)
                    yield header, part_node
            for pair in pairs:
                yield from _toml_pair(pair, header)


def _toml_pair(pair: "Node", location: Location) -> Iterator[tuple[Location, "Node"]]:
    key, value = [child for child in pair.named_children if child.type != "comment"][:2]
    for part, node in _toml_key(key):
        location = (*location, part)
        yield location, node
    yield from _toml_value(value, location)


def _toml_value(node: "Node", location: Location) -> Iterator[tuple[Location, "Node"]]:
    if node.type == "inline_table":
        for pair in node.named_children:
            if pair.type == "pair":
                yield from _toml_pair(pair, location)
    elif node.type == "array":
        elements = (child for child in node.named_children if child.type != "comment")
        for index, element in enumerate(elements):
            yield (*location, index), element
            yield from _toml_value(element, (*location, index))


def _toml_key(node: "Node") -> Iterator[tuple[str, "Node"]]:
    if node.type == "dotted_key":
        for child in node.named_children:
            yield from _toml_key(child)
    elif node.type == "quoted_key":
        yield next(iter(tomllib.loads(f"{_source(node)} = 0"))), node
    else:
        yield _source(node), node


def _source(node: "Node") -> str:
    return (node.text or b"").decode()
