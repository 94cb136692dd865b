"""The NFS server: exports(5) for the kernel's, and nfs-ganesha's configuration.

Both read-only. Clients mount from any port: a boot environment may sit behind a user network.
"""

from collections.abc import Mapping

from installer.boot.site import Encoder, Site
from installer.model.site import Nfs


def exports(site: Site) -> Mapping[str, str]:
    """Write exports. Raises InstallError."""
    nfs, clients = _needed(site, "exports")
    squash = "root_squash" if nfs.root_squash else "no_root_squash"
    options = f"ro,sync,no_subtree_check,insecure,{squash}"
    return {
        "exports": "# Written by netinstall boot render.\n" + f"{nfs.path} {clients}({options})\n"
    }


def ganesha(site: Site) -> Mapping[str, str]:
    """Write ganesha.conf, for NFSv4 alone, which needs no rpcbind. Raises InstallError."""
    nfs, clients = _needed(site, "nfs-ganesha")
    squash = "Root_Squash" if nfs.root_squash else "No_Root_Squash"
    return {
        "ganesha.conf": f"""\
# Written by netinstall boot render.
NFS_CORE_PARAM {{
    Protocols = 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
NFSv4 {{
    # Nobody has anything to reclaim from a read-only export.
    Graceless = true;
    # Otherwise owners go out as names, and a client without idmapd sees 4294967294.
    Only_Numeric_Owners = true;
}}
EXPORT {{
    Export_Id = 1;
    Path = "{nfs.path}";
    Pseudo = "{nfs.path}";
    Protocols = 4;
    Transports = TCP;
    Access_Type = None;
    SecType = sys;
    FSAL {{ Name = VFS; }}
    CLIENT {{
        Clients = {clients};
        Protocols = 4;
        Access_Type = RO;
        Squash = {squash};
        PrivilegedPort = false;
    }}
}}
"""
    }


def _needed(site: Site, dialect: str) -> tuple[Nfs, str]:
    nfs = site.file.nfs
    if nfs is None:
        refused = Encoder(site, dialect, str)
        refused.refuse("the site has no NFS server", hint="add [nfs] to the site file")
        refused.done()
    assert nfs is not None  # noqa: S101 - for the type checker: done() has raised
    return nfs, nfs.clients or site.file.dhcp.subnet
