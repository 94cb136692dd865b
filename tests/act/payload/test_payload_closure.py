"""Closures: real Nix signs a cache, serves nothing itself, and copies out of it again."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_payload_unpack import seen

from installer.act.narrator import Narrator
from installer.act.payload import Inventory, closure
from installer.act.payload.source import Patience
from installer.act.run import Runner
from installer.model.errors import InstallError, Problem
from installer.model.events import AnyEvent, Message, StepProgress
from installer.model.payload_steps import CheckClosure, CopyClosure
from installer.model.units import GIB, MIB

pytestmark = pytest.mark.root

OTHER_KEY = "other:" + base64.b64encode(bytes(32)).decode()
NIX = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "NIX_CONFIG": "sandbox = false\nsubstituters =\nbuild-users-group =\n"
    "experimental-features = nix-command\n",
}


def nix(folder: Path, *argv: str | Path, typed: Sequence[str] = ()) -> str:
    done = subprocess.run(
        argv,
        env={**NIX, "XDG_CACHE_HOME": str(folder / "nix-cache")},
        input="".join(f"{line}\n" for line in typed),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Made:
    """A store, and a binary cache of all that is in it."""

    root: Path
    toplevel: str
    kernel: str
    configuration: str
    cache: Path
    key: str

    @property
    def paths(self) -> list[str]:
        return [self.toplevel, self.kernel]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A toplevel that refers to a kernel; neither is known by its contents, so signatures count."""
    folder = tmp_path_factory.mktemp("closure")
    root = folder / "store"
    (folder / "kernel/lib").mkdir(parents=True)
    (folder / "kernel/lib/noise").write_bytes(os.urandom(3 * MIB))
    (folder / "kernel/lib/run").write_bytes(b"#!/bin/sh\n")
    (folder / "kernel/lib/run").chmod(0o755)
    (folder / "etc-nixos/parts").mkdir(parents=True)
    (folder / "etc-nixos/configuration.nix").write_text("{ }\n")
    (folder / "etc-nixos/parts/a.nix").symlink_to("../configuration.nix")
    top = folder / "nixos-system-demo-26.05"
    (top / "bin").mkdir(parents=True)
    (top / "init").write_text("#!/bin/sh\n")
    (top / "nixos-version").write_text("26.05")
    add = ("nix-store", "--store", root, "--add")
    kernel = nix(folder, *add, folder / "kernel")
    configuration = nix(folder, *add, folder / "etc-nixos")
    (top / "bin/switch-to-configuration").symlink_to(f"{kernel}/lib/run")
    toplevel = nix(folder, *add, top)
    for path, references in ((kernel, []), (toplevel, [kernel])):
        known = nix(folder, "nix-store", "--store", root, "--dump-db", path).splitlines()
        lines = [*known[:4], str(len(references)), *references]
        nix(folder, "nix-store", "--store", root, "--load-db", typed=lines)
    key = ("nix-store", "--generate-binary-cache-key", "cache-1", folder / "secret")
    nix(folder, *key, folder / "public")
    cache = folder / "cache"
    where = f"file://{cache}?secret-key={folder / 'secret'}"
    nix(folder, "nix", "copy", "--from", root, "--to", where, toplevel, configuration)
    return Made(root, toplevel, kernel, configuration, cache, (folder / "public").read_text())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target root"
    path.mkdir()
    return path


@dataclass
class Server:
    """A web server over a folder; `wrong` answers that many requests for archives with a fault."""

    port: int = 0
    password: str = ""
    asked: list[str] = field(default_factory=list)
    cut: int = 0
    status: int = 0


@contextmanager
def served(folder: Path, state: Server) -> Iterator[Server]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            wanted = base64.b64encode(state.password.encode()).decode()
            if state.password and self.headers.get("Authorization") != f"Basic {wanted}":
                self.send_error(401)
                return
            if "/nar/" in self.path and state.status:
                self.send_error(state.status)
                return
            if "/nar/" in self.path and state.cut:
                state.cut -= 1
                data = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                return
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def copy(
    made: Made,
    target: Path,
    *,
    cache: str | None = None,
    keys: tuple[str, ...] | None = None,
    toplevel: str | None = None,
    configuration: str | None = None,
    channel: str | None = None,
    capacity: dict[str, int] | None = None,
    events: list[AnyEvent] | None = None,
    retry_seconds: int = 0,
) -> Inventory:
    narrator = Narrator((events if events is not None else []).append)
    step = CopyClosure(
        cache or str(made.cache),
        toplevel or made.toplevel,
        (made.key,) if keys is None else keys,
        configuration,
        channel,
        capacity or {"/": GIB},
        retry_seconds,
    )
    patience = Patience(timeouts=(2.0, 5.0), first_delay=0.01, longest_delay=0.1, stuck=60.0)
    return closure.copy(step, target, Runner(on_line=narrator.output), narrator, patience=patience)


