"""networking.nix as the real systemd-networkd applies it, seen by ip and by ping.

From the lease of a real server to a pinged address, in two namespaces. The modules that make unit
files of networking.nix are those of the sample system. The card is called eth0 while it is looked
at and enp3s0 after that: nothing depends on its name. (vm-tests/test_networking.py does the same
with whole machines, bonds and VLANs.)
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dhcp_lab import CLIENT_MAC, ROUTER, SERVER, Lab, lab, run, until

from installer.decide.networking import networking_module
from installer.model.facts import Facts, Nic
from installer.model.network import Network

pytestmark = pytest.mark.root

SAMPLE = Path(__file__).parents[2] / "vm-tests/sample-system/nixpkgs"
SLAAC = "fd77::5054:ff:fe00:2"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def _decided(here: Lab, **network: Any) -> str:
    """networking.nix, from what the client in the boot environment was told."""
    leases = here.look()
    # a cable between namespaces has no address in hardware
    nic = Nic("eth0", CLIENT_MAC, carrier=True, names=("enp3s0",))
    facts = Facts(
        version=1,
        firmware="uefi",
        architecture="x86_64",
        kernel="6.1.0",
        memory=1 << 30,
        entropy="0" * 32,
        nics=(nic,),
        leases=leases.v4,
        leases6=leases.v6,
        boot_mac=CLIENT_MAC,
    )
    made, warnings, problems = networking_module(Network.model_validate(network), facts)
    assert not problems
    assert not warnings
    assert made is not None
    return made.text


def _units(folder: Path, networking: str) -> dict[str, str]:
    """The files below /etc/systemd/network that a system with this networking.nix has."""
    channel = folder / "channel"
    shutil.copytree(SAMPLE, channel)
    # where packages are does not matter: nothing is built
    names = "base-initrd busybox efibootmgr grub kernel kmod networkd nix programs udev util-linux"
    packages = " ".join(f'{name} = "/nix/store/0-{name}";' for name in names.split())
    (channel / "packages.nix").write_text(f"{{ {packages} }}")
    (folder / "networking.nix").write_text(networking)
    wanted = f"""
      let
        # what makes it a system that could boot
        machine.fileSystems."/" = {{ device = "/dev/disk/by-label/nixos"; fsType = "ext4"; }};
        machine.boot.loader.grub.devices = [ "/dev/vda" ];
        system = import {channel}/nixos {{
          configuration = {{ imports = [ {folder}/networking.nix machine ]; }};
        }};
        files = system.config.environment.etc;
        ours = builtins.filter
          (name: builtins.match "systemd/network/10-netinstall.*" name != null)
          (builtins.attrNames files);
      in map (name: {{ name = baseNameOf name; value = files.${{name}}.text; }}) ours
    """
    said = run(
        *("nix-instantiate", "--eval", "--strict", "--json", "--store", "dummy://"),
        *("--expr", wanted),
    )
    # a cable between namespaces is no hardware, which is all that a MAC address is to match
    return {one["name"]: one["value"].replace("Kind=!*\n", "") for one in json.loads(said)}


def _installed(here: Lab, client: int, networking: str) -> None:
    """Stop the boot environment, call the card anew, and start networkd as the system would."""
    here.stop(client, signal.SIGTERM)
    inside = ("ip", "-n", here.client)
    run(*inside, "link", "set", "eth0", "down")
    run(*inside, "address", "flush", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "name", "enp3s0")
    folder = here.folder / "units"
    folder.mkdir()
    units = _units(here.folder, networking)
    assert units
    for name, text in units.items():
        (folder / name).write_text(text)
    # see test_other_clients
    script = (
        "mount -o remount,ro /sys && mkdir -p /run/systemd/network /run/systemd/netif && "
        "mount -t tmpfs none /run/systemd/network && mount -t tmpfs none /run/systemd/netif && "
        'cp "$1"/* /run/systemd/network && '
        "chown systemd-network:systemd-network /run/systemd/netif && "
        "exec /lib/systemd/systemd-networkd"
    )
    here.start("networkd", ["sh", "-c", script, "sh", folder], here.client)


def _addresses(here: Lab) -> list[str]:
    shown = json.loads(run("ip", "-n", here.client, "-j", "address", "show", "dev", "enp3s0"))
    return [
        f"{one['local']}/{one['prefixlen']}"
        for one in shown[0]["addr_info"]
        if one["scope"] == "global" and not one.get("tentative")
    ]


def _routes(here: Lab, family: str = "-4") -> list[tuple[str, str]]:
    shown = json.loads(run("ip", "-n", here.client, "-j", family, "route"))
    return [(one["dst"], one["gateway"]) for one in shown if "gateway" in one]


def _pinged(here: Lab, address: str) -> bool:
    ping = ["busybox", "ping6" if ":" in address else "ping", "-c", "1", "-W", "2", address]
    argv = ["ip", "netns", "exec", here.server, *ping]
    return subprocess.run(argv, check=False, stdout=subprocess.DEVNULL).returncode == 0


RANGE = "dhcp-range=192.0.2.57,192.0.2.99,255.255.255.0,1h"


def test_static_from_a_lease_with_routes(here: Lab) -> None:
    here.dnsmasq(
        *(RANGE, "dhcp-option=3,192.0.2.254", "domain=example.net", "dhcp-option=26,1400"),
        "dhcp-option=121,0.0.0.0/0,192.0.2.1,198.51.100.0/24,192.0.2.8",
    )
    client = here.ask()
    here.answered()
    (lease,) = here.look().v4
    _installed(here, client, _decided(here, mode="static-from-lease"))
    until(lambda: _addresses(here) == [str(lease.address)], 30, "address")
    until(lambda: len(_routes(here)) == 2, 10, "routes")
    assert sorted(_routes(here)) == [("198.51.100.0/24", "192.0.2.8"), ("default", SERVER)]
    assert "mtu 1400" in run("ip", "-n", here.client, "link", "show", "dev", "enp3s0")
    until(lambda: _pinged(here, str(lease.address.ip)), 10, "answer to a ping")


def test_a_gateway_that_is_on_the_link_only(here: Lab) -> None:
    here.dnsmasq(
        RANGE,
        "dhcp-option-force=1,255.255.255.255",
        "dhcp-option=121,203.0.113.1/32,0.0.0.0,0.0.0.0/0,203.0.113.1",
    )
    run("ip", "-n", here.server, "address", "add", "203.0.113.1/32", "dev", "lan0")
    client = here.ask()
    here.answered()
    (lease,) = here.look().v4
    assert lease.address.network.prefixlen == 32
    _installed(here, client, _decided(here, mode="static-from-lease"))
    until(lambda: ("default", "203.0.113.1") in _routes(here), 30, "default route")
    assert _addresses(here) == [str(lease.address)]
    until(lambda: _pinged(here, str(lease.address.ip)), 10, "answer to a ping")


def test_dhcp_gives_the_address_of_the_boot_environment_again(here: Lab) -> None:
    here.dnsmasq(RANGE, "dhcp-option=3,192.0.2.1")
    client = here.ask()
    here.answered()
    (lease,) = here.look().v4
    _installed(here, client, _decided(here, interfaces=[{"mode": "dhcp"}]))
    until(lambda: _addresses(here) == [str(lease.address)], 30, "address")
    until(lambda: ("default", SERVER) in _routes(here), 10, "default route")
    until(lambda: _pinged(here, str(lease.address.ip)), 10, "answer to a ping")


@pytest.mark.parametrize("mode", ["static-from-lease", "dhcp"])
def test_ipv6_only(here: Lab, mode: str) -> None:
    here.dnsmasq("enable-ra", "dhcp-range=fd77::,ra-only")
    client = here.ask()
    here.answered("ra")
    until(lambda: here.look().v6[0].slaac != (), 10, "address by SLAAC")
    _installed(here, client, _decided(here, interfaces=[{"mode": mode, "ipv4": False}]))
    until(lambda: f"{SLAAC}/64" in _addresses(here), 30, "address")
    assert _addresses(here) == [f"{SLAAC}/64"]
    until(lambda: ("default", ROUTER) in _routes(here, "-6"), 10, "default route")
    until(lambda: _pinged(here, SLAAC), 10, "answer to a ping")


def test_a_fixed_address_of_dhcpv6(here: Lab) -> None:
    here.dnsmasq("enable-ra", "dhcp-range=fd77::57,fd77::57,64,1h")
    client = here.ask()
    here.answered("ra")
    here.answered("dhcp6")
    made = _decided(here, interfaces=[{"mode": "static-from-lease", "ipv4": False}])
    _installed(here, client, made)
    until(lambda: "fd77::57/64" in _addresses(here), 30, "address")
    until(lambda: _pinged(here, "fd77::57"), 10, "answer to a ping")
