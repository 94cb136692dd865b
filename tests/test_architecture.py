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
    "pack": {
        *("model", "pack", "observe", "act.run"),
        # what reads and judges an archive: packed is what the installer will take
        *("act.payload.archive", "act.payload.vetting", "act.payload.system"),
        "act.payload.compression",
    },
}
"""What each folder may import of ours; `act.run` is one module. The package itself may be
imported for what it says about itself, see `ABOUT`; cli and unattended stand above all folders."""

ABOUT = {"__version__", "__file__", "__name__"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            # `import installer` must not be a way around: installer.cli.main
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "installer"
        ):
            found.add(f"installer.{node.attr}")
    return found


def _forbidden(path: Path) -> set[str]:
    allowed = LAYERS[path.relative_to(PACKAGE).parts[0]]
    ours = {
        name.removeprefix("installer.")
        for name in _imports(path)
        if name.startswith("installer.") and name.removeprefix("installer.") not in ABOUT
    }
    return {
        name
        for name in ours
        if not any(name == place or name.startswith(f"{place}.") for place in allowed)
    }


def test_every_folder_has_its_place() -> None:
    assert {
        path.relative_to(PACKAGE).parts[0] for path in _modules() if path.parent != PACKAGE
    } == (LAYERS.keys())


@pytest.mark.parametrize(
    "path",
    [path for path in _modules() if path.parent != PACKAGE],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_go_one_way(path: Path) -> None:
    assert not _forbidden(path)


def test_nobody_imports_the_verbs() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in _modules()
        for name in _imports(path)
        if name.startswith(("installer.cli", "installer.unattended"))
    }
    assert users == {"__main__.py", "cli.py"}


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