def refused(made: Made, target: Path, **rules: object) -> Problem:
    with pytest.raises(InstallError) as error:
        copy(made, target, **rules)  # type: ignore[arg-type]
    return error.value.problems[0]


def _equal(made: Made, target: Path, tmp_path: Path) -> None:
    for path in made.paths:
        assert seen(target / path[1:]) == seen(made.root / path[1:])
    # the target's own database knows them
    said = nix(tmp_path, "nix-store", "--store", target, "--query", "--requisites", made.toplevel)
    assert sorted(said.split()) == sorted(made.paths)
    verify = ("nix-store", "--store", target, "--verify", "--check-contents")
    nix(tmp_path, *verify)


@pytest.mark.parametrize("way", ["folder", "http", "http with a password"])
def test_a_closure_comes_out_equal(made: Made, target: Path, tmp_path: Path, way: str) -> None:
    events: list[AnyEvent] = []
    # Nix takes a store by its path, in which a blank is hard to write
    target = target.rename(tmp_path / "target")
    password = "user:se cret" if way.endswith("password") else ""
    with served(made.cache, Server(password=password)) as server:
        login = "user:se%20cret@" if password else ""
        url = f"http://{login}127.0.0.1:{server.port}/"
        found = copy(made, target, cache=None if way == "folder" else url, events=events)
    assert (found.toplevel, found.entries) == (made.toplevel, 2)
    assert found.unpacked_size > 3 * MIB
    _equal(made, target, tmp_path)
    steps = [event for event in events if isinstance(event, StepProgress)]
    assert (steps[-1].done, steps[-1].total) == (found.unpacked_size, found.unpacked_size)
    told = "".join(str(event) for event in events)
    assert "se cret" not in told
    assert "se%20cret" not in told


def test_configuration_and_channel(made: Made, target: Path) -> None:
    copy(made, target, configuration=made.configuration, channel=made.kernel)
    etc = target / "etc/nixos"
    assert (etc / "configuration.nix").read_text() == "{ }\n"
    assert (etc / "configuration.nix").stat().st_mode & 0o777 == 0o644
    assert etc.stat().st_mode & 0o777 == 0o755
    assert (etc / "parts/a.nix").readlink() == Path("../configuration.nix")
    channels = target / "nix/var/nix/profiles/per-user/root/channels"
    assert (channels / "nixos").readlink() == Path(made.kernel)
    problem = refused(made, target, configuration=f"{made.configuration[:-9]}other-nix")
    assert problem.code == "payload.not-found"


def test_another_key_is_refused(made: Made, target: Path) -> None:
    problem = refused(made, target, keys=(OTHER_KEY,))
    assert problem.code == "payload.signature"
    assert problem.what.startswith(
        f"a store path of {made.cache} has no signature of a trusted key"
    )
    assert made.kernel in problem.what or made.toplevel in problem.what
    assert problem.where == f"copying {made.toplevel} from {made.cache}"
    assert problem.hint.startswith("sign the cache's paths (nix store sign), or give the key")
    assert not (target / made.toplevel[1:]).exists()
    assert copy(made, target, keys=(OTHER_KEY, made.key)).toplevel == made.toplevel


def test_without_a_signature(made: Made, target: Path, tmp_path: Path) -> None:
    unsigned = tmp_path / "unsigned"
    nix(tmp_path, "nix", "copy", "--from", made.root, "--to", f"file://{unsigned}", made.toplevel)
    assert refused(made, target, cache=str(unsigned)).code == "payload.signature"
    assert copy(made, target, cache=str(unsigned), keys=()).toplevel == made.toplevel


