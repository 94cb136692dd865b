"""NixOS's module system, as the judge of the modules that we write.

`NETINSTALL_NIXPKGS` names a folder with a nixpkgs, whose own modules are taken then, and
`NETINSTALL_NIX_INSTANTIATE` a nix-instantiate that is new enough for it. Without them, the sample
system's stand-in for nixpkgs is asked: fewer options, of the same names and types.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NIXPKGS = os.environ.get("NETINSTALL_NIXPKGS")
PROGRAM = os.environ.get("NETINSTALL_NIX_INSTANTIATE", "nix-instantiate")
STAND_IN = ROOT / "vm-tests/sample-system/nixpkgs"

_REAL = """
  evaluate = module: (import (NIXPKGS + "/nixos/lib/eval-config.nix") {
    system = "x86_64-linux";
    modules = [
      module
      {
        # not in the list of a nixpkgs that was cut down; imported once all the same
        imports = [ (NIXPKGS + "/nixos/modules/tasks/network-interfaces-scripted.nix") ];
        # a nixpkgs that was cut down may lack what this one sets
        disabledModules = [ "hardware/facter/virtualisation.nix" ];
        boot.loader.grub.enable = false;
        fileSystems."/" = { device = "/dev/x"; fsType = "ext4"; };
        system.stateVersion = "26.05";
      }
    ];
  }).config;
  more = config: {
    units = mapAttrs (name: unit: unit.text) config.systemd.network.units;
    scripts = mapAttrs (name: service: service.script)
      (keep (name: service: match "network-addresses-.*|.*-netdev" name != null)
        config.systemd.services);
  };
"""
_SAMPLE = """
  lib = import (NIXPKGS + "/lib");
  evaluate = module: (lib.evalModules {
    modules = [
      (NIXPKGS + "/nixos/modules/networking.nix")
      (NIXPKGS + "/nixos/modules/accepted.nix")
      {
        options = lib.genAttrs [ "assertions" "warnings" ] (name: lib.mkOption {
          type = lib.types.listOf lib.types.raw; default = [ ]; });
      }
      { options.environment.etc = lib.mkOption { type = lib.types.attrs; default = { }; }; }
      module
    ];
    specialArgs.pkgs.hasNetworkd = true;
  }).config;
  more = config: { };
"""
_EXPRESSION = """
let
  inherit (builtins) attrNames filter intersectAttrs isAttrs isList listToAttrs map mapAttrs match;
  keep = wanted: set: listToAttrs (map (name: { inherit name; value = set.${name}; })
    (filter (name: wanted name set.${name}) (attrNames set)));
  JUDGE
  # what is not set is null, and submodules have the name that they were given
  set = value:
    if isAttrs value then
      keep (name: one: one != null && one != [ ] && one != { } && name != "_module")
        (mapAttrs (name: set) value)
    else if isList value then map set value
    else value;
  pick = names: value: set (intersectAttrs (listToAttrs (map (name: {
    inherit name; value = null; }) names)) value);
  networking = config: pick [
    "hostName" "domain" "useDHCP" "useNetworkd" "nameservers" "search" "timeServers"
    "defaultGateway" "defaultGateway6" ] config.networking // {
    interfaces = mapAttrs (name: pick [ "useDHCP" "macAddress" "mtu" "ipv4" "ipv6" ])
      config.networking.interfaces;
    bonds = mapAttrs (name: pick [ "interfaces" "driverOptions" ]) config.networking.bonds;
    vlans = mapAttrs (name: pick [ "id" "interface" ]) config.networking.vlans;
    bridges = mapAttrs (name: pick [ "interfaces" ]) config.networking.bridges;
  };
  judged = module: let config = evaluate module; in {
    # what the sample system cannot do is no mistake of what is judged
    failed = filter (text: match "This payload .*" text == null)
      (map (one: one.message) (filter (one: !one.assertion) config.assertions));
    inherit (config) warnings;
    networking = networking config;
    networks = mapAttrs (name: pick [
      "matchConfig" "address" "routes" "dns" "domains" "ntp" "networkConfig" "linkConfig" "DHCP"
      "vlan" "dhcpV4Config" "ipv6AcceptRAConfig" ])
      (keep (name: network: match "10-netinstall-.*" name != null) config.systemd.network.networks);
    netdevs = mapAttrs (name: pick [ "netdevConfig" "bondConfig" "vlanConfig" "bridgeConfig" ])
      (keep (name: netdev: match "10-netinstall-.*" name != null) config.systemd.network.netdevs);
    links = mapAttrs (name: pick [ "matchConfig" "linkConfig" ])
      (keep (name: link: match "10-netinstall-.*" name != null) config.systemd.network.links);
    sysctl = mapAttrs (name: toString)
      (keep (name: value: match "net[.]ipv6[.]conf[.].*" name != null) config.boot.kernel.sysctl);
  } // more config;
in map judged [ MODULES ]
"""


def judged(modules: Sequence[str]) -> list[Any]:
    """Evaluate systems of one module each; return what became of their networks.

    `units` and `scripts` are there with real modules only.
    """
    nixpkgs = NIXPKGS or str(STAND_IN)
    expression = (
        _EXPRESSION.replace("JUDGE", _REAL if NIXPKGS else _SAMPLE)
        .replace("NIXPKGS", f"(/. + {json.dumps(nixpkgs)})")
        .replace("MODULES", "".join(f"({text})\n" for text in modules))
    )
    done = subprocess.run(
        [PROGRAM, "--store", "dummy://", "--eval", "--strict", "--json", "-"],
        input=expression,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(done.stderr)
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found
