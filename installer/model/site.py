"""The site file: one description of a network from which machines boot, and of its hosts.

The field names are kebab-case in the file and snake_case here. `netinstall schema --site` prints
the JSON Schema of `SiteFile`. Free text is printable ASCII here; what one dialect cannot write
beyond that is refused by `installer.boot.dialects.encoding`.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from installer.model.fields import HostName, Strict

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


def _form(pattern: str, what: str, value: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(what)
    return value


def _ipv4(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError(
            "write an IPv4 address such as 192.0.2.1; a name is not understood everywhere here"
        ) from None


def _subnet(value: str) -> str:
    try:
        network = IPv4Network(value)
    except ValueError:
        network = None
    if network is None or "/" not in value or not 8 <= network.prefixlen <= 30:
        raise ValueError("write a subnet such as 192.0.2.0/24: its first address and a prefix")
    return str(network)


def _mac(value: str) -> str:
    mac = value.lower().replace("-", ":")
    return _form(
        r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}",
        "write a network card's address such as 52:54:00:12:34:56 (no multicast address)",
        mac,
    )


def _uuid(value: str) -> str:
    shape = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    return str(
        UUID(_form(shape, "write a UUID such as `cat /sys/class/dmi/id/product_uuid`", value))
    )


def _domain(value: str) -> str:
    return _form(
        rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", "write a domain such as example.net", value
    )


def _interface(value: str) -> str:
    return _form(
        # a colon would name an alias, and dnsmasq takes * as a wildcard
        r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}",
        "an interface's name has at most 15 letters, digits and _ . -",
        value,
    )


def _base_url(value: str) -> str:
    return _form(
        # RFC 3986 without user, query and fragment: file names are appended
        r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
        r"(?:/[A-Za-z0-9._~@%+-]+)*",
        "write a URL such as http://192.0.2.1:8080/boot, without a slash at its end",
        value,
    )


def _printable(value: str) -> str:
    return _form(r"[ -~]+", "use printable ASCII characters: boot loaders know no others", value)


def _folder(value: str) -> str:
    if not _printable(value).startswith("/"):
        raise ValueError("write an absolute path")
    if any(part in ("", ".", "..") for part in value[1:].split("/")) and value != "/":
        raise ValueError("write the path without //, /./, /../ and a slash at its end")
    return value


def _below(value: str) -> str:
    if any(part in ("", ".", "..") for part in _printable(value).split("/")):
        raise ValueError("write a path below the root: no slash first or last, no . and ..")
    return value


def _argument(value: str) -> str:
    return _form(
        r"[!#-~]+",
        "a kernel argument is printable ASCII without spaces and double quotes: "
        "both kernel and initrd split at spaces",
        value,
    )


def _answers(value: str) -> str:
    return _form(
        r"(?:https?://|nfs:|file:|/)[!#-~]+",
        "write where the answer file is: http(s)://…, nfs:SERVER:/…, or a path in the image",
        value,
    )


def _export(value: str) -> str:
    return _form(
        r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._@+-]+)+",
        "an exported path is absolute, of letters, digits and . _ @ + -, without . and ..",
        value,
    )


def _option(value: str) -> str:
    return _form(r"[A-Za-z0-9=._:-]+", "write one mount option, such as vers=4.1", value)


def _apkovl(value: str) -> str:
    _form(
        # {MAC} and {UUID} are replaced once (mkinitfs, initramfs-init); the rest has to survive
        # its sed and a URL
        r"(?!.*\{MAC\}.*\{MAC\})(?!.*\{UUID\}.*\{UUID\})"
        r"(?:[A-Za-z0-9_-](?:[A-Za-z0-9._-]|\{MAC\}|\{UUID\})*/)*"
        r"(?:[A-Za-z0-9_-]|\{MAC\}|\{UUID\})(?:[A-Za-z0-9._-]|\{MAC\}|\{UUID\})*\.apkovl\.tar\.gz",
        "write a file below the image's folder such as netinstall.apkovl.tar.gz: letters, digits, "
        "._- and {MAC} or {UUID}, each once",
        value,
    )
    return value


def _alpine_nfs(value: str) -> str:
    what = "write SERVER:/PATH with the server's IPv4 address"
    server, _, path = _form(r"[0-9.]+:/[A-Za-z0-9._/@+-]*", what, value).partition(":")
    return f"{_ipv4(server)}:{path}"


Ipv4 = Annotated[str, AfterValidator(_ipv4)]
Subnet = Annotated[str, AfterValidator(_subnet)]
Mac = Annotated[str, AfterValidator(_mac)]
Uuid = Annotated[str, AfterValidator(_uuid)]
Domain = Annotated[str, AfterValidator(_domain)]
Interface = Annotated[str, AfterValidator(_interface)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Folder = Annotated[str, AfterValidator(_folder)]
Below = Annotated[str, AfterValidator(_below)]
Argument = Annotated[str, AfterValidator(_argument)]
AnswersPlace = Annotated[str, AfterValidator(_answers)]
ExportPath = Annotated[str, AfterValidator(_export)]
Apkovl = Annotated[str, AfterValidator(_apkovl)]
AlpineNfs = Annotated[str, AfterValidator(_alpine_nfs)]
MountOption = Annotated[str, AfterValidator(_option)]
Name = Annotated[
    str,
    AfterValidator(
        lambda value: _form(r"[A-Za-z0-9_-]{1,40}", "a name is letters, digits, _ and -", value)
    ),
]


class Http(Strict):
    """The HTTP server: images, scripts and answer files."""

    url: BaseUrl = Field(description="what clients call `root`, without a slash at its end")
    root: Folder = Field(description="the folder that the server publishes")


class Tftp(Strict):
    """The TFTP server: the first boot loader, and what GRUB reads."""

    address: Ipv4
    root: Folder = Field(description="the folder that the server publishes")
    user: Name = Field(
        "dnsmasq", description="whom the daemon runs as; in secure mode it must own the files"
    )
    bios: Below = Field("undionly.kpxe", description="boot loader for BIOS, below `root`")
    uefi: Below = Field(
        "ipxe.efi",
        description="boot loader for 64-bit UEFI, below `root` (and below http.root for HTTP boot)",
    )


class Nfs(Strict):
    """The NFS server, for images with `root = "nfs"`, "lease" or "kernel-nfs"."""

    server: Ipv4 = Field(description="literal address: the kernel's NFS client knows no names")
    path: ExportPath = Field(description="the exported root: `root` of an image with --format nfs")
    clients: Subnet | None = Field(None, description="who may mount it; without, dhcp.subnet")
    root_squash: bool = Field(True, description="root on a client is nobody on the server")
    mount_options: list[MountOption] = Field(
        default_factory=list, description="options of nfs(5) for the client"
    )


class Range(Strict):
    """Addresses that are handed out, both inclusive."""

    first: Ipv4
    last: Ipv4


class Dhcp(Strict):
    """What the DHCP server says."""

    mode: Literal["full", "proxy"] = Field(
        "full", description="proxy: beside a DHCP server that cannot be changed (dnsmasq only)"
    )
    interface: Interface = Field(description="where it listens")
    subnet: Subnet
    range: Range | None = Field(None, description="for machines that are not named under hosts")
    router: Ipv4 | None = None
    dns: list[Ipv4] = Field(default_factory=list, max_length=10)
    ntp: list[Ipv4] = Field(default_factory=list, max_length=10)
    domain: Domain | None = None
    lease_seconds: int = Field(43200, ge=120, le=31536000)

    @model_validator(mode="after")
    def _range_or_proxy(self) -> Self:
        if self.mode == "full" and self.range is None:
            raise ValueError("say which addresses it may hand out (range)")
        if self.mode == "proxy" and self.range is not None:
            raise ValueError("a proxy hands out no addresses: leave range out")
        return self


class Alpine(Strict):
    """Kernel and initrd of an image are Alpine Linux's, which starts ours (docs/alpine.md)."""

    repository: BaseUrl | None = Field(
        None, description="alpine_repo=: where its packages are, such as …/alpine/v3.22/main"
    )
    modloop: Below = Field("modloop-lts", description="the kernel's modules, below `folder`")
    apkovl: Apkovl = Field(
        "netinstall.apkovl.tar.gz",
        description="below `folder`, as netinstall boot apkovl makes it; {MAC} and {UUID} are "
        "those of the machine",
    )
    nfs: AlpineNfs | None = Field(
        None, description="alpine_dev=nfs:…: packages on NFS, for mkinitfs before 3.0 only"
    )

    @model_validator(mode="after")
    def _packages(self) -> Self:
        if self.repository is None and self.nfs is None:
            raise ValueError("say where Alpine's packages are: repository")
        return self


