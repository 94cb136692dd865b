"""Whether this machine can serve the site: rights, interface, addresses, ports, programs."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

import psutil

from installer.boot.site import Site
from installer.model.errors import Problem
from installer.model.programs import SEARCH_PATH

_PACKAGES = {"dnsmasq": "dnsmasq-base", "dhcpcd": "dhcpcd-base", "unshare": "util-linux"}


@dataclass
class Preflight:
    """`problems` are all that were found; `listener` is where HTTP will be answered."""

    problems: list[Problem] = field(default_factory=list)
    listener: socket.socket | None = None


def look(site: Site, *, http_only: bool) -> Preflight:
    """Look at everything that can be looked at without asking the network."""
    found = Preflight()
    _listen(site, found)
    if http_only:
        return found
    if os.geteuid() != 0:
        found.problems.append(
            Problem(
                "serve.rights",
                "DHCP and TFTP need root: their ports, and looking for other DHCP servers",
                hint="sudo netinstall boot serve …, or --http-only beside servers that run already",
            )
        )
    found.problems += _programs()
    interface = list(_interface(site))
    found.problems += interface
    if not interface and os.geteuid() == 0:
        found.problems += _ports(site)
    return found


def has_link(interface: str) -> bool:
    """Whether a cable (or anything else at the other end) is there."""
    return "running" in psutil.net_if_stats()[interface].flags.split(",")


def _listen(site: Site, found: Preflight) -> None:
    url = urlsplit(site.file.http.url)
    where = site.where(("http", "url"))
    if url.scheme != "http":
        found.problems.append(
            Problem(
                "serve.address",
                f"{site.file.http.url} asks for TLS, which this server does not speak",
                where,
                "write http://, or serve the files by a web server of your own",
            )
        )
        return
    host, port = url.hostname or "", url.port or 80
    try:
        found.listener = socket.create_server((host, port), backlog=256)
    except OSError as error:
        found.problems.append(_not_listening(error, host, port, where))


def _not_listening(error: OSError, host: str, port: int, where: str) -> Problem:
    if error.errno == errno.EADDRINUSE:
        return _taken("TCP", host, port, where)
    if error.errno == errno.EACCES:
        return Problem(
            "serve.rights",
            f"port {port} of http.url needs root",
            where,
            "sudo netinstall boot serve …, or another port, such as 8080",
        )
    addresses = ", ".join(sorted(_addresses()))
    return Problem(
        "serve.address",
        f"{host} of http.url is no address of this machine",
        where,
        f"it has {addresses}",
    )


def _addresses(interface: str | None = None) -> set[str]:
    return {
        address.address
        for name, all_of_it in psutil.net_if_addrs().items()
        for address in all_of_it
        if address.family == socket.AF_INET and interface in (None, name)
    }


def _programs() -> Iterator[Problem]:
    for name, package in _PACKAGES.items():
        if shutil.which(name, path=SEARCH_PATH) is None:
            yield Problem(
                "tool.missing",
                f"{name} is not installed here",
                "netinstall boot serve",
                f"install Debian's package {package}",
            )


def _interface(site: Site) -> Iterator[Problem]:
    name, address = site.file.dhcp.interface, site.file.tftp.address
    where = site.where(("dhcp", "interface"))
    interfaces = psutil.net_if_stats()
    if name not in interfaces:
        yield Problem(
            "serve.interface",
            f"there is no interface {name} here",
            where,
            f"there are {', '.join(sorted(interfaces))}",
        )
        return
    if "up" not in interfaces[name].flags.split(","):
        yield Problem("serve.interface", f"{name} is down", where, f"ip link set {name} up")
    own = _addresses(name)
    subnet = IPv4Network(site.file.dhcp.subnet)
    if address not in own:
        has = ", ".join(sorted(own)) or "no IPv4 address"
        yield Problem(
            "serve.interface",
            f"{name} does not have tftp.address, {address}, but {has}",
            site.where(("tftp", "address")),
            f"ip address add {address}/{subnet.prefixlen} dev {name}",
        )
    elif IPv4Address(address) not in subnet:
        yield Problem(
            "serve.interface",
            f"{address} of {name} is not in dhcp.subnet, {subnet}: dnsmasq would answer nobody",
            site.where(("dhcp", "subnet")),
            "correct the subnet, or tftp.address",
        )


def _ports(site: Site) -> Iterator[Problem]:
    name, address = site.file.dhcp.interface, site.file.tftp.address
    asked = [("", 67), (address, 69)]
    if site.file.dhcp.mode == "proxy":
        # where firmware asks the proxy itself (PXE 2.1, 2.2.3)
        asked.append(("", 4011))
    for host, port in asked:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            # only who listens on this interface is in the way
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            try:
                trial.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                yield _taken("UDP", host or name, port, site.where(("dhcp", "interface")))


def _taken(protocol: str, place: str, port: int, where: str) -> Problem:
    holders = _holders(protocol, port)
    return Problem(
        "serve.port",
        f"{protocol} port {port} on {place} is taken by {holders or 'another program'}",
        where,
        "stop that program, or let it serve and use --http-only"
        if protocol == "UDP"
        else "stop that program, or choose another port in http.url",
    )


def _holders(protocol: str, port: int) -> str:
    """Name the programs that hold a port; "" where that cannot be seen."""
    found = set()
    try:
        for one in psutil.net_connections("udp4" if protocol == "UDP" else "tcp4"):
            if one.laddr and one.laddr.port == port and one.pid and not one.raddr:
                found.add(f"{psutil.Process(one.pid).name()} (process {one.pid})")
    except psutil.Error:
        return ""
    return ", ".join(sorted(found))
