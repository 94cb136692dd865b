"""The overlay's own programs, with busybox's init as PID 1 of a namespace, as Alpine has it.

Root and modules are small squashfs images from an HTTP server; the kernel is the host's. What is
Alpine's (its initramfs, a lease) is prepared.
"""

import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from installer.boot import apkovl

pytestmark = [pytest.mark.root, pytest.mark.loop]

# $1 is the prepared system; the real one lies in memory as well. /run holds the lease.
NAMESPACE = """
mkdir "$1.memory" && mount -t tmpfs -o mode=0755 none "$1.memory" || exit
cp -a "$1/." "$1.memory" || exit
cd "$1.memory" || exit
mount -t tmpfs none run && cp "$1/run/net-eth0.conf" run && mount -t tmpfs none sys || exit
mount -t proc none proc && mount --rbind /dev dev && mount --bind "$1/console" dev/console || exit
exec chroot . /bin/busybox init
"""

# Stands for `netinstall init`: shows where it woke up, and ends the namespace.
INIT = """#!/bin/busybox sh
busybox echo "AGENT is $$ in $(busybox cat /file)"
busybox touch /written && busybox echo "writable"
busybox cat "/usr/lib/modules/$(busybox uname -r)/marker" /usr/lib/firmware/blob
busybox ls -d /init /newroot /run/net-eth0.conf /proc/self
exec busybox reboot -f
"""


@dataclass
class Alpine:
    """A prepared system, what an HTTP server has, and the kernel command line."""

    folder: Path
    url: str
    arguments: dict[str, str] = field(default_factory=dict)

    def publish(self, name: str, files: dict[str, str]) -> None:
        """Pack a squashfs, and name it and its hash on the command line."""
        argument = {"modloop": "modloop", "root": "netinstall.root"}[name]
        tree = self.folder / f"{name}-tree"
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
            (tree / path).chmod(0o755)
        if name == "root":
            # for the shell of what stands for the agent
            subprocess.run(["install", "-D", "/bin/busybox", tree / "bin/busybox"], check=True)
        image = self.folder / "http" / name
        argv = ["mksquashfs", str(tree), str(image), "-noappend", "-quiet", "-no-progress"]
        subprocess.run(argv, check=True, capture_output=True)
        self.arguments[argument] = f"{self.url}/{name}"
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        self.arguments[f"netinstall.{name}-sha256"] = digest

    def run(self) -> str:
        """Be init until the namespace ends; what was said on consoles and by programs."""
        system = self.folder / "system"
        line = " ".join(f"{name}={value}" for name, value in self.arguments.items())
        (system / "cmdline").write_text(f"{line}\n")
        namespace = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        done = subprocess.run(
            [*namespace, "sh", "-c", NAMESPACE, "sh", system],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NETINSTALL_CMDLINE": "/cmdline",
                "NETINSTALL_SYS": "/consoles",
                "NETINSTALL_DEV": "/dev",
            },
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout.replace("\r", "") + (system / "console").read_text()


