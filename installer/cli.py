"""The verbs of `netinstall`; the one place that exits."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from installer import __version__
from installer.model.errors import ExitCode, InstallError, fail

# Everything else is imported by the verb that needs it: start-up under emulation, and as PID 1,
# costs seconds.


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb and exit with its code (`installer.model.errors.ExitCode`)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a connection that breaks must not leave mounts and a half-written disk; nohup(1) ignores it
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    code = ExitCode.DONE
    problems = None
    try:
        code = arguments.verb(arguments)
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
        problems = [problem.__dict__ for problem in error.problems]
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        _look_away()
    try:
        if problems is not None and getattr(arguments, "json", False):
            document = json.dumps({"problems": problems}, indent=2, ensure_ascii=False)
            sys.stdout.write(document + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _look_away()
    sys.exit(int(code))


def _look_away() -> None:
    """The reader (`| head`) has seen enough; a flush at exit must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netinstall",
        description="Unattended NixOS installer for machines that boot from the network.",
        epilog="Exit codes: 0 done, 2 answer file, 3 hardware, 4 payload, 5 a command failed, "
        "6 the network, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"netinstall {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, function: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(verb=function)
        return added

    probe = verb("probe", _probe, "print what is seen of this machine")
    probe.add_argument("--json", action="store_true", help="as a document for `plan --facts`")

    plan = verb("plan", _plan, "print what an installation would do, and do nothing")
    plan.add_argument("answers", metavar="ANSWERS", help="file, directory or URL")
    plan.add_argument("--facts", type=Path, help="a machine saved with `probe --json`")
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")

    install = verb("install", _install, "install NixOS on this machine")
    install.add_argument("answers", metavar="ANSWERS", nargs="?", help="file, directory or URL")
    install.add_argument(
        "--from-kernel",
        action="store_true",
        help="take the answer file from the kernel command line (netinstall.answers=)",
    )
    install.add_argument(
        "--yes",
        action="store_true",
        help="erase disks although this is not netinstall's own boot environment",
    )
    install.add_argument("--verbose", action="store_true", help="show what programs print")

    check = verb("check", _check, "validate an answer file")
    check.add_argument("answers", metavar="ANSWERS", type=Path)

    schema = verb("schema", _schema, "print the JSON Schema of the answer file")
    which = schema.add_mutually_exclusive_group()
    which.add_argument("--site", action="store_true", help="of the site file instead")
    which.add_argument("--manifest", action="store_true", help="of a payload's manifest instead")
    verb("init", _init, "be the init of the boot environment (PID 1)")

    image = verbs.add_parser("image", help="the boot environment")
    actions = image.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser(
        "build", help="build kernel, initrd and root file system from Debian packages"
    )
    build.set_defaults(verb=_image_build)
    from installer.boot.image import add_arguments  # noqa: PLC0415

    add_arguments(build)

    payload = verbs.add_parser("payload", help="systems to install: pack, verify, show")
    actions = payload.add_subparsers(required=True, metavar="ACTION")
    functions = {"pack": _payload_pack, "verify": _payload_verify, "show": _payload_show}

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(verb=functions[name])
        return added

    from installer.pack import verbs as packing  # noqa: PLC0415

    packing.add_arguments(action)

    _boot_verbs(verbs.add_parser("boot", help="the boot server's side"))
    return parser


def _boot_verbs(boot: argparse.ArgumentParser) -> None:
    actions = boot.add_subparsers(required=True, metavar="ACTION")
    render = actions.add_parser("render", help="write a site file as a server's configuration")
    render.set_defaults(verb=_boot_render)
    render.add_argument("site", metavar="SITE", type=Path)
    render.add_argument(
        "--for",
        dest="dialect",
        required=True,
        metavar="DIALECT",
        help="ipxe, netbootxyz, grub, dnsmasq, dhcpd, kea, exports, ganesha, pixiecore or kexec",
    )
    render.add_argument("--output", type=Path, required=True, metavar="DIR")
    tree = actions.add_parser("kexec", help="make what a running Linux starts the installer with")
    tree.set_defaults(verb=_boot_kexec)
    tree.add_argument("site", metavar="SITE", type=Path)
    tree.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="or FILE.tar, for copying"
    )
    tree.add_argument(
        "--host",
        metavar="NAME",
        help="host name, MAC or UUID of a host of the site file: its answer file, image and "
        "arguments, and only on that machine",
    )
    nested = actions.add_parser("from-iso", help="boot a NixOS ISO's own system from the network")
    nested.set_defaults(verb=_boot_from_iso)
    nested.add_argument("iso", metavar="ISO", type=Path)
    nested.add_argument("--output", type=Path, required=True, metavar="DIR")
    nested.add_argument(
        "--argument",
        action="append",
        default=[],
        metavar="ARG",
        help="a kernel argument beside those of the ISO; may be repeated",
    )
    overlay = actions.add_parser("apkovl", help="write the overlay that starts it from Alpine")
    overlay.set_defaults(verb=_boot_apkovl)
    overlay.add_argument("--output", type=Path, required=True, metavar="DIR")
    lint = actions.add_parser("check", help="look for what a machine would stumble over")
    lint.set_defaults(verb=_boot_check)
    lint.add_argument("site", metavar="SITE", type=Path)
    loader = actions.add_parser("loader", help="make GRUB for UEFI with a site's grub.cfg in it")
    loader.set_defaults(verb=_boot_loader)
    loader.add_argument("site", metavar="SITE", type=Path)
    loader.add_argument("--output", type=Path, required=True, metavar="FILE.efi|DIR")
    server = actions.add_parser("serve", help="be the boot server of a lab or a small site")
    server.set_defaults(verb=_boot_serve)
    server.add_argument("site", metavar="SITE", type=Path)
    server.add_argument(
        "--http-only",
        action="store_true",
        help="no DHCP and TFTP: others serve them; needs no root for ports from 1024",
    )
    server.add_argument(
        "--beside-other-dhcp",
        action="store_true",
        help="hand out addresses although another DHCP server does",
    )
    server.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long a machine may stay at one step before it is said to hang; "
        "default: %(default).0f",
    )
    # not `json`: then problems would be printed as one document of many lines
    server.add_argument(
        "--json", dest="json_lines", action="store_true", help="one JSON object a line"
    )


