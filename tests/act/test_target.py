"""The target's folders: what a payload may not make of them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from installer.act import configuration, nixos
from installer.act.logs import keep_logs
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.act.target import Target
from installer.model.errors import InstallError
from installer.model.events import AnyEvent
from installer.model.plan import EnterTarget, WriteFile

Write = Callable[[Target], None]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """An unpacked payload beside a folder that is not its own."""
    for name in ("root/etc/nixos", "root/var/log", "outside", "logs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside/precious").write_text("precious")
    (tmp_path / "logs/log.txt").write_text("all went well")
    (tmp_path / "logs/outcome.json").write_text("{}")
    return Target(tmp_path / "root", Runner())


def _narrator(events: list[AnyEvent]) -> Narrator:
    return Narrator(events.append)


def _keep(target: Target) -> None:
    keep_logs(target.root.parent / "logs", target, "/var/log/netinstall")


def _write(target: Target) -> None:
    step = WriteFile("/etc/nixos/networking.nix", "{ }\n")
    configuration.write_file(step, target, target.runner, _narrator([]), "/nix/store/x")


def _generate(target: Target) -> None:
    nixos.generate_config(target, target.runner, "/nix/store/x")


def _register(target: Target) -> None:
    nixos.register_store(target, target.runner, "/nix/store/x")


def _enter(target: Target) -> None:
    target.enter(EnterTarget(efivars=False))


@pytest.mark.parametrize(
    ("link", "write"),
    [
        ("var", _keep),
        ("var/log", _keep),
        ("var/log/netinstall", _keep),
        ("etc", _write),
        ("etc/nixos", _write),
        ("etc", _generate),
        ("etc/NIXOS", _generate),
        ("nix-path-registration", _register),
        *((name, _enter) for name in ("dev", "proc", "sys", "run", "tmp", "etc", "root", "var")),
    ],
)
def test_a_link_in_the_payload_leads_nothing_out(target: Target, link: str, write: Write) -> None:
    outside = target.root.parent / "outside"
    place = target.root / link
    if place.is_dir():
        for folder, _, _ in sorted(os.walk(place), reverse=True):
            Path(folder).rmdir()
    place.symlink_to(outside)
    with pytest.raises(InstallError) as caught:
        write(target)
    assert str(caught.value).startswith(
        f"error[payload.hostile]: {link} is a symbolic link in the payload\n  where: "
    )
    assert str(caught.value).endswith(
        f" (it leads to {outside})\n"
        "  try:   the payload must hold a plain file or folder there, or nothing"
    )
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    assert not target.mounts


def test_a_file_is_replaced_not_written_through(target: Target) -> None:
    precious = target.root.parent / "outside/precious"
    (target.root / "etc/nixos/networking.nix").symlink_to(precious)
    _write(target)
    assert (target.root / "etc/nixos/networking.nix").read_text() == "{ }\n"
    assert precious.read_text() == "precious"


def test_the_log_is_kept_for_root_only(target: Target) -> None:
    _keep(target)
    folder = target.root / "var/log/netinstall"
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
    assert (folder / "log.txt").read_text() == "all went well"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "log.txt").stat().st_mode & 0o777 == 0o600
    _keep(target)


@pytest.mark.root
def test_entering_and_leaving_leave_nothing_behind(target: Target) -> None:
    before = Path("/proc/self/mounts").read_text()
    try:
        _enter(target)
        assert (target.root / "dev/null").is_char_device()
        assert (target.root / "proc/self/mounts").exists()
        assert (target.root / "tmp").stat().st_mode & 0o7777 == 0o1777
        warnings: list[str] = []
        target.leave(warnings.append)
        assert warnings == []
    finally:
        target.abandon()
    assert Path("/proc/self/mounts").read_text() == before


@pytest.mark.root
def test_what_lingers_on_the_new_system_is_named_and_left_behind(target: Target) -> None:
    before = Path("/proc/self/mounts").read_text()
    warnings: list[str] = []
    try:
        _enter(target)
        with subprocess.Popen(
            ["sh", "-c", 'cd "$1"; echo ready; read x', "sh", str(target.root / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            target.leave(warnings.append)
            process.communicate()
    finally:
        target.abandon()
    assert warnings == [
        f"{target.root}/run is still used by sh (pid {process.pid}): umount ended with exit code 32"
    ]
    assert Path("/proc/self/mounts").read_text() == before


@pytest.mark.root
def test_a_registration_that_cannot_be_loaded_is_told(target: Target) -> None:
    toplevel = "/nix/store/00000000000000000000000000000000-nixos-system-x"
    (target.root / "nix-path-registration").write_text("garbage")
    with pytest.raises(InstallError) as caught:
        nixos.register_store(target, target.runner, toplevel)
    text = str(caught.value)
    assert text.startswith(
        f"error[nix.registration]: nix-path-registration could not be loaded, "
        f"or does not hold {toplevel}\n"
        "  where: registering the store paths: "
    )
    assert "try:   make it with `nix-store --dump-db $(nix-store -qR TOPLEVEL)`; " in text
    assert "No such file or directory" in text
    assert (target.root / "nix-path-registration").exists()
