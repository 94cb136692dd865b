"""Facts, plans, failures and results as text for people. Pure: the same data, the same lines."""

from collections.abc import Iterable, Iterator, Mapping

from installer.model.errors import CODES, ExitCode
from installer.model.events import Failed
from installer.model.facts import Disk, Dmi, Facts, ManifestFacts
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.payload_steps import (
    CheckClosure,
    CheckPayload,
    CheckSquashfs,
    CopyClosure,
    UnpackFrames,
    UnpackPayload,
    UnpackSquashfs,
)
from installer.model.plan import (
    InstallBootLoader,
    Plan,
    RebuildSystem,
    RegisterStore,
    SetProfile,
    Step,
    WriteFile,
)
from installer.model.storage_steps import TearDown
from installer.model.units import format_bytes, format_seconds
from installer.model.urls import redacted
from installer.report.lines import (
    WIDTH,
    Line,
    Style,
    ascii_only,
    framed,
    labelled,
    neutral,
    wrap,
)
from installer.report.network import network_text, nics_text
from installer.report.storage import (
    details,
    disks_text,
    kept_partitions,
    partition_table,
    partition_words,
)

_EXITS: Mapping[ExitCode, str] = {
    ExitCode.ANSWERS: "the answer file or an argument",
    ExitCode.HARDWARE: "this machine",
    ExitCode.PAYLOAD: "the payload",
    ExitCode.COMMAND: "a command",
    ExitCode.NETWORK: "the network",
    ExitCode.INTERRUPTED: "interrupted",
}


def _lines(texts: Iterable[str], style: Style = "") -> list[Line]:
    return [Line(text, style) for text in texts]


def header_text(version: str, facts: Facts) -> list[Line]:
    """Which program stands on which machine: the first thing on a console."""
    nic = facts.boot_nic
    lease = facts.lease_of(nic) if nic is not None else None
    network = "no interface is known to have booted"
    if nic is not None:
        network = f"{nic.name} {nic.mac}" + (
            f", {lease.address}" + (f" via {lease.gateway}" if lease.gateway else "")
            if lease is not None
            else ", no lease"
        )
    rows = [
        ("machine", machine_text(facts.dmi)),
        (
            "firmware",
            (
                f"{facts.firmware.upper()}, {facts.architecture}, "
                f"{format_bytes(facts.memory)} memory, Linux {facts.kernel}"
            ),
        ),
        ("booted by", network),
    ]
    return [
        Line(f"netinstall {neutral(version)}: unattended NixOS installation", "title"),
        *_lines(labelled(rows, indent="  ")),
    ]


def machine_text(dmi: Dmi) -> str:
    """Vendor, product and serial number of a machine, as far as its firmware tells."""
    words = " ".join(word for word in (dmi.vendor, dmi.product) if word) or "unknown machine"
    return f"{words}, serial {dmi.serial}" if dmi.serial else words


def facts_text(facts: Facts, *, tools: Iterable[str] = ()) -> list[Line]:
    """Everything that was seen, for `netinstall probe`.

    Args:
        facts: what was seen.
        tools: further programs that were looked for; those of the file systems always are.
    """
    lines = [
        Line("MACHINE", "title"),
        *_lines(
            labelled(
                [
                    ("machine", machine_text(facts.dmi)),
                    ("uuid", facts.dmi.uuid or ""),
                    ("firmware", facts.firmware.upper()),
                    ("system", f"Linux {facts.kernel} on {facts.architecture}"),
                    ("memory", format_bytes(facts.memory)),
                ],
                indent="  ",
            )
        ),
        Line(),
        Line(f"DISKS ({len(facts.disks)})", "title"),
        *disks_text(facts),
        Line(),
        Line(f"NETWORK INTERFACES ({len(facts.nics)})", "title"),
        *nics_text(facts),
    ]
    arguments = [(name, redacted(value)) for name, value in sorted(facts.kernel_arguments.items())]
    if arguments:
        lines += [Line(), Line("KERNEL ARGUMENTS", "title")]
        lines += _lines(
            text
            for name, value in arguments
            for text in wrap(f"{name}={value}", first="  ", rest="      ")
        )
    if facts.payload is not None:
        size = format_bytes(facts.payload.size) if facts.payload.size is not None else "unknown"
        resume = "can" if facts.payload.ranges else "cannot"
        lines += [
            Line(),
            Line("PAYLOAD", "title"),
            *_lines(
                labelled(
                    [
                        ("from", redacted(facts.payload.source)),
                        ("size", size),
                        ("resuming", f"the server {resume} continue a broken download"),
                        *_manifest(facts.payload.manifest),
                    ],
                    indent="  ",
                )
            ),
        ]
    if facts.image.trusted_keys:
        keys = ", ".join(facts.image.trusted_keys)
        lines += [Line(), Line("TRUSTED KEYS", "title")]
        lines += _lines(wrap(keys, first="  "))
    needed = {fs.tool for fs in (*FILESYSTEMS.values(), SWAP)} | set(tools)
    missing = sorted(needed - set(facts.tools))
    lines += [Line(), Line("MISSING PROGRAMS", "title")]
    return lines + _lines(wrap(", ".join(missing) or "none", first="  "))