def _probe(arguments: argparse.Namespace) -> int:
    from installer.act import clients  # noqa: PLC0415
    from installer.act.run import Runner  # noqa: PLC0415
    from installer.observe import machine  # noqa: PLC0415

    facts, warnings = machine.look_with_warnings(said=clients.ask(Runner()))
    if arguments.json:
        from installer.model.codec import to_json  # noqa: PLC0415

        sys.stdout.write(to_json(facts, indent=2) + "\n")
    else:
        from installer.report.lines import show  # noqa: PLC0415
        from installer.report.text import facts_text  # noqa: PLC0415

        show(facts_text(facts, tools=machine.TOOLS), sys.stdout)
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from installer.act import clients  # noqa: PLC0415
    from installer.act.run import Runner  # noqa: PLC0415
    from installer.decide.planner import decide  # noqa: PLC0415
    from installer.model.codec import from_json, to_json  # noqa: PLC0415
    from installer.model.config import Config  # noqa: PLC0415
    from installer.model.facts import Facts  # noqa: PLC0415
    from installer.observe import answers, machine, packed  # noqa: PLC0415

    if arguments.facts is not None:
        facts = from_json(Facts, _read(arguments.facts), where=str(arguments.facts))
    else:
        facts = machine.look(said=clients.ask(Runner()))
    text, name = answers.find(arguments.answers, facts, _say)
    config = Config(answers.load(text, name), name)
    if arguments.facts is None:
        from dataclasses import replace  # noqa: PLC0415

        seen, _ = packed.look_at(config.answers.payload, facts.image, _say)
        facts = replace(facts, payload=seen)
    plan = decide(facts, config)
    if arguments.json:
        sys.stdout.write(to_json(plan, indent=2) + "\n")
    else:
        from installer.report.lines import show  # noqa: PLC0415
        from installer.report.text import plan_text  # noqa: PLC0415

        show(plan_text(plan), sys.stdout)
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from installer import unattended  # noqa: PLC0415

    if (arguments.answers is None) != arguments.from_kernel:
        raise fail(
            "arguments",
            "name an answer file, or say --from-kernel",
            where="netinstall install",
            hint="netinstall install answers.toml",
        )
    return unattended.install(arguments.answers, consent=arguments.yes, verbose=arguments.verbose)


