"""What programs know of the network that no file says: a running dhcpcd, lldpd."""

from pathlib import Path

from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.observe.dhcpcd import FOLDER
from installer.observe.lease_values import is_interface
from installer.observe.machine import Said

_SECONDS = 10.0
_LEASES = Path("/var/lib/dhcpcd")
_LLDPD = Path("/run/lldpd.socket")
_OURS = Path("/", FOLDER, "started")


def ask(runner: Runner) -> Said:
    """Ask those that are there; one that does not answer knows nothing."""
    names = [path.name.removesuffix(".lease") for path in sorted(_LEASES.glob("*.lease"))]
    if _OURS.exists():
        # what our init's says is in files
        names = []
    return Said(
        leases={
            name: said
            for name in names
            if is_interface(name)
            and Path("/sys/class/net", name).exists()
            and (said := _said(runner, ["dhcpcd", "-4", "-U", name]))
        },
        lldp=_said(runner, ["lldpctl", "-f", "json0"]) if _LLDPD.exists() else "",
    )


def _said(runner: Runner, argv: list[str]) -> str:
    try:
        return runner.run(argv, timeout=_SECONDS, capture=True)
    except InstallError:
        return ""
