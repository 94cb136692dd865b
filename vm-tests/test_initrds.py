"""The other initramfs systems reach the agent, with the whole lease, and tell what goes wrong."""

from __future__ import annotations

import re

import pytest
from lab import answers, image
from lab.agent import prose
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import Dhcp, Host, UserNetwork
from lab.vm import Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root]

MAC = "52:54:00:00:00:08"
ANSWERS = answers.one_disk(network="static-from-lease")
SHELL = r"\(netinstall initrd\) $"


@pytest.mark.parametrize("root", ["http", "nfs"])
def test_dracut_reaches_the_agent_and_hands_over_the_lease(bench: Bench, root: str) -> None:
    network = bench.namespace()
    server = BootServer(
        bench.web_on(network), image=image.folder("dracut"), arguments="netinstall.dry-run=1"
    )
    server.answers(ANSWERS)
    options: tuple[tuple[int, str], ...] = ((119, "a.lab.test,b.lab.test"),)
    if root == "nfs":
        nfs = bench.nfs(server.image / "root", network)
        # nothing else says where the root is
        options += ((17, f'"{nfs.source},{nfs.options}"'),)
    script = server.ipxe(root="" if root == "nfs" else None)
    network.dhcp(
        Dhcp(boot=(("ipxe", script),), hosts=(Host(MAC, "192.0.2.78", "rack8"),), options=options)
    )
    disk = bench.disk("4G", serial="netinstall-root", canary=True)
    machine = bench.boot(Vm(memory=512, disks=(disk,), nics=(Nic(network.tap(), MAC),)))
    machine.console.expect(r"the root is read-only, overlayfs makes it writable in memory", 400)
    machine.console.expect("DRY RUN: no disk was changed", 400, fail_on=["INSTALLATION FAILED"])
    assert "WILL BE DESTROYED" in machine.console.text
    observed = server.web.wait_for_report(lambda event: event["kind"] == "observed", 30)
    (lease,) = observed["facts"]["leases"]
    assert lease["address"] == "192.0.2.78/24"
    assert (lease["hostname"], lease["domain"]) == ("rack8", "lab.test")
    assert lease["search"] == ["a.lab.test", "b.lab.test"]
    assert lease["nameservers"] == [lease["gateway"]] == ["192.0.2.1"]
    assert lease["seconds"] == 3600
    asked = [one.path for one in server.web.requests]
    assert ("/image/root.squashfs" in asked) is (root == "http")


def test_dracut_tells_a_wrong_hash_and_offers_a_shell_that_tries_again(bench: Bench) -> None:
    server = BootServer(bench.web, image=image.folder("dracut"))
    wrong = re.sub(r"(sha256=).*", rf"\g<1>{'0' * 64}", server.http_root())
    network = UserNetwork(bootfile=server.ipxe(root=wrong), hostname="box")
    vm = Vm(memory=512, nics=(Nic(network, MAC),))
    console = (machine := bench.boot(vm)).console
    console.expect_prompt(SHELL, 400)
    assert (
        "error[payload.hash]: the root file system is not the one that was announced where: "
        f"{server.web.url('/image/root.squashfs')} has the SHA-256 "
    ) in prose(console.text)
    console.send_line("cat /run/net-*.conf")
    console.expect(r"HOSTNAME='box'", 60)
    # whoever leaves it tries again, with the same result; here another ending is wanted
    console.expect_prompt(SHELL, 60)
    console.send_line("exit")
    console.expect("netinstall: fetching http", 120)
    console.expect_prompt(SHELL, 240)
    console.send_line("reboot -f")
    assert machine.wait_for_exit(60) == "reboot"
