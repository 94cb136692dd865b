"""Strings that try to be more than strings: refused with a clear message, or accepted by the
program that reads them and meaning the same."""

import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import programs
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from sites import HOSTILE, MINIMAL, site_of

from installer.boot.dialects import DIALECTS
from installer.boot.site import Site
from installer.model.errors import InstallError
from installer.model.site import Host

_UNACCEPTABLE = (
    *("\n", "\r", "\t", "\0", "\x7f", "\x1b[2J", "ä", "\u2028", "..", "//", "/", " "),
    *("'\nboot\n", "\nuser=root", "\n#"),
)


def _filled(required: dict[str, Any], **optional: st.SearchStrategy[Any]) -> Any:
    """A table with fixed fields and some of the others; None leaves one out."""
    return st.fixed_dictionaries({}, optional=optional).map(
        lambda drawn: required | {key: value for key, value in drawn.items() if value is not None}
    )


def _sites(pieces: tuple[str, ...], names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Sites whose texts are made of these pieces; host names, domains and exports of `names`."""
    text = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    # these make an argument impossible everywhere, so few are enough
    words = tuple(piece for piece in pieces if piece.isalpha() or not set(piece) & set(' "'))
    word = st.lists(st.sampled_from(words), min_size=1, max_size=4).map("".join)
    words_list = st.lists(word, max_size=3)
    hosts = st.lists(
        _filled(
            {},
            hostname=names,
            answers=word.map(lambda name: f"http://192.0.2.1/{name}"),
            arguments=words_list,
        ),
        max_size=2,
        unique_by=lambda host: str(host.get("hostname", "")),
    ).map(
        lambda hosts: [
            host | {"mac": f"52:54:00:00:00:0{number}"} for number, host in enumerate(hosts)
        ]
    )
    folder = text.map(lambda path: f"/{path}")
    return st.fixed_dictionaries(
        {
            "http": _filled(MINIMAL["http"], root=folder),
            "tftp": _filled(MINIMAL["tftp"], root=folder, bios=text, uefi=text),
            "dhcp": _filled(MINIMAL["dhcp"], domain=names),
            "images": _filled(MINIMAL["images"][0], folder=text, kernel=text, initrd=text).map(
                lambda image: [image]
            ),
            "kernel": _filled({}, arguments=words_list),
            "hosts": hosts,
            "nfs": _filled(
                {"server": "192.0.2.1", "path": "/srv/root"},
                path=names.map(lambda name: f"/srv/{name}"),
            ),
        }
    )


_NAMES = st.sampled_from(["db7", "host", "if", "option", "7", "3com", "0x1f", "a-b", "group"])
_ANYTHING = st.lists(st.sampled_from(HOSTILE + _UNACCEPTABLE), max_size=4).map("".join)
_SITES = st.one_of(
    # four of five must get as far as the dialects
    *[_sites(HOSTILE, _NAMES)] * 4,
    _sites(HOSTILE + _UNACCEPTABLE, _ANYTHING),
)
_CODES = {"site.field", "site.value"}


def _arguments_as_given(site: Site, host: Host | None) -> list[str]:
    own = [] if host is None else host.arguments
    answers = (host and host.answers) or site.file.answers
    image = site.file.image_of(host)
    return [
        "boot=netinstall",
        f"netinstall.root=http://192.0.2.1/{quote(image.folder)}/root.squashfs",
        f"netinstall.root-sha256={'5a' * 32}",
        f"netinstall.answers={answers}",
        *site.file.kernel.arguments,
        *own,
        "console=tty0",
    ]


def _ipxe(site: Site, folder: Path) -> None:
    for number, host in site.machines():
        name = "default" if host is None else f"mac-{(host.mac or '').replace(':', '-')}"
        script = (folder / f"ipxe/{name}.ipxe").read_text()
        (line,) = [line for line in script.splitlines() if line.startswith("kernel ")]
        # iPXE splits at white space, and ends a command at one of these words
        words = line.split()
        assert [word for word in words if word in ("||", "&&", ";", "#")] == ["||"]
        assert words[1] == site.url(site.file.images[0].folder, site.file.images[0].kernel)
        assert words[4:-4] == _arguments_as_given(site, host)
        assert line.count("${") == 2
        assert number is None or f"set script ipxe/{name}.ipxe" in (
            (folder / "ipxe/boot.ipxe").read_text()
        )


def _grub(site: Site, folder: Path) -> None:
    image = site.file.images[0]
    whole = folder / "whole.cfg"
    whole.write_text("".join(path.read_text() for path in folder.glob("*.cfg")))
    assert programs.grub(whole) == ""
    for _, host in site.machines():
        key = "" if host is None else f"-{host.mac}"
        linux, initrd, boot = programs.words(
            folder / f"load-kernel{key}.cfg",
            ("linux", "initrd", "boot"),
            net_default_server="192.0.2.1",
            net_default_mac="52:54:00:00:00:01",
        )
        assert linux == [
            "linux",
            f"(tftp,192.0.2.1)/{image.folder}/{image.kernel}",
            "BOOTIF=52:54:00:00:00:01",
            *_arguments_as_given(site, host),
        ]
        assert initrd == ["initrd", f"(tftp,192.0.2.1)/{image.folder}/{image.initrd}"]
        assert boot == ["boot"]


def _dnsmasq(_site: Site, folder: Path) -> None:
    assert programs.dnsmasq(folder / "dnsmasq.conf") == ""


def _dhcpd(_site: Site, folder: Path) -> None:
    assert programs.dhcpd(folder / "dhcpd.conf") == ""


def _kea(site: Site, folder: Path) -> None:
    config = json.loads((folder / "kea-dhcp4.conf").read_text())["Dhcp4"]
    files = [entry["boot-file-name"] for entry in config["client-classes"]]
    assert files[1:3] == [site.file.tftp.bios, site.file.tftp.uefi]


def _pixiecore(site: Site, folder: Path) -> None:
    static = shlex.split((folder / "pixiecore-boot").read_text(), comments=True)
    arguments = " ".join(_arguments_as_given(site, None))
    cmdline = "--cmdline=BOOTIF=01-${netX/mac:hexhyp} " + arguments
    assert static[-3:] == [cmdline, "--dhcp-no-bind", "$@"]
    for host in site.file.hosts:
        document = json.loads((folder / f"pixiecore/v1/boot/{host.mac}").read_text())
        assert document["cmdline"].split(" ")[1:] == _arguments_as_given(site, host)


def _kexec(site: Site, folder: Path) -> None:
    script = (folder / "kexec-boot").read_text()
    value = script.partition("\narguments=")[2].partition("\nkernel=bzImage\n")[0]
    assert shlex.split(value) == [" ".join(_arguments_as_given(site, None))]


READERS = {
    "ipxe": _ipxe,
    "grub": _grub,
    "dnsmasq": _dnsmasq,
    "dhcpd": _dhcpd,
    "kea": _kea,
    "pixiecore": _pixiecore,
    "kexec": _kexec,
}


def _clear(error: InstallError) -> None:
    """Every refusal says what, in which field, on one line without control characters."""
    for problem in error.problems:
        assert problem.code in _CODES
        assert problem.what.isprintable()
        assert ":" in problem.where


def _written(site: Site, dialect: str, folder: Path) -> bool:
    try:
        files = DIALECTS[dialect].render(site)
    except InstallError as error:
        _clear(error)
        return False
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return True


def _read(tables: dict[str, Any]) -> Iterator[str]:
    """Yield the dialects that could write a site, each after its program read it."""
    text = json.dumps(MINIMAL | tables, indent=1)
    try:
        site = site_of(text, "site.json")
    except InstallError as error:
        _clear(error)
        return
    for dialect in DIALECTS:
        with tempfile.TemporaryDirectory(prefix="netinstall-") as folder:
            if _written(site, dialect, Path(folder)):
                if dialect in READERS:
                    READERS[dialect](site, Path(folder))
                yield dialect


# Every site is read by up to six programs. Together 1,000 sites; in parts, which workers share.
@pytest.mark.parametrize("part", range(4))
def test_a_string_stays_a_string(part: int) -> None:
    written: Counter[str] = Counter()

    @seed(part)
    @settings(max_examples=250, suppress_health_check=list(HealthCheck), database=None)
    @given(_SITES)
    def holds(tables: dict[str, Any]) -> None:
        written.update(_read(tables))

    holds()
    # not all of them were refused
    assert {dialect for dialect in READERS if written[dialect] < 20} == set(), written


@pytest.mark.parametrize("name", ["host", "if", "option", "7", "3com", "0x1f", "group", "subnet"])
def test_host_names_that_dhcpd_could_take_for_its_own_words(name: str, tmp_path: Path) -> None:
    host = {"mac": "52:54:00:00:00:01", "hostname": name, "ip": "192.0.2.10"}
    site = site_of(json.dumps(MINIMAL | {"hosts": [host]}), "site.json")
    for dialect, check, file in (
        ("dhcpd", programs.dhcpd, "dhcpd.conf"),
        ("dnsmasq", programs.dnsmasq, "dnsmasq.conf"),
        ("kea", programs.kea, "kea-dhcp4.conf"),
    ):
        assert _written(site, dialect, tmp_path)
        assert check(tmp_path / file) == ""
