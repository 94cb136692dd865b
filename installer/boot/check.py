"""What is wrong with a site, before a machine finds out: contradictions, and missing files.

Run on the boot server, as root or as somebody who can see what it publishes.
"""

import os
import pwd
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, get_args

from installer.boot import alpine, loader
from installer.boot.dialects import DIALECTS
from installer.boot.site import INIT, Site
from installer.model.errors import InstallError, Problem
from installer.model.units import format_bytes
from installer.observe.places import Location

_LARGEST_INITRD = 4 * 1024**3 - 1
"""Bytes. The boot protocol has 32 bits for its size (boot.rst: ramdisk_size): the rest is lost."""

_BUILD = "build it there: netinstall image build --output DIR"

_KNOWN_VERSIONS = ("3", "4", "4.0", "4.1", "4.2")

_SENSELESS_OPTIONS = {
    "rw": "the root is read-only, and the agent stacks its own writable layer",
    "udp": "NFS over UDP damages data at today's speeds (nfs(5))",
    "proto=udp": "NFS over UDP damages data at today's speeds (nfs(5))",
    "lock": "nothing in the initrd can hold locks",
    "soft": "a slow server would become an I/O error in the middle of an installation",
    "noexec": "the agent is executed from there",
    "nodev": "the boot environment may need device nodes",
}


Look = Literal["images", "tftp", "rendered", "answers", "nfs-root"]
"""What can be looked at on the server: images and answer files below http.root, everything below
tftp.root, what `boot render` wrote, the exported root."""


def check(
    site: Site, known: list[Problem], looks: Collection[Look] = get_args(Look)
) -> list[Problem]:
    """Return everything that is wrong, `known` (what `site.load` found) included.

    Args:
        looks: which files to look at.
    """
    found = [*known, *conflicts(site), *_encodable(site)]
    for name in looks:
        found += _LOOKS[name](site)
    unique: dict[tuple[str, str], Problem] = {}
    for problem in found:
        # a file or folder that several fields lead to is said once
        place = "" if problem.code == "site.file" else problem.where
        unique.setdefault((problem.what, place), problem)
    return list(unique.values())


def conflicts(site: Site) -> list[Problem]:
    """Return what contradicts itself within the site file; looks at no file."""
    return [
        *_collisions(site),
        *_addresses(site),
        *_proxy_limits(site),
        *_nfs_options(site),
        *alpine.conflicts(site),
    ]


def _conflict(site: Site, what: str, hint: str, *location: str | int) -> Problem:
    return Problem("site.conflict", what, site.where(location), hint)


def _collisions(site: Site) -> Iterator[Problem]:
    for key in ("mac", "uuid", "ip", "hostname"):
        first: dict[str, int] = {}
        for number, host in enumerate(site.file.hosts):
            value = getattr(host, key)
            if value is None:
                continue
            other = first.setdefault(value.lower(), number)
            if other != number:
                yield _conflict(
                    site,
                    f"hosts[{number}] and hosts[{other}] have the same {key}, {value}",
                    "give each host its own",
                    *("hosts", number, key),
                )
    for number, host in enumerate(site.file.hosts):
        if host.answers is None and site.file.answers is None:
            yield _conflict(
                site,
                f"nothing says where hosts[{number}] finds its answer file",
                "add answers to the host, or for all at the top of the file",
                *("hosts", number),
            )


def _addresses(site: Site) -> Iterator[Problem]:
    subnet = IPv4Network(site.file.dhcp.subnet)
    for text, location, whose in _named(site):
        address = IPv4Address(text)
        if address not in subnet:
            what = f"{text} of {whose} is not in the subnet {subnet}"
            yield _conflict(site, what, "correct the address or dhcp.subnet", *location)
        elif address in (subnet.network_address, subnet.broadcast_address):
            what = f"{text} of {whose} is the subnet's own or its broadcast address"
            yield _conflict(site, what, "take another one", *location)
    taken = {site.file.tftp.address: "the TFTP server", site.file.dhcp.router: "the router"}
    for number, host in enumerate(site.file.hosts):
        if host.ip is not None and host.ip in taken:
            what = f"{host.ip} of hosts[{number}] is {taken[host.ip]}"
            yield _conflict(site, what, "take another one", *("hosts", number, "ip"))
    yield from _range(site)


