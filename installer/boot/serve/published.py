"""What is served: the texts that a site file makes, the files, and what each of them is for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from installer.boot.dialects import ipxe, pixiecore
from installer.boot.serve import journey
from installer.boot.serve.journey import Step
from installer.boot.site import Site

REPORT = "report"
"""Where the agent's events are POSTed to, below http.url."""

_REPORT_ARGUMENT = "netinstall.report="
_PIXIECORE = re.compile(r"(?:pixiecore/)?v1/boot/(?P<mac>[^/]*)")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")


@dataclass(frozen=True)
class Text:
    """A file that exists in memory only; `mac` is whom it is about, if it says so."""

    content: bytes
    kind: str = "text/plain"
    mac: str = ""


@dataclass(frozen=True)
class Published:
    """`texts` and `loaders` go before the files of `root`; all by their name below http.url."""

    site: Site
    root: Path
    texts: Mapping[str, Text]
    loaders: Mapping[str, Path]
    _about: dict[str, tuple[Step, str]] = field(default_factory=dict)

    def text(self, name: str) -> Text | None:
        """Return a text; the API of Pixiecore is found under every way to write a MAC address."""
        if found := _PIXIECORE.fullmatch(name):
            mac = mac_of(found["mac"])
            return self.texts.get(f"pixiecore/v1/boot/{mac}") if mac else None
        return self.texts.get(name)

    def about(self, name: str) -> tuple[Step, str]:
        """Return what a file, over HTTP or TFTP, is for, and the host whose own it is ("")."""
        if not self._about:
            self._about.update(_steps(self.site))
        if name in self._about:
            return self._about[name]
        if _PIXIECORE.fullmatch(name) or name.startswith(("ipxe/", "load-kernel")):
            return "script", ""
        answers = _below(self.site, self.site.file.answers)
        if answers is not None and name.startswith(answers):
            return "answers", ""
        return "file", ""

    def is_asked_for_by_pixiecore(self, name: str) -> bool:
        """Whether somebody asks about another machine."""
        return _PIXIECORE.fullmatch(name) is not None


def mac_of(text: str) -> str:
    """Return a MAC address in the form of the site file, or "" if it is none."""
    return text.lower().replace("-", ":") if _MAC.fullmatch(text) else ""


def with_report(site: Site) -> Site:
    """Return the site with its machines told to report here, unless it says where."""
    arguments = site.file.kernel.arguments
    if any(text.startswith(_REPORT_ARGUMENT) for text in arguments):
        return site
    kernel = site.file.kernel.model_copy(
        update={"arguments": [*arguments, f"{_REPORT_ARGUMENT}{site.url(REPORT)}"]}
    )
    file = site.file.model_copy(update={"kernel": kernel})
    return replace(site, file=file)


def texts(site: Site) -> dict[str, Text]:
    """Render what is served by HTTP. Raises InstallError."""
    found = {name: Text(text.encode()) for name, text in ipxe.render(site).items()}
    for name, text in pixiecore.render(site).items():
        if api := _PIXIECORE.fullmatch(name):
            found[name] = Text(text.encode(), "application/json", api["mac"])
    return found


def known(site: Site) -> journey.Site:
    """Return what the journey has to know."""
    file = site.file
    reports = [text for text in file.kernel.arguments if text.startswith(_REPORT_ARGUMENT)]
    return journey.Site(
        names={host.mac: host.hostname for host in file.hosts if host.mac and host.hostname},
        url=file.http.url,
        bios=file.tftp.bios,
        uefi=file.tftp.uefi,
        answers=_below(site, file.answers) is not None,
        reports=reports[-1:] == [f"{_REPORT_ARGUMENT}{site.url(REPORT)}"],
    )


def _below(site: Site, url: str | None) -> str | None:
    """Return the name of a URL of this server, None for any other place."""
    base = site.file.http.url + "/"
    return url.removeprefix(base) if url and url.startswith(base) else None


def _steps(site: Site) -> dict[str, tuple[Step, str]]:
    file = site.file
    found: dict[str, tuple[Step, str]] = {
        file.tftp.bios: ("loader", ""),
        file.tftp.uefi: ("loader", ""),
        "grub.cfg": ("script", ""),
    }
    for image in file.images:
        found[f"{image.folder}/{image.kernel}"] = ("kernel", "")
        found[f"{image.folder}/{image.initrd}"] = ("initrd", "")
        found[f"{image.folder}/root.squashfs"] = ("root", "")
    for number, host in site.machines():
        if host is None:
            continue
        found[ipxe.script(site, number)] = ("script", host.hostname or "")
        if name := _below(site, host.answers):
            found[name] = ("answers", host.hostname or "")
    return found
