# What a configuration calls `pkgs`: the prebuilt packages, and the few builders
# that NixOS's modules here need.  Everything is built by the static busybox.
{ ... }:
let
  packages = import ./packages.nix;
  lib = import ./lib;

  # PATH has busybox; the script makes $out.
  runCommand =
    name: environment: script:
    derivation (
      {
        inherit name;
        system = "x86_64-linux";
        builder = "${packages.busybox}/bin/sh";
        args = [
          "-euc"
          "umask 022\n${script}"
        ];
        PATH = "${packages.busybox}/bin";
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // environment
    );

  writeText = name: text: runCommand name { inherit text; } ''printf '%s' "$text" > $out'';
in
lib.genAttrs [ "coreutils" "storage-tools" ] (
  name: throw "This payload has no ${name}: build the sample system with --variant storage."
)
// packages
// {
  inherit lib runCommand writeText;
  # Not nixpkgs's: whether the payload can assemble arrays, LUKS and volume groups.
  hasStorage = packages ? storage-tools;
  # Whether it has systemd-networkd.
  hasNetworkd = packages ? networkd;
}