@pytest.fixture
def alpine(tmp_path: Path) -> Iterator[Alpine]:
    """An Alpine whose modules and root are in order."""
    (tmp_path / "http").mkdir()
    handler = partial(_Quiet, directory=str(tmp_path / "http"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = Alpine(tmp_path, f"http://127.0.0.1:{server.server_port}")
        _prepare(tmp_path / "system")
        release = subprocess.run(["uname", "-r"], check=True, capture_output=True, text=True)
        made.publish(
            "modloop",
            {
                f"modules/{release.stdout.strip()}/marker": "modules of this kernel\n",
                "modules/firmware/blob": "firmware\n",
            },
        )
        made.publish("root", _root())
        made.arguments |= {"netinstall.on-failure": "reboot", "netinstall.failure-delay": "0"}
        yield made
        server.shutdown()


def _root(init: str = "usr/lib/netinstall/init") -> dict[str, str]:
    folders = {f"{name}/.keep": "" for name in ("dev", "proc", "sys", "run", "usr/lib/modules")}
    return {init: INIT, "file": "our root\n", **folders}


def _prepare(system: Path) -> None:
    folders = ("bin", "sbin", "usr/bin", "usr/sbin", "lib/modules", "etc", "tmp")
    for name in (*folders, "proc", "sys", "dev", "run"):
        (system / name).mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", system / "bin"], check=True)
    subprocess.run(["chroot", system, "/bin/busybox", "--install", "-s"], check=False)
    subprocess.run(["tar", "-C", system, "-xz"], input=apkovl.build(), check=True)
    # as Alpine's initramfs-init does for a serial console
    with (system / "etc/inittab").open("a") as inittab:
        inittab.write("ttyS0::respawn:/bin/busybox echo A LOGIN PROMPT\n")
    (system / "run/net-eth0.conf").write_text("DEVICE='eth0'\nIPV4ADDR='127.0.0.1'\n")
    # the real one is somebody else's; the agent's side writes there
    (system / "console").touch()
    consoles = system / "consoles/class/tty/console"
    consoles.mkdir(parents=True)
    (consoles / "active").write_text("stdout\n")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_root_becomes_the_agents_with_this_kernels_modules(alpine: Alpine) -> None:
    said = alpine.run()
    told = said.index("netinstall: the root is there. Alpine's init ends now")
    assert said[told:].partition("AGENT")[2].splitlines() == [
        " is 1 in our root",
        "writable",
        "modules of this kernel",
        "firmware",
        "ls: /init: No such file or directory",
        "ls: /newroot: No such file or directory",
        "/proc/self",
        "/run/net-eth0.conf",
    ]
    assert "A LOGIN PROMPT" not in said
    assert "error[" not in said


def test_without_a_modloop_it_goes_on_and_says_so(alpine: Alpine) -> None:
    del alpine.arguments["modloop"]
    said = alpine.run()
    assert "netinstall: no modloop=: no drivers but those that are loaded now\n" in said
    assert "AGENT is 1 in our root\nwritable\n" in said


@pytest.mark.parametrize("url", ["https://127.0.0.1/m", "/boot/modloop-lts", "nfs:1.2.3.4:/m", ""])
def test_a_modloop_that_is_no_url(alpine: Alpine, url: str) -> None:
    alpine.arguments["modloop"] = url
    assert (
        f"error[arguments]: modloop= is no http:// URL: {url}\n"
        "  where: kernel command line\n"
        "  try:   modloop=http://SERVER/modloop-lts (its hash is checked, TLS is not needed)\n"
        "netinstall: reboot in 0 s\n"
    ) in alpine.run()


@pytest.mark.parametrize("digest", ["", "5A" * 32, "5a" * 31, "$(reboot)"])
def test_a_modloop_without_a_hash(alpine: Alpine, digest: str) -> None:
    alpine.arguments["netinstall.modloop-sha256"] = digest
    said = alpine.run()
    assert "error[arguments]: netinstall.modloop-sha256= is missing or no SHA-256 (64 lower" in said
    assert "fetching" not in said


def test_a_modloop_that_was_exchanged(alpine: Alpine) -> None:
    expected = alpine.arguments["netinstall.modloop-sha256"]
    with (alpine.folder / "http/modloop").open("ab") as image:
        image.write(b"more")
    is_now = hashlib.sha256((alpine.folder / "http/modloop").read_bytes()).hexdigest()
    said = alpine.run()
    assert (
        "error[payload.hash]: the kernel modules are not those that were announced\n"
        f"  where: {alpine.url}/modloop has the SHA-256 {is_now}\n"
        f"  try:   netinstall.modloop-sha256= of the same file ({expected} was expected)\n"
    ) in said
    assert "AGENT" not in said


def test_modules_of_another_kernel(alpine: Alpine) -> None:
    tree = alpine.folder / "modloop-tree/modules"
    (release,) = (path for path in tree.iterdir() if path.name != "firmware")
    release.rename(tree / "6.6.1-0-lts")
    alpine.publish("modloop", {})
    said = alpine.run()
    assert (
        f"error[payload.format]: the modules are not for the kernel that runs, {release.name}, "
        "but for 6.6.1-0-lts\n"
        f"  where: {alpine.url}/modloop\n"
        "  try:   kernel, initramfs and modloop of the same Alpine release\n"
    ) in said


def test_a_modloop_that_is_no_squashfs(alpine: Alpine) -> None:
    image = alpine.folder / "http/modloop"
    image.write_bytes(b"x" * 8192)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    alpine.arguments["netinstall.modloop-sha256"] = digest
    assert "error[payload.format]: the kernel modules cannot be mounted: " in alpine.run()


def test_a_root_without_an_agent(alpine: Alpine) -> None:
    (alpine.folder / "root-tree/usr/lib/netinstall/init").unlink()
    alpine.publish("root", _root("sbin/init"))
    assert (
        "error[payload.format]: this root holds no agent: /usr/lib/netinstall/init is missing\n"
        f"  where: {alpine.url}/root\n"
        "  try:   a root of netinstall image build\n"
    ) in alpine.run()
