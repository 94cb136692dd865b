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
    schema.add_argument("--site", action="store_true", help="of the site file instead")
    verb("init", _init, "be the init of the boot environment (PID 1)")

    image = verbs.add_parser("image", help="the boot environment")
    actions = image.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser(
        "build", help="build kernel, initrd and root file system from Debian packages"
    )
    build.set_defaults(verb=_image_build)
    from installer.boot.image import add_arguments  # noqa: PLC0415

    add_arguments(build)

    boot = verbs.add_parser("boot", help="the boot server's side")
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
    lint = actions.add_parser("check", help="look for what a machine would stumble over")
    lint.set_defaults(verb=_boot_check)
    lint.add_argument("site", metavar="SITE", type=Path)
    return parser


def _probe(arguments: argparse.Namespace) -> int:
    from installer.observe import machine  # noqa: PLC0415

    facts, warnings = machine.look_with_warnings()
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
    from installer.decide.planner import decide  # noqa: PLC0415
    from installer.model.codec import from_json, to_json  # noqa: PLC0415
    from installer.model.config import Config  # noqa: PLC0415
    from installer.model.facts import Facts  # noqa: PLC0415
    from installer.observe import answers, machine, payload  # noqa: PLC0415

    if arguments.facts is not None:
        facts = from_json(Facts, _read(arguments.facts), where=str(arguments.facts))
    else:
        facts = machine.look()
    text, name = answers.find(arguments.answers, facts, _say)
    config = Config(answers.load(text, name), name)
    if arguments.facts is None:
        from dataclasses import replace  # noqa: PLC0415

        facts = replace(facts, payload=payload.look(config.answers.payload, _say))
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
    from installer.model import answers, site  # noqa: PLC0415

    schema = site.json_schema() if arguments.site else answers.json_schema()
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


def _boot_check(arguments: argparse.Namespace) -> int:
    from installer.boot import render  # noqa: PLC0415

    render.run_check(arguments, _say)
    return 0


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