def _check(arguments: argparse.Namespace) -> int:
    from installer.observe import answers  # noqa: PLC0415

    name = str(arguments.answers)
    answers.load(answers.decoded(_read(arguments.answers), name), name)
    sys.stdout.write(f"{arguments.answers}: no mistakes found\n")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from installer.model import answers, manifest, site  # noqa: PLC0415

    model = site if arguments.site else manifest if arguments.manifest else answers
    schema = model.json_schema()
    sys.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0


def _init(_arguments: argparse.Namespace) -> int:
    from installer.init.main import run  # noqa: PLC0415

    run()
    return 0


def _image_build(arguments: argparse.Namespace) -> int:
    from installer.boot import image  # noqa: PLC0415

    image.run(arguments, _say)
    return 0


def _boot_render(arguments: argparse.Namespace) -> int:
    from installer.boot import render  # noqa: PLC0415

    render.run_render(arguments, _say)
    return 0


def _boot_kexec(arguments: argparse.Namespace) -> int:
    from installer.boot import kexec  # noqa: PLC0415

    kexec.run(arguments, _say)
    return 0


def _boot_from_iso(arguments: argparse.Namespace) -> int:
    from installer.boot import iso  # noqa: PLC0415

    iso.run(arguments, _say)
    return 0


def _boot_apkovl(arguments: argparse.Namespace) -> int:
    from installer.boot import apkovl  # noqa: PLC0415

    apkovl.run(arguments, _say)
    return 0


def _boot_serve(arguments: argparse.Namespace) -> int:
    from installer.boot.serve import command  # noqa: PLC0415

    command.run(arguments, sys.stdout.fileno())
    return 0


def _boot_check(arguments: argparse.Namespace) -> int:
    from installer.boot import render  # noqa: PLC0415

    render.run_check(arguments, _say)
    return 0


def _boot_loader(arguments: argparse.Namespace) -> int:
    from installer.boot import loader  # noqa: PLC0415

    loader.run(arguments, _say)
    return 0


def _payload_pack(arguments: argparse.Namespace) -> int:
    from installer.pack import verbs  # noqa: PLC0415

    return verbs.run_pack(arguments, _say, _progress("packing"))


def _payload_verify(arguments: argparse.Namespace) -> int:
    from installer.pack import verbs  # noqa: PLC0415

    return verbs.run_verify(arguments, _say, _progress("verifying"))


def _payload_show(arguments: argparse.Namespace) -> int:
    from installer.pack import verbs  # noqa: PLC0415

    return verbs.run_show(arguments)


def _progress(step: str) -> Callable[[int, int | None], None]:
    """Make what says how far a long step is: a line at each tenth, not too often."""
    import time  # noqa: PLC0415

    from installer.model.events import StepProgress  # noqa: PLC0415
    from installer.report.progress import Pace, progress_text  # noqa: PLC0415

    begun = last = time.monotonic()
    pace = Pace()

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        # it is called for every member
        if now < last + 0.25:
            return
        last = now
        rate = done / (now - begun)
        left = max(0, total - done) / max(rate, 1.0) if total else None
        event = StepProgress(
            time=time.time(),
            uptime=now - begun,
            step=step,
            done=min(done, total or done),
            total=total,
            rate=rate,
            seconds_left=left,
        )
        if pace.due(event):
            _say(f"{step}  {progress_text(event)}")

    return tell


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise fail(
            "answers.not-found",
            f"{path} cannot be read: {error.strerror}",
            where=str(path),
            hint="is the path right?",
        ) from None