def _range(site: Site) -> Iterator[Problem]:
    if site.file.dhcp.range is None:
        return
    between = site.file.dhcp.range
    first, last = IPv4Address(between.first), IPv4Address(between.last)
    if first > last:
        what = f"the range ends at {last}, before it begins at {first}"
        yield _conflict(site, what, "exchange first and last", *("dhcp", "range"))
    server = (site.file.tftp.address, ("tftp", "address"), "the TFTP server")
    for text, location, whose in (*_named(site), server):
        if whose != "the range" and first <= IPv4Address(text) <= last:
            what = f"{text} of {whose} lies in the range that is handed out to others"
            yield _conflict(site, what, "move the range or the address", *location)


def _named(site: Site) -> Iterator[tuple[str, Location, str]]:
    """Every address that has to lie in the subnet: itself, its field, and whose it is."""
    dhcp = site.file.dhcp
    if dhcp.router is not None:
        yield dhcp.router, ("dhcp", "router"), "the router"
    if dhcp.range is not None:
        yield dhcp.range.first, ("dhcp", "range", "first"), "the range"
        yield dhcp.range.last, ("dhcp", "range", "last"), "the range"
    for number, host in enumerate(site.file.hosts):
        if host.ip is not None:
            yield host.ip, ("hosts", number, "ip"), f"hosts[{number}]"


def _proxy_limits(site: Site) -> Iterator[Problem]:
    if site.file.dhcp.mode != "proxy":
        return
    for number, host in enumerate(site.file.hosts):
        for key in ("ip", "hostname"):
            if getattr(host, key) is not None:
                yield _conflict(
                    site,
                    f"a proxy cannot give hosts[{number}] its {key}",
                    "leave it out here and tell the DHCP server, or use mode = full",
                    *("hosts", number, key),
                )
    for number, image in enumerate(site.file.images):
        if image.root == "lease":
            yield _conflict(
                site,
                f"a proxy cannot send the root path of the image {image.name}",
                'say root = "nfs": it is told by a kernel argument',
                *("images", number, "root"),
            )


def _nfs_options(site: Site) -> Iterator[Problem]:
    nfs = site.file.nfs
    if nfs is None:
        return
    keys: dict[str, str] = {}
    for number, option in enumerate(nfs.mount_options):
        location = ("nfs", "mount-options", number)
        key, _, value = option.partition("=")
        key = {"nfsvers": "vers"}.get(key, key)
        if option in _SENSELESS_OPTIONS:
            yield _conflict(
                site, f"{option}: {_SENSELESS_OPTIONS[option]}", "leave it out", *location
            )
        if key == "vers" and value not in _KNOWN_VERSIONS:
            known = ", ".join(_KNOWN_VERSIONS)
            yield _conflict(
                site, f"{option}: there is no such version of NFS", f"known are {known}", *location
            )
        if key == "sec" and value != "sys":
            yield _conflict(
                site, f"{option}: the initrd has no Kerberos", "leave it out", *location
            )
        if key in keys:
            yield _conflict(
                site, f"{option} and {keys[key]} say the same thing", "keep one", *location
            )
        keys[key] = option
    if nfs.clients is not None:
        clients, subnet = IPv4Network(nfs.clients), IPv4Network(site.file.dhcp.subnet)
        if not subnet.subnet_of(clients):
            yield _conflict(
                site,
                f"{clients} leaves out machines of the subnet {subnet}",
                "leave clients out, or name a subnet that holds it",
                *("nfs", "clients"),
            )


def _encodable(site: Site) -> Iterator[Problem]:
    """Try the dialects that fit the site, for what they cannot write."""
    for name, dialect in DIALECTS.items():
        if site.file.nfs is None and name in ("exports", "ganesha"):
            continue
        if site.file.dhcp.mode == "proxy" and name in ("dhcpd", "kea"):
            continue
        if name == "grub" and not uses_grub(site):
            continue
        try:
            dialect.render(site)
        except InstallError as error:
            yield from error.problems


def uses_grub(site: Site) -> bool:
    """Whether the site file has a [grub] table."""
    return "grub" in site.file.model_fields_set


@dataclass(frozen=True)
class _Reader:
    """A daemon, without a uid nobody in particular; `owner_only` is dnsmasq's tftp-secure."""

    root: Path
    uid: int | None = None
    gids: frozenset[int] = frozenset()
    owner_only: bool = False

    def can(self, status: os.stat_result, *, bit: int) -> bool:
        """Whether the mode bits allow it; `bit` is 4 to read, 1 to pass through."""
        if self.uid == 0:
            return True
        shift = 0
        if self.uid == status.st_uid:
            shift = 6
        elif status.st_gid in self.gids:
            shift = 3
        return bool(status.st_mode >> shift & bit)