def plan_text(plan: Plan) -> list[Line]:
    """The whole plan, for `netinstall plan`: what it destroys, whom it spares, every step."""
    lines = [*_doomed(plan), *_spared(plan)]
    lines += [*network_text(plan.network), *_system(plan), *_warnings(plan)]
    lines += [Line(), Line(f"STEPS ({plan.firmware.upper()})", "title")]
    for number, step in enumerate(plan.steps, start=1):
        lines += _lines(wrap(_title(step), first=f"  {number:2d}  "), "title")
        lines += _step(step)
    return lines


def plan_summary(plan: Plan) -> list[Line]:
    """The plan in short, for a console on which the steps are told when they are done."""
    return [
        Line(),
        *_doomed(plan),
        *_spared(plan),
        *network_text(plan.network),
        *_system(plan),
        *_warnings(plan),
        Line(),
        Line(f"WHAT WILL BE DONE ({len(plan.steps)} steps)", "title"),
        *_lines(
            text
            for number, step in enumerate(plan.steps, start=1)
            for text in wrap(_title(step), first=f"  {number:2d}  ")
        ),
        Line(),
    ]


def _doomed(plan: Plan) -> list[Line]:
    kept = list(kept_partitions(plan))
    remade = [(disk, part) for disk, part, anew in kept if anew]
    if not plan.destroyed and not remade:
        return [Line("Nothing will be destroyed.", "good"), *_kept(plan)]
    body: list[str] = []
    nodes = {disk.stable_path: disk for disk in plan.chosen}
    above: Step | None = None
    for step in plan.steps:
        if step.destroys is None:
            continue
        # layers that lie on each other stand together
        is_layer = isinstance(step, TearDown)
        if not (is_layer and isinstance(above, TearDown)):
            body.append("")
        above = step
        rest = "    " if is_layer else "  "
        body += wrap(step.destroys, first="  ", rest=rest, width=WIDTH - 4)
        disk = nodes.get(step.device or "")
        if disk is not None:
            words = f"now {disk.node}" if disk.node != disk.stable_path else ""
            rows = [("", ", ".join(filter(None, [words, *_identity(disk)])))]
            body += labelled(rows, indent="    ", width=WIDTH - 4)
    for disk, part in remade:
        what = f"what partition {part.number} of {disk.stable_path} holds ({partition_words(part)})"
        body += ["", *wrap(what, first="  ", width=WIDTH - 4)]
    return [*framed("WILL BE DESTROYED", [*body, ""], "danger", corner="!", bar="!"), *_kept(plan)]


def _kept(plan: Plan) -> list[Line]:
    kept = [(disk, part) for disk, part, anew in kept_partitions(plan) if not anew]
    if not kept:
        return []
    return [
        Line(),
        Line("KEPT", "title"),
        *_lines(
            text
            for disk, part in kept
            for text in wrap(
                f"partition {part.number} of {disk.stable_path} ({partition_words(part)})",
                first="  ",
                rest="    ",
            )
        ),
    ]


def _identity(disk: Disk) -> list[str]:
    words = [word for word in (disk.model, disk.transport) if word]
    return [*words, f"serial {disk.serial}"] if disk.serial else words


def _spared(plan: Plan) -> list[Line]:
    lines = [Line(), Line("NOT TOUCHED", "title")]
    if not plan.rejected:
        return [*lines, Line("  (there is no other disk)")]
    for other in plan.rejected:
        disk = other.disk
        words = ", ".join([f"{disk.node} {format_bytes(disk.size)}", *_identity(disk)])
        lines += _lines(wrap(words, first="  ", rest="    "))
        lines += _lines(
            text for reason in other.reasons for text in wrap(reason, first="      because ")
        )
    return lines


def _system(plan: Plan) -> list[Line]:
    if not plan.system:
        return []
    return [
        Line(),
        Line("THE SYSTEM", "title"),
        *_lines(text for each in plan.system for text in wrap(each, first="  ", rest="    ")),
    ]


def _warnings(plan: Plan) -> list[Line]:
    if not plan.warnings:
        return []
    return [
        Line(),
        Line("WARNINGS", "warning"),
        *_lines(
            (text for warning in plan.warnings for text in wrap(warning, first="  * ")), "warning"
        ),
    ]


def _manifest(seen: ManifestFacts | None) -> list[tuple[str, str]]:
    if seen is None:
        return []
    system = " ".join(
        word
        for word in (seen.nixos_version and f"NixOS {seen.nixos_version}", seen.platform)
        if word
    )
    return [
        ("manifest", f"{seen.name}, built {seen.built}, SHA-256 {seen.sha256}"),
        ("signed by", seen.signed_by or "not asked: whatever the server sends is believed"),
        ("valid until", seen.expires or ""),
        ("system", system),
        ("toplevel", seen.toplevel or "none"),
        ("unpacked", f"{format_bytes(seen.usage)} in {seen.frames} frames"),
    ]


