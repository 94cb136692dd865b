"""What our NixOS modules say, built by Nix and booted: stage 1, the store, the agent, its work.

Everything that NixOS's modules write is theirs; the programs are Debian's (nixos/packages.nix),
for nixpkgs' own cannot be had without a binary cache.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lab import answers, nixos, process, report, sample
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.network import Dhcp, Host, UserNetwork
from lab.vm import Kernel, Machine, Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

MAC = "52:54:00:00:00:07"
FAILED = [r"INSTALLATION FAILED"]
ANSWERS = answers.one_disk(install="rebuild", network="static-from-lease")

# no skip: most machines have no nixpkgs, and a green run there says all that it can
if nixos.NIXPKGS:
    NIXPKGS = Path(nixos.NIXPKGS)

    @pytest.mark.parametrize("stage_1", ["systemd", "scripted"])
    def test_the_netboot_environment_comes_up_as_a_nixos_with_its_store(
        bench: Bench, stage_1: str
    ) -> None:
        files = nixos.netboot(NIXPKGS, scripted=stage_1 == "scripted")
        script = (files / "netboot.ipxe").read_text()
        # what comes from the kernel's line of iPXE's script, but for iPXE's own words
        (line,) = (line for line in script.splitlines() if line.startswith("kernel bzImage "))
        words = [word for word in line.split()[2:] if "${" not in word and word != "initrd=initrd"]
        nic = Nic(UserNetwork(hostname="rack7"))
        booted = f"BOOTIF=01-{nic.mac.replace(':', '-')}"
        kernel = Kernel(files / "bzImage", files / "initrd", " ".join([*words, booted]))
        machine = bench.boot(Vm(memory=1024, kernel=kernel, nics=(nic,)))
        # the answer file names a payload that is not there
        machine.console.expect("INSTALLATION FAILED", 900)
        machine.console.expect_prompt(r"netinstall# $", 120)

        require_lease(machine, "10.0.2.15")
        assert run(machine, "cat /proc/sys/kernel/hostname") == "rack7"
        written = "/run/netinstall /etc /mnt /root /usr /var /nix/var"
        assert run(machine, f"find {written} -perm -2 ! -type l ! -type s ! -perm -1000") == ""

        mounts = run(machine, "cat /proc/mounts")
        assert "overlay /nix/store overlay ro," in mounts
        assert "/nix/.ro-store squashfs ro," in mounts
        require_nixos(machine, words[0].removeprefix("init=").removesuffix("/init"))

    def test_a_machine_is_installed_from_the_netboot_environment(bench: Bench) -> None:
        """UEFI, iPXE, the script as Nix made it: all that a boot server's owner does is name it."""
        files = nixos.netboot(NIXPKGS)
        server = BootServer(bench.web)
        bench.web.publish_folder("/nixos", files)
        words = f"netinstall.answers={server.answers(ANSWERS)}"
        words += f" netinstall.report={bench.web.url('/report')}"
        loader = bench.web.publish(
            "/boot.ipxe", f"#!ipxe\nset cmdline {words}\nchain nixos/netboot.ipxe\n"
        )
        vm = Vm(
            firmware="uefi",
            memory=2048,
            disks=(bench.disk("4G", serial="netinstall-root"),),
            nics=(Nic(UserNetwork(bootfile=loader, hostname="rack7.example.test")),),
        )
        machine = bench.boot(vm)
        machine.console.expect(r"WILL BE DESTROYED", 900, FAILED)
        require_installed(bench, machine, "10.0.2.15/24", 900)

    def test_a_machine_is_installed_from_the_root_over_http(bench: Bench) -> None:
        """The image of docs/nixos.md, by BIOS: stage 1 fetches its root and checks it."""
        made = nixos.http_image(NIXPKGS)
        # as the site file there says: stage 1 runs the activation of the system in the root
        server = BootServer(bench.web, image=made, arguments="init=/init")
        server.answers(ANSWERS)
        vm = Vm(
            memory=2048,
            disks=(bench.disk("4G", serial="netinstall-root"),),
            nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname="rack7.example.test")),),
        )
        machine = bench.boot(vm)
        require_installed(bench, machine, "10.0.2.15/24", 1800)
        assert [one for one in bench.web.requests if one.path == "/image/root.squashfs"]

    @pytest.mark.parametrize("stage_1", ["systemd", "scripted"])
    def test_a_machine_is_installed_from_the_nfs_root(bench: Bench, stage_1: str) -> None:
        """The GRUB that Nix made, kernel and initrd by TFTP, the tarball unpacked and exported."""
        made = nixos.nfs_root(NIXPKGS, scripted=stage_1 == "scripted")
        root = made / "root"
        toplevel = (root / "init").readlink().parent
        assert (root / str(toplevel).lstrip("/") / "activate").exists()
        assert f"\n{toplevel}\n" in f"\n{(root / 'nix-path-registration').read_text()}"

        network = bench.namespace()
        server = BootServer(bench.web_on(network, 8080))
        server.answers(ANSWERS)
        nfs = bench.nfs(root, network)
        network.dhcp(
            Dhcp(
                boot=(("uefi", "nixos/bootx64.efi"),),
                tftp=made / "tftp",
                hosts=(Host(MAC, "192.0.2.77", "rack7"),),
                options=((17, f'"{nfs.source},{nfs.options}"'), (66, network.server_address)),
            )
        )
        vm = Vm(
            firmware="uefi",
            memory=1024,
            disks=(bench.disk("4G", serial="netinstall-root"),),
            nics=(Nic(network.tap(), MAC, rom="none"),),
        )
        machine = bench.boot(vm)
        console = machine.console
        console.expect(r"fetching nixos/bzImage and nixos/initrd from 192\.0\.2\.1", 300)
        console.expect(r"WILL BE DESTROYED", 900, FAILED)
        require_installed(bench, machine, "192.0.2.77/24", 900)

    def test_a_machine_is_installed_by_the_boot_server(bench: Bench) -> None:
        """All that the server of docs/nixos.md hands out, as Nix made it; the daemons are ours."""
        made = nixos.boot_server(NIXPKGS, sample.tarball())
        network = bench.namespace()
        web = bench.web_on(network, 8080)
        web.publish_folder("", made / "http")
        # where the unit netinstall-tftp would copy it to
        rendered = (made / "dnsmasq.conf").read_text()
        config = bench.folder / "dnsmasq.conf"
        config.write_text(rendered.replace("/var/lib/netinstall/tftp", str(made / "tftp")))
        network.own_dnsmasq(config)
        vm = Vm(
            firmware="uefi",
            memory=2048,
            disks=(bench.disk("4G", serial="netinstall-root"),),
            nics=(Nic(network.tap(), MAC, rom="none"),),
        )
        machine = bench.boot(vm)
        require_installed(bench, machine, "192.0.2.77/24", 1800)

    def test_a_configuration_becomes_a_payload(tmp_path: Path) -> None:
        """The agent takes it for one, and Nix what is in it for a whole store."""
        made = nixos.payload(NIXPKGS)
        argv = [sys.executable, "-m", "installer", "payload", "verify", str(made / "machine.json")]
        process.run(["env", "-C", str(nixos.REPOSITORY), *argv], 300)
        root = tmp_path / "root"
        root.mkdir()
        process.run(["tar", "-xpf", str(made / "machine.tar.zst"), "-C", str(root)], 300)
        assert (root / "etc/NIXOS").exists()
        assert "./hardware-configuration.nix" in (root / "etc/nixos/configuration.nix").read_text()
        store = [str(nixos.NIX_BUILD.with_name("nix-store")), "--store", str(root)]
        load = ["sh", "-c", 'exec "$@" < "$0"', str(root / "nix-path-registration")]
        process.run([*load, *store, "--load-db"], 60)
        process.run([*store, "--verify", "--check-contents"], 600)


