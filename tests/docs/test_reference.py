"""The documents say what the program does: fields, defaults, error texts, examples, links."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from installer.boot import site
from installer.model.answers import json_schema
from installer.model.errors import InstallError
from installer.model.network import Addressing
from installer.model.storage import Holder
from installer.observe import documents, kernel
from installer.observe.answers import load

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
REFERENCE = "".join(
    (ROOT / f"docs/{name}.md").read_text() for name in ("answer-file", "storage", "networking")
)

BASE: Mapping[str, Any] = {
    "version": 1,
    "payload": {"url": "http://boot.example.net/system.tar.zst", "sha256": "0" * 64},
    "disks": [{"match": {"serial": "X"}, "partitions": [{"size": "rest", "mount": "/"}]}],
}

SITE: Mapping[str, Any] = {
    "version": 1,
    "http": {"url": "http://192.0.2.1", "root": "/srv/http"},
    "tftp": {"address": "192.0.2.1", "root": "/srv/tftp"},
    "dhcp": {"mode": "proxy", "interface": "lan0", "subnet": "192.0.2.0/24"},
    "images": [{"name": "netinstall", "folder": "image"}],
}
"""A site file, for fragments of one."""

MEMBER = [{"match": {"serial": "X"}, "partitions": [{"name": "m", "size": "rest"}]}]
STACKED: Mapping[str, Mapping[str, Any]] = {
    "raid": {
        "disks": MEMBER,
        "raid": [{"name": "r", "level": 1, "members": ["m"], "mount": "/"}],
    },
    "lvm": {
        "disks": MEMBER,
        "lvm": [
            {
                "name": "g",
                "members": ["m"],
                "volumes": [{"name": "root", "size": "rest", "mount": "/"}],
            }
        ],
    },
    "network.interfaces": {
        "network": {
            "interfaces": [
                {
                    "mode": "dhcp",
                    "routes": [{"destination": "10.0.0.0/8", "gateway": "192.0.2.1"}],
                }
            ]
        }
    },
    "network.bonds": {
        "network": {
            "bonds": [
                {"name": "bond0", "interfaces": ["eth0"], "bond-mode": "802.3ad", "mode": "dhcp"}
            ]
        }
    },
    "network.vlans": {"network": {"vlans": [{"id": 10, "on": "eth0", "mode": "dhcp"}]}},
    "network.bridges": {"network": {"bridges": [{"name": "br0", "mode": "dhcp"}]}},
}
"""What the base needs besides, by the first part of a place, or the first two."""

SECTIONS = {
    "AnswerFile": "## Top level",
    "Payload": "## `[payload]`",
    "Trust": "### `[payload.trust]`",
    "Closure": "### `[payload.closure]`",
    "System": "## `[system]`",
    "Rebuild": "### `[system.rebuild]`",
    "Disk": "## `[[disks]]`",
    "Match": "### `match`",
    "SizeRange": "### `match.size`",
    "Partition": "## `[[disks.partitions]]`",
    "Keep": "### `keep`",
    "Luks": "### `luks`",
    "Tpm2": "### `tpm2`",
    "Subvolume": "### `subvolumes`",
    "Raid": "## `[[raid]]`",
    "VolumeGroup": "## `[[lvm]]`",
    "LogicalVolume": "### `[[lvm.volumes]]`",
    "Btrfs": "## `[[btrfs]]`",
    "Zpool": "## `[[zfs]]`",
    "Dataset": "### `[[zfs.datasets]]`",
    "Tmpfs": "## `[[tmpfs]]`",
    "SwapFile": "## `[[swap-files]]`",
    "Network": "## `[network]`",
    "NetworkInterface": "### `[[network.interfaces]]`",
    "NetworkRoute": "### `routes`",
    "Bond": "### `[[network.bonds]]`",
    "Vlan": "### `[[network.vlans]]`",
    "Bridge": "### `[[network.bridges]]`",
    "Boot": "## `[boot]`",
    "Finish": "## `[finish]`",
    "Report": "## `[report]`",
}
"""Where each table of the JSON Schema is documented."""

PLACES: dict[str, tuple[str | int, ...]] = {
    "AnswerFile": (),
    "Payload": ("payload",),
    "Trust": ("payload", "trust"),
    "Closure": ("payload", "closure"),
    "System": ("system",),
    "Rebuild": ("system", "rebuild"),
    "Disk": ("disks", 0),
    "Match": ("disks", 0, "match"),
    "SizeRange": ("disks", 0, "match", "size"),
    "Partition": ("disks", 0, "partitions", 0),
    "Keep": ("disks", 0, "partitions", 0, "keep"),
    "Luks": ("disks", 0, "partitions", 0, "luks"),
    "Tpm2": ("disks", 0, "partitions", 0, "luks", "tpm2"),
    "Subvolume": ("disks", 0, "partitions", 0),
    "Raid": ("raid", 0),
    "VolumeGroup": ("lvm", 0),
    "LogicalVolume": ("lvm", 0, "volumes", 0),
    "Btrfs": ("btrfs", 0),
    "Zpool": ("zfs", 0),
    "Dataset": ("zfs", 0, "datasets", 0),
    "Tmpfs": ("tmpfs", 0),
    "SwapFile": ("swap-files", 0),
    "Network": ("network",),
    "NetworkInterface": ("network", "interfaces", 0),
    "NetworkRoute": ("network", "interfaces", 0, "routes", 0),
    "Bond": ("network", "bonds", 0),
    "Vlan": ("network", "vlans", 0),
    "Bridge": ("network", "bridges", 0),
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
    properties = table["properties"]
    if name in ("Raid", "LogicalVolume"):
        # what all holders have is described with the partitions
        shared = {key.replace("_", "-") for key in Holder.model_fields} - {"name"}
        properties = {field: properties[field] for field in properties if field not in shared}
    if name in ("Bond", "Vlan", "Bridge"):
        # what all interfaces have is described with the cards
        shared = {key.replace("_", "-") for key in Addressing.model_fields}
        properties = {field: properties[field] for field in properties if field not in shared}
    assert list(documented) == list(properties)
    for field, schema in properties.items():
        match schema.get("default"):
            case None:
                default = "required" if field in table.get("required", ()) else "none"
            case bool(value):
                default = f"`{str(value).lower()}`"
            case int(value):
                default = f"`{value}`"
            case list() | dict():
                default = "all defaults"
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
        if isinstance(choice, str)
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
    place = PLACES[name]
    parts = [str(part) for part in place]
    more = STACKED.get(".".join(parts[:2])) or STACKED.get("".join(parts[:1]), {})
    document: Any = deepcopy({**BASE, **more})
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
        for number, match in enumerate(_BLOCK.finditer(document.read_text()), start=1):
            yield f"{document.name} {number}", match[0]


_BLOCK = re.compile(r"^```toml( fragment)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", [pytest.param(text, id=name) for name, text in _examples()])
def test_examples_are_answer_files_or_site_files(block: str) -> None:
    match = _BLOCK.fullmatch(block)
    assert match is not None
    said = tomllib.loads(match[2])
    if set(said) & {"http", "tftp", "dhcp", "images", "nfs", "grub", "hosts"}:
        document = said if "version" in said else {**SITE, **said}
        documents.load(site.KIND, json.dumps(document), "example.json")
    elif match[1] is None:
        load(match[2], "example.toml")
    else:
        load(json.dumps(_completed(said)), "fragment.json")


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