def _http(site: Site) -> _Reader:
    return _Reader(Path(site.file.http.root))


def _tftp(site: Site) -> _Reader:
    root, name = Path(site.file.tftp.root), site.file.tftp.user
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return _Reader(root)
    groups = frozenset(os.getgrouplist(name, user.pw_gid))
    return _Reader(root, user.pw_uid, groups, owner_only=user.pw_uid != 0)


def _file(
    site: Site,
    reader: _Reader,
    name: str,
    hint: str,
    *location: str | int,
    kind: Callable[[int], bool] = stat.S_ISREG,
) -> Iterator[Problem]:
    """Look at one file that a client will ask for."""

    def problem(what: str, hint: str) -> Problem:
        return Problem("site.file", what, site.where(location), hint)

    path = reader.root / name
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except (OSError, RuntimeError) as error:
        yield problem(f"{path}: {getattr(error, 'strerror', None) or error}", hint)
        return
    if not real.is_relative_to(reader.root.resolve()):
        yield problem(f"{path} leads to {real}, outside of the root", "copy the file")
        return
    if not kind(status.st_mode):
        expected = "a folder" if kind is stat.S_ISDIR else "a regular file"
        yield problem(f"{path} is not {expected}", hint)
        return
    who = "the server" if reader.uid is None else site.file.tftp.user
    if kind is stat.S_ISREG and not reader.can(status, bit=4):
        yield problem(f"{path} cannot be read by {who}", f"chmod a+r {path}")
    for folder in real.parents:
        if not reader.can(folder.stat(), bit=1):
            yield problem(f"{folder} cannot be entered by {who}", f"chmod a+x {folder}")
    if reader.owner_only and status.st_uid != reader.uid:
        yield problem(
            f"{path} does not belong to {who}: dnsmasq serves only its own files (tftp-secure)",
            f"chown {who} {path}",
        )


def _images(site: Site) -> Iterator[Problem]:
    yield from _kernels(site, _http(site))
    for number, image in enumerate(site.file.images):
        place = ("images", number)
        folder = Path(site.file.http.root, image.folder)
        yield from _not_too_large(site, folder / image.initrd, *place, "initrd")
        if image.alpine is not None:
            yield from _alpine_files(site, number)
        if image.root == "http":
            name = f"{image.folder}/root.squashfs"
            yield from _file(site, _http(site), name, _BUILD, *place, "folder")
            yield from _hash(site, folder / "root.squashfs", image.name, *place, "folder")


def _kernels(site: Site, reader: _Reader) -> Iterator[Problem]:
    for number, image in enumerate(site.file.images):
        names = [(image.kernel, "kernel")]
        if image.root != "kernel-nfs":
            names.append((image.initrd, "initrd"))
        for name, key in names:
            yield from _file(site, reader, f"{image.folder}/{name}", _BUILD, "images", number, key)


def _alpine_files(site: Site, number: int) -> Iterator[Problem]:
    image = site.file.images[number]
    if image.alpine is None:
        return
    place = ("images", number, "alpine")
    hint = "unpack Alpine's netboot archive there: docs/alpine.md"
    name = f"{image.folder}/{image.alpine.modloop}"
    # `site.load` read it already, as somebody who may see more than the server
    if (_http(site).root / name).exists():
        yield from _file(site, _http(site), name, hint, *place, "modloop")
    # placeholders name many files
    if "{" not in image.alpine.apkovl:
        name = f"{image.folder}/{image.alpine.apkovl}"
        hint = "netinstall boot apkovl --output DIR"
        yield from _file(site, _http(site), name, hint, *place, "apkovl")


def _not_too_large(site: Site, path: Path, *location: str | int) -> Iterator[Problem]:
    try:
        size = path.stat().st_size
    except OSError:
        # said already
        return
    if size > _LARGEST_INITRD:
        yield Problem(
            "site.file",
            f"{path} has {format_bytes(size)}: a boot loader cuts it off at 4 GiB",
            site.where(location),
            'make the initrd small, and the root an image of its own (root = "http" or "nfs")',
        )


