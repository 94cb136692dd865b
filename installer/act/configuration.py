"""Files beside the installed system's configuration.nix: written, checked, imported."""

import re
from pathlib import Path, PurePosixPath

from installer.act.narrator import Narrator
from installer.act.nixos import in_target
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError, fail
from installer.model.plan import WriteFile

_FOLDER = "/etc/nixos"
_MAIN = "configuration.nix"
_OWN = "configuration-of-payload.nix"
_HEADER = "# Written by netinstall: the payload's own configuration, and what it did not import.\n"
_MOST_FILES = 64
_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
_PATH = re.compile(rf"{_FOLDER}/[^\s()\[\]{{}};]+")


def write_file(
    step: WriteFile, target: Target, runner: Runner, narrator: Narrator, toplevel: str
) -> None:
    """Write a file of the installed system, and see to it that configuration.nix imports it.

    Raises:
        InstallError: `payload.hostile`; `internal` when Nix cannot read what is written.
    """
    path = target.confined(str(PurePosixPath(step.path).parent)) / PurePosixPath(step.path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(step.content, encoding="utf-8")
    path.chmod(step.mode)
    if path.suffix != ".nix" or path.parent != target.path(_FOLDER):
        return
    nix = _Nix(target, runner, toplevel)
    if nix.is_there and nix.paths(path.name) is None:
        raise fail(
            "internal",
            f"Nix cannot read {step.path}, which this program wrote",
            where=f"writing {step.path}",
            hint="report this with the log and the facts (netinstall probe --json)",
        )
    if _is_imported(path.name, target, nix):
        return
    if step.add_import and _add_import(path.name, path.parent):
        narrator.say(
            f"{_FOLDER}/{_MAIN} did not import ./{path.name}: it does now, and the payload's own "
            f"is {_FOLDER}/{_OWN}"
        )
        return
    narrator.say(
        f"{_FOLDER}/{_MAIN} does not import ./{path.name}: what it says has no effect "
        "until it does",
        "warning",
    )


class _Nix:
    """The installed system's own Nix, as a reader of its configuration."""

    def __init__(self, target: Target, runner: Runner, toplevel: str) -> None:
        self._target = target
        self._runner = runner
        self._toplevel = toplevel
        self.is_there = target.has(f"{toplevel}/sw/bin/nix-instantiate")

    def paths(self, name: str) -> list[str] | None:
        """The paths below /etc/nixos that an expression there names; None: it is none.

        Nix prints an expression with absolute paths and without comments (nix-instantiate(1)).
        """
        try:
            printed = in_target(
                self._target,
                self._runner,
                self._toplevel,
                ["nix-instantiate", "--parse", f"{_FOLDER}/{name}"],
                timeout=60,
                purpose=f"reading {_FOLDER}/{name}",
                capture=True,
            )
        except InstallError:
            return None
        return _PATH.findall(_STRING.sub('""', printed))


def _is_imported(name: str, target: Target, nix: _Nix) -> bool:
    """Say whether configuration.nix names a file, itself or in a file that it names."""
    main = target.path(f"{_FOLDER}/{_MAIN}")
    if not nix.is_there:
        return main.is_file() and name in main.read_text(encoding="utf-8", errors="replace")
    wanted, seen, unread = f"{_FOLDER}/{name}", set[str](), [f"{_FOLDER}/{_MAIN}"]
    while unread and len(seen) < _MOST_FILES:
        one = unread.pop()
        if one == wanted:
            return True
        if one in seen:
            continue
        seen.add(one)
        if target.path(one).is_dir():
            one += "/default.nix"
        if one.endswith(".nix") and target.path(one).is_file():
            unread += nix.paths(one.removeprefix(f"{_FOLDER}/")) or []
    return False


def _add_import(name: str, folder: Path) -> bool:
    """Put a configuration.nix before the payload's, which keeps its text and its place.

    False if there is none, or nowhere to keep it.

    A module can be written in many ways (a function, a `let`, an attribute set of many files), and
    all of them can be imported; to put a line into any of them, one has to understand it.
    """
    main, own = folder / _MAIN, folder / _OWN
    names = [_OWN, name]
    if not main.is_file():
        return False
    if main.read_text(encoding="utf-8", errors="replace").startswith(_HEADER):
        names[1:1] = re.findall(r"^    \./(\S+)$", main.read_text(encoding="utf-8"), re.MULTILINE)[
            1:
        ]
        main.unlink()
    elif own.exists() or own.is_symlink():
        return False
    else:
        main.rename(own)
    imports = "".join(f"    ./{one}\n" for one in dict.fromkeys(names))
    main.write_text(
        f"{_HEADER}{{ ... }}:\n{{\n  imports = [\n{imports}  ];\n}}\n", encoding="utf-8"
    )
    return True
