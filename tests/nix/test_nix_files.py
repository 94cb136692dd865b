"""Every Nix file parses, holds nothing dead, and is laid out alike.

nixfmt, statix and deadnix are in none of Debian, PyPI and npm, so tree-sitter's grammar stands in.
What it cannot tell: whether nixfmt would break a line elsewhere, and whether a name that is used is
the one that was meant, where an inner one of the same name hides it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_nix
from nix_files import ROOT, files, instantiate
from tree_sitter import Language, Node, Parser

FILES = files()
# nixfmt aims at 100, and leaves longer what it cannot break
LONGEST_LINE = 120

_PARSER = Parser(Language(tree_sitter_nix.language()))


def _tree(source: bytes) -> Node:
    # the grammar does not know the comma after the last argument, which nixfmt writes
    known = re.sub(rb",(\s*\}\s*:)", rb" \1", source)
    return _PARSER.parse(known).root_node


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _below(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _used(scope: Node, *, besides: Node | None = None) -> set[str]:
    """Names that expressions below `scope` read, also by `inherit`."""
    found: set[str] = set()
    stack = [scope]
    while stack:
        node = stack.pop()
        if besides is not None and node.id == besides.id:
            continue
        if node.type == "variable_expression":
            found.add(_text(node))
        elif node.type == "inherit":
            found.update(_text(each) for each in _below(node) if each.type == "identifier")
        stack += node.children
    return found


def _dead(root: Node) -> Iterator[str]:
    for node in _below(root):
        if node.type == "let_expression":
            yield from _dead_bindings(node)
        elif node.type == "function_expression":
            yield from _dead_arguments(node)


def _dead_bindings(let: Node) -> Iterator[str]:
    sets = [part for part in let.children if part.type == "binding_set"]
    for binding in (each for part in sets for each in part.children):
        if binding.type == "binding":
            path = binding.child_by_field_name("attrpath")
            names = [_text(path.children[0])] if path is not None else []
        elif binding.type in ("inherit", "inherit_from"):
            listed = next(each for each in binding.children if each.type == "inherited_attrs")
            names = [_text(each) for each in listed.children]
        else:
            continue
        for name in sorted(set(names) - _used(let, besides=binding)):
            yield f"line {binding.start_point[0] + 1}: {name} is bound and never used"


def _dead_arguments(function: Node) -> Iterator[str]:
    whole = function.child_by_field_name("universal")
    formals = function.child_by_field_name("formals")
    # x: … as well as x@{ … }: …; an underscore says that it is meant
    name = "_" if whole is None else _text(whole)
    if not name.startswith("_") and name not in _used(function):
        yield f"line {function.start_point[0] + 1}: the argument {name} is never used"
    for formal in formals.children if formals is not None else []:
        if formal.type == "formal" and _text(formal.children[0]) not in _used(
            function, besides=formal
        ):
            yield f"line {formal.start_point[0] + 1}: {_text(formal.children[0])} is never used"


def _untidy(source: bytes) -> Iterator[str]:
    text = source.decode()
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield "it does not end with exactly one newline"
    strings = [node for node in _below(_tree(source)) if node.type.endswith("string_expression")]
    inside = {
        row for node in strings for row in range(node.start_point[0] + 1, node.end_point[0] + 1)
    }
    long_strings = {node.end_point[0] for node in strings if node.end_point[1] > LONGEST_LINE}
    blank = False
    for row, line in enumerate(text.splitlines()):
        where = f"line {row + 1}"
        if line != line.rstrip():
            yield f"{where} ends with blanks"
        if "\t" in line:
            yield f"{where} has a tab"
        if not line and blank:
            yield f"{where} is the second blank line"
        blank = not line
        if row in inside:
            continue
        if (len(line) - len(line.lstrip(" "))) % 2:
            yield f"{where} is not indented by twos"
        if len(line) > LONGEST_LINE and row not in long_strings:
            yield f"{where} has {len(line)} columns"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_it_parses(path: Path) -> None:
    done = instantiate("--parse", str(path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_in_it_is_dead(path: Path) -> None:
    tree = _tree(path.read_bytes())
    assert not tree.has_error, "tree-sitter's grammar does not know this"
    assert list(_dead(tree)) == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_it_is_laid_out_as_the_others(path: Path) -> None:
    assert list(_untidy(path.read_bytes())) == []


@pytest.mark.parametrize(
    ("source", "dead"),
    [
        ("let a = 1; b = a; in b", []),
        ("let a = 1; b = 2; in b", ["a"]),
        ("let a = a + 1; in 2", ["a"]),
        ("let inherit (x) a b; in a", ["b"]),
        ("{ lib, pkgs, ... }: lib", ["pkgs"]),
        ("{ lib ? 1, a ? lib }: a", []),
        ("x: y: y", ["x"]),
        ("_: y: { inherit y; }", []),
        ("a@{ b, ... }: a", ["b"]),
        ("a@{ b, ... }: b", ["a"]),
    ],
)
def test_what_is_dead_is_found(source: str, dead: list[str]) -> None:
    found = list(_dead(_tree(source.encode())))
    assert len(found) == len(dead)
    assert all(name in line for name, line in zip(dead, found, strict=True))


@pytest.mark.parametrize(
    "source",
    ["{ a = 1; }", "{\n   a = 1;\n}\n", "{ }\n\n", "[\n\n\n]\n", "[ ] \n", "[\t]\n",
     "[" + " 1" * 60 + " ]\n"],
)  # fmt: skip
def test_what_is_untidy_is_found(source: str) -> None:
    assert list(_untidy(source.encode()))


def test_long_strings_may_stay_whole() -> None:
    assert list(_untidy(b'"' + b"x" * 140 + b'"\n')) == []
    assert list(_untidy(b"''\n   odd\n''\n")) == []


@pytest.mark.parametrize("page", ["nixos.md", "payload.md"])
def test_what_the_documents_show_parses(page: str, tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```nix\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL
    )
    assert blocks
    for block in blocks:
        (tmp_path / "block.nix").write_text(block)
        done = instantiate("--parse", str(tmp_path / "block.nix"))
        assert done.returncode == 0, done.stderr
        assert list(_dead(_tree(block.encode()))) == []
