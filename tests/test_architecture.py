"""The house's rules about who imports whom, and where the world is touched."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "installer"

LAYERS = {
    "model": {"model"},
    "decide": {"model", "decide"},
    "observe": {"model", "observe"},
    "report": {"model", "report"},
    "act": {"model", "act", "observe"},
    "init": {"model", "init", "observe", "act.run"},
    "boot": {"model", "boot", "observe", "act.run"},
}
"""What each folder may import of ours; `act.run` is one module."""


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    if layer not in LAYERS:
        return
    ours = {name.removeprefix("installer.") for name in _imports(path) if name.startswith("inst")}
    allowed = LAYERS[layer]
    wrong = {
        name
        for name in ours
        if not any(name == place or name.startswith(f"{place}.") for place in allowed)
        and name != "__version__"
    }
    assert not wrong, f"{path} imports {sorted(wrong)}"


def _users(*names: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in _modules()
        if any(name.split(".")[0] in names for name in _imports(path))
    }


def test_one_module_each_talks_to_processes_libparted_and_udev() -> None:
    assert _users("subprocess") == {"act/run.py"}
    assert _users("parted", "_ped") == {"act/disk.py"}
    assert _users("pyudev") == {"observe/disks.py"}


def test_decide_is_pure() -> None:
    impure = {"os", "time", "random", "secrets", "socket", "pathlib", "subprocess", "datetime"}
    for path in (PACKAGE / "decide").glob("*.py"):
        used = {name.split(".")[0] for name in _imports(path)}
        assert not used & impure, path
