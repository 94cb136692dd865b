"""Runs this project's init as PID 1 of a namespace of its own.

    namespace.py FOLDER COMMAND-LINE WORKER…

FOLDER takes the console (a file), what `end` was told, and init's folder. Devices are not
prepared: udev would act on the host's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from installer.init import main

folder = Path(sys.argv[1])


def _nothing(_children: object, _arguments: str) -> list[str]:
    if (folder / "prepare-fails").exists():
        raise OSError(5, "the kernel refused")
    return ["prepared"]


def _note(action: str) -> None:
    (folder / "end").write_text(action)


def _terminal() -> list[Path]:
    pty = folder / "pty"
    return [folder / "console", *([Path(pty.read_text())] if pty.exists() else [])]


main.run(
    sys.argv[3:],
    prepare=_nothing,
    end=_note,
    find_consoles=_terminal,
    command_line=Path(sys.argv[2]),
    folder=folder / "run",
)
