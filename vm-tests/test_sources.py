"""Every source installs, and what is on the disk then is what the source held.

The sample system, and beside it whatever is hard to keep: links, owners, modes, attributes,
capabilities, holes, times, names. (A packed payload over HTTP: test_payload.py.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import answers, disk, image, process, report, sample, signing, trees
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import Dhcp, UserNetwork
from lab.trees import Snapshot
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

WRITTEN = (
    # the boot loader
    "boot",
    # nixos-generate-config, and what stands beside its file
    "etc/nixos/hardware-configuration.nix",
    "etc/nixos/networking.nix",
    "etc/nixos/boot-device.nix",
    # Nix: its database takes the registration, the profile gets a generation
    "nix-path-registration",
    "nix/store/.links",
    "nix/var/nix/db",
    "nix/var/nix/gc.lock",
    "nix/var/nix/gcroots",
    "nix/var/nix/profiles/system",
    "nix/var/nix/profiles/system-1-link",
    "nix/var/nix/temproots",
    "nix/var/nix/userpool",
    "nix/var/log",
    # what programs in the target want to have, the log, and ext4's own
    *("dev", "proc", "root", "run", "sys", "tmp", "var", "lost+found"),
)
"""What the installation itself writes; nothing else may differ."""

TIMED = (
    *("", "etc", "etc/NIXOS", "etc/nixos", "nix/store", "nix/var", "nix/var/nix"),
    *("nix/var/nix/profiles", "nix/var/nix/profiles/per-user"),
)
"""Of these only the time may differ: something was written in them, or etc/NIXOS touched."""

MAC = "52:54:00:00:00:07"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample system's tree, with an odd one in it."""
    root = sample.unpacked(tmp_path_factory.mktemp("sources") / "system")
    trees.odd_tree(root / "odd")
    # a squashfs counts seconds from 1970 on
    os.utime(root / "odd/sparse", (5, 5))
    return root


@pytest.fixture(scope="module")
def before(system: Path) -> Snapshot:
    return trees.snapshot(system)


def machine(bench: Bench, server: BootServer) -> Vm:
    return Vm(
        memory=1024,
        disks=(bench.disk("4G", serial="netinstall-root"),),
        nics=(Nic(UserNetwork(bootfile=server.ipxe())),),
    )


def install(bench: Bench, server: BootServer, vm: Vm, payload: str) -> None:
    server.answers(answers.from_source(payload))
    booted = bench.boot(vm)
    booted.console.expect(r"INSTALLED in", 400, fail_on=[r"INSTALLATION FAILED"])
    assert booted.wait_for_exit(60) == "reboot"


@contextmanager
def installed(vm: Vm) -> Iterator[Path]:
    """The tree of the root file system as the machine left it."""
    target = vm.disks[0].image
    with disk.mounted(target, disk.table(target).partitions[-1], "ext4") as root:
        yield root


def require_equal(
    vm: Vm, before: Snapshot, judged: Callable[[Snapshot], Snapshot] = lambda tree: tree
) -> None:
    with installed(vm) as root:
        found = judged(trees.snapshot(root))
    trees.require_equal(before, found, written=WRITTEN, timed=TIMED)


def require_running(bench: Bench, vm: Vm) -> None:
    up = report.wait(bench.boot(vm.without_network_boot()).console, 180)
    assert up["configured_from"] == "prebuilt"
    assert up["nix"]["verify"] == "ok"
    assert up["nix"]["valid_paths"] > 0


@pytest.mark.parametrize(
    "compression", ["gzip -1", pytest.param("xz -1 -T2", marks=pytest.mark.slow)]
)
def test_a_plain_tarball(
    bench: Bench, tmp_path: Path, system: Path, before: Snapshot, compression: str
) -> None:
    archive = tmp_path / "system.tar"
    tar = ["tar", "-C", str(system), "--format=posix", "--numeric-owner", "--acls"]
    tar += [
        "--sparse",
        "--xattrs",
        "--xattrs-include=*",
        "-I",
        compression,
        "-cf",
        str(archive),
        ".",
    ]
    process.run(tar, 300)
    server = BootServer(bench.web, payload=archive)
    vm = machine(bench, server)
    install(bench, server, vm, '[payload]\nurl = "@URL@"\nsha256 = "@SHA256@"')
    require_equal(vm, before)
    require_running(bench, vm)


def squashfs(source: Path, image: Path) -> Path:
    options = ["-comp", "zstd", "-Xcompression-level", "3", "-xattrs", "-quiet", "-no-progress"]
    process.run(["mksquashfs", str(source), str(image), *options], 300)
    return image


