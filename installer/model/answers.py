"""The answer file: everything the owner of a machine can decide, and its defaults.

The field names are kebab-case in the file (`by-id`) and snake_case here. `netinstall schema`
prints the JSON Schema of `AnswerFile`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from installer.model.fields import HttpUrl, NonEmpty, Strict
from installer.model.manifest import StorePath
from installer.model.network import Network
from installer.model.payload import Payload
from installer.model.storage import Storage


class Rebuild(Strict):
    """How the system is built again in the target, with the generated configuration."""

    expression: NonEmpty = Field("<nixpkgs/nixos>", description="what nix-env -f evaluates")
    attribute: NonEmpty = Field("system", description="the attribute of it that is the system")
    substitute: bool = Field(
        False, description="allow binary caches; without, only what the payload holds is used"
    )
    timeout_seconds: int = Field(7200, ge=60, le=86400)


class System(Strict):
    """What is made of the payload."""

    install: Literal["prebuilt", "rebuild"] = Field(
        "prebuilt",
        description="prebuilt: boot the toplevel of the payload as it is; "
        "rebuild: build it again in the target from its channel with the generated configuration",
    )
    toplevel: StorePath | None = Field(
        None, description="which system of the payload, if it holds more than one"
    )
    rebuild: Rebuild = Field(default_factory=lambda: Rebuild.model_validate({}))
    verify_store: bool = Field(
        False, description="check the contents of every registered store path before it may boot"
    )
    add_imports: bool = Field(
        False,
        description="let configuration.nix import what is written beside it, if it does not",
    )


class Boot(Strict):
    """What the firmware must be."""

    firmware: Literal["auto", "uefi", "bios"] = Field(
        "auto", description="auto: as this machine booted; otherwise anything else is an error"
    )


class Finish(Strict):
    """What happens at the end, when the agent runs as init."""

    on_success: Literal["reboot", "poweroff", "shell"] = "reboot"
    on_failure: Literal["shell", "reboot", "poweroff"] = "shell"
    failure_delay_seconds: int = Field(
        60, ge=0, le=86400, description="how long the error stays on the screen before a reboot"
    )


class Report(Strict):
    """Where the events go besides the consoles and the log."""

    url: HttpUrl | None = Field(None, description="events are POSTed there as JSON lines")


class AnswerFile(Storage):
    """Answers for an unattended installation."""

    model_config = ConfigDict(title="Netinstall answer file")

    version: Literal[1] = Field(description="version of this format: write version = 1")
    payload: Payload
    system: System = Field(default_factory=lambda: System.model_validate({}))
    network: Network = Field(default_factory=lambda: Network.model_validate({}))
    boot: Boot = Field(default_factory=lambda: Boot.model_validate({}))
    finish: Finish = Field(default_factory=lambda: Finish.model_validate({}))
    report: Report = Field(default_factory=lambda: Report.model_validate({}))


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the answer file."""
    schema = AnswerFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
