"""The documents say what the program does: fields, defaults, error texts, examples, links."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from installer.model.answers import json_schema
from installer.model.errors import InstallError
from installer.observe import kernel
from installer.observe.answers import load

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
REFERENCE = (ROOT / "docs/answer-file.md").read_text()

BASE: Mapping[str, Any] = {
    "version": 1,
    "payload": {"url": "http://boot.example.net/system.tar.zst", "sha256": "0" * 64},
    "disks": [{"match": {"serial": "X"}, "partitions": [{"size": "rest", "mount": "/"}]}],
}

SECTIONS = {
    "AnswerFile": "## Top level",
    "Payload": "## `[payload]`",
    "System": "## `[system]`",
    "Rebuild": "### `[system.rebuild]`",
    "Disk": "## `[[disks]]`",
    "Match": "### `match`",
    "SizeRange": "### `match.size`",
    "Partition": "## `[[disks.partitions]]`",
    "Network": "## `[network]`",
    "Boot": "## `[boot]`",
    "Finish": "## `[finish]`",
    "Report": "## `[report]`",
}
"""Where each table of the JSON Schema is documented."""

PLACES: dict[str, tuple[str | int, ...]] = {
    "AnswerFile": (),
    "Payload": ("payload",),
    "System": ("system",),
    "Rebuild": ("system", "rebuild"),
    "Disk": ("disks", 0),
    "Match": ("disks", 0, "match"),
    "SizeRange": ("disks", 0, "match", "size"),
    "Partition": ("disks", 0, "partitions", 0),
    "Network": ("network",),
    "Boot": ("boot",),
    "Finish": ("finish",),
    "Report": ("report",),
}


def _tables() -> dict[str, Mapping[str, Any]]:
    schema = json_schema()
    return {"AnswerFile": schema, **schema["$defs"]}


def _section(name: str) -> str:
    heading = SECTIONS[name]
    assert f"\n{heading}\n" in REFERENCE, f"docs/answer-file.md lacks {heading!r}"
    return re.split(r"\n##", REFERENCE.partition(f"\n{heading}\n")[2])[0]


def _rows(section: str, columns: int) -> Iterator[list[str]]:
    """Cells of all table rows with so many columns, without the headings."""
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == columns and cells[0].startswith("`"):
            yield cells


def _fields(name: str) -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in _rows(_section(name), 4)}


def test_every_table_is_documented() -> None:
    assert set(_tables()) == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_field_is_documented_with_its_default(name: str) -> None:
    table = _tables()[name]
    documented = _fields(name)
    assert list(documented) == list(table["properties"])
    for field, schema in table["properties"].items():
        match schema.get("default"):
            case None:
                default = "required" if field in table.get("required", ()) else "none"
            case bool(value):
                default = f"`{str(value).lower()}`"
            case int(value):
                default = f"`{value}`"
            case value:
                default = f'`"{value}"`'
        if "default" not in schema and field not in table.get("required", ()):
            default = "all defaults"
        assert documented[field][2] == default, f"default of {field} in {SECTIONS[name]}"
        for choice in _choices(schema):
            assert f'`"{choice}"`' in documented[field][1], f"{field} in {SECTIONS[name]}"


def _choices(schema: Mapping[str, Any]) -> list[str]:
    return [
        choice
        for part in (schema, *schema.get("anyOf", ()))
        for choice in part.get("enum", ())
        if choice is not None
    ]


def _mistakes() -> Iterator[tuple[str, str, str]]:
    for name in SECTIONS:
        for written, said in _rows(_section(name), 2):
            yield name, _code(written), _code(said)


def _code(cell: str) -> str:
    """What stands between the backticks of an inline code (CommonMark 6.1)."""
    match = re.fullmatch(r"(`+) ?(.*?) ?\1", cell)
    assert match is not None, cell
    return match[2]


@pytest.mark.parametrize(("name", "written", "said"), list(_mistakes()))
def test_mistakes_are_told_as_documented(name: str, written: str, said: str) -> None:
    with pytest.raises(InstallError) as caught:
        load(json.dumps(_with(name, tomllib.loads(written))), "answers.json")
    assert said in [problem.what for problem in caught.value.problems]
    assert all(problem.code == "answers.field" for problem in caught.value.problems)


def _with(name: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base with these fields in a table; a field with the table's own name replaces it."""
    document: Any = deepcopy(dict(BASE))
    place = PLACES[name]
    own = next((part for part in reversed(place) if isinstance(part, str)), "")
    outside = place[: place.index(own)] if own in fields else place
    _at(document, outside).update(fields)
    return dict(document)


def _at(document: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        document = document.setdefault(part, {}) if isinstance(part, str) else document[part]
    return document


def _examples() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        if document.name == "site-file.md":
            continue
        for number, match in enumerate(_BLOCK.finditer(document.read_text()), start=1):
            yield f"{document.name} {number}", match[0]


_BLOCK = re.compile(r"^```toml( fragment)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", [pytest.param(text, id=name) for name, text in _examples()])
def test_examples_are_answer_files(block: str) -> None:
    match = _BLOCK.fullmatch(block)
    assert match is not None
    if match[1] is None:
        load(match[2], "example.toml")
    else:
        load(json.dumps(_completed(tomllib.loads(match[2]))), "fragment.json")


def _completed(fragment: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base with what a fragment says; partitions alone belong to the base's disk."""
    document = {**BASE, **fragment}
    if isinstance(document["disks"], dict):
        document["disks"] = [{**BASE["disks"][0], **document["disks"]}]
    return document


def test_every_kernel_argument_is_documented() -> None:
    reference = (ROOT / "docs/kernel-arguments.md").read_text()
    library = (ROOT / "initrd-hooks/lib/netinstall.sh").read_text()
    hooks = re.sub(r"^\s*#.*$", "", library, flags=re.MULTILINE)
    init = "".join(path.read_text() for path in (ROOT / "installer/init").glob("*.py"))
    read = {f"netinstall.{name}" for name in kernel._NAMES}
    asked = r"(?<!for )netinstall_(?:argument|number) ([A-Za-z][\w.-]*)"
    read |= set(re.findall(asked, hooks))
    read |= set(re.findall(r'kernel\.argument\("([\w.-]+)"', init))
    assert {"netinstall.answers", "BOOTIF", "nfsroot", "netinstall.overlay"} <= read
    for name in sorted(read):
        assert re.search(rf"^\| `[^`|]*\b{re.escape(name)}=", reference, re.MULTILINE), name


def _links() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"https?://", target):
                yield str(document.relative_to(ROOT)), target


@pytest.mark.parametrize(("document", "target"), list(_links()))
def test_links_lead_somewhere(document: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (ROOT / document).parent / path if path else ROOT / document
    assert file.exists(), f"{document}: there is no {path}"
    if anchor:
        headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
        assert anchor in map(_anchor, headings), f"{document}: {path} has no #{anchor}"


def _anchor(heading: str) -> str:
    """How GitHub makes an anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
