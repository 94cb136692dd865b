"""A DHCP client for as long as this machine is up: it asks again, for all, and renews.

The client is dhcpcd, told to configure nothing: the address on which the root file system may hang
is never touched, nor are routes. What it is told goes to `installer.observe.dhcpcd`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from installer.init.children import Children

FOLDER = Path("/run/netinstall/dhcp")
CONFIG = FOLDER / "dhcpcd.conf"
STARTED = FOLDER / "started"
"""The uptime in seconds and the process ID of the client."""

_HOOK = Path(__file__).with_name("dhcp-event")
_INTERFACES = Path("/sys/class/net")
_LINK_SECONDS = 5.0


def argv(config: Path = CONFIG, hook: Path = _HOOK) -> list[str]:
    """Return dhcpcd's command line; its messages go to the log that `config` names."""
    return [
        *("dhcpcd", "--nobackground", "--quiet"),
        *("--config", str(config), "--script", str(hook)),
    ]


def start(children: Children, interfaces: Path = _INTERFACES) -> Iterator[str]:
    """Take all links up and start the client; yield what went wrong, which need not be fatal."""
    for path in sorted(interfaces.iterdir()):
        # a card says only then whether there is a cable, and the kernel gives it an IPv6 address
        if (path / "device").exists():
            children.run(["ip", "link", "set", "dev", path.name, "up"], _LINK_SECONDS)
    children.run(["modprobe", "-q", "af_packet"], _LINK_SECONDS)
    try:
        client = children.start(argv())
    except OSError as error:
        yield f"dhcpcd: {error.strerror}: nobody renews the lease"
        return
    uptime = Path("/proc/uptime").read_text().split()[0]
    STARTED.write_text(f"{uptime} {client}\n")


def config(lines: Sequence[str], folder: Path = FOLDER) -> str:
    """Return dhcpcd.conf(5); `lines` are the blocks of interfaces."""
    return "".join(f"{line}\n" for line in (*_CONFIG, f"logfile {folder}/log", *lines))


_CONFIG = (
    # no address, route, MTU, host name or name server is set
    "noconfigure",
    # the address that is asked for is this machine's own already
    *("noarp", "noipv4ll"),
    # for ever: a switch, a relay or a server may be minutes late
    *("timeout 0", "nodelay"),
    # no name: a server would take the boot environment's for the machine's
    "fqdn disable",
    # no DHCP client of a boot loader says who made it
    "vendorclassid",
    "require dhcp_server_identifier",
    "option routers, classless_static_routes, domain_name_servers, domain_name, domain_search",
    "option host_name, fqdn, ntp_servers, interface_mtu, root_path",
    "option dhcp6_name_servers, dhcp6_domain_search, dhcp6_fqdn",
    "option dhcp6_ntp_server, dhcp6_sntp_servers",
)
