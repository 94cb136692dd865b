"""The one stream of what happens. Sinks in `installer.report` show, store and send it."""

from dataclasses import dataclass, field
from typing import Literal

from installer.model.errors import Problem
from installer.model.facts import Facts
from installer.model.plan import Plan

Stage = Literal["network", "reading", "verify", "decompress", "unpack"]
"""A part of the pipeline that brings a packed payload onto a disk."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; `time` is seconds since the epoch, UTC, `uptime` since boot."""

    time: float
    uptime: float


@dataclass(frozen=True, kw_only=True)
class Observed(Event):
    """The machine was looked at; `version` is that of this program."""

    kind: Literal["observed"] = "observed"
    version: str
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The decision is made; nothing has been changed yet."""

    kind: Literal["planned"] = "planned"
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    """Step `number` of `count` (from 1) begins."""

    kind: Literal["step-started"] = "step-started"
    step: str
    title: str
    number: int
    count: int


@dataclass(frozen=True, kw_only=True)
class StepProgress(Event):
    """How far a long step is, in bytes; `total` is None when it is not known.

    `rate` is bytes per second over the last seconds, `seconds_left` None without a total.
    `bottleneck` is what the other parts of a pipeline wait for, None where nobody measured it.
    """

    kind: Literal["step-progress"] = "step-progress"
    step: str
    done: int
    total: int | None
    rate: float
    seconds_left: float | None
    bottleneck: Stage | None = None


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    """A step is done; `seconds` is how long it took."""

    kind: Literal["step-finished"] = "step-finished"
    step: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Message(Event):
    """A line for people: `output` is what a program printed, `step` which step it belongs to."""

    kind: Literal["message"] = "message"
    level: Literal["debug", "info", "output", "warning"]
    text: str
    step: str | None = None


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The work stops; `step` is None when no step was being done: before the first one, and while
    everything is looked at before the first that destroys something."""

    kind: Literal["failed"] = "failed"
    step: str | None
    exit_code: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The machine is installed; `phases` maps each step to the seconds it took."""

    kind: Literal["finished"] = "finished"
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)


AnyEvent = (
    Observed | Planned | StepStarted | StepProgress | StepFinished | Message | Failed | Finished
)
