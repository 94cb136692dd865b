# NixOS's entry point: `nix-env -f '<nixpkgs/nixos>' --set -A system`.
{
  configuration ? <nixos-config>,
  system ? builtins.currentSystem,
}:
let
  lib = import ../lib;
  pkgs = import ../. { inherit system; };
  evaluated = lib.evalModules {
    modules = import ./modules/module-list.nix ++ [ configuration ];
    specialArgs = {
      inherit pkgs;
      modulesPath = toString ./modules;
    };
  };
  inherit (evaluated) config;
  failed = builtins.filter (a: !a.assertion) config.assertions;
  checked =
    if failed == [ ] then
      builtins.foldl' (value: warning: builtins.trace "warning: ${warning}" value) config config.warnings
    else
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (a: "- ${a.message}") failed}";
in
{
  inherit pkgs;
  inherit (evaluated) options;
  config = checked;
  system = checked.system.build.toplevel;
}
