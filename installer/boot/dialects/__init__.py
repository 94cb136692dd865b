"""The dialects in which a site is written: for each, one function from the site to its files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from installer.boot.dialects import (
    dhcpd,
    dnsmasq,
    grub,
    ipxe,
    kea,
    kexec,
    netbootxyz,
    nfs,
    pixiecore,
)
from installer.boot.site import Site


@dataclass(frozen=True)
class Dialect:
    """`render` returns texts by their path below the output and raises InstallError;
    `executable` are those that are programs."""

    render: Callable[[Site], Mapping[str, str]]
    what: str
    executable: frozenset[str] = frozenset()


DIALECTS = {
    "ipxe": Dialect(ipxe.render, "iPXE scripts, for http.root"),
    "netbootxyz": Dialect(netbootxyz.render, "a menu for netboot.xyz"),
    "grub": Dialect(grub.render, "GRUB's configuration, for tftp.root"),
    "dnsmasq": Dialect(dnsmasq.render, "dnsmasq: DHCP or proxy-DHCP, and TFTP"),
    "dhcpd": Dialect(dhcpd.render, "ISC dhcpd"),
    "kea": Dialect(kea.render, "Kea's DHCPv4 server"),
    "exports": Dialect(nfs.exports, "the kernel's NFS server"),
    "ganesha": Dialect(nfs.ganesha, "nfs-ganesha"),
    "pixiecore": Dialect(
        pixiecore.render, "Pixiecore: API documents and a command", frozenset({"pixiecore-boot"})
    ),
    "kexec": Dialect(
        kexec.render,
        "a script beside kernel and initrd for a running Linux",
        frozenset({"kexec-boot"}),
    ),
}
