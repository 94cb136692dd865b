"""A read-only NFS server in user space, nfs-ganesha: needs root, and no NFS in the kernel."""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.network import Network


class NfsServer(process.Server):
    """Serves one directory as `/root` over NFSv4 (4.1, 4.2), which needs no rpcbind.

    Guests mount `address:/root` with `port` from `options`. Leaving the context kills it: ganesha
    may ignore SIGTERM for a minute.
    """

    def __init__(self, network: Network, directory: Path, folder: Path) -> None:
        """Logs and state are kept in `folder`. Raises ConsoleError when it does not start."""
        with network.listen() as free:
            self.port: int = free.getsockname()[1]
            bind: str = free.getsockname()[0]
        self.address = network.server_address
        state = folder / "ganesha"
        state.mkdir(parents=True, exist_ok=True)
        config = state / "ganesha.conf"
        config.write_text(ganesha_config(directory.resolve(), bind, self.port, state))
        super().__init__(
            "ganesha",
            [
                *("ganesha.nfsd", "-F", "-L", "STDERR", "-N", "NIV_EVENT"),
                *("-f", str(config), "-p", str(state / "pid")),
            ],
            folder / "ganesha.log",
            ready="NFS SERVER INITIALIZED",
            prefix=network.prefix,
        )

    @property
    def source(self) -> str:
        """What a guest mounts, "10.0.2.2:/root"."""
        return f"{self.address}:/root"

    @property
    def options(self) -> str:
        """The mount options that a guest needs (nfs(5))."""
        return f"ro,vers=4.1,proto=tcp,port={self.port}"


def ganesha_config(directory: Path, bind: str, port: int, state: Path) -> str:
    """ganesha's configuration (ganesha-config(8), ganesha-core-config(8))."""
    return f"""\
NFS_CORE_PARAM {{
    Protocols = 4;
    NFS_Port = {port};
    Bind_addr = {bind};
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
NFSv4 {{
    # Clients need not wait for those of an earlier run to come back.
    Graceless = true;
    # Otherwise owners go out as names, and a guest without idmapd sees 4294967294.
    Only_Numeric_Owners = true;
    RecoveryRoot = "{state}";
}}
EXPORT {{
    Export_Id = 1;
    Path = "{directory}";
    Pseudo = "/root";
    Protocols = 4;
    Transports = TCP;
    Access_Type = RO;
    Squash = No_Root_Squash;
    SecType = sys;
    # Guests behind the user network come from an unprivileged port of the host.
    PrivilegedPort = false;
    FSAL {{ Name = VFS; }}
}}
"""