def test_a_changed_archive_is_refused(made: Made, target: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(made.cache, damaged)
    archive = max((damaged / "nar").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    problem = refused(made, target, cache=str(damaged))
    assert problem.code == "command.failed"
    assert problem.what == "nix ended with exit code 1"
    assert not (target / made.toplevel[1:]).exists()


def test_what_the_cache_does_not_have(made: Made, target: Path, tmp_path: Path) -> None:
    other = f"/nix/store/{'0' * 32}-nixos-system-other"
    problem = refused(made, target, toplevel=other)
    assert problem.code == "payload.not-found"
    assert problem.what.startswith(f"{made.cache} cannot give the closure of {other}: ")
    part = tmp_path / "part"
    shutil.copytree(made.cache, part)
    (part / f"{made.kernel[11:43]}.narinfo").unlink()
    assert refused(made, target, cache=str(part)).code == "payload.not-found"
    with served(tmp_path / "part", Server()) as server:
        problem = refused(made, target, cache=f"http://127.0.0.1:{server.port}")
    assert problem.code == "payload.not-found"
    assert problem.where == "payload.closure"
    assert list(target.iterdir()) == []


def test_a_toplevel_that_is_no_system(made: Made, target: Path) -> None:
    copy(made, target)
    problem = refused(made, target, toplevel=made.kernel)
    assert (problem.code, problem.what) == (
        "payload.not-nixos",
        (
            f"the payload is no NixOS system: it does not hold {made.kernel}; it holds"
            f"\n    {made.toplevel}"
        ),
    )


def test_too_large_is_said_before_anything_is_copied(made: Made, target: Path) -> None:
    problem = refused(made, target, capacity={"/": GIB, "/nix": MIB})
    assert problem.code == "payload.too-large"
    assert problem.what == (
        f"the closure of {made.toplevel} needs 3.00 MiB on /nix, which takes 1.00 MiB"
    )
    assert list(target.iterdir()) == []


def test_a_server_that_breaks_off_is_asked_again(made: Made, target: Path, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    with served(made.cache, Server(cut=2)) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert copy(made, target, cache=url, events=events, retry_seconds=30).entries == 2
    _equal(made, target, tmp_path)
    warnings = [
        event.text for event in events if isinstance(event, Message) and event.level == "warning"
    ]
    assert 1 <= len(warnings) <= 2
    assert warnings[0].startswith(f"{url}: Nix could not read from {url}: ")
    assert "; retry 1 in " in warnings[0]


def test_nobody_answers(made: Made, target: Path) -> None:
    problem = refused(made, target, cache="http://user:secret@127.0.0.1:1/")
    assert problem.code == "network.lost"
    assert problem.what.startswith(
        "Nix could not read from http://***@127.0.0.1:1/: unable to download "
        "'http://127.0.0.1:1/nix-cache-info': Couldn't connect to server"
    )
    assert "secret" not in str(problem)


def test_nothing_but_what_was_said_counts(
    made: Made, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a machine whose own settings trust everybody
    (tmp_path / "home/.config/nix").mkdir(parents=True)
    (tmp_path / "home/.config/nix/nix.conf").write_text("require-sigs = false\n")
    monkeypatch.setenv("NIX_CONFIG", "require-sigs = false")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert refused(made, target, keys=(OTHER_KEY,)).code == "payload.signature"


def check(made: Made, *, keys: tuple[str, ...], capacity: int = GIB, **rules: str) -> list[str]:
    events: list[AnyEvent] = []
    narrator = Narrator(events.append)
    cache = rules.get("cache", str(made.cache))
    toplevel = rules.get("toplevel", made.toplevel)
    step = CheckClosure(cache, toplevel, keys, None, None, {"/": capacity}, 0)
    closure.check(step, narrator, Runner(on_line=narrator.output))
    return [event.text for event in events if isinstance(event, Message) and event.level == "info"]


def test_all_is_asked_before_a_disk_is_touched(made: Made, tmp_path: Path) -> None:
    assert check(made, keys=(made.key,)) == ["2 store paths, 3.00 MiB unpacked, all signed"]
    assert check(made, keys=()) == ["2 store paths, 3.00 MiB unpacked"]
    unsigned = tmp_path / "unsigned"
    nix(tmp_path, "nix", "copy", "--from", made.root, "--to", f"file://{unsigned}", made.toplevel)
    for rules, code in (
        ({"keys": (OTHER_KEY,)}, "payload.signature"),
        ({"keys": (made.key,), "cache": str(unsigned)}, "payload.signature"),
        ({"keys": (made.key,), "toplevel": f"{made.toplevel}-other"}, "payload.not-found"),
        ({"keys": (made.key,), "capacity": MIB}, "payload.too-large"),
        ({"keys": (made.key,), "cache": "http://127.0.0.1:1/"}, "network.lost"),
    ):
        with pytest.raises(InstallError) as error:
            check(made, **rules)
        assert error.value.problems[0].code == code


def test_answers_of_older_and_newer_nix() -> None:
    path = f"/nix/store/{'0' * 32}-x"
    # Nix 2.8, Nix 2.26, and a path that is there without more being known
    assert closure._sizes(f'[{{"path": "{path}", "narSize": 5, "references": []}}]') == {path: 5}
    assert closure._sizes(f'{{"{path}": {{"narSize": 5, "references": []}}}}') == {path: 5}
    assert closure._sizes(f'{{"{path}": null}}') == {path: 0}
    for answer in ("", "[1]", '[{"narSize": 1}]', "7", f'{{"{path}": {{"narSize": "many"}}}}'):
        with pytest.raises(InstallError, match="in a form that is not understood"):
            closure._sizes(answer)
