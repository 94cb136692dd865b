"""A closure: Nix copies a system from a binary cache into the target, and says how far it is.

Nix itself looks at signatures and hashes: a path is taken if a trusted key signed it, or if its
name is the hash of its contents. Nothing is unpacked that is not right (nix(1), `nix copy`).

Nix's log: `--log-format internal-json`, whose numbers are in Nix's src/libutil/logging.hh.
"""

import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from installer.act.narrator import Narrator
from installer.act.payload import Inventory
from installer.act.payload.source import Patience
from installer.act.payload.system import installed_system
from installer.act.run import Program, Runner
from installer.act.trouble import full, no_room
from installer.model.errors import InstallError, fail
from installer.model.payload_steps import CheckClosure, CopyClosure
from installer.model.units import MIB, format_bytes, format_seconds
from installer.model.urls import redacted
from installer.observe.payload import delays

_UNTRUSTED = 2
"""Exit code of `nix store verify` for paths without a trusted signature."""

_COPY_PATH = 100
_FILE_TRANSFER = 101
_PROGRESS = 105
_TICK = 0.25
_ANSWER_LIMIT = 16 * MIB
"""Bytes of `nix path-info --json`: about 1 KiB for each path, of which a system has thousands."""

_CONFIGURATION = "etc/nixos"
_CHANNELS = "nix/var/nix/profiles/per-user/root/channels"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_OFFLINE = re.compile(
    r"unable to download|Couldn't|Could not|[Tt]imed? ?out|[Cc]onnection|resolve host|HTTP error 5"
)
_FINAL = re.compile(r"HTTP error (?:4\d\d)|certificate|SSL")


def check(
    step: CheckClosure, narrator: Narrator, runner: Runner, *, patience: Patience | None = None
) -> None:
    """Ask the cache for every path, its size and its signatures; nothing is copied.

    Raises:
        InstallError: see `copy`.
    """
    work = _Work(step, Path("/"), runner, narrator, patience or Patience())
    with work.ready():
        sizes = work.look()
        work.fits(sum(sizes.values()))
        if step.public_keys:
            work.signed()
    narrator.say(
        f"{len(sizes)} store paths, {format_bytes(sum(sizes.values()))} unpacked"
        + (", all signed" if step.public_keys else "")
    )


def copy(
    step: CopyClosure,
    target: Path,
    runner: Runner,
    narrator: Narrator,
    *,
    patience: Patience | None = None,
) -> Inventory:
    """Copy the closure of a toplevel into the target's store, and register it there.

    Args:
        step: what to copy.
        target: the root of the new system, with its file systems mounted below.
        runner: `on_line` is told what Nix says.
        narrator: is told the progress in bytes of unpacked store paths, and each retry.
        patience: for tests.

    Raises:
        InstallError: `payload.not-found`, `payload.signature`, `payload.too-large`,
            `payload.not-nixos`, `network.unreachable`, `network.lost`, `tool.missing`,
            `command.failed`, `command.timeout`.
    """
    work = _Work(step, target, runner, narrator, patience or Patience())
    with work.ready():
        sizes = work.look()
        work.fits(sum(sizes.values()))
        work.copy(sizes)
    if step.configuration is not None:
        _copy_writable(target / step.configuration.lstrip("/"), target / _CONFIGURATION)
    if step.channel is not None:
        channels = target / _CHANNELS
        channels.mkdir(parents=True, exist_ok=True)
        (channels / "nixos").unlink(missing_ok=True)
        (channels / "nixos").symlink_to(step.channel)
    toplevel = installed_system(target, step.toplevel, registered=True)
    return Inventory("", 0, sum(sizes.values()), len(sizes), {}, toplevel)


@dataclass
class _Said:
    """What one run of Nix said so far."""

    errors: list[str]
    copied: int = 0
    transferred: int = 0