class Image(Strict):
    """A boot environment, as `netinstall image build` leaves it in a folder."""

    name: Name
    folder: Below = Field(description="below http.root, and below tftp.root where TFTP fetches it")
    kernel: Below = Field("vmlinuz", description="file in the folder")
    initrd: Below = Field("initrd", description="file in the folder")
    root: Literal["http", "nfs", "lease", "kernel-nfs"] = Field(
        "http",
        description="http: root.squashfs of the folder; nfs: what [nfs] says; "
        "lease: the root path (option 17) of the DHCP server; "
        "kernel-nfs: [nfs], mounted by a kernel that can do it without an initrd",
    )
    alpine: Alpine | None = Field(
        None, description="kernel and initrd are Alpine's; the root is that of the folder as ever"
    )

    @model_validator(mode="after")
    def _alpine_has_an_initrd(self) -> Self:
        if self.alpine is not None and self.root == "kernel-nfs":
            raise ValueError("Alpine needs its initrd: root is http, nfs or lease")
        return self


class Kernel(Strict):
    """Kernel arguments for all hosts."""

    arguments: list[Argument] = Field(default_factory=list)


class Serial(Strict):
    """A serial console, 8 data bits and one stop bit."""

    unit: int = Field(0, ge=0, le=3, description="0 is ttyS0")
    speed: Literal[9600, 19200, 38400, 57600, 115200] = Field(115200, description="bits a second")
    parity: Literal["none", "odd", "even"] = "none"


