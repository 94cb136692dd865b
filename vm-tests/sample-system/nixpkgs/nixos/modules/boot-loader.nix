# boot.loader.*: which boot loader `switch-to-configuration boot` installs, and where.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.boot.loader;
  mirroredBoot = {
    options = {
      path = mkOption { type = types.str; };
      efiSysMountPoint = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      devices = mkOption { type = types.listOf types.str; };
    };
  };
  realDevices = builtins.filter (device: device != "nodev") (
    lib.concatMap (boot: boot.devices) cfg.grub.mirroredBoots
  );
  bootLine =
    boot:
    lib.concatStringsSep " " (
      [
        boot.path
        (if boot.efiSysMountPoint == null then boot.path else boot.efiSysMountPoint)
      ]
      ++ boot.devices
    );
in
{
  options.boot.loader = {
    timeout = mkOption {
      type = types.nullOr types.int;
      default = 1;
    };
    efi = {
      canTouchEfiVariables = mkOption {
        type = types.bool;
        default = false;
      };
      efiSysMountPoint = mkOption {
        type = types.str;
        default = "/boot";
      };
    };
    grub = {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      device = mkOption {
        type = types.str;
        default = "";
      };
      devices = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
      mirroredBoots = mkOption {
        type = types.listOf (types.submodule mirroredBoot);
        default = [ ];
      };
      efiSupport = mkOption {
        type = types.bool;
        default = false;
      };
      efiInstallAsRemovable = mkOption {
        type = types.bool;
        default = false;
      };
      useOSProber = mkOption {
        type = types.bool;
        default = false;
      };
    };
    systemd-boot = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      configurationLimit = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      extraInstallCommands = mkOption {
        type = types.lines;
        default = "";
      };
    };
    # Not NixOS's: decide when installing.  For a system that is built before
    # anybody knows the machine's firmware.
    byFirmware = mkOption {
      type = types.bool;
      default = false;
    };
  };

  config = {
    boot.loader.grub = {
      enable = lib.mkIf cfg.systemd-boot.enable (lib.mkDefault false);
      devices = lib.mkIf (cfg.grub.device != "") [ cfg.grub.device ];
      mirroredBoots = lib.mkIf (cfg.grub.devices != [ ]) [
        {
          path = "/boot";
          inherit (cfg.grub) devices;
          inherit (cfg.efi) efiSysMountPoint;
        }
      ];
    };

    assertions = [
      {
        assertion = !cfg.grub.enable || cfg.byFirmware || cfg.grub.mirroredBoots != [ ];
        message =
          "You must set the option ‘boot.loader.grub.devices’ or "
          + "'boot.loader.grub.mirroredBoots' to make the system bootable.";
      }
      {
        assertion = cfg.grub.efiSupport || lib.unique realDevices == realDevices;
        message = "You cannot have duplicated devices in mirroredBoots";
      }
      {
        assertion = !cfg.grub.efiInstallAsRemovable || cfg.grub.efiSupport;
        message =
          "If you wish to to use boot.loader.grub.efiInstallAsRemovable, "
          + "then turn on boot.loader.grub.efiSupport";
      }
      {
        assertion = !cfg.grub.efiInstallAsRemovable || !cfg.efi.canTouchEfiVariables;
        message =
          "If you wish to to use boot.loader.grub.efiInstallAsRemovable, "
          + "then turn off boot.loader.efi.canTouchEfiVariables";
      }
      {
        assertion = !(cfg.grub.enable && cfg.systemd-boot.enable);
        message = "Only one of boot.loader.grub and boot.loader.systemd-boot can be enabled.";
      }
    ];

    # Environment of programs/install-boot-loader.
    system.boot.loader.environment = {
      BOOT_LOADER =
        if cfg.byFirmware then
          "by-firmware"
        else if cfg.systemd-boot.enable then
          "systemd-boot"
        else if cfg.grub.enable then
          "grub"
        else
          "none";
      BOOT_TIMEOUT = toString (if cfg.timeout == null then -1 else cfg.timeout);
      EFI_MOUNT_POINT = cfg.efi.efiSysMountPoint;
      EFI_VARIABLES = if cfg.efi.canTouchEfiVariables then "1" else "0";
      BOOT_EXTRA_COMMANDS =
        let
          commands = cfg.systemd-boot.extraInstallCommands;
        in
        lib.optionalString (commands != "") "${pkgs.writeText "extra-install-commands" commands}";
      GRUB_BOOTS = lib.concatStringsSep "\n" (map bootLine cfg.grub.mirroredBoots);
      GRUB_EFI = if cfg.grub.efiSupport then "1" else "0";
      GRUB_EFI_REMOVABLE = if cfg.grub.efiInstallAsRemovable then "1" else "0";
    };
  };
}
