"""The loader that GRUB's own grub-mkimage makes, and what `boot check` says about it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from processes import ENVIRONMENT, netinstall
from sites import MINIMAL, ROOT, changed, site_of

from installer.boot import loader
from installer.boot.check import conflicts
from installer.boot.dialects import DIALECTS, grub

_PROXY = {"mode": "proxy", "interface": "lo", "subnet": "192.0.2.0/24"}
_NO_MODULES = "GRUB's modules for 64-bit UEFI are not installed here"
_SITE = MINIMAL | {"tftp": MINIMAL["tftp"] | {"uefi": "bootx64.efi"}, "grub": {}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.json"
    file.write_text(json.dumps(_SITE, indent=1))
    return file


def _made(site: Path, output: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return netinstall("boot", "loader", site, "--output", output, before=list(before))


def test_the_loader_holds_grub_cfg_and_is_always_the_same(site: Path, tmp_path: Path) -> None:
    done = _made(site, tmp_path / "tftp")
    first = tmp_path / "tftp/bootx64.efi"
    assert (done.returncode, done.stderr) == (0, f"{first}\n")
    second = tmp_path / "second.efi"
    assert _made(site, second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    # the magic numbers of PE (Microsoft PE format, 2 and 3.1)
    assert first.read_bytes()[:2] == b"MZ"
    assert grub.main(changed(**_SITE)).encode() in first.read_bytes()
    assert first.stat().st_mode & 0o777 == 0o644
    assert first.stat().st_size < 1024**2
    # nothing is left beside it
    assert [path.name for path in first.parent.iterdir()] == ["bootx64.efi"]


def test_another_site_makes_another_loader(tmp_path: Path) -> None:
    site = changed(**_SITE)
    made = loader.build(site, tmp_path / "one.efi").read_bytes()
    assert not loader.is_outdated(made, site)
    assert loader.is_outdated(made, changed(**_SITE | {"serial": {"unit": 1}}))
    # what its files say is not in it
    assert not loader.is_outdated(made, changed(**_SITE | {"kernel": {"arguments": ["quiet"]}}))
    assert not loader.is_outdated(b"MZ, and iPXE", site)


def test_a_site_file_that_names_another_loader(site: Path, tmp_path: Path) -> None:
    site.write_text(json.dumps(MINIMAL))
    made = tmp_path / "bootx64.efi"
    assert _made(site, made).stderr == (
        f"{made}\nnote: tftp.uefi of {site} is ipxe.efi, and that is what UEFI machines are told "
        'to load; for this loader write uefi = "bootx64.efi"\n'
    )


def test_a_folder_that_cannot_be_written(site: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _made(site, tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr == (
        f"error[arguments]: {tmp_path}/file cannot be written: File exists\n"
        "  where: --output\n  try:   name a file or folder that you may write to\n"
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("hidden", "what"),
    [
        ("/usr/bin/grub-mkimage", "grub-mkimage is not installed here"),
        ("/usr/lib/grub/x86_64-efi", f"{_NO_MODULES}: /usr/lib/grub/x86_64-efi has no kernel.img"),
    ],
)
def test_a_server_without_grub(site: Path, tmp_path: Path, hidden: str, what: str) -> None:
    # in a mount namespace of its own, it is not there
    over = "mount -t tmpfs none" if Path(hidden).is_dir() else "mount --bind /dev/null"
    script = f'{over} {hidden} && exec "$@"'
    done = _made(site, tmp_path, "unshare", "--mount", "sh", "-c", script, "sh")
    assert done.returncode == 3
    assert done.stderr == (
        f"error[tool.missing]: {what}\n  where: netinstall boot loader\n"
        "  try:   install GRUB for UEFI: apt-get install grub-common grub-efi-amd64-bin\n"
    )


def test_every_command_of_grub_cfg_is_in_the_loader() -> None:
    """GRUB's own list of commands says from which module each one is."""
    folder = Path("/usr/lib/grub/x86_64-efi")
    of = dict(line.lstrip("*").split(": ") for line in (folder / "command.lst").open())
    text = grub.main(changed(**_SITE | {"serial": {}}))
    words = {line.split()[0] for line in text.replace("if ", "").splitlines() if line.strip()}
    needed = {of[word].strip() for word in words if word in of}
    assert {"net", "serial", "terminal", "configfile", "sleep", "reboot"} <= needed
    assert needed <= set(loader.MODULES)


@pytest.mark.parametrize(
    "tables",
    [
        {"grub": {"server": "option-66", "interface": "efinet3"}},
        {"dhcp": _PROXY, "grub": {}},
        {"dhcp": _PROXY, "grub": {"server": "option-66"}},
        {"serial": {"unit": 3, "speed": 9600, "parity": "odd"}, "grub": {}},
    ],
)
def test_grub_accepts_every_grub_cfg(tables: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "grub.cfg"
    file.write_text(grub.main(changed(**tables)))
    assert programs.grub(file) == ""


def test_beside_a_proxy_the_server_is_that_of_the_site() -> None:
    known = "set net_default_server=192.0.2.1\n"
    assert f"\n  {known}" in grub.main(changed(dhcp=_PROXY))
    # elsewhere only when GRUB knows none
    assert f'if [ -z "$net_default_server" ]; then\n    {known}' in grub.main(changed())


def test_a_host_known_by_its_uuid_has_a_file() -> None:
    uuid = "4c4c4544-0042-3510-8052-b4c04f4e3132"
    files = DIALECTS["grub"].render(changed(hosts=[{"uuid": uuid, "arguments": ["mine"]}]))
    assert "'mine'" in files[f"load-kernel-{uuid}.cfg"]
    assert "'mine'" not in files["load-kernel.cfg"]


def test_the_site_of_the_documentation(tmp_path: Path) -> None:
    page = (ROOT / "docs/boot-grub.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for change in blocks[1:]:
        site = site_of(blocks[0].replace("[grub]\n", change))
        for dialect in ("grub", "ipxe", "dnsmasq", "dhcpd", "exports"):
            assert DIALECTS[dialect].render(site)
        assert conflicts(site) == []
    for number, block in enumerate(re.findall(r"```text\n(.*?)```", page, re.DOTALL)):
        if block.endswith("boot\n"):
            file = tmp_path / f"{number}.cfg"
            file.write_text(block)
            assert programs.grub(file) == ""
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.root
def test_check_looks_into_the_loader(tmp_path: Path) -> None:
    site = tmp_path / "site.json"
    tftp = {"address": "192.0.2.1", "root": str(tmp_path), "user": "root", "uefi": "bootx64.efi"}
    site.write_text(json.dumps(_SITE | {"tftp": tftp}, indent=1))
    efi = tmp_path / "bootx64.efi"
    hint = f"  try:   netinstall boot loader SITE --output {efi}\n"

    def said() -> str:
        return subprocess.run(
            [sys.executable, "-m", "installer", "boot", "check", site],
            check=False,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=60,
        ).stderr

    where = f"  where: {site}:"
    missing = f"error[site.file]: {efi}: No such file or directory\n{where}"
    outdated = f"error[site.file]: {efi} has a grub.cfg in it that is not what the site file says"
    assert missing in said()
    assert hint in said()
    assert _made(site, efi).returncode == 0
    assert str(efi) not in said().replace(str(tmp_path / "site.json"), "")
    site.write_text(site.read_text().replace('"grub": {}', '"grub": {"server": "option-66"}'))
    assert outdated in said()
    assert hint in said()
