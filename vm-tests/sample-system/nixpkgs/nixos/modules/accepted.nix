# Options of NixOS that a configuration may set and that change nothing here.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  ignored = mkOption {
    type = types.anything;
    default = null;
  };
in
{
  options = {
    boot = {
      extraModulePackages = ignored;
      initrd = {
        includeDefaultModules = ignored;
        supportedFilesystems = ignored;
        # stage 1 here is a shell script; it asks the TPM all the same
        systemd.enable = mkOption {
          type = types.bool;
          default = true;
        };
      };
      kernelPackages = ignored;
      supportedFilesystems = ignored;
      tmp = ignored;
    };
    console = ignored;
    documentation = ignored;
    environment.systemPackages = ignored;
    hardware = mkOption {
      type = types.attrs;
      default = { };
      # `config.hardware.enableRedistributableFirmware` is read by what
      # nixos-generate-config writes.
      apply = value: { enableRedistributableFirmware = false; } // value;
    };
    i18n = ignored;
    networking = {
      dhcpcd = ignored;
      enableIPv6 = ignored;
      firewall = ignored;
      hostId = mkOption {
        type = types.nullOr (types.strMatching "[0-9a-fA-F]{8}");
        default = null;
      };
      usePredictableInterfaceNames = ignored;
    };
    nix = ignored;
    nixpkgs = {
      config = ignored;
      hostPlatform = mkOption {
        type = types.either types.str types.attrs;
        default = "x86_64-linux";
      };
    };
    security = ignored;
    services = {
      openssh = ignored;
      qemuGuest = ignored;
      timesyncd = ignored;
    };
    system.stateVersion = mkOption {
      type = types.str;
      default = "26.05";
    };
    time.timeZone = mkOption {
      type = types.nullOr types.str;
      default = null;
    };
    users = ignored;
  };
}
