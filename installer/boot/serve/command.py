"""`netinstall boot serve`: one command that stands in for a whole boot server."""

import argparse
import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from installer.act.run import Program, Runner
from installer.boot import site as sites
from installer.boot.check import Look, check, tftp_user
from installer.boot.serve import neighbours, offers, preflight, private, published
from installer.boot.serve.dnsmasq_log import Reader
from installer.boot.serve.journey import Event, Journeys, Line, Transfer
from installer.boot.serve.published import Published
from installer.boot.serve.show import Show
from installer.boot.serve.web import Server
from installer.boot.site import Site
from installer.model.errors import InstallError, fail

_LOOKS: tuple[Look, ...] = ("images", "answers", "nfs-root")
"""What is served from where it lies; the rest is rendered here."""

_START_SECONDS = 10.0
_TICK_SECONDS = 1.0
_SHOWN_HOSTS = 20


@dataclass(frozen=True)
class Options:
    """What the command line says; `patience` is seconds."""

    http_only: bool
    beside_other_dhcp: bool
    patience: float


def run(arguments: argparse.Namespace, output: int) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; say on the file descriptor `output` what happens.

    Raises:
        InstallError: what is wrong with the site or this machine, all together; `serve.dhcp`; or
            `command.failed`, dnsmasq ended.
    """
    options = Options(
        arguments.http_only, arguments.beside_other_dhcp, max(1.0, arguments.patience)
    )
    with Show(output, as_json=arguments.json_lines) as show:
        try:
            _serve(arguments.site, options, show)
        except InstallError as error:
            with contextlib.suppress(OSError):
                show.problems(problem.__dict__ for problem in error.problems)
            raise


def _serve(path: Path, options: Options, show: Show) -> None:
    site, problems = sites.load(path)
    site = published.with_report(site)
    found = preflight.look(site, http_only=options.http_only)
    with contextlib.closing(found.listener or socket.socket()) as listener:
        loaders, missing = private.find_loaders(site)
        problems = check(site, problems, _LOOKS) + found.problems
        if not options.http_only:
            problems += [*missing, *tftp_user(site)]
        if problems:
            raise InstallError(problems)
        what = Published(
            site, Path(site.file.http.root), published.texts(site), _by_http(site, loaders)
        )
        if not options.http_only:
            _look_for_servers(site, options, show)
        asyncio.run(_Running(path, what, options, show).run(loaders, listener))


def _by_http(site: Site, loaders: Mapping[str, Path]) -> dict[str, Path]:
    """Loaders that UEFI HTTP boot asks for, where http.root does not have them."""
    name = site.file.tftp.uefi
    if name not in loaders or Path(site.file.http.root, name).exists():
        return {}
    return {name: loaders[name]}


def _look_for_servers(site: Site, options: Options, show: Show) -> None:
    interface, proxy = site.file.dhcp.interface, site.file.dhcp.mode == "proxy"
    if not preflight.has_link(interface):
        show.note(f"{interface} has no link: whether another DHCP server is there cannot be seen")
        return
    other = offers.find_server(interface)
    if proxy and other is None:
        show.note(
            f"warning: no DHCP server answered on {interface} within {offers.SECONDS} s; a proxy "
            "gives no addresses, and nothing will boot without one"
        )
    elif proxy:
        show.note(f"addresses come from the DHCP server {other}")
    elif other is not None and options.beside_other_dhcp:
        show.note(f"warning: {other} is a DHCP server on {interface}, too; machines take either")
    elif other is not None:
        raise fail(
            "serve.dhcp",
            f"{other} is a DHCP server on {interface} already",
            where=site.where(("dhcp", "mode")),
            hint='say mode = "proxy" under [dhcp]: then it gives the addresses, and this server '
            "says what to boot;\nor --beside-other-dhcp, if you know that it must be so",
        )


class _Running:
    """The servers while they run."""

    def __init__(self, path: Path, what: Published, options: Options, show: Show) -> None:
        self._path = path
        self._what = what
        self._options = options
        self._show = show
        self._journeys = Journeys(published.known(what.site), options.patience)
        self._stop = asyncio.Event()
        # the clock may be set while machines boot
        self._epoch = time.time() - time.monotonic()

    async def run(self, loaders: Mapping[str, Path], listener: socket.socket) -> None:
        """Serve until a signal comes or dnsmasq ends. Raises InstallError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup(1) ignores it
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop.set)
        server = Server(self._what, self._happened, self._note)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(server.listening(listener))
            program = None
            if not self._options.http_only:
                folder = stack.enter_context(private.folder(self._what.site, loaders))
                program = await stack.enter_async_context(self._dnsmasq(folder))
            self._introduce(loaders)
            ticking = asyncio.create_task(self._tick())
            stack.callback(ticking.cancel)
            await self._until_the_end(program)
        self._say(self._show.last, self._journeys.summary())

    async def _until_the_end(self, program: Program | None) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[object]] = {stopped}  # type: ignore[arg-type]
        if program is not None:
            waiting.add(asyncio.ensure_future(asyncio.to_thread(program.end, None)))
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if program is not None and stopped not in done:
            code = next(iter(done)).result()
            self._say(self._show.last, self._journeys.summary())
            assert isinstance(code, int)  # noqa: S101 - for the type checker
            raise program.failure(code)

    @asynccontextmanager
    async def _dnsmasq(self, folder: private.Folder) -> AsyncIterator[Program]:
        """Run dnsmasq; it is ready when the context is entered."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        reader = Reader(folder.tftp, self._what.about)

        def heard(line: str) -> None:
            if "started, version" in line:
                ready.set()
            if event := reader.read(line):
                self._happened(event)

        def on_line(line: str) -> None:
            # the last words come when the loop has ended
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(heard, line)

        argv = [
            *("dnsmasq", "--keep-in-foreground", f"--conf-file={folder.config}"),
            *("--log-facility=-", "--log-dhcp", "--pid-file="),
            f"--dhcp-leasefile={folder.path / 'leases'}",
        ]
        with Runner(on_line).start(argv, purpose="serving DHCP and TFTP") as program:
            with contextlib.suppress(TimeoutError):
                # when it ends before, the caller is told so at once
                await asyncio.wait_for(ready.wait(), _START_SECONDS)
            yield program

    def _happened(self, event: Event) -> None:
        if isinstance(event, Transfer) and not event.mac and event.ip:
            mac = self._journeys.mac_of(event.ip) or neighbours.mac_at(event.ip)
            event = replace(event, mac=mac)
        self._boot(self._journeys.feed(self._now(), event))

    async def _tick(self) -> None:
        before = self._state_of_files()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._boot(self._journeys.tick(self._now()))
            now = self._state_of_files()
            for path in sorted(path for path in now if now[path] != before.get(path)):
                self._note(f"{path} has changed: start again to serve what it says now")
            before = now

    def _state_of_files(self) -> dict[Path, float | None]:
        """What was read at the start, and when it was changed last."""
        images = [
            Path(self._what.root, image.folder, "image.json")
            for image in self._what.site.file.images
            if image.root == "http"
        ]
        found: dict[Path, float | None] = {}
        for path in (self._path, *images):
            try:
                found[path] = path.stat().st_mtime
            except OSError:
                found[path] = None
        return found

    def _introduce(self, loaders: Mapping[str, Path]) -> None:
        about, text = _introduction(self._what.site, self._options, loaders)
        self._say(self._show.serving, about, text)

    def _boot(self, lines: list[Line]) -> None:
        for line in lines:
            self._say(self._show.boot, line)

    def _note(self, text: str) -> None:
        self._say(self._show.note, text)

    def _say(self, how: Callable[..., None], *what: object) -> None:
        try:
            how(*what)
        except OSError:
            # nobody reads any more
            self._stop.set()

    def _now(self) -> float:
        return self._epoch + time.monotonic()


def _introduction(
    site: Site, options: Options, loaders: Mapping[str, Path]
) -> tuple[dict[str, object], list[str]]:
    """Say what is served and where, for programs and for people."""
    return _about(site, options, loaders), [
        *_servers(site, options, loaders),
        *_machines(site),
        "Ctrl-C ends it.",
        "",
    ]


def _about(site: Site, options: Options, loaders: Mapping[str, Path]) -> dict[str, object]:
    file = site.file
    return {
        "http": file.http.url,
        "http_root": file.http.root,
        "dhcp": None if options.http_only else file.dhcp.mode,
        "interface": None if options.http_only else file.dhcp.interface,
        "tftp": None if options.http_only else file.tftp.address,
        "loaders": {} if options.http_only else {name: str(at) for name, at in loaders.items()},
        "hosts": [host.mac or host.uuid for host in file.hosts],
    }


def _servers(site: Site, options: Options, loaders: Mapping[str, Path]) -> Iterator[str]:
    file = site.file
    if not options.http_only:
        if file.dhcp.range is None:
            yield f"DHCP     proxy on {file.dhcp.interface}: another server gives the addresses"
        else:
            between = f"{file.dhcp.range.first} to {file.dhcp.range.last}"
            yield f"DHCP     on {file.dhcp.interface}, {file.tftp.address}: {between}"
        served = ", ".join(f"{name} (a copy of {path})" for name, path in loaders.items())
        yield f"TFTP     {file.tftp.address}: {served}"
    yield f"HTTP     {file.http.url} ({file.http.root})"
    yield f"scripts  {site.url('ipxe/boot.ipxe')}, {site.url('pixiecore')} (API of Pixiecore)"
    if file.nfs is not None:
        yield f"NFS      {file.nfs.server}:{file.nfs.path} is another server's: none is run here"


def _machines(site: Site) -> Iterator[str]:
    file = site.file
    for host in file.hosts[:_SHOWN_HOSTS]:
        words = (host.mac or host.uuid, host.ip, host.hostname, f"image {file.image_of(host).name}")
        yield "host     " + " ".join(word for word in words if word)
    if len(file.hosts) > _SHOWN_HOSTS:
        yield f"host     ... and {len(file.hosts) - _SHOWN_HOSTS} more"
    answers = file.answers or "no answer file: it stops before it changes anything"
    yield f"others   image {file.images[0].name}, {answers}"