def _title(step: Step) -> str:
    return f"write {step.path}" if isinstance(step, WriteFile) else step.title


def _step(step: Step) -> Iterator[Line]:
    indent = " " * 6
    rows = [("device", step.device or ""), ("destroys", step.destroys or ""), *_details(step)]
    rows.append(("again", step.again))
    yield from _lines(labelled(rows, indent=indent))
    yield from _lines(partition_table(step, indent))
    match step:
        case WriteFile(content=content):
            yield from (
                Line(f"{indent}| {neutral(text)}".rstrip())
                for text in content.removesuffix("\n").split("\n")
            )
        case _:
            pass


def _details(step: Step) -> Iterator[tuple[str, str]]:
    match step:
        case CheckPayload() | UnpackPayload() | CheckSquashfs() | UnpackSquashfs():
            yield "sha256", step.sha256 or "unknown: whatever the server sends is believed"
            yield "system", step.toplevel or ""
            yield "retry", f"{format_seconds(step.retry_seconds)} without progress"
        case UnpackFrames():
            yield "manifest", step.sha256 or "fetched and verified before anything is done"
            yield "system", step.toplevel or ""
            for mirror in step.mirrors:
                yield "mirror", redacted(mirror)
            yield "parts", f"{step.connections} at once"
            yield "retry", f"{format_seconds(step.retry_seconds)} without progress"
        case CheckClosure() | CopyClosure():
            yield "keys", ", ".join(step.public_keys) or "none: whatever the cache says is believed"
            yield "/etc/nixos", step.configuration or ""
            yield "channel", step.channel or ""
            yield "retry", f"{format_seconds(step.retry_seconds)} without progress"
        case RegisterStore():
            yield "runs", "nix-store --load-db, in the target"
        case SetProfile():
            yield "runs", "nix-env --set, in the target"
        case RebuildSystem():
            yield "caches", "binary caches allowed" if step.substitute else "no binary caches"
            yield "limit", format_seconds(step.timeout_seconds)
        case InstallBootLoader():
            yield "runs", "switch-to-configuration boot, in the target"
            yield "limit", format_seconds(step.timeout_seconds)
        case WriteFile():
            yield "mode", f"{step.mode:04o}"
            if step.add_import:
                yield "import", "added to configuration.nix, if it has none"
        case _:
            yield from details(step)


def failure_text(
    event: Failed, *, step: str = "", log: str = "", touched: bool = False
) -> list[Line]:
    """The block that says why the work stopped, in a frame.

    Args:
        event: what happened.
        step: number and title of the step, empty when it stopped before the first.
        log: where the whole log is.
        touched: whether a step that destroys something had begun.
    """
    width = WIDTH - 4
    body = wrap(step, first="in     ", width=width) if step else ["in     the preparation"]
    for problem in event.problems:
        meaning = CODES[problem.code][1]
        body += [""]
        body += labelled(
            [
                ("what", problem.what),
                ("where", problem.where),
                ("try", problem.hint),
                ("error", f"{problem.code} ({meaning})"),
            ],
            width=width,
        )
    try:
        reason = f" ({_EXITS[ExitCode(event.exit_code)]})"
    except (KeyError, ValueError):
        reason = ""
    state = (
        "the disks were already being changed; this machine cannot boot from them"
        if touched
        else "no disk was changed"
    )
    body += [
        "",
        *labelled(
            [("exit", f"{event.exit_code}{reason}"), ("disks", state), ("log", log)], width=width
        ),
    ]
    return [Line(), *framed("INSTALLATION FAILED", body, "danger", bar="=")]


def success_text(
    seconds: float, phases: Mapping[str, float], titles: Mapping[str, str]
) -> list[Line]:
    """How long everything took; steps below a hundredth of the whole are added up.

    Args:
        seconds: the whole time.
        phases: seconds for each step's id, in order.
        titles: what people call each step's id.
    """
    long = {step: taken for step, taken in phases.items() if taken >= seconds / 100}
    rest = len(phases) - len(long)
    rows = [(titles.get(step, step), taken) for step, taken in long.items()]
    if rest:
        rows.append((f"{rest} short steps", sum(phases.values()) - sum(long.values())))
    body = [
        f"{_shortened(title, WIDTH - 18):<{WIDTH - 18}}{format_seconds(taken):>14}"
        for title, taken in rows
    ]
    return [Line(), *framed(f"INSTALLED in {format_seconds(seconds)}", body, "good", bar="=")]


def _shortened(text: str, width: int) -> str:
    text = ascii_only(neutral(text))
    return text if len(text) <= width else text[: width - 3] + "..."
