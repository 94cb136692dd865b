"""`netinstall payload pack`: a source, its frames, the manifest and the signature."""

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from installer.act.payload.archive import show
from installer.act.run import Runner
from installer.model.errors import fail
from installer.model.manifest import Archive, Manifest, time_text, to_text
from installer.observe import manifest as manifests
from installer.pack.cutter import Cutter
from installer.pack.facts import Observer
from installer.pack.frames import Frames, Progress
from installer.pack.sign import SecretKey
from installer.pack.store import Closure
from installer.pack.tarball import Tarball
from installer.pack.tree import Tree, folders_tar, reader

LEVEL = 9
"""zstd's level: see docs/payload.md for what others cost."""

_STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-([^/]+)")
_LEFT_OUT_TOLD = 20
_LATEST = 253402300799  # the year 9999, the last that four digits can say

Narrate = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What to make. `name` None is taken from the source; `cores` None are all.

    `store` is the root of the store in which a toplevel is looked for.
    """

    source: str
    output: Path
    name: str | None = None
    key: SecretKey | None = None
    expires: str | None = None
    level: int = LEVEL
    cores: int | None = None
    store: Path = Path("/")


def pack(wishes: Wishes, narrate: Narrate, progress: Progress) -> Manifest:
    """Write NAME.tar.zst, NAME.json and, with a key, NAME.json.minisig; all or none of them.

    Args:
        wishes: what to make.
        narrate: told what is left out, and what else a person should know.
        progress: told how much of the source was read.

    Raises:
        InstallError: `payload.source`, `payload.changed`, `payload.format`, `payload.hostile`,
            `payload.truncated`, `tool.missing`, `command.failed` or `arguments`.
    """
    path = Path(wishes.source)
    match = _STORE_PATH.fullmatch(wishes.source.rstrip("/"))
    name = wishes.name or (match[1] if match else re.sub(r"\.tar(\.\w+)?$|\.t\wz$", "", path.name))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", name):
        raise fail(
            "arguments",
            f"{show(os.fsencode(name))!r} cannot be a payload's name: letters, digits and . _ + - "
            "are possible, 128 at most",
            where="--name",
            hint="netinstall payload pack … --name my-system",
        )
    try:
        wishes.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pack-", dir=wishes.output) as folder:
            made = Path(folder)
            manifest = _pack(wishes, match is not None, name, made, narrate, progress)
            _publish(made, wishes.output, name)
    except OSError as error:
        raise fail(
            "payload.source",
            f"{error.filename or wishes.output}: {error.strerror}",
            where="netinstall payload pack",
            hint="is there room, and may this user read and write there?",
        ) from None
    return manifest


def _pack(  # noqa: PLR0917 - one call
    wishes: Wishes, store: bool, name: str, made: Path, narrate: Narrate, progress: Progress
) -> Manifest:
    observer = Observer(wishes.source.rstrip("/") if store else None)
    with (
        (made / f"{name}.tar.zst").open("wb") as out,
        Frames(out, level=wishes.level, cores=wishes.cores) as frames,
    ):
        cutter = Cutter(frames, observer, progress)
        newest = _feed(wishes, store, cutter, narrate)
        cutter.finish()
    system, why = observer.system()
    if system is None:
        narrate(f"note: {why}: netinstall install would refuse it")
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    built = int(epoch) if epoch.isascii() and epoch.isdigit() else newest
    manifest = Manifest.model_construct(
        version=1,
        name=name,
        built=time_text(min(max(built, 0), _LATEST)),
        expires=wishes.expires,
        system=system,
        archive=Archive.model_construct(
            size=frames.size,
            sha256=frames.sha256,
            unpacked=cutter.unpacked,
            usage=cutter.usage,
            entries=cutter.entries,
            root_owned=cutter.root_owned,
            folders=dict(sorted(cutter.folders.items())) or None,
        ),
        frames=frames.frames,
    )
    text = to_text(manifest).encode()
    checked = manifests.load(text, f"{name}.json")
    (made / f"{name}.json").write_bytes(text)
    if wishes.key is not None:
        # not the time of signing: the same payload has the same signature
        comment = f"timestamp:{max(built, 0)}\tfile:{name}.json\thashed"
        (made / f"{name}.json.minisig").write_bytes(wishes.key.sign(text, comment))
    return checked


def _feed(wishes: Wishes, store: bool, cutter: Cutter, narrate: Narrate) -> int:
    """Give the source to the cutter; return the newest time in it (seconds since 1970)."""
    runner = Runner()
    path = Path(wishes.source).absolute()
    if store:
        closure = Closure(wishes.source.rstrip("/"), wishes.store.absolute(), runner)
        above = [b".", b"nix", b"nix/store"]
        cutter.total = closure.tree.size
        cutter.feed(reader(folders_tar([*above, *closure.tree.folders])))
        cutter.feed(reader(closure.registration_tar()))
        with closure.tree.read(runner) as read:
            cutter.feed(read, last=True)
        cutter.feed(reader(closure.above_tar()), last=True)
        _tell(closure.tree, narrate)
        return 1
    if path.is_dir():
        tree = Tree(path)
        tree.look()
        cutter.total = tree.size
        _tell(tree, narrate)
        cutter.feed(reader(folders_tar(tree.folders)))
        with tree.read(runner) as read:
            cutter.feed(read, last=True)
        return tree.newest
    if not path.is_file():
        raise fail(
            "payload.source",
            f"{wishes.source} is no folder, no file and no store path",
            where="netinstall payload pack",
            hint="is the path right?",
        )
    narrate("reading the archive once to see what it holds")
    tarball = Tarball(path, runner)
    cutter.total = tarball.size
    cutter.feed(reader(folders_tar(tarball.folders)))
    with ExitStack() as stack:
        files = tarball.files()
        stack.callback(files.close)
        cutter.feed(reader(files))
    cutter.feed(reader(tarball.attributes()), last=True)
    return tarball.newest


def _tell(tree: Tree, narrate: Narrate) -> None:
    for name, why in tree.left_out[:_LEFT_OUT_TOLD]:
        narrate(f"left out: {show(name)}: {why}")
    if len(tree.left_out) > _LEFT_OUT_TOLD:
        narrate(f"left out: {len(tree.left_out) - _LEFT_OUT_TOLD} more")
    status = tree.root.stat()
    if not tree.store and (status.st_mode & 0o7777, status.st_uid) != (0o755, 0):
        narrate(
            f"note: the root of the system will have mode {status.st_mode & 0o7777:04o} and owner "
            f"{status.st_uid}, as {tree.root} has"
        )


def _publish(made: Path, output: Path, name: str) -> None:
    """Put the files in place, the manifest last: it is what is asked for first."""
    for ending in (".tar.zst", ".json.minisig", ".json"):
        file = made / f"{name}{ending}"
        if file.exists():
            file.chmod(0o644)
            file.replace(output / file.name)
        else:
            (output / file.name).unlink(missing_ok=True)
