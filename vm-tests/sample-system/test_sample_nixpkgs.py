"""The sample system's nixpkgs stand-in: what a written configuration becomes, or is told.

A mistake in what the installer writes must stop a rebuild with the option's name, as in NixOS.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from installer.decide.planner import decide
from installer.model.codec import from_json
from installer.model.config import Config
from installer.model.facts import Disk, Facts, Firmware
from installer.model.plan import WriteFile
from installer.model.units import GIB
from installer.observe.answers import load

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

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


@pytest.fixture(params=[""])
def evaluate(tmp_path: Path, request: pytest.FixtureRequest) -> Evaluate:
    """Evaluates an attribute of a system with the given networking.nix.

    The packages are a fake: their store paths exist only where the sample system was built, and
    nothing is built here.
    """
    channel = tmp_path / "channel"
    shutil.copytree(HERE / "nixpkgs", channel)
    names = (
        "base-initrd busybox coreutils efibootmgr grub kernel kmod nix programs storage-tools "
        "systemd-boot udev util-linux"
    )
    # what a variant has besides
    packages = [f'{name} = "/nix/store/0-{name}";' for name in f"{names} {request.param}".split()]
    (channel / "packages.nix").write_text("{ " + " ".join(packages) + " }")
    nixos = tmp_path / "nixos"
    nixos.mkdir()
    shutil.copy(HERE / "configuration.nix", nixos)
    (nixos / "hardware-configuration.nix").write_text(HARDWARE)

    def run(networking: str, attribute: str, **others: str) -> Any:
        texts = {"networking": networking, **others}
        for module in ("networking", "boot_device", "boot_mirror", "storage"):
            path = nixos / f"{module.replace('_', '-')}.nix"
            path.unlink(missing_ok=True)
            if module in texts:
                path.write_text(texts[module])
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


BOND = """{ ... }: {
  networking = { useNetworkd = true; useDHCP = false; };
  systemd.network = {
    netdevs."10-bond0" = {
      netdevConfig = { Name = "bond0"; Kind = "bond"; };
      bondConfig = { Mode = "active-backup"; MIIMonitorSec = "100ms"; };
    };
    networks."10-lan" = {
      matchConfig.PermanentMACAddress = "52:54:00:00:00:01";
      networkConfig = { Bond = "bond0"; PrimarySlave = true; };
    };
    networks."20-bond0" = {
      matchConfig.Name = "bond0";
      address = [ "192.0.2.10/24" "2001:db8::10/64" ];
      routes = [ { Gateway = "192.0.2.1"; } { Destination = "10.0.0.0/8"; } ];
      domains = [ "a.example" "b.example" ];
      networkConfig.IPv6AcceptRA = false;
    };
  };
}"""


@pytest.mark.parametrize("evaluate", ["networkd"], indirect=True)
def test_the_real_networkd_is_given_units(evaluate: Evaluate) -> None:
    assert evaluate(BOND, etc("sample/network")) == "networkd yes\n"
    assert evaluate(BOND, etc("systemd/network/10-bond0.netdev")) == (
        "[NetDev]\nKind=bond\nName=bond0\n\n[Bond]\nMIIMonitorSec=100ms\nMode=active-backup\n\n"
    )
    assert evaluate(BOND, etc("systemd/network/10-lan.network")) == (
        "[Match]\nPermanentMACAddress=52:54:00:00:00:01\n\n"
        "[Network]\nBond=bond0\nPrimarySlave=true\n\n"
    )
    assert evaluate(BOND, etc("systemd/network/20-bond0.network")) == (
        "[Match]\nName=bond0\n\n"
        "[Network]\nAddress=192.0.2.10/24\nAddress=2001:db8::10/64\n"
        "Domains=a.example b.example\nIPv6AcceptRA=false\n\n"
        "[Route]\nGateway=192.0.2.1\n\n[Route]\nDestination=10.0.0.0/8\n\n"
    )


def test_without_networkd_a_bond_is_refused(evaluate: Evaluate) -> None:
    with pytest.raises(ValueError, match="build the sample system with --variant network"):
        evaluate(BOND, "system.drvPath")


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
    assert (bios["BOOT_LOADER"], bios["GRUB_BOOTS"]) == (
        "grub",
        "/boot /boot /dev/disk/by-id/ata-1",
    )


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


def written_for(example: str, disks: int, firmware: Firmware = "uefi") -> dict[str, str]:
    """The modules that a plan of examples/ writes, for a machine with blank disks."""
    answers = load((ROOT / "examples" / f"{example}.toml").read_text(), example)
    serials = [str(answers.disks[0].match.serial or n) for n in range(disks)]
    facts = from_json(
        Facts, (ROOT / "tests/cases/virtio-vm/facts.json").read_text(), where="virtio-vm"
    )
    tools = "mdadm cryptsetup systemd-cryptenroll lvm thin_check btrfs mkfs.btrfs mkfs.xfs mkswap"
    facts = replace(
        facts,
        firmware=firmware,
        disks=tuple(
            Disk(f"/dev/vd{'abc'[n]}", 20 * GIB, serial=one, by_id=(one,), transport="virtio")
            for n, one in enumerate(serials)
        ),
        tools={**facts.tools, **dict.fromkeys(tools.split(), "/usr/bin/x")},
    )
    steps = decide(facts, Config(answers, example)).steps
    files = {step.path: step.content for step in steps if isinstance(step, WriteFile)}
    return {
        path.rpartition("/")[2].removesuffix(".nix").replace("-", "_"): text
        for path, text in files.items()
    }


# what nixos-generate-config finds on a machine with two
ESPS = """{ fileSystems = {
  "/boot" = { device = "/dev/disk/by-uuid/A"; fsType = "vfat"; options = [ "fmask=0077" ]; };
  "/boot-2" = { device = "/dev/disk/by-uuid/B"; fsType = "vfat"; };
}; }"""
INITRD = "config.boot.initrd"
LOADER = "config.system.boot.loader.environment"


def evaluated(evaluate: Evaluate, written: dict[str, str], attribute: str) -> Any:
    others = {name: text for name, text in written.items() if name != "networking"}
    return evaluate(ESPS, attribute, **others)


def test_a_mirror_is_assembled_and_its_esps_are_kept_the_same(evaluate: Evaluate) -> None:
    written = written_for("raid1-mirrored-esp", 2)
    assert evaluated(evaluate, written, f"{INITRD}.tools") == ["mdadm"]
    conf = evaluated(evaluate, written, f'{INITRD}.files."mdadm.conf"')
    assert re.match(r"ARRAY /dev/md/root UUID=[0-9a-f:]{35}\nMAILADDR root\n", conf)
    commands = evaluated(evaluate, written, "config.boot.loader.systemd-boot.extraInstallCommands")
    assert "for copy in /boot-2; do\n" in commands
    assert "/bin/cp --recursive --no-preserve=mode,ownership /boot/. $copy/\n" in commands
    assert evaluated(evaluate, written, LOADER)["BOOT_LOADER"] == "systemd-boot"

    bios = evaluated(evaluate, written_for("raid1-mirrored-esp", 2, "bios"), LOADER)
    assert bios["BOOT_LOADER"] == "grub"
    assert re.fullmatch(r"/boot /boot /dev/disk/by-id/\S+ /dev/disk/by-id/\S+", bios["GRUB_BOOTS"])


def test_nothing_is_copied_to_an_esp_that_is_not_mounted(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    written = written_for("raid1-mirrored-esp", 2)
    commands = evaluated(evaluate, written, "config.boot.loader.systemd-boot.extraInstallCommands")
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    (first / "loader").write_text("new")
    copy.mkdir()
    # the host's own programs, and folders of the test
    here = re.sub(r"/\S*/bin/(mountpoint|cp)\b", r"/usr/bin/\1", commands)
    here = here.replace("/boot/.", f"{first}/.").replace("/boot-2", str(copy))
    done = subprocess.run(["sh", "-eu"], input=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"{copy} is not mounted: it has the old boot loader. Mount it and install the boot\n"
        "loader again, or take it out of /etc/nixos/boot-mirror.nix if its disk is gone.\n"
    )
    assert list(copy.iterdir()) == []
    mounted = here.replace("/usr/bin/mountpoint --quiet", "test -d")
    subprocess.run(["sh", "-eu"], input=mounted, text=True, check=True)
    assert (copy / "loader").read_text() == "new"


def test_luks_is_unlocked_by_uuid_and_the_tpm_is_asked(evaluate: Evaluate) -> None:
    written = written_for("luks-tpm2", 1)
    assert evaluated(evaluate, written, f"{INITRD}.tools") == ["cryptsetup", "tpm2"]
    luks = evaluated(evaluate, written, f"{INITRD}.files.luks")
    assert re.fullmatch(r"root /dev/disk/by-uuid/[0-9a-f-]{36}\n", luks)
    swap = evaluated(evaluate, written, etc("sample/swap"))
    assert re.fullmatch(
        r"random /dev/disk/by-partuuid/(\S+) dev-disk-by-partuuid-\1 "
        r"aes-xts-plain64 /dev/urandom\n",
        swap,
    )
    trusting = evaluated(evaluate, written_for("lvm-on-luks", 1), f"{INITRD}.files.luks")
    assert trusting.endswith(" --allow-discards\n")


def test_thin_volumes_bring_lvm_and_their_check(evaluate: Evaluate) -> None:
    written = written_for("lvm-thin", 1)
    assert evaluated(evaluate, written, f"{INITRD}.tools") == ["lvm2", "thin"]
    linear = '{ boot.initrd.kernelModules = [ "dm-snapshot" ]; }'
    assert evaluate(linear, f"{INITRD}.tools") == ["lvm2"]


def test_a_simple_system_has_no_tools_in_its_initrd(evaluate: Evaluate) -> None:
    assert evaluate("{ }", f"{INITRD}.tools") == []


def test_options_of_mounts_are_joined(evaluate: Evaluate) -> None:
    storage = written_for("btrfs-two-disks", 2)["storage"]
    found = f"""{{ imports = [ ({ESPS}) ]; fileSystems."/home" = {{
      device = "/dev/vdb2"; fsType = "btrfs"; options = [ "subvol=@home" ]; }}; }}"""
    lines = evaluate(found, etc("fstab"), storage=storage).splitlines()
    (uuid,) = {line.split()[0] for line in lines if " /home " in line or " /nix " in line}
    assert uuid.startswith("/dev/disk/by-uuid/")
    assert f"{uuid} /home btrfs subvol=@home,compress=zstd 0 2" in lines
    assert f"{uuid} /nix ext4 compress=zstd,noatime 0 2" in lines
    assert "/dev/disk/by-uuid/A /boot vfat fmask=0077,nofail 0 2" in lines


def test_grub_for_both_firmwares(evaluate: Evaluate) -> None:
    loader = evaluated(evaluate, written_for("hybrid-boot", 1), LOADER)
    assert loader["BOOT_LOADER"] == "grub"
    assert (loader["GRUB_EFI"], loader["GRUB_EFI_REMOVABLE"]) == ("1", "1")
    assert loader["EFI_VARIABLES"] == "0"


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
            '{ boot.initrd.luks.devices.root.devcie = "/dev/x"; }',
            "The option `boot.initrd.luks.devices.root.devcie' does not exist.",
        ),
        (
            '{ boot.initrd.luks.devices.root.crypttabExtraOpts = "tpm2-device=auto"; }',
            "option `boot.initrd.luks.devices.root.crypttabExtraOpts' is not of type `list of",
        ),
        ('{ boot.swraid.enable = "yes"; }', "`boot.swraid.enable' is not of type `boolean'"),
        ("{ boot.swraid.mdadmConf = [ ]; }", "option `boot.swraid.mdadmConf' is not of type"),
        ("{ services.lvm.thin.enable = true; }", "The option `services.lvm.thin' does not exist."),
        ('{ networking.hostId = "8e9"; }', "option `networking.hostId' is not of type"),
        (
            '{ swapDevices = [ { device = "/swapfile"; size = "1 GiB"; } ]; }',
            "`swapDevices.[1].size' is not of type `null or signed integer'",
        ),
        (
            """{ swapDevices = [ { device = "/dev/disk/by-uuid/7-9";
              randomEncryption.enable = true; } ]; }""",
            'You cannot use swap device "/dev/disk/by-uuid/7-9" with randomEncryption enabled.',
        ),
        (
            """{ lib, ... }: { boot.loader.systemd-boot.enable = false;
              boot.loader.grub = { device = "/dev/x"; efiInstallAsRemovable = true;
              efiSupport = true; }; }""",
            "then turn off boot.loader.efi.canTouchEfiVariables",
        ),
        (
            """{ boot.loader.systemd-boot.enable = false; boot.loader.grub = { device = "/dev/x";
              mirroredBoots = [ { path = "/b"; devices = [ "/dev/x" ]; } ]; }; }""",
            "You cannot have duplicated devices in mirroredBoots",
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