def require_lease(machine: Machine, address: str) -> None:
    """The agent's own DHCP client has a lease, and lives to renew it."""
    kept = run(machine, "tr '\\0' '\\n' < /run/netinstall/dhcp/dhcp-*").splitlines()
    assert "reason=BOUND" in kept
    assert f"new_ip_address={address}" in kept
    assert run(machine, "read -r _ client < /run/netinstall/dhcp/started; kill -0 $client") == ""
    assert "The client goes on asking" not in machine.console.text


def require_nixos(machine: Machine, system: str) -> None:
    """The running system is this one, all of which its Nix knows."""
    assert "-m installer init" in run(machine, "tr '\\0' ' ' < /proc/1/cmdline")
    assert run(machine, "ls /etc/NIXOS") == "/etc/NIXOS"
    assert run(machine, "readlink -f /run/current-system") == system
    assert run(machine, "readlink -f /nix/var/nix/profiles/system") == system
    # what the store's database knows, and what lies there
    closure = run(machine, "nix-store --query --requisites /run/current-system").split()
    assert system in closure
    there = run(machine, "ls -d /nix/store/*-*").split()
    assert set(there) - set(closure) <= {"/nix/store/nix-path-registration"}
    assert run(machine, "nix-store --verify && echo verified").splitlines()[-1] == "verified"
    assert run(machine, f"nix-store --verify-path {system} && echo same") == "same"


def require_installed(bench: Bench, machine: Machine, address: str, seconds: float) -> None:
    """It is installed within that time, and what its disk boots is what it was to become."""
    machine.console.expect(r"INSTALLED in", seconds, FAILED)
    assert machine.wait_for_exit(120) == "reboot"
    up = report.wait(bench.boot(machine.vm.without_network_boot()).console, 300)
    assert up["booted_via"] == machine.vm.firmware
    assert up["configured_from"] == "rebuilt"
    assert up["hostname"] == "rack7"
    assert up["network"]["mode"] == "static"
    (nic,) = up["network"]["interfaces"].values()
    assert address in nic["addresses"]
    assert up["nix"]["verify"] == "ok"


def run(machine: Machine, command: str) -> str:
    """Type a command into the failure shell; return what it said. It has to succeed."""
    # the echo of what is typed must not be mistaken for the answer; nix-store would start a pager
    machine.console.send_line(
        f"echo BE''GIN; export NIX_PAGER=cat; {command}; code=$?; echo; echo EN''D $code"
    )
    found = machine.console.expect(r"(?s)^BEGIN\n(.*?)^END (\d+)$", 300)
    assert found[2] == "0", found[0]
    return found[1].strip()