def _hash(site: Site, path: Path, name: str, *location: str | int) -> Iterator[Problem]:
    expected = site.root_sha256[name]
    try:
        with path.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
    except OSError:
        # said already
        return
    if digest != expected and set(expected) != {"0"}:
        yield Problem(
            "site.file",
            f"{path} has the SHA-256 {digest}, and image.json beside it says {expected}",
            site.where(location),
            "build the image again, or copy both from the same build",
        )


def tftp_user(site: Site) -> Iterator[Problem]:
    """Look for the user of the TFTP server."""
    try:
        pwd.getpwnam(site.file.tftp.user)
    except KeyError:
        yield Problem(
            "site.file",
            f"there is no user {site.file.tftp.user} here",
            site.where(("tftp", "user")),
            "install dnsmasq, or say as whom the TFTP server runs",
        )


def _tftp_root(site: Site) -> Iterator[Problem]:
    if uses_grub(site) and site.file.grub.fetch == "tftp":
        yield from _kernels(site, _tftp(site))
    tftp = site.file.tftp
    yield from tftp_user(site)
    hint = "Debian's package ipxe has undionly.kpxe and ipxe.efi"
    yield from _file(site, _tftp(site), tftp.bios, hint, "tftp", "bios")
    if uses_grub(site) and "ipxe" not in tftp.uefi:
        hint = f"netinstall boot loader SITE --output {Path(tftp.root, tftp.uefi)}"
    problems = list(_file(site, _tftp(site), tftp.uefi, hint, "tftp", "uefi"))
    yield from problems
    if uses_grub(site) and not problems:
        yield from _grub_inside(site, Path(tftp.root, tftp.uefi), hint)
    if site.file.dhcp.mode == "full":
        hint = f"UEFI HTTP boot asks for it: copy {tftp.uefi} there"
        yield from _file(site, _http(site), tftp.uefi, hint, "tftp", "uefi")


def _grub_inside(site: Site, path: Path, hint: str) -> Iterator[Problem]:
    try:
        data = path.read_bytes()
    except OSError as error:
        yield Problem("site.file", f"{path}: {error.strerror}", site.where(("tftp", "uefi")), hint)
        return
    if loader.is_outdated(data, site):
        yield Problem(
            "site.file",
            f"{path} has a grub.cfg in it that is not what the site file says now",
            site.where(("tftp", "uefi")),
            hint,
        )


def _rendered(site: Site) -> Iterator[Problem]:
    """Compare what was rendered with what would be rendered now."""
    wanted = [("ipxe", _http(site), ("http", "root"))]
    if uses_grub(site):
        wanted.append(("grub", _tftp(site), ("tftp", "root")))
    for name, reader, location in wanted:
        try:
            files = DIALECTS[name].render(site)
        except InstallError:
            # said already
            continue
        hint = f"netinstall boot render SITE --for {name} --output {reader.root}"
        for path, text in files.items():
            problems = list(_file(site, reader, path, hint, *location))
            yield from problems
            if not problems and (reader.root / path).read_bytes() != text.encode():
                yield Problem(
                    "site.file",
                    f"{reader.root / path} is not what the site file says now",
                    site.where(location),
                    hint,
                )


def _answers(site: Site) -> Iterator[Problem]:
    places: list[tuple[str | None, Location]] = [(site.file.answers, ("answers",))]
    places += [(host.answers, ("hosts", n, "answers")) for n, host in enumerate(site.file.hosts)]
    base = site.file.http.url + "/"
    for place, location in places:
        # another server's files are not ours to look at, and placeholders name many files
        if place is None or not place.startswith(base) or set(place) & set("{%?#"):
            continue
        name = place.removeprefix(base)
        kind = stat.S_ISDIR if name.endswith("/") else stat.S_ISREG
        hint = "write it: see docs/answer-file.md"
        yield from _file(site, _http(site), name, hint, *location, kind=kind)


def _nfs_root(site: Site) -> Iterator[Problem]:
    nfs = site.file.nfs
    # on another machine, there is nothing to see here
    if nfs is None or nfs.server != site.file.tftp.address:
        return
    init = Path(nfs.path + INIT)
    if not init.is_file():
        yield Problem(
            "site.file",
            f"{nfs.path} holds no boot environment: {init} is missing",
            site.where(("nfs", "path")),
            "netinstall image build --format nfs --output DIR makes one in DIR/root",
        )


_LOOKS: Mapping[Look, Callable[[Site], Iterator[Problem]]] = {
    "images": _images,
    "tftp": _tftp_root,
    "rendered": _rendered,
    "answers": _answers,
    "nfs-root": _nfs_root,
}
