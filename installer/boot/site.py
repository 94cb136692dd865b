"""A site as the dialects see it: the site file, what its images say, and where fields stand."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from installer.model.errors import InstallError, Problem, fail
from installer.model.site import Alpine, Host, Image, SiteFile
from installer.observe import documents
from installer.observe.places import Location

KIND = documents.Kind(SiteFile, syntax="site.syntax", field="site.field")

INIT = "/usr/lib/netinstall/init"
"""The agent in the boot environment, for a kernel that is told its init itself."""

_LONGEST_COMMAND_LINE = 2047
"""Bytes that x86 keeps (arch/x86/include/asm/setup.h: COMMAND_LINE_SIZE); the rest is lost."""

_LOADERS_BYTES = 64
"""Room for what a loader adds: initrd=NAME BOOTIF=01-…"""


class Argument(NamedTuple):
    """A kernel argument, and the field that it comes from."""

    text: str
    location: Location


@dataclass(frozen=True)
class Site:
    """`root_sha256` maps an image's name to the SHA-256 of its root.squashfs, `modloop_sha256` to
    that of Alpine's modules; `where` says where in the site file a field stands."""

    file: SiteFile
    root_sha256: dict[str, str]
    where: Callable[[Location], str]
    modloop_sha256: dict[str, str] = field(default_factory=dict)

    def machines(self) -> Iterator[tuple[int | None, Host | None]]:
        """Every named host with its number, and (None, None) for all others."""
        yield None, None
        yield from enumerate(self.file.hosts)

    def url(self, *names: str) -> str:
        """What a file below http.root is called."""
        return "/".join([self.file.http.url, *(quote(name, safe="/") for name in names)])

    def root_path(self) -> str | None:
        """DHCP option 17, as the kernel (nfsroot.rst) and our initrd read it."""
        nfs = self.file.nfs
        if nfs is None:
            return None
        return ",".join([f"{nfs.server}:{nfs.path}", *nfs.mount_options])

    def kernel_arguments(self, number: int | None) -> list[Argument]:
        """Return the kernel arguments of a host (None: any other machine), without what only a
        loader knows.

        Raises:
            InstallError: `site.value`, they are more than the kernel keeps.
        """
        host = None if number is None else self.file.hosts[number]
        own: Location = () if number is None else ("hosts", number)
        found = [*self._root(self.file.image_of(host))]
        if host is not None and host.answers is not None:
            found.append(Argument(f"netinstall.answers={host.answers}", (*own, "answers")))
        elif self.file.answers is not None:
            found.append(Argument(f"netinstall.answers={self.file.answers}", ("answers",)))
        found += self._listed(self.file.kernel.arguments, ("kernel",))
        if host is not None:
            found += self._listed(host.arguments, own)
        image = self.file.image_of(host)
        if (image.root == "kernel-nfs" or image.alpine) and not any(
            text.startswith("ip=") for text, _ in found
        ):
            found.append(Argument("ip=dhcp", ("images",)))
        found.append(Argument("console=tty0", ()))
        if serial := self.file.serial:
            console = f"console=ttyS{serial.unit},{serial.speed}{serial.parity[0]}8"
            found.append(Argument(console, ("serial",)))
        length = sum(len(text) + 1 for text, _ in found)
        if length + _LOADERS_BYTES > _LONGEST_COMMAND_LINE:
            raise fail(
                "site.value",
                f"the kernel arguments have {length} bytes; the kernel keeps "
                f"{_LONGEST_COMMAND_LINE}, and the loader needs {_LOADERS_BYTES} of them",
                where=self.where((*own, "arguments") if own else ("kernel", "arguments")),
                hint="put settings into the answer file, or shorten the URLs",
            )
        return found

    @staticmethod
    def _listed(arguments: list[str], table: Location) -> list[Argument]:
        return [
            Argument(text, (*table, "arguments", index)) for index, text in enumerate(arguments)
        ]

    def _root(self, image: Image) -> Iterator[Argument]:
        place: Location = ("images", self.file.images.index(image))
        if image.root == "kernel-nfs":
            yield Argument("root=/dev/nfs", place)
            yield Argument(f"nfsroot={self.root_path()}", ("nfs", "path"))
            yield Argument("ro", place)
            yield Argument(f"init={INIT}", place)
            return
        if image.alpine is not None:
            yield from self._alpine(image, image.alpine, place)
        else:
            # what initramfs-tools starts in our initrd
            yield Argument("boot=netinstall", place)
        if image.root == "nfs":
            yield Argument(f"netinstall.root=nfs:{self.root_path()}", ("nfs", "path"))
        elif image.root == "http":
            url = self.url(image.folder, "root.squashfs")
            yield Argument(f"netinstall.root={url}", (*place, "folder"))
            digest = self.root_sha256[image.name]
            yield Argument(f"netinstall.root-sha256={digest}", (*place, "folder"))

    def _alpine(self, image: Image, alpine: Alpine, image_place: Location) -> Iterator[Argument]:
        """What Alpine's initramfs-init reads (mkinitfs-bootparam(7)), and our apkovl."""
        place = (*image_place, "alpine")
        if alpine.nfs is not None:
            yield Argument(f"alpine_dev=nfs:{alpine.nfs}", (*place, "nfs"))
        if alpine.repository is not None:
            yield Argument(f"alpine_repo={alpine.repository}", (*place, "repository"))
        # not quoted: initramfs-init looks for {MAC}
        apkovl = f"{self.url(image.folder)}/{alpine.apkovl}"
        yield Argument(f"apkovl={apkovl}", (*place, "apkovl"))
        modloop = self.url(image.folder, alpine.modloop)
        yield Argument(f"modloop={modloop}", (*place, "modloop"))
        digest = self.modloop_sha256[image.name]
        yield Argument(f"netinstall.modloop-sha256={digest}", (*place, "modloop"))


