# boot.initrd.luks, boot.swraid and services.lvm: what stage 1 assembles, and the programs for it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (config.boot) initrd swraid;
  thin = config.services.lvm.boot.thin.enable;
  bool =
    default:
    mkOption {
      type = types.bool;
      inherit default;
    };

  luksDevice = {
    options = {
      device = mkOption { type = types.str; };
      allowDiscards = bool false;
      bypassWorkqueues = bool false;
      preLVM = bool true;
      crypttabExtraOpts = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
    };
  };
  luks = lib.mapAttrsToList (name: device: device // { inherit name; }) initrd.luks.devices;
  byTpm = lib.any (device: lib.any (lib.hasPrefix "tpm2-device=") device.crypttabExtraOpts) luks;
  luksLine =
    device: "${device.name} ${device.device}${lib.optionalString device.allowDiscards " --allow-discards"}";

  # "auto" may turn out to be one
  isBtrfs = line: builtins.isString line && builtins.match "[^ ]+ [^ ]+ (btrfs|auto) .*" line != null;
  btrfs = lib.any isBtrfs (builtins.split "\n" initrd.fstab);
in
{
  options = {
    boot = {
      initrd = {
        luks.devices = mkOption {
          type = types.attrsOf (types.submodule luksDevice);
          default = { };
        };
        services.lvm.enable = mkOption {
          type = types.bool;
          # nixos-generate-config writes this module where it sees a logical volume
          default = config.services.lvm.enable && builtins.elem "dm-snapshot" initrd.kernelModules;
        };
        # Not NixOS's: files below the initrd's /etc, and lists of the package storage-tools.
        files = mkOption {
          type = types.attrsOf types.lines;
          default = { };
        };
        tools = mkOption {
          type = types.listOf types.str;
          default = [ ];
        };
      };
      swraid = {
        enable = bool false;
        mdadmConf = mkOption {
          type = types.lines;
          default = "";
        };
      };
    };
    services.lvm = {
      enable = bool true;
      boot.thin.enable = bool false;
    };
  };

  config = {
    boot.initrd.tools =
      lib.optional swraid.enable "mdadm"
      ++ lib.optional (luks != [ ]) "cryptsetup"
      ++ lib.optional byTpm "tpm2"
      ++ lib.optional initrd.services.lvm.enable "lvm2"
      ++ lib.optional thin "thin"
      ++ lib.optional (pkgs.hasStorage && btrfs) "btrfs";

    boot.initrd.kernelModules =
      lib.optionals swraid.enable [
        "md_mod"
        "raid0"
        "raid1"
        "raid10"
        "raid456"
      ]
      ++ lib.optionals (luks != [ ]) [
        "dm_crypt"
        "xts"
        "algif_skcipher"
      ]
      ++ lib.optional (pkgs.hasStorage && btrfs) "btrfs"
      ++ lib.optionals thin [
        "dm-snapshot"
        "dm-thin-pool"
      ];

    boot.initrd.files = {
      "luks" = lib.mkIf (luks != [ ]) (lib.concatLines (map luksLine luks));
      "mdadm.conf" = lib.mkIf swraid.enable swraid.mdadmConf;
      # no udev there
      "lvm/lvm.conf" = lib.mkIf initrd.services.lvm.enable ''
        activation/udev_sync = 0
        activation/udev_rules = 0
        activation/monitoring = 0
        global/thin_check_executable = "/bin/thin_check"
      '';
    };

    environment.etc."mdadm.conf" = lib.mkIf swraid.enable { text = swraid.mdadmConf; };
  };
}
