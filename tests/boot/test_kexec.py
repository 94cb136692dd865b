"""`netinstall boot kexec`, and what kexec-boot does in the shells that it may meet.

kexec and systemctl are stand-ins here: the real ones would end the machine that runs the tests.
vm-tests/test_kexec.py runs the real kexec.
"""

import json
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import programs
import pytest
from processes import netinstall
from sites import MINIMAL

from installer.boot.dialects.kexec import Boot, script

SHELLS = (
    pytest.param(["dash"], id="dash"),
    pytest.param(["bash", "--posix"], id="bash"),
    # it takes its own id, whatever lies in the PATH
    pytest.param(["busybox", "sh"], id="busybox", marks=pytest.mark.root),
)
MAC = "52:54:00:00:00:07"
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
br0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth2\t00000000\t010200C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
br0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
KEXEC = """#!/bin/sh
case $1 in $REFUSED) echo "$1: Operation not permitted" >&2; exit 1 ;; esac
printf '%s\\n' "${0##*/}" "$@"
[ "$1" != --exec ] || exit 0
printf '%s\\n' "$@" >>"$LOADED"
"""


@dataclass
class Running:
    """A running system: a folder with bin, sys, proc and run, and the tree, with a space in it."""

    root: Path
    shell: list[str]

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def card(self, name: str, address: str, below: str | None = None) -> None:
        """Add a network interface; `below` is the one that it consists of, else it is a card."""
        self.write(f"sys/class/net/{name}/address", f"{address}\n")
        self.write(f"sys/class/net/{name}/type", "1\n")
        under = "device" if below is None else f"lower_{below}"
        self.root.joinpath("sys/class/net", name, under).mkdir()

    def boot(
        self, boot: Boot, *arguments: str, refused: str = "none"
    ) -> subprocess.CompletedProcess[str]:
        text = script(boot)
        # so that no test can find a real kexec
        folders = "PATH=$PATH:/usr/sbin:/sbin\n"
        assert text.count(folders) == 1
        path = self.write("the tree/kexec-boot", text.replace(folders, ""))
        return subprocess.run(
            [*self.shell, path, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={
                "PATH": str(self.root / "bin"),
                "REFUSED": refused,
                "LOADED": str(self.root / "loaded"),
                **{
                    f"NETINSTALL_{name.upper()}": str(self.root / name)
                    for name in ("sys", "proc", "run")
                },
            },
            timeout=30,
        )

    def loaded(self) -> list[str]:
        return (self.root / "loaded").read_text().splitlines()


@pytest.fixture(params=SHELLS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Running:
    """A system with 512 MiB, two cards and a bridge over the second, which has the default route.

    `id` says that it is root, whoever runs the tests.
    """
    name, *options = request.param
    made = Running(tmp_path, [f"/bin/{name}", *options])
    for tool in ("dirname", "sed", "sync", "tr"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    for tool in ("kexec", "systemctl"):
        made.write(f"bin/{tool}", KEXEC).chmod(0o755)
    made.write("bin/id", "#!/bin/sh\necho 0\n").chmod(0o755)
    made.write("proc/meminfo", "MemTotal:         478000 kB\nMemFree:           1 kB\n")
    made.write("proc/net/route", ROUTES)
    made.card("eth0", MAC)
    made.card("eth1", "52:54:00:00:00:08")
    made.card("br0", "02:00:00:00:00:99", below="eth0")
    for file in ("bzImage", "initrd.gz"):
        made.write(f"the tree/{file}", "")
    return made


def test_it_says_what_to_install(running: Running) -> None:
    (running.root / "bin/kexec").unlink()
    done = running.boot(Boot("the installer", "a=1"))
    assert done.returncode == 127
    assert done.stderr == (
        "kexec-boot: there is no kexec here. Install the package kexec-tools:\n"
        "  apt-get install kexec-tools, dnf install kexec-tools, apk add kexec-tools,\n"
        "  pacman -S kexec-tools, or on NixOS: nix-shell -p kexec-tools\n"
    )


def test_it_loads_and_leaves(running: Running) -> None:
    done = running.boot(Boot("the installer", "a=$HOME b='x'", memory_mib=512), "extra=1", "quiet")
    here = running.root / "the tree"
    # the card below the bridge, which is all that the next kernel will see
    assert running.loaded() == [
        "-s",
        "--load",
        f"{here}/bzImage",
        f"--initrd={here}/initrd.gz",
        "--command-line=BOOTIF=01-52-54-00-00-00-07 a=$HOME b='x' extra=1 quiet",
    ]
    assert (done.returncode, done.stdout) == (0, "kexec\n--exec\n")
    assert done.stderr == (
        "kexec-boot: leaving the running system; the installer goes on at its consoles\n"
    )


def test_systemd_stops_the_system_first(running: Running) -> None:
    running.write("run/systemd/system/x", "")
    assert running.boot(Boot("the installer", "a=1")).stdout == "systemctl\nkexec\n"


def test_a_dry_run_loads_nothing(running: Running) -> None:
    done = running.boot(Boot("the installer", "a='x'", with_initrd=False), "--dry-run", "b=2")
    load, leave = done.stdout.splitlines()
    assert shlex.split(load) == [
        *("kexec", "-s", "--load", f"{running.root}/the tree/bzImage"),
        "--command-line=BOOTIF=01-52-54-00-00-00-07 a='x' b=2",
    ]
    assert leave == "kexec --exec"
    assert not (running.root / "loaded").exists()


@pytest.mark.parametrize("given", ["BOOTIF=01-52-54-00-00-00-08", "ip=:::::eth1:dhcp"])
def test_a_card_that_was_named_stays(running: Running, given: str) -> None:
    running.boot(Boot("the installer", "a=1"), given)
    assert running.loaded()[-1] == f"--command-line=a=1 {given}"


def test_asking_dhcp_names_no_card(running: Running) -> None:
    running.boot(Boot("the installer", "a=* ip=dhcp http://x:1/"))
    assert running.loaded()[-1] == (
        "--command-line=BOOTIF=01-52-54-00-00-00-07 a=* ip=dhcp http://x:1/"
    )


def test_a_bond_hides_the_address_of_its_cards(running: Running) -> None:
    running.write("proc/net/route", ROUTES.replace("br0", "bond0"))
    running.card("bond0", MAC, below="eth1")
    running.write("sys/class/net/eth1/bonding_slave/perm_hwaddr", "52:54:00:00:00:aa\n")
    running.boot(Boot("the installer", "a=1"))
    assert running.loaded()[-1] == "--command-line=BOOTIF=01-52-54-00-00-00-aa a=1"


def test_without_a_default_route_any_card_will_do(running: Running) -> None:
    running.write("proc/net/route", ROUTES.splitlines()[0] + "\n")
    done = running.boot(Boot("the installer", "a=1"))
    assert running.loaded()[-1] == "--command-line=a=1"
    assert "no card has the default route: any that has a link will do" in done.stderr


def test_an_older_kernel_or_an_unsigned_image(running: Running) -> None:
    running.boot(Boot("the installer", "a=1"), refused="-s")
    assert running.loaded()[0] == "-c"


def _refused(running: Running, boot: Boot, *arguments: str, refused: str = "none") -> str:
    done = running.boot(boot, *arguments, refused=refused)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert not (running.root / "loaded").exists()
    return done.stderr


def test_what_the_kernel_says_is_shown(running: Running) -> None:
    assert _refused(running, Boot("the installer", "a=1"), refused="-?") == (
        "kexec-boot: the kernel could not be loaded:\n"
        "  kexec -s: -s: Operation not permitted\n"
        "  kexec -c: -c: Operation not permitted\n"
    )
    running.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    assert _refused(running, Boot("the installer", "a=1"), refused="-?") == (
        "kexec-boot: this system is locked down (Secure Boot): it wants a kernel signed by its "
        "vendor:\n"
        "  kexec -s: -s: Operation not permitted\n"
        "  switch Secure Boot off, or boot from the network: see docs/kexec.md\n"
    )


def test_what_cannot_work_is_refused(running: Running) -> None:
    boot = Boot("the installer", "a=1", memory_mib=768)
    assert _refused(running, boot).startswith(
        "kexec-boot: this machine has 466 MiB of memory; 768 are needed\n"
    )
    boot = Boot("the installer", "a=1", mac="52:54:00:00:00:99")
    assert _refused(running, boot).startswith(
        "kexec-boot: this was made for the machine with the network card 52:54:00:00:00:99, and "
        "here is none\n"
    )
    boot = Boot("the installer", "a=1")
    assert "unknown option --dry" in _refused(running, boot, "--dry")
    assert "have 2132 bytes, and the kernel keeps 2047" in _refused(running, boot, "x" * 2100)
    if running.shell[0] != "/bin/busybox":
        running.write("bin/id", "#!/bin/sh\necho 1000\n")
        assert "only root may load a kernel: sudo " in _refused(running, boot)
        running.write("bin/id", "#!/bin/sh\necho 0\n")
    running.write("proc/sys/kernel/kexec_load_disabled", "1\n")
    assert _refused(running, boot).startswith("kexec-boot: this system forbids kexec until it is")
    (running.root / "the tree/initrd.gz").unlink()
    assert _refused(running, boot) == (
        f"kexec-boot: {running.root}/the tree/initrd.gz is missing: it belongs beside this script\n"
    )


def test_the_machine_that_it_is_for(running: Running) -> None:
    running.boot(Boot("the installer", "a=1", mac="52:54:00:00:00:08"))
    assert running.loaded()[-1] == "--command-line=BOOTIF=01-52-54-00-00-00-08 a=1"


@pytest.mark.parametrize("with_initrd", [True, False])
def test_shellcheck_accepts_it(tmp_path: Path, with_initrd: bool) -> None:
    path = tmp_path / "kexec-boot"
    path.write_text(script(Boot("the installer", "a='@MEMORY@'", with_initrd=with_initrd)))
    assert programs.shellcheck(path) == ""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with an image of two small files, and two hosts."""
    image = tmp_path / "http/image"
    image.mkdir(parents=True)
    (image / "vmlinuz").write_bytes(b"kernel")
    (image / "initrd").write_bytes(b"\x28\xb5\x2f\xfd")
    about = {"files": {"root.squashfs": {"sha256": "5a" * 32}}, "memory_mib": {"squashfs": 256}}
    (image / "image.json").write_text(json.dumps(about))
    tables = {
        "http": {"url": "http://192.0.2.1", "root": str(tmp_path / "http")},
        "images": [
            {"name": "one", "folder": "image"},
            {"name": "kernel", "folder": "image", "root": "kernel-nfs"},
        ],
        "nfs": {"server": "192.0.2.1", "path": "/srv/root"},
        "hosts": [
            {"mac": MAC, "hostname": "rack7", "answers": "http://192.0.2.1/rack7.toml"},
            {"uuid": "4c4c4544-0042-3510-8052-b4c04f4e3132", "image": "kernel"},
        ],
    }
    path = tmp_path / "site.json"
    path.write_text(json.dumps(MINIMAL | tables))
    return path


def _setting(text: str, name: str) -> str:
    return shlex.split(text.partition(f"\n{name}=")[2].partition("\n")[0])[0]


def test_a_tree_for_any_machine(site: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    # again, over what is there
    for _ in range(2):
        done = netinstall("boot", "kexec", site, "--output", tree, before=[])
        assert (done.returncode, done.stderr) == (
            0,
            f"{tree}: run kexec-boot of it, as root, on the machine that is to be installed\n",
        )
    assert sorted(path.name for path in tree.iterdir()) == ["bzImage", "initrd.gz", "kexec-boot"]
    assert (tree / "bzImage").samefile(tmp_path / "http/image/vmlinuz")
    assert (tree / "kexec-boot").stat().st_mode & 0o777 == 0o755
    text = (tree / "kexec-boot").read_text()
    assert _setting(text, "memory") == "256"
    assert "netinstall.answers=http://192.0.2.1/answers/ " in _setting(text, "arguments")


def test_an_archive_for_one_machine(site: Path, tmp_path: Path) -> None:
    for name in ("rack7", MAC, MAC.replace(":", "-").upper()):
        archive = tmp_path / "out/rack 7.tar"
        done = netinstall("boot", "kexec", site, "--output", archive, "--host", name, before=[])
        assert done.returncode == 0, done.stderr
        with tarfile.open(archive) as tar:
            assert {one.name: (one.mode, one.isreg()) for one in tar} == {
                "rack 7/bzImage": (0o644, True),
                "rack 7/initrd.gz": (0o644, True),
                "rack 7/kexec-boot": (0o755, True),
            }
            tar.extractall(tmp_path)  # noqa: S202 - our own
        text = (tmp_path / "rack 7/kexec-boot").read_text()
        assert _setting(text, "card") == MAC
        assert "netinstall.answers=http://192.0.2.1/rack7.toml " in _setting(text, "arguments")
        assert (tmp_path / "rack 7/bzImage").read_bytes() == b"kernel"


def test_a_kernel_that_mounts_its_root_needs_no_initrd(site: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    uuid = "4C4C4544-0042-3510-8052-B4C04F4E3132"
    done = netinstall("boot", "kexec", site, "--output", tree, "--host", uuid, before=[])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tree.iterdir()) == ["bzImage", "kexec-boot"]


def test_mistakes(site: Path, tmp_path: Path) -> None:
    done = netinstall("boot", "kexec", site, "--output", tmp_path, "--host", "rack8", before=[])
    assert done.returncode == 2
    assert done.stderr == (
        "error[arguments]: the site file has no host 'rack8'\n"
        "  where: netinstall boot kexec --host\n"
        "  try:   one of rack7, 4c4c4544-0042-3510-8052-b4c04f4e3132; without --host, what any "
        "other machine boots\n"
    )
    (tmp_path / "file").touch()
    done = netinstall("boot", "kexec", site, "--output", tmp_path / "file", before=[])
    assert done.returncode == 2
    assert f"error[arguments]: {tmp_path}/file cannot be written: File exists\n" in done.stderr
    (tmp_path / "http/image/vmlinuz").unlink()
    (tmp_path / "http/image/initrd").unlink()
    done = netinstall("boot", "kexec", site, "--output", tmp_path / "tree", before=[])
    assert done.returncode == 2
    assert done.stderr.count("error[site.file]: ") == 2
    assert f"{tmp_path}/http/image/initrd is missing or no regular file\n" in done.stderr
    assert "  where: " + str(site) + ":1:" in done.stderr
    assert "  try:   build it there: netinstall image build --output DIR\n" in done.stderr