class Grub(Strict):
    """How GRUB gets its files."""

    fetch: Literal["tftp", "http"] = Field("tftp", description="for kernel and initrd")
    server: Literal["loader", "option-66"] = Field(
        "loader",
        description="the TFTP server: from what the firmware's PXE left, or by net_bootp",
    )
    interface: Annotated[
        str,
        AfterValidator(
            lambda value: _form(r"efinet[0-9]{1,2}", "write efinet and a number", value)
        ),
    ] = Field("efinet0", description="asked with server = option-66")


class Host(Strict):
    """A machine that is known beforehand. It is recognised by its MAC address or UUID."""

    mac: Mac | None = None
    uuid: Uuid | None = None
    ip: Ipv4 | None = None
    hostname: HostName | None = None
    answers: AnswersPlace | None = Field(None, description="its answer file")
    image: Name | None = Field(None, description="name of an image; without, the first")
    arguments: list[Argument] = Field(
        default_factory=list, description="kernel arguments of this host, after those of all"
    )

    @model_validator(mode="after")
    def _recognised(self) -> Self:
        if self.mac is None and self.uuid is None:
            raise ValueError("say by what it is recognised: mac, uuid or both")
        if self.mac is None and (self.ip or self.hostname):
            raise ValueError("ip and hostname need a mac: a DHCP server knows machines by it")
        return self


class SiteFile(Strict):
    """A site that boots Netinstall over the network."""

    model_config = ConfigDict(title="Netinstall site file")

    version: Literal[1] = Field(description="version of this format")
    http: Http
    tftp: Tftp
    nfs: Nfs | None = None
    dhcp: Dhcp
    answers: AnswersPlace | None = Field(None, description="answer file (or folder) of all hosts")
    images: Annotated[list[Image], Field(min_length=1)] = Field(
        description="the first is for every machine that names none"
    )
    kernel: Kernel = Field(default_factory=lambda: Kernel.model_validate({}))
    serial: Serial | None = Field(None, description="without, the console is the screen")
    grub: Grub = Field(default_factory=lambda: Grub.model_validate({}))
    hosts: list[Host] = Field(default_factory=list)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = [image.name for image in self.images]
        for name in sorted(set(names)):
            if names.count(name) > 1:
                raise ValueError(f"two images have the name {name}")
        for number, host in enumerate(self.hosts):
            if host.image is not None and host.image not in names:
                raise ValueError(f"hosts[{number}].image: there is no image named {host.image}")
        for image in self.images:
            if image.root in ("nfs", "lease", "kernel-nfs") and self.nfs is None:
                raise ValueError(f'the image {image.name} has root = "{image.root}": add [nfs]')
        return self

    def image_of(self, host: Host | None) -> Image:
        """Return what a host boots; None stands for a machine that is not named.

        Raises:
            KeyError: the host names an image that does not exist.
        """
        if host is None or host.image is None:
            return self.images[0]
        return {image.name: image for image in self.images}[host.image]


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the site file."""
    schema = SiteFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
