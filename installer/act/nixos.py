"""What makes an unpacked tree a NixOS: store registration, configuration, profile, boot loader."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError, fail
from installer.model.plan import (
    PAYLOAD_REGISTRATION,
    SYSTEM_PROFILE,
    InstallBootLoader,
    RebuildSystem,
)

_CHANNEL = "/nix/var/nix/profiles/per-user/root/channels/nixos"
_CONFIGURATION = "/etc/nixos/configuration.nix"


def _environment(toplevel: str) -> Mapping[str, str]:
    return {
        "PATH": f"{toplevel}/sw/bin:{toplevel}/sw/sbin",
        # a new system has no /etc/passwd yet, and Nix "cannot figure out user name" without either
        "USER": "root",
    }


def in_target(
    target: Target,
    runner: Runner,
    toplevel: str,
    argv: list[str],
    *,
    timeout: float,
    purpose: str,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    capture: bool = False,
) -> str:
    """Run a program of the system in it; its standard output if `capture`. Raises InstallError."""
    program, *arguments = argv
    return runner.run(
        [f"{toplevel}/sw/bin/{program}" if "/" not in program else program, *arguments],
        chroot=target.root,
        timeout=timeout,
        environment={**_environment(toplevel), **(environment or {})},
        stdin=stdin,
        capture=capture,
        purpose=purpose,
    )


def register_store(target: Target, runner: Runner, toplevel: str) -> None:
    """Load the registration (nix-store(1), --load-db), as a NixOS image does at its first boot.

    Raises:
        InstallError: `nix.registration`.
    """
    registration = target.confined(PAYLOAD_REGISTRATION)
    try:
        with registration.open("rb") as stream:
            in_target(
                target,
                runner,
                toplevel,
                ["nix-store", "--load-db"],
                timeout=600,
                stdin=stream,
                purpose="registering the store paths",
            )
        in_target(
            target,
            runner,
            toplevel,
            ["nix-store", "--query", "--hash", toplevel],
            timeout=120,
            purpose="asking the Nix database for the system",
        )
    except InstallError as error:
        raise fail(
            "nix.registration",
            f"{PAYLOAD_REGISTRATION} could not be loaded, or does not hold {toplevel}",
            where=error.problems[0].where,
            hint="make it with `nix-store --dump-db $(nix-store -qR TOPLEVEL)`; "
            + error.problems[0].hint,
        ) from None
    # left behind, the first boot of a real NixOS would load it again over a newer database
    registration.unlink()


def generate_config(target: Target, runner: Runner, toplevel: str) -> None:
    """Run nixos-generate-config(8); it leaves an existing configuration.nix alone."""
    # switch-to-configuration and nixos-enter recognise a NixOS by this file
    target.confined("etc/NIXOS").touch()
    in_target(
        target,
        runner,
        toplevel,
        ["nixos-generate-config", "--root", "/"],
        timeout=300,
        purpose="generating the hardware configuration",
    )


def set_profile(target: Target, runner: Runner, toplevel: str) -> None:
    """Make a toplevel the system profile's new generation."""
    in_target(
        target,
        runner,
        toplevel,
        ["nix-env", "--profile", SYSTEM_PROFILE, "--set", toplevel],
        timeout=300,
        purpose="setting the system profile",
    )


def rebuild(step: RebuildSystem, target: Target, runner: Runner, toplevel: str) -> None:
    """Build the system from the payload's channel; the build's result becomes the profile."""
    offline = [] if step.substitute else ["--option", "substituters", ""]
    if step.substitute:
        target.share_resolver()
    in_target(
        target,
        runner,
        toplevel,
        [
            "nix-env",
            "--profile",
            SYSTEM_PROFILE,
            # builders need namespaces and users that a chroot in an installer does not have
            *("--option", "sandbox", "false"),
            *("--option", "build-users-group", ""),
            *offline,
            *("--file", step.expression, "--set", "--attr", step.attribute),
        ],
        timeout=step.timeout_seconds,
        purpose="building the system in the target",
        environment={
            "NIX_PATH": f"nixpkgs={_CHANNEL}:nixos-config={_CONFIGURATION}",
        },
    )


def profile_toplevel(target: Target) -> str:
    """The store path that the system profile stands for.

    Raises:
        InstallError: `command.failed` when there is none.
    """
    link = target.path(SYSTEM_PROFILE)
    for _ in range(8):
        if not link.is_symlink():
            break
        link = target.path(
            os.path.normpath(link.parent / link.readlink()).removeprefix(str(target.root))
        )
    inside = "/" + str(link.relative_to(target.root))
    if not inside.startswith("/nix/store/") or not link.is_dir():
        raise fail(
            "command.failed",
            f"{SYSTEM_PROFILE} leads to {inside}, which is no system",
            where="setting the system profile",
            hint="look at the log for what Nix said",
        )
    return inside


def flush(target: Target, runner: Runner, *, whole_store: bool) -> None:
    """Write all caches out, drop them, and read back from the disk what must be right to boot.

    Raises:
        InstallError: `device.io` when something could not be written, `command.failed` when a
            store path is not what it was registered as.
    """
    target.flush()
    # 3: page cache, dentries and inodes (admin-guide/sysctl/vm.rst), so that what is verified now
    # comes from the disk
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    toplevel = profile_toplevel(target)
    if whole_store:
        arguments = ["--verify", "--check-contents"]
    else:
        parts = [toplevel]
        for name in ("kernel", "initrd"):
            link = target.path(toplevel) / name
            if link.is_symlink():
                parts.append("/".join(str(link.readlink()).split("/")[:4]))
        arguments = ["--verify-path", *dict.fromkeys(parts)]
    in_target(
        target,
        runner,
        toplevel,
        ["nix-store", *arguments],
        timeout=7200,
        purpose="verifying what was written",
    )


def install_boot_loader(step: InstallBootLoader, target: Target, runner: Runner) -> None:
    """Run the system's own switch-to-configuration: the last step that a boot depends on."""
    toplevel = profile_toplevel(target)
    in_target(
        target,
        runner,
        toplevel,
        [f"{toplevel}/bin/switch-to-configuration", "boot"],
        timeout=step.timeout_seconds,
        purpose="installing the boot loader",
        environment={"NIXOS_INSTALL_BOOTLOADER": "1"},
    )
    target.flush()
