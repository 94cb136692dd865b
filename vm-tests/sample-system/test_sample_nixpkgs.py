"""The sample system's nixpkgs stand-in: what a written configuration becomes, or is told.

A mistake in what the installer writes must stop a rebuild with the option's name, as in NixOS.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="needs nix-instantiate (Debian: nix-bin)"
)

HARDWARE = """
{ config, lib, pkgs, modulesPath, ... }:
{
  imports = [ (modulesPath + "/profiles/qemu-guest.nix") ];
  boot.initrd.availableKernelModules = [ "nvme" "usb_storage" ];
  boot.extraModulePackages = [ ];
  fileSystems."/" = { device = "/dev/disk/by-uuid/1-2"; fsType = "xfs"; };
  fileSystems."/home/my files" = {
    device = "/dev/disk/by-uuid/3-4"; fsType = "btrfs"; options = [ "subvol=@h" ];
  };
  fileSystems."/nix" = { device = "/dev/disk/by-uuid/5-6"; fsType = "ext4"; };
  swapDevices = [ { device = "/dev/disk/by-uuid/7-8"; } ];
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  hardware.cpu.amd.updateMicrocode = lib.mkDefault config.hardware.enableRedistributableFirmware;
}
"""

Evaluate = Callable[..., Any]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Evaluates an attribute of a system with the given networking.nix.

    The packages are a fake: their store paths exist only where the sample system was built, and
    nothing is built here.
    """
    channel = tmp_path / "channel"
    shutil.copytree(HERE / "nixpkgs", channel)
    names = (
        "base-initrd busybox efibootmgr grub kernel kmod nix programs systemd-boot udev util-linux"
    )
    packages = [f'{name} = "/nix/store/0-{name}";' for name in names.split()]
    (channel / "packages.nix").write_text("{ " + " ".join(packages) + " }")
    nixos = tmp_path / "nixos"
    nixos.mkdir()
    shutil.copy(HERE / "configuration.nix", nixos)
    (nixos / "hardware-configuration.nix").write_text(HARDWARE)

    def run(networking: str, attribute: str, *, boot_device: str = "") -> Any:
        (nixos / "networking.nix").write_text(networking)
        if boot_device:
            (nixos / "boot-device.nix").write_text(boot_device)
        argv = [
            *("nix-instantiate", "--eval", "--strict", "--json", "--store", "dummy://"),
            *("--arg", "configuration", str(nixos / "configuration.nix")),
            *("--attr", attribute, str(channel / "nixos")),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise ValueError(re.sub(r"\s+", " ", done.stderr))
        return json.loads(done.stdout)

    return run


def etc(name: str) -> str:
    return f'config.environment.etc."{name}".text'


def test_an_empty_configuration_asks_dhcp(evaluate: Evaluate) -> None:
    assert evaluate("{ }", etc("sample/network")) == "dhcp-elsewhere yes\n"
    assert evaluate("{ }", etc("hostname")) == "nixos\n"
    assert evaluate("{ }", etc("sample/origin")) == "rebuilt\n"


def test_scripted_static_settings(evaluate: Evaluate) -> None:
    text = """{ ... }: { networking = {
      hostName = "box"; domain = "example.org"; useDHCP = false; useNetworkd = false;
      interfaces."enp1s0".ipv4.addresses = [ { address = "192.0.2.10"; prefixLength = 24; } ];
      defaultGateway = { address = "192.0.2.1"; interface = "enp1s0"; };
      nameservers = [ "192.0.2.53" ]; search = [ "a.example" "b.example" ];
    }; }"""
    assert evaluate(text, etc("sample/network")).splitlines() == [
        "domain example.org",
        "nameserver 192.0.2.53",
        "search a.example",
        "search b.example",
        "gateway 192.0.2.1 enp1s0",
        "interface",
        "name enp1s0",
        "address 192.0.2.10/24",
    ]
    assert evaluate(text, etc("hosts")).endswith("127.0.0.2 box.example.org box\n")


def test_networkd_static_settings(evaluate: Evaluate) -> None:
    text = """{ networking.useNetworkd = true; networking.useDHCP = false;
      systemd.network.networks."10-lan0" = {
        matchConfig.PermanentMACAddress = "52:54:00:00:00:01";
        address = [ "192.0.2.10/24" ]; dns = [ "192.0.2.53" ]; domains = [ "a.example" ];
        routes = [ { Gateway = "198.51.100.1"; GatewayOnLink = true; } ];
        linkConfig.RequiredForOnline = "routable";
      }; }"""
    assert evaluate(text, etc("sample/network")).splitlines() == [
        "interface",
        "mac 52:54:00:00:00:01",
        "address 192.0.2.10/24",
        "route default 198.51.100.1",
        "nameserver 192.0.2.53",
        "search a.example",
    ]


def test_file_systems_in_the_order_of_mounting(evaluate: Evaluate) -> None:
    assert evaluate("{ }", etc("fstab")).splitlines() == [
        "/dev/disk/by-uuid/1-2 / xfs defaults 0 1",
        "/dev/disk/by-uuid/3-4 /home/my\\040files btrfs subvol=@h 0 2",
        "/dev/disk/by-uuid/5-6 /nix ext4 defaults 0 2",
        "/dev/disk/by-uuid/7-8 none swap defaults 0 0",
    ]
    assert evaluate("{ }", "config.boot.initrd.fstab").splitlines() == [
        "/dev/disk/by-uuid/1-2 / xfs defaults 0 1",
        "/dev/disk/by-uuid/5-6 /nix ext4 defaults 0 2",
    ]


def test_the_boot_loader_is_systemd_boot_unless_a_disk_for_grub_is_named(
    evaluate: Evaluate,
) -> None:
    attribute = "config.system.boot.loader.environment"
    uefi = evaluate("{ }", attribute)
    assert (uefi["BOOT_LOADER"], uefi["EFI_VARIABLES"]) == ("systemd-boot", "1")
    bios = evaluate(
        "{ }", attribute, boot_device='{ boot.loader.grub.device = "/dev/disk/by-id/ata-1"; }'
    )
    assert (bios["BOOT_LOADER"], bios["GRUB_DEVICES"]) == ("grub", "/dev/disk/by-id/ata-1")


def test_definitions_are_merged_as_in_nixos(evaluate: Evaluate) -> None:
    text = """{ lib, ... }: {
      imports = [ { networking.hostName = "weak"; networking.search = [ "two" ]; } ];
      networking.hostName = lib.mkForce "strong";
      networking.domain = lib.mkDefault "example.org";
      networking.search = lib.mkMerge [
        [ "three" ] (lib.mkIf false [ "no" ]) (lib.mkBefore [ "one" ])
      ];
    }"""
    assert evaluate(text, "config.networking.hostName") == "strong"
    assert evaluate(text, "config.networking.domain") == "example.org"
    assert evaluate(text, "config.networking.search") == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{ networking.hostname = "x"; }', "The option `networking.hostname' does not exist."),
        # Nothing reads these; they are found all the same.
        ('{ time.timezone = "UTC"; }', "The option `time.timezone' does not exist."),
        ("{ services.bogus.enable = true; }", "The option `services.bogus' does not exist."),
        ("{ time.timeZone = 5; }", "option `time.timeZone' is not of type `null or string'"),
        ('{ networking.hostName = "a.b"; }', "option `networking.hostName' is not of type"),
        ('{ networking.useDHCP = "no"; }', "`networking.useDHCP' is not of type `boolean'"),
        ("{ networking.interfaces.e0.ip4 = [ ]; }", "`networking.interfaces.e0.ip4' does not"),
        (
            """{ networking.interfaces.e0.ipv4.addresses = [
              { address = "192.0.2.1"; prefixLength = "24"; } ]; }""",
            "is not of type `integer between 0 and 32 (both inclusive)'",
        ),
        (
            '{ networking.useNetworkd = true; networking.defaultGateway = "192.0.2.1"; }',
            "networking.defaultGateway.interface is not optional when using networkd.",
        ),
        (
            """{ networking.useNetworkd = true;
              systemd.network.networks.x.routes = [ { routeConfig.Gateway = "192.0.2.1"; } ]; }""",
            "routes.[1].routeConfig' does not exist.",
        ),
        (
            """{ networking.useNetworkd = true;
              systemd.network.networks.x.matchConfig.MACAddress = "525400000001"; }""",
            "`systemd.network.networks.x.matchConfig.MACAddress' is not of type",
        ),
        (
            '{ fileSystems."/data".fsType = "ext4"; }',
            "No device specified for mount point ‘/data’.",
        ),
        (
            "{ boot.loader.systemd-boot.enable = false; }",
            "You must set the option ‘boot.loader.grub.devices’",
        ),
        (
            '{ imports = [ { networking.hostName = "a"; } ]; networking.hostName = "b"; }',
            "The option `networking.hostName' has conflicting definition values:",
        ),
    ],
)
def test_a_mistake_is_named(evaluate: Evaluate, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        evaluate(text, etc("sample/network"))
    assert "/networking.nix" in str(caught.value) or "Failed assertions" in str(caught.value)