class _Work:
    def __init__(
        self,
        step: CopyClosure | CheckClosure,
        target: Path,
        runner: Runner,
        narrator: Narrator,
        patience: Patience,
    ) -> None:
        self._step = step
        self._target = target
        self._runner = runner
        self._narrator = narrator
        self._patience = patience
        self._environment: Mapping[str, str] = {}
        self._options: tuple[str, ...] = ()
        self._cache = step.cache
        self._paths = [
            path for path in (step.toplevel, step.configuration, step.channel) if path is not None
        ]
        self.shown = redacted(step.cache)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Make a folder for what Nix keeps beside its store, with the password if there is one."""
        with tempfile.TemporaryDirectory(prefix="netinstall-nix-") as folder:
            self._environment = {
                # nothing of this machine's own settings, keys or answers of yesterday
                "NIX_CONF_DIR": folder,
                "NIX_USER_CONF_FILES": "/dev/null",
                "XDG_CACHE_HOME": folder,
                "NIX_STATE_DIR": f"{folder}/state",
                "USER": "root",
            }
            self._cache = self._location(Path(folder))
            options = {
                "extra-experimental-features": "nix-command",
                "substituters": "",
                "build-users-group": "",
                "trusted-public-keys": " ".join(self._step.public_keys),
                "require-sigs": "true" if self._step.public_keys else "false",
                "netrc-file": f"{folder}/netrc",
                "narinfo-cache-negative-ttl": "0",
                "connect-timeout": str(max(1, int(self._patience.timeouts[0]))),
                "stalled-download-timeout": str(max(1, int(self._patience.timeouts[1]))),
                "download-attempts": "1",
            }
            self._options = tuple(
                word for name, value in options.items() for word in ("--option", name, value)
            )
            yield

    def _location(self, folder: Path) -> str:
        """Return the cache as Nix wants it; a password goes into a file, not onto command lines."""
        cache = self._step.cache
        if cache.startswith("/"):
            return f"file://{quote(cache)}"
        parts = urlsplit(cache)
        if parts.username is None:
            return cache
        netrc = folder / "netrc"
        netrc.touch(mode=0o600)
        netrc.write_text(
            f"machine {parts.hostname} login {_netrc(parts.username)} "
            f"password {_netrc(parts.password or '')}\n",
            encoding="utf-8",
        )
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def look(self) -> dict[str, int]:
        """Ask the cache for every path of the closure; return their sizes unpacked, in bytes."""
        out = ""

        def ask() -> InstallError | None:
            nonlocal out
            with tempfile.TemporaryFile() as answer:
                said = _Said([])
                argv = ["nix", "path-info", *self._options, "--json", "--recursive"]
                code = self._run(
                    [*argv, "--store", self._cache, *self._paths], said, answer.fileno()
                )
                if code:
                    return self._failure(said, code)
                if answer.seek(0, os.SEEK_END) > _ANSWER_LIMIT:
                    raise fail(
                        "payload.too-large",
                        f"the closure of {self._step.toplevel} has more store paths than a system",
                        where=self.shown,
                        hint="is this the toplevel of a system?",
                    )
                answer.seek(0)
                out = answer.read().decode("utf-8", "replace")
            return None

        self._patiently(ask, lambda: 0)
        return _sizes(out)

    def fits(self, size: int) -> None:
        """Compare with what the store's file system takes."""
        capacity = self._step.capacity
        mount = next((mount for mount in ("/nix/store", "/nix", "/") if mount in capacity), None)
        if mount is not None and size > capacity[mount]:
            raise fail(
                "payload.too-large",
                f"the closure of {self._step.toplevel} needs {format_bytes(size)} on {mount}, "
                f"which takes {format_bytes(capacity[mount])}",
                where="disks",
                hint="make the file system larger, or the system smaller",
            )

    def signed(self) -> None:
        """Let Nix judge the signatures of the whole closure, without its contents."""

        def ask() -> InstallError | None:
            said = _Said([])
            argv = ["nix", "store", "verify", *self._options, "--recursive", "--no-contents"]
            code = self._run([*argv, "--store", self._cache, *self._paths], said, None)
            if code == _UNTRUSTED:
                said.errors.append("no trusted signature")
            return self._failure(said, code) if code else None

        self._patiently(ask, lambda: 0)

    def copy(self, sizes: Mapping[str, int]) -> None:
        """Let Nix copy until everything is there; what was copied is not copied again."""
        progress = self._narrator.progress(sum(sizes.values()))
        store = f"local?root={quote(str(self._target.absolute()))}"
        done: set[str] = set()
        said = _Said([])

        def attempt() -> InstallError | None:
            nonlocal said
            said = _Said([])
            running: dict[int, str] = {}
            unsigned = () if self._step.public_keys else ("--no-check-sigs",)
            argv = ["nix", "copy", *self._options, "--log-format", "internal-json", *unsigned]
            argv += ["--from", self._cache, "--to", store, *self._paths]

            def tell(event: Mapping[str, Any]) -> None:
                _follow(event, said, running, done)
                said.copied = sum(sizes.get(path, 0) for path in done)

            code = self._run(argv, said, None, tell, lambda: progress(said.copied))
            return self._failure(said, code) if code else None

        self._patiently(attempt, lambda: said.copied + said.transferred)
        progress(sum(sizes.values()))

    def _patiently(
        self, attempt: Callable[[], InstallError | None], moved: Callable[[], int]
    ) -> None:
        """Try again as long as the network is at fault, and something came meanwhile."""
        last = time.monotonic()
        pauses = self._pauses()
        retries = 0
        while (error := attempt()) is not None:
            if moved():
                last, pauses, retries = time.monotonic(), self._pauses(), 0
            pause = next(pauses)
            left = last + self._step.retry_seconds - time.monotonic()
            if error.problems[0].code != "network.lost" or left <= 0:
                raise error
            retries += 1
            pause = min(pause, left)
            self._narrator.say(
                f"{self.shown}: {error.problems[0].what}; retry {retries} in "
                f"{format_seconds(pause)}",
                "warning",
            )
            time.sleep(pause)

    def _pauses(self) -> Iterator[float]:
        return delays(first=self._patience.first_delay, longest=self._patience.longest_delay)

    def _run(
        self,
        argv: list[str],
        said: _Said,
        stdout: int | None,
        tell: Callable[[Mapping[str, Any]], None] | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> int:
        """Run Nix to its end as long as it says something or writes; return its exit code."""
        heard = threading.Event()

        def listen(line: str) -> None:
            heard.set()
            event = _event(line)
            if event is None:
                said.errors.append(_COLOURS.sub("", line).removeprefix("error: "))
                del said.errors[:-20]
                self._runner.on_line(line)
                return
            if event.get("action") == "msg":
                text = _COLOURS.sub("", str(event.get("raw_msg", event.get("msg", ""))))
                if event.get("level") == 0:
                    said.errors.append(text)
                self._runner.on_line(text)
            elif tell is not None:
                tell(event)

        runner = Runner(on_line=listen)
        with runner.start(
            argv,
            environment=self._environment,
            purpose="copying the closure",
            **({} if stdout is None else {"stdout": stdout}),
        ) as program:
            return self._wait(program, heard, tick)

    def _wait(self, program: Program, heard: threading.Event, tick: Callable[[], None]) -> int:
        quiet, free = time.monotonic(), -1
        while True:
            try:
                code = program.end(_TICK)
            except InstallError:
                tick()
                now = os.statvfs(self._target).f_bfree
                if heard.is_set() or now != free:
                    heard.clear()
                    quiet, free = time.monotonic(), now
                if time.monotonic() - quiet > self._patience.stuck:
                    raise fail(
                        "command.timeout",
                        f"Nix did nothing for {format_seconds(self._patience.stuck)}",
                        where=f"copying the closure from {self.shown}",
                        hint="look at the cache's log, and at the kernel's (dmesg)",
                    ) from None
            else:
                return code

    def _failure(self, said: _Said, code: int) -> InstallError:
        words = "\n".join(dict.fromkeys(said.errors)) or "it said nothing"
        where = f"copying {self._step.toplevel} from {self.shown}"
        if "signature" in words:
            return fail(
                "payload.signature",
                f"a store path of {self.shown} has no signature of a trusted key: {words}",
                where=where,
                hint="sign the cache's paths (nix store sign), or give the key that they are "
                "signed with as payload.closure.public-keys",
            )
        if full(said.errors):
            return no_room(self._target, self._step.capacity, said.errors, where=where)
        if _OFFLINE.search(words) and not _FINAL.search(words):
            return fail(
                "network.lost",
                f"Nix could not read from {self.shown}: {words}",
                where=where,
                hint="check the cache and the network; payload.retry-seconds sets how long to "
                "wait for it",
            )
        if re.search(r"does not exist|is not valid|no substituter|HTTP error 4|not appear", words):
            return fail(
                "payload.not-found",
                f"{self.shown} cannot give the closure of {self._step.toplevel}: {words}",
                where="payload.closure",
                hint="is it a binary cache, and was the whole closure copied to it "
                "(nix copy --to …)?",
            )
        return fail(
            "command.failed",
            f"nix ended with exit code {code}",
            where=where,
            hint=f"its last words:\n{words}",
        )


def _netrc(encoded: str) -> str:
    """Write a part of a URL as curl reads it in a netrc file (since 7.84 with quotes)."""
    text = unquote(encoded).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _event(line: str) -> Mapping[str, Any] | None:
    """Read a line of Nix's log; None for any other line."""
    if not line.startswith("@nix "):
        return None
    try:
        event = json.loads(line.removeprefix("@nix "))
    except ValueError:
        # a message longer than what is read at once
        return {}
    return event if isinstance(event, dict) else {}


def _follow(event: Mapping[str, Any], said: _Said, running: dict[int, str], done: set[str]) -> None:
    """Take notice of a path that is copied, and of bytes that come."""
    number, fields = event.get("id"), event.get("fields")
    if not isinstance(number, int):
        return
    if event.get("action") == "start" and event.get("type") == _COPY_PATH:
        if isinstance(fields, list) and fields and isinstance(fields[0], str):
            running[number] = fields[0]
    elif event.get("action") == "stop" and number in running:
        done.add(running.pop(number))
    elif (
        event.get("action") == "result"
        and event.get("type") == _PROGRESS
        and isinstance(fields, list)
        and fields
        and isinstance(fields[0], int)
    ):
        said.transferred = max(said.transferred, fields[0])


def _sizes(text: str) -> dict[str, int]:
    """Read the answer of `nix path-info --json`: a list, or since Nix 2.19 an object."""

    def small(row: dict[str, Any]) -> dict[str, Any]:
        # of the rest, references and signatures are most
        return (
            {key: row[key] for key in ("path", "narSize") if key in row}
            if "narSize" in row
            else row
        )

    try:
        found = json.loads(text, object_hook=small)
        rows = found.items() if isinstance(found, dict) else ((row["path"], row) for row in found)
        return {str(path): int((row or {}).get("narSize", 0)) for path, row in rows}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise fail(
            "command.failed",
            "nix path-info answers in a form that is not understood",
            where="asking the cache for the closure",
            hint="Nix 2.8 to 2.31 are: which one is in the boot image? (nix --version)",
        ) from None


def _copy_writable(source: Path, place: Path) -> None:
    """Copy a folder of the store to where its owner changes it; links in it stay links."""
    if not source.is_dir():
        raise fail(
            "payload.not-found",
            f"{source.name} is no folder",
            where="payload.closure.configuration",
            hint="give the store path of a folder that holds configuration.nix",
        )
    place.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, place, symlinks=True, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for top, _folders, files in os.walk(place):
        Path(top).chmod(0o755)
        for name in files:
            path = Path(top) / name
            if not path.is_symlink():
                path.chmod(0o644)