def as_squashfs_keeps_it(tree: Snapshot) -> Snapshot:
    """Whole seconds, no ACLs (docs/payload.md)."""

    def kept(row: tuple[object, ...]) -> tuple[object, ...]:
        kind, mode, owner, time, data, attributes = row
        assert isinstance(time, int)
        assert isinstance(attributes, Mapping)
        plain = {key: value for key, value in attributes.items() if not key.startswith("system.")}
        return (kind, mode, owner, time // 10**9 * 10**9, data, plain)

    return {name: row if name == b"//links" else kept(row) for name, row in tree.items()}


def hard_links_of_files(tree: Snapshot) -> Snapshot:
    """Without those of symbolic links, of which unsquashfs 4.5 keeps some and some not."""
    links = tuple(
        names for names in tree[b"//links"] if not any(stat.S_ISLNK(tree[one][0]) for one in names)
    )
    return {**tree, b"//links": links}


def test_a_squashfs_of_a_whole_root(
    bench: Bench, tmp_path: Path, system: Path, before: Snapshot
) -> None:
    before = hard_links_of_files(as_squashfs_keeps_it(before))
    server = BootServer(bench.web, payload=squashfs(system, tmp_path / "root.squashfs"))
    vm = machine(bench, server)
    install(bench, server, vm, '[payload]\nsquashfs = "@URL@"\nsha256 = "@SHA256@"')
    require_equal(vm, before, hard_links_of_files)
    require_running(bench, vm)


@pytest.mark.slow
def test_the_store_of_a_netboot_image(bench: Bench, tmp_path: Path, system: Path) -> None:
    store = sample.unpacked(tmp_path / "netboot")
    (store / "nix-path-registration").rename(store / "nix/store/nix-path-registration")
    made = squashfs(store / "nix/store", tmp_path / "nix-store.squashfs")
    server = BootServer(bench.web, payload=made)
    vm = machine(bench, server)
    install(bench, server, vm, '[payload]\nsquashfs = "@URL@"\nsha256 = "@SHA256@"')
    with installed(vm) as root:
        found = trees.snapshot(root / "nix/store")
    wanted = trees.snapshot(system / "nix/store")
    trees.require_equal(wanted, found, written=[".links"], timed=[""])
    require_running(bench, vm)


@pytest.mark.slow
def test_a_closure_from_a_binary_cache(bench: Bench, tmp_path: Path, system: Path) -> None:
    cache = tmp_path / "cache"
    root = sample.unpacked(tmp_path / "store")
    (toplevel,) = (f"/{one.relative_to(root)}" for one in root.glob("nix/store/*-nixos-system-*"))
    channel = (root / "nix/var/nix/profiles/per-user/root/channels/nixos").readlink()
    load = ["nix-store", "--store", str(root), "--load-db"]
    nix(*load, stdin=(root / "nix-path-registration").read_bytes())
    configuration = nix("nix-store", "--store", str(root), "--add", str(root / "etc/nixos"))
    keys = [str(tmp_path / "secret"), str(tmp_path / "public")]
    nix("nix-store", "--generate-binary-cache-key", "vm-test-1", *keys)
    to = f"file://{cache}?secret-key={keys[0]}&compression=zstd"
    paths = [toplevel, str(channel), configuration]
    nix("nix", "copy", "--from", str(root), "--to", to, *paths)
    payload = f"""
[payload.closure]
from = "{bench.web.publish_folder("/cache", cache)}"
toplevel = "{toplevel}"
channel = "{channel}"
configuration = "{configuration}"
public-keys = ["{Path(keys[1]).read_text()}"]
"""
    server = BootServer(bench.web, image=image.folder(nix=True))
    vm = machine(bench, server)
    install(bench, server, vm, payload)
    with installed(vm) as disk_root:
        for path in (root / "nix/store").iterdir():
            if path.name == ".links":
                continue
            name = path.relative_to(root)
            trees.require_equal(trees.snapshot(root / name), trees.snapshot(disk_root / name))
        text = (disk_root / "etc/nixos/configuration.nix").read_text()
        assert text == (system / "etc/nixos/configuration.nix").read_text()
        channels = disk_root / "nix/var/nix/profiles/per-user/root/channels/nixos"
        assert channels.readlink() == channel
    require_running(bench, vm)


def nix(*argv: str, stdin: bytes = b"") -> str:
    """Run a program of Nix that knows nothing of this machine's settings."""
    settings = "sandbox = false\nsubstituters =\nbuild-users-group =\n"
    settings += "experimental-features = nix-command\n"
    return process.run(["env", f"NIX_CONFIG={settings}", *argv], 300, stdin=stdin).decode().strip()


def test_a_packed_payload_on_a_share(
    bench: Bench, tmp_path: Path, system: Path, before: Snapshot
) -> None:
    signing.packed(system, tmp_path)
    # the share is the root of the boot environment itself
    exported = bench.folder / "root"
    process.run(["cp", "--archive", "--link", str(image.folder() / "root"), str(exported)])
    (exported / "payloads").mkdir()
    for file in tmp_path.glob("sample.*"):
        file.rename(exported / "payloads" / file.name)
    network = bench.namespace()
    server = BootServer(bench.web_on(network))
    nfs = bench.nfs(exported, network)
    network.dhcp(
        Dhcp(
            boot=(("ipxe", server.ipxe(root="")),),
            options=((17, f'"{nfs.source},{nfs.options}"'),),
        )
    )
    vm = Vm(
        # the manifest knows of the prebuilt system's ESP, and BIOS machines are refused
        firmware="uefi",
        memory=1024,
        disks=(bench.disk("4G", serial="netinstall-root"),),
        nics=(Nic(network.tap(), MAC),),
    )
    payload = '[payload]\nmanifest = "/payloads/sample.json"\n'
    payload += f'trust = {{ public-keys = ["{signing.PUBLIC}"] }}'
    install(bench, server, vm, payload)
    require_equal(vm, before)
    require_running(bench, vm)
