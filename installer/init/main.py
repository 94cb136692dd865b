"""`netinstall init`: PID 1 of the boot environment.

It prepares the machine, runs the installation in a child, and does what has to be done at the
end. It never ends by itself: when PID 1 exits, the kernel panics.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import installer
from installer.init import consoles, devices, dhcp, kernel, root
from installer.init.children import ENVIRONMENT, Children, describe

RUN = Path("/run/netinstall")
COMMAND_LINE = Path("/proc/cmdline")
ACTIONS = ("shell", "reboot", "poweroff")

_WORKER = (sys.executable, "-m", "installer", "install", "--from-kernel")
_STOP_SECONDS = 30.0
_LONGEST_DELAY = 86400
_SHELLS = (
    # Debian's /etc/bash.bashrc would replace our prompt with its own, root@(none)
    ("/bin/bash", "--norc", "-i"),
    ("/bin/sh", "-i"),
)
_ASKED = {
    # reboot(2): Ctrl-Alt-Del; the others are what busybox's halt, poweroff and reboot send to init
    signal.SIGINT: "reboot",
    signal.SIGTERM: "reboot",
    signal.SIGUSR1: "poweroff",
    signal.SIGUSR2: "poweroff",
}

Prepare = Callable[[Children, str], Iterable[str]]
End = Callable[[str], None]


def prepare(children: Children, arguments: str) -> Iterator[str]:
    """Make this a machine on which programs can run; yield lines for people on the way.

    Raises:
        InstallError: `root.not-writable`.
        OSError: the kernel refused something that has no alternative.
    """
    union = kernel.argument("netinstall.overlay", arguments) == "unionfs"
    yield root.make_writable(children, union=union)
    lease = children.fork(_apply_lease)
    for problem in devices.start(children):
        yield f"warning: {problem}"
    if children.wait(lease, 30) != 0:
        yield "warning: the lease could not be read, so name servers are not known"
    for problem in dhcp.start(children):
        yield f"warning: {problem}"


def _apply_lease() -> None:
    from installer.init import lease  # noqa: PLC0415 - kept out of PID 1's memory

    lease.prepare_client()
    lease.apply()


def end(action: str) -> None:
    """Write everything back, unmount disks, and reboot or power off (reboot(2))."""
    os.sync()
    for source, target, _ in reversed(kernel.mounts()):
        if source.startswith("/dev/") and not source.startswith("/dev/loop"):
            try:
                kernel.unmount(target)
            except OSError as error:
                sys.stderr.write(f"netinstall: {error}\n")
    os.sync()
    kernel.restart(action)


def run(
    worker: Sequence[str] = _WORKER,
    *,
    prepare: Prepare = prepare,
    end: End = end,
    find_consoles: Callable[[], list[Path]] = consoles.find,
    command_line: Path = COMMAND_LINE,
    folder: Path = RUN,
) -> None:
    """Be init. Returns only if `end` does.

    Args:
        worker: the program that installs. It is told the consoles in NETINSTALL_CONSOLES (paths
            with colons between, the main one last) and leaves its last will in
            `folder`/outcome.json.
        prepare: what is done before it.
        end: is given "reboot" or "poweroff".
        find_consoles: paths of the terminals, the main one last.
        command_line: the kernel's; `netinstall.on-failure` and `netinstall.failure-delay` count
            when the worker left nothing.
        folder: where the log and the outcome are.
    """
    os.environ["PATH"] = ENVIRONMENT["PATH"]
    # the systemd of stage 1 leaves its own, 0: all that is written would be writable by everybody
    os.umask(0o022)
    children = Children()
    terminals = [Path("/dev/console")]
    arguments = ""
    prepared = False
    action = "install"
    while True:
        try:
            if action == "install":
                if not prepared:
                    root.mount_virtual()
                    terminals = find_consoles()
                    arguments = command_line.read_text()
                    _become_init()
                    for line in prepare(children, arguments):
                        consoles.say(terminals, line)
                    prepared = True
                action = _install(children, worker, terminals, arguments, folder)
            elif action == "shell":
                action = _shell(children, terminals)
            else:
                consoles.say(terminals, action)
                end(action)
                return
        except Exception:  # noqa: BLE001 - whatever it was: the kernel must not panic
            _report(terminals)
            # what fails at once, again and again, must not fill the console
            children.sleep(1)
            _, failure, delay = _will(folder / "outcome.json", arguments)
            if action == "install":
                action = _after_delay(children, terminals, failure, delay)
            else:
                action = "shell"


def _become_init() -> None:
    kernel.adopt_orphans()
    # The kernel's choice when memory runs out must never be this process, nor udev.
    _out_of_memory_score("self", -1000)
    if os.getpid() == 1:
        try:
            kernel.catch_ctrl_alt_del()
        except OSError:
            # a container's init has no say in that
            return


def _out_of_memory_score(process: str, score: int) -> None:
    try:
        Path(f"/proc/{process}/oom_score_adj").write_text(str(score))
    except OSError:
        # it has ended already, or we lack CAP_SYS_RESOURCE in a container
        return


def _install(
    children: Children,
    worker: Sequence[str],
    terminals: Sequence[Path],
    arguments: str,
    folder: Path,
) -> str:
    """Run the worker; return what is to be done then: an action, after the delay it wants."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    ours = children.others()
    killed_before = kernel.oom_kills()
    environment = {
        "NETINSTALL_CONSOLES": ":".join(map(str, terminals)),
        "PYTHONPATH": str(Path(installer.__file__).parent.parent),
    }
    pid = children.start(worker, environment)
    _out_of_memory_score(str(pid), 0)
    code = children.wait(pid, None)
    if code is None:
        asked = children.asked
        consoles.say(terminals, "stopping the installation")
        children.kill(pid, signal.SIGINT, _STOP_SECONDS)
        children.kill_others(ours)
        children.asked = None
        return _ASKED.get(asked, "install") if asked else "shell"
    children.kill_others(ours)
    success, failure, delay = _will(outcome, arguments)
    if code == 0:
        return success
    lines = [f"the installation {describe(code)}"]
    if kernel.oom_kills() > killed_before:
        lines.append(f"the kernel killed it because memory ran out ({_memory()})")
    lines.append(f"the log: {folder}/log.txt (for programs: {folder}/log.jsonl)")
    consoles.say(terminals, "\n".join(lines))
    return _after_delay(children, terminals, failure, delay)


