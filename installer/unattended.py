"""An installation from beginning to end: look, decide, act, report."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from installer import __version__
from installer.act import answers as answer_files
from installer.act import clients, engine
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.decide.planner import decide
from installer.init import lease as init_lease
from installer.model.config import Config
from installer.model.errors import ExitCode, InstallError, Problem, fail
from installer.model.facts import Facts
from installer.observe import answers, kernel, lease_watch, machine, packed
from installer.observe.lease_watch import LeaseWatch
from installer.report.consoles import open_consoles, terminal
from installer.report.http import HttpSink
from installer.report.jsonlines import JsonLinesSink
from installer.report.logfile import LogFileSink
from installer.report.sinks import Fanout

RUN = Path("/run/netinstall")
"""Logs, and the outcome for init (installer.init.main)."""

TARGET = Path("/mnt")
_ENVIRONMENT_MARK = Path("/usr/lib/netinstall/init")
_LAST_REPORT_SECONDS = 10.0


@dataclass
class _Outcome:
    """What init is told; see installer.init.main."""

    on_failure: str
    on_success: str = "reboot"
    failure_delay_seconds: int = 60
    exit_code: int = ExitCode.COMMAND


def install(location: str | None, *, consent: bool, verbose: bool) -> int:
    """Install this machine; return the exit code. Failures are told through the events.

    With netinstall.dry-run=1 on the kernel command line it ends after the plan was told.

    Args:
        location: of the answer file; None takes it from the kernel command line.
        consent: erase disks outside netinstall's own boot environment as well.
        verbose: consoles show what programs print.

    Raises:
        InstallError: `arguments`, when it is not even begun.
    """
    if os.geteuid() != 0:
        raise fail("arguments", "installing needs root", hint="sudo netinstall install …")
    if not consent and not _ENVIRONMENT_MARK.exists():
        raise fail(
            "arguments",
            "this is not netinstall's boot environment, and disks would be erased",
            where="netinstall install",
            hint="see what would happen with `netinstall plan`, then add --yes",
        )
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    fanout = _sinks(from_kernel=location is None, verbose=verbose)
    narrator = Narrator(fanout.emit)
    arguments, argument_problems = kernel.read()
    outcome = _Outcome(on_failure=arguments.on_failure or "shell")
    if arguments.failure_delay is not None:
        outcome.failure_delay_seconds = arguments.failure_delay
    watch = LeaseWatch(narrator.say)
    try:
        with _told(narrator):
            if location is None:
                _refuse(argument_problems)
            facts = _observe(narrator)
            watch.start()
            if arguments.report is not None:
                fanout.add(HttpSink(arguments.report, _identity(facts)))
            config = _answers(location or arguments.answers, facts, narrator)
            finish = config.answers.finish
            outcome.on_success = finish.on_success
            # whoever stands at the machine and edits its command line has the last word
            outcome.on_failure = arguments.on_failure or finish.on_failure
            if arguments.failure_delay is None:
                outcome.failure_delay_seconds = finish.failure_delay_seconds
            if arguments.report is None and config.answers.report.url is not None:
                fanout.add(HttpSink(config.answers.report.url, _identity(facts)))
            seen, manifest = packed.look_at(config.answers.payload, facts.image, narrator.say)
            plan = decide(replace(facts, payload=seen), config)
            narrator.planned(plan)
        if arguments.dry_run:
            narrator.say("DRY RUN: no disk was changed (netinstall.dry-run on the command line)")
            # a reboot would only bring the same again, and take the plan off the screen
            if outcome.on_success == "reboot":
                outcome.on_success = "shell"
        else:
            engine.perform(plan, narrator, target=TARGET, logs=RUN, manifest=manifest)
        outcome.exit_code = ExitCode.DONE
    except InstallError as error:
        outcome.exit_code = error.exit_code
    finally:
        watch.stop()
        # first: the last reports may take long, and init may lose its patience with them
        (RUN / "outcome.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        fanout.close(_LAST_REPORT_SECONDS)
    return outcome.exit_code


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise InstallError(problems)


def _sinks(*, from_kernel: bool, verbose: bool) -> Fanout:
    log = RUN / "log.txt"
    fanout = Fanout([JsonLinesSink(RUN / "log.jsonl"), LogFileSink(log)])
    if from_kernel:
        names = os.environ.get("NETINSTALL_CONSOLES", "/dev/console").split(":")
        consoles, problems = open_consoles(map(Path, names), verbose=verbose, log=str(log))
        for console in consoles:
            fanout.add(console)
        narrator = Narrator(fanout.emit)
        for problem in problems:
            narrator.say(problem, "warning")
    else:
        fanout.add(terminal(sys.stdout, verbose=verbose, log=str(log)))
    return fanout


@contextmanager
def _told(narrator: Narrator) -> Iterator[None]:
    """Tell a failure that comes before the first step."""
    try:
        yield
    except BaseException as error:
        stopped = engine.as_install_error(error, narrator)
        narrator.failed(stopped)
        raise stopped from error


def _observe(narrator: Narrator) -> Facts:
    lease_watch.wait(narrator.say)
    if _ENVIRONMENT_MARK.exists():
        # name servers of IPv6, and those that came late
        init_lease.apply()
    facts, warnings = machine.look_with_warnings(said=clients.ask(Runner()))
    narrator.observed(__version__, facts)
    for warning in warnings:
        narrator.say(warning, "warning")
    return facts


def _identity(facts: Facts) -> dict[str, str]:
    nic = facts.boot_nic
    identity = {
        "Netinstall-MAC": nic.mac if nic is not None else None,
        "Netinstall-UUID": facts.dmi.uuid,
        "Netinstall-Serial": facts.dmi.serial,
    }
    return {name: value for name, value in identity.items() if value}


def _answers(location: str | None, facts: Facts, narrator: Narrator) -> Config:
    if location is None:
        raise fail(
            "answers.not-found",
            "the kernel command line names no answer file",
            where="/proc/cmdline",
            hint="add netinstall.answers=http://SERVER/answers/ (a directory) or a file's URL",
        )
    runner = Runner(on_line=narrator.output)
    text, name = answer_files.fetch(location, facts, runner, narrator.say)
    narrator.say(f"answer file: {name}")
    return Config(answers.load(text, name), name)
