"""A machine whose root is an NFS export installs itself in little memory."""

from __future__ import annotations

import pytest
from lab import answers, report
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import Dhcp, Host
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:07"

ANSWERS = answers.one_disk(install="rebuild", network="static-from-lease")


@pytest.mark.parametrize(
    ("layers", "argument"),
    [
        ("overlayfs", ""),
        pytest.param("unionfs-fuse", "netinstall.overlay=unionfs", marks=pytest.mark.slow),
    ],
)
def test_a_blank_machine_is_installed_from_an_nfs_root(
    bench: Bench, layers: str, argument: str
) -> None:
    network = bench.namespace()
    server = BootServer(bench.web_on(network), arguments=argument)
    server.answers(ANSWERS)
    nfs = bench.nfs(server.image / "root", network)
    network.dhcp(
        Dhcp(
            # Option 17 alone says where the root is. iPXE takes it for a disk to boot from, and
            # gives up, when it begins with "nfs:".
            boot=(("ipxe", server.ipxe(root="")),),
            hosts=(Host(MAC, "192.0.2.77", "rack7"),),
            options=((17, f'"{nfs.source},{nfs.options}"'),),
        )
    )
    vm = Vm(
        memory=512,
        disks=(bench.disk("4G", serial="netinstall-root"),),
        nics=(Nic(network.tap(), MAC),),
    )
    machine = bench.boot(vm)
    console = machine.console
    console.expect(rf"the root is read-only, {layers} makes it writable in memory", 180)
    console.expect(r"INSTALLED in", 400, fail_on=[r"INSTALLATION FAILED"])
    assert machine.wait_for_exit(60) == "reboot"
    assert not [one for one in server.web.requests if one.path == "/image/root.squashfs"]

    up = report.wait(bench.boot(vm.without_network_boot()).console, 180)
    assert up["booted_via"] == "bios"
    assert up["configured_from"] == "rebuilt"
    assert up["hostname"] == "rack7"
    assert up["network"]["mode"] == "static"
    (nic,) = up["network"]["interfaces"].values()
    assert "192.0.2.77/24" in nic["addresses"]
    assert up["network"]["nameservers"] == ["192.0.2.1"]
    assert up["nix"]["verify"] == "ok"
    (root,) = (row for row in up["mounts"] if row["mount"] == "/")
    assert root["fstype"] == "ext4"
    assert f'"/dev/disk/by-uuid/{root["uuid"]}"' in up["hardware_configuration"]
    assert 'address = [ "192.0.2.77/24" ];' in up["networking_nix"]
