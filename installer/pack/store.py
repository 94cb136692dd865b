"""The closure of a toplevel, as Nix tells it."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from installer.act.payload.archive import padding
from installer.act.run import Runner
from installer.model.errors import fail
from installer.model.plan import PAYLOAD_REGISTRATION
from installer.pack.cutter import END
from installer.pack.tree import Tree, file_header, made_folder, store_link

_SECONDS = 600.0
_AT_ONCE = 2000
"""Store paths on one command line; execve(2) takes 2 MiB."""

_PIECE = 1024 * 1024


class Closure:
    """A tree of store paths below `root`, and their registration."""

    def __init__(self, toplevel: str, root: Path, runner: Runner) -> None:
        """Ask Nix; `root` is `/`, or the folder that `--store` names.

        Raises:
            InstallError: `payload.source`, `tool.missing` or `command.failed`.
        """
        self.paths = sorted(self._query(["-qR", toplevel], root, runner))
        if not self.paths or not all(path.startswith("/nix/store/") for path in self.paths):
            raise fail(
                "payload.source",
                f"Nix does not know the closure of {toplevel}",
                where=str(root),
                hint="is it built and valid? nix-store -qR shows its closure; --store DIR names "
                "another store",
            )
        self.tree = Tree(root, store=True)
        self.tree.look(path.removeprefix("/").encode() for path in self.paths)
        self.tree.newest = 1
        self.registration = self._dump(root, runner)

    def registration_tar(self) -> Iterator[bytes]:
        """Yield a tar of the registration."""
        size = self.registration.seek(0, 2)
        self.registration.seek(0)
        yield file_header(PAYLOAD_REGISTRATION.encode(), size)
        while piece := self.registration.read(_PIECE):
            yield piece
        yield bytes(padding(size)) + END

    def above_tar(self) -> Iterator[bytes]:
        """Yield a tar of the folders above the store paths, from the inside out."""
        yield made_folder(b"nix/store", 1)
        if link := self.tree.late.get(b"nix/store"):
            yield store_link(link, os.readlink(os.fsencode(self.tree.root) + b"/" + link))  # noqa: PTH115
        yield made_folder(b"nix", 1) + made_folder(b".", 1) + END

    @staticmethod
    def _query(arguments: list[str], root: Path, runner: Runner) -> list[str]:
        argv = ["nix-store", *_store(root), *arguments]
        return runner.run(argv, timeout=_SECONDS, capture=True, purpose="asking Nix").split()

    def _dump(self, root: Path, runner: Runner) -> BinaryIO:
        out = TemporaryFile()  # noqa: SIM115 - lives as long as this
        for start in range(0, len(self.paths), _AT_ONCE):
            argv = ["nix-store", *_store(root), "--dump-db", *self.paths[start : start + _AT_ONCE]]
            with (
                Path("/dev/null").open("rb") as nothing,
                runner.start(
                    argv, stdin=nothing.fileno(), stdout=out.fileno(), purpose="asking Nix"
                ) as program,
            ):
                if code := program.end(_SECONDS):
                    raise program.failure(code)
        return out


def _store(root: Path) -> list[str]:
    return [] if root == Path("/") else ["--store", str(root)]
