"""An initrd's world in a folder, and the shells that run the library in it."""

import shutil
import subprocess
from pathlib import Path

HOOKS = Path(__file__).parents[2] / "initrd-hooks"
LIBRARY = HOOKS / "lib/netinstall.sh"
SHELLS = {"dash": ("dash",), "ash": ("busybox", "ash"), "bash": ("bash",)}


class Initrd:
    """An initrd's world in a folder: command line, sysfs, consoles, leases."""

    def __init__(self, folder: Path, shell: tuple[str, ...]) -> None:
        self.folder = folder
        self.shell = shell
        for name in ("run", "dev", "sys/class/tty/console", "sys/class/net"):
            (folder / name).mkdir(parents=True)
        for name in ("tty0", "ttyS0"):
            (folder / "dev" / name).touch()
        (folder / "sys/class/tty/console/active").write_text("tty0 ttyS0\n")
        self.arguments("")

    def arguments(self, text: str) -> None:
        (self.folder / "cmdline").write_text(f"BOOT_IMAGE=/vmlinuz {text} quiet\n")

    def lease(self, text: str) -> None:
        (self.folder / "run/net-eth0.conf").write_text(text)

    def interface(self, name: str, address: str, *, kind: int = 1, carrier: str = "1") -> None:
        path = self.folder / "sys/class/net" / name
        path.mkdir()
        for file, text in (("address", address), ("type", str(kind)), ("carrier", carrier)):
            (path / file).write_text(f"{text}\n")

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script that has read the library; "$@" are the arguments."""
        return subprocess.run(
            [*self.shell, "-c", f'set -u\n. "{LIBRARY}"\n{script}', "sh", *arguments],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NETINSTALL_CMDLINE": str(self.folder / "cmdline"),
                "NETINSTALL_SYS": str(self.folder / "sys"),
                "NETINSTALL_RUN": str(self.folder / "run"),
                "NETINSTALL_DEV": str(self.folder / "dev"),
                "NETINSTALL_RESOLV_CONF": str(self.folder / "resolv.conf"),
            },
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def forget(self) -> None:
        """Start with what is in the folder now, but for consoles and the root of the test."""
        shutil.rmtree(self.folder / "root", ignore_errors=True)
        shutil.rmtree(self.folder / "run")
        (self.folder / "run").mkdir()
        for path in (self.folder / "dev").iterdir():
            path.write_text("")

    def said(self) -> str:
        """What is on the consoles, which must all have got the same."""
        texts = {(self.folder / "dev" / name).read_text() for name in ("tty0", "ttyS0")}
        assert len(texts) == 1
        return texts.pop().replace("\r\n", "\n")