def _will(outcome: Path, arguments: str) -> tuple[str, str, int]:
    """Return what is to be done on success, on failure, and after how many seconds.

    The worker says so in its outcome; what it did not say is taken from the kernel command line.
    """
    success, failure, delay = "reboot", "shell", 60
    action = kernel.argument("netinstall.on-failure", arguments)
    if action in ACTIONS:
        failure = action
    seconds = kernel.argument("netinstall.failure-delay", arguments)
    if seconds is not None and seconds.isascii() and seconds.isdigit():
        delay = min(int(seconds[:6]), _LONGEST_DELAY)
    try:
        told = json.loads(outcome.read_text())
    except (OSError, ValueError):
        told = None
    if isinstance(told, dict):
        if told.get("on_success") in ACTIONS:
            success = told["on_success"]
        if told.get("on_failure") in ACTIONS:
            failure = told["on_failure"]
        wanted = told.get("failure_delay_seconds")
        if type(wanted) is int and 0 <= wanted <= _LONGEST_DELAY:
            delay = wanted
    return success, failure, delay


def _after_delay(children: Children, terminals: Sequence[Path], action: str, seconds: int) -> str:
    """Leave what was said on the screen for as long as is wanted; return the action."""
    if action == "shell":
        return action
    for left in range(seconds, 0, -10):
        consoles.say(terminals, f"{action} in {left} s")
        children.sleep(min(10, left))
        if children.asked is not None:
            break
    children.asked = None
    return action


def _shell(children: Children, terminals: Sequence[Path]) -> str:
    """Offer shells until a signal asks for something; return what."""
    consoles.say(
        terminals,
        "a shell on the main console; `reboot` and `poweroff` do what they say, "
        "`kill -HUP 1` installs again",
    )
    terminal = consoles.terminal(terminals)
    environment = {
        "TERM": "linux" if terminal.name.removeprefix("tty").isdigit() else "vt220",
        "PS1": "netinstall# ",
    }
    shell = next((argv for argv in _SHELLS if Path(argv[0]).exists()), _SHELLS[-1])
    while True:
        try:
            pid = children.start(shell, environment, terminal)
        except OSError as error:
            consoles.say(terminals, f"no shell on {terminal}: {error.strerror}; try Ctrl-Alt-Del")
            children.sleep(60)
        else:
            _out_of_memory_score(str(pid), 0)
            if children.wait(pid, None) is None:
                children.kill(pid, signal.SIGHUP, 2)
            # a terminal that hangs up at once must not make this a busy loop
            children.sleep(1)
        if children.asked is not None:
            asked, children.asked = children.asked, None
            return _ASKED.get(asked, "install")


def _report(terminals: Sequence[Path]) -> None:
    error = sys.exc_info()[1]
    text = str(error)
    # InstallError is not imported for this: its text is all that is needed
    if not text.startswith("error["):
        import traceback  # noqa: PLC0415 - rarely needed

        text = "error[internal]: a mistake of this program\n" + traceback.format_exc()
    consoles.say(terminals, text)


def _memory() -> str:
    total = Path("/proc/meminfo").read_text().split()[1]
    return f"the machine has {int(total) // 1024} MiB"