@dataclass
class Encoder:
    """Writes values in one dialect and collects what it cannot write.

    `dialect` is its name for people; `done` raises InstallError (`site.value`, all together).
    """

    site: Site
    dialect: str
    encode: Callable[[str], str]
    problems: dict[str, Problem] = field(default_factory=dict)

    def __call__(self, value: str, *location: str | int) -> str:
        try:
            return self.encode(value)
        except ValueError as error:
            self.refuse(f"{value!r} cannot be written: {error}", *location)
            return ""

    def arguments(self, number: int | None) -> list[str]:
        """The kernel arguments of a host, each encoded."""
        try:
            found = self.site.kernel_arguments(number)
        except InstallError as error:
            self.problems |= {str(problem): problem for problem in error.problems}
            return []
        return [self(text, *location) for text, location in found]

    def refuse(self, what: str, *location: str | int, hint: str = "choose another value") -> None:
        """Note a problem with a field; the same problem counts once."""
        problem = Problem("site.value", f"{self.dialect}: {what}", self.site.where(location), hint)
        self.problems.setdefault(str(problem), problem)

    def done(self) -> None:
        if self.problems:
            raise InstallError(self.problems.values())


def load(path: Path) -> tuple[Site, list[Problem]]:
    """Read a site file and what its images say.

    Returns:
        the site, and what is wrong with image.json of an image whose hash is needed.

    Raises:
        InstallError: `site.not-found`, `site.syntax`, or all `site.field` problems together.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise fail(
            "site.not-found",
            f"{path} cannot be read: {error.strerror}",
            where=str(path),
            hint="is the path right?",
        ) from None
    except UnicodeDecodeError as error:
        raise fail(
            "site.syntax",
            f"byte {error.start} is not UTF-8",
            where=str(path),
            hint="save the file as UTF-8",
        ) from None
    file = documents.load(KIND, text, str(path))
    site = Site(file, {}, documents.locator(text, str(path)))
    problems = []
    for index, image in enumerate(file.images):
        if image.alpine is not None:
            site.modloop_sha256[image.name] = "0" * 64
            modloop = Path(file.http.root, image.folder, image.alpine.modloop)
            try:
                with modloop.open("rb") as stream:
                    digest = file_digest(stream, "sha256").hexdigest()
                site.modloop_sha256[image.name] = digest
            except OSError as error:
                problems.append(
                    Problem(
                        "site.file",
                        f"{modloop}: {error.strerror}",
                        site.where(("images", index, "alpine", "modloop")),
                        "unpack Alpine's netboot archive there: docs/alpine.md",
                    )
                )
        if image.root != "http":
            continue
        site.root_sha256[image.name] = "0" * 64
        about = Path(file.http.root, image.folder, "image.json")
        try:
            site.root_sha256[image.name] = _squashfs_sha256(about)
        except (OSError, ValueError) as error:
            problems.append(
                Problem(
                    "site.file",
                    f"{about}: {getattr(error, 'strerror', None) or error}",
                    site.where(("images", index, "folder")),
                    "build it there: netinstall image build --output DIR",
                )
            )
    return site, problems


def _squashfs_sha256(about: Path) -> str:
    """Read the hash from image.json. Raises OSError, or ValueError when it does not say."""
    try:
        digest = json.loads(about.read_bytes())["files"]["root.squashfs"]["sha256"]
    except (KeyError, TypeError, RecursionError):
        raise ValueError("it names no root.squashfs with a sha256") from None
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("its sha256 of root.squashfs is none")
    return digest
