"""What the agent reports by HTTP, as far as a log of its way needs it (docs/reports.md)."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LIMIT = 8 * 1024**2
"""Bytes of a batch: 200 events, of which one holds all facts and one the plan."""


class _Lenient(BaseModel):
    """A newer agent may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class AgentProblem(_Lenient):
    """One of the problems of `failed`."""

    code: str
    what: str


class AgentEvent(_Lenient):
    """One event; what its kind does not have is empty. `done` and `total` are bytes."""

    kind: str
    version: str = ""
    step: str | None = None
    title: str = ""
    number: int = 0
    count: int = 0
    done: int = 0
    total: int | None = None
    level: str = ""
    text: str = ""
    seconds: float = 0.0
    problems: tuple[AgentProblem, ...] = Field(())


def parse(body: bytes) -> list[AgentEvent]:
    """Read a batch: one JSON object a line. Raises ValueError, which names the line."""
    events = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            events.append(AgentEvent.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"line {number}: {error.errors()[0]['msg']}") from None
    return events
