"""Device nodes, modules, the loopback interface."""

from pathlib import Path

from installer.init import kernel
from installer.init.children import Children

_EFI = Path("/sys/firmware/efi")
_MODULES = ("loop", "vfat", "nls_cp437", "nls_ascii", "efivarfs")
"""What the kernel does not load by itself when it is needed, or too late."""

_STEPS = (
    (("/lib/systemd/systemd-udevd", "--daemon"), 30.0),
    (("udevadm", "trigger", "--type=subsystems", "--action=add"), 30.0),
    (("udevadm", "trigger", "--type=devices", "--action=add"), 30.0),
    (("modprobe", "-a", "-q", "-b", *_MODULES), 30.0),
    (("ip", "link", "set", "dev", "lo", "up"), 10.0),
    # last: drivers are loaded by then, and slow buses (SAS, USB) have had their chance
    (("udevadm", "settle", "--timeout=60"), 70.0),
)


def start(children: Children) -> list[str]:
    """Start udev and let it find all devices; return what went wrong, which need not be fatal."""
    problems = []
    for argv, seconds in _STEPS:
        wrong = children.run(argv, seconds)
        # some of the modules are built into some kernels
        if wrong is not None and argv[0] != "modprobe":
            problems.append(wrong)
    variables = _EFI / "efivars"
    if variables.is_dir() and not variables.is_mount():
        try:
            kernel.mount("efivarfs", variables, "efivarfs")
        except OSError as error:
            problems.append(f"{error}: a boot entry cannot be made")
    return problems
