"""What nixosModules.installer says, built by Nix and booted: stage 1, the store, the agent.

Everything that NixOS's modules write is theirs; the programs are Debian's (nixos/packages.nix),
for nixpkgs' own cannot be had without a binary cache.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import nixos
from lab.bench import Bench
from lab.network import UserNetwork
from lab.vm import Kernel, Machine, Nic, Vm

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

# no skip: most machines have no nixpkgs, and a green run there says all that it can
if nixos.NIXPKGS:

    def test_the_netboot_environment_comes_up_as_a_nixos_with_its_store(bench: Bench) -> None:
        files = nixos.netboot(Path(nixos.NIXPKGS or ""))
        script = (files / "netboot.ipxe").read_text()
        # what comes from the kernel's line of iPXE's script, but for iPXE's own words
        (line,) = (line for line in script.splitlines() if line.startswith("kernel bzImage "))
        words = [word for word in line.split()[2:] if "${" not in word and word != "initrd=initrd"]
        kernel = Kernel(files / "bzImage", files / "initrd", " ".join(words))
        vm = Vm(memory=1024, kernel=kernel, nics=(Nic(UserNetwork()),))
        machine = bench.boot(vm)
        # the answer file names a payload that is not there
        machine.console.expect("INSTALLATION FAILED", 900)
        machine.console.expect_prompt(r"netinstall# $", 120)

        mounts = run(machine, "cat /proc/mounts")
        assert "overlay /nix/store overlay ro," in mounts
        assert "/nix/.ro-store squashfs ro," in mounts
        assert "-m installer init" in run(machine, "tr '\\0' ' ' < /proc/1/cmdline")

        assert run(machine, "ls /etc/NIXOS") == "/etc/NIXOS"
        system = run(machine, "readlink -f /run/current-system")
        assert words[0] == f"init={system}/init"
        assert run(machine, "readlink -f /nix/var/nix/profiles/system") == system
        # what the store's database knows, and what lies there
        closure = run(machine, "nix-store --query --requisites /run/current-system").split()
        assert system in closure
        there = run(machine, "ls -d /nix/store/*-*").split()
        assert set(there) - set(closure) <= {"/nix/store/nix-path-registration"}
        assert run(machine, "nix-store --verify && echo verified").splitlines()[-1] == "verified"
        assert run(machine, f"nix-store --verify-path {system} && echo same") == "same"


def run(machine: Machine, command: str) -> str:
    """Type a command into the failure shell; return what it said. It has to succeed."""
    # the echo of what is typed must not be mistaken for the answer; nix-store would start a pager
    machine.console.send_line(
        f"echo BE''GIN; export NIX_PAGER=cat; {command}; code=$?; echo; echo EN''D $code"
    )
    found = machine.console.expect(r"(?s)^BEGIN\n(.*?)^END (\d+)$", 300)
    assert found[2] == "0", found[0]
    return found[1].strip()
