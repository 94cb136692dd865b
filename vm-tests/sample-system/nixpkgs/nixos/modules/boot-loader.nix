# boot.loader.*: which boot loader `switch-to-configuration boot` installs, and where.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.boot.loader;
  grubDevices = lib.unique (
    lib.optional (cfg.grub.device != "") cfg.grub.device ++ cfg.grub.devices
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
    };
    # Not NixOS's: decide when installing.  For a system that is built before
    # anybody knows the machine's firmware.
    byFirmware = mkOption {
      type = types.bool;
      default = false;
    };
  };

  config = {
    boot.loader.grub.enable = lib.mkIf cfg.systemd-boot.enable (lib.mkDefault false);

    assertions = [
      {
        assertion = !cfg.grub.enable || cfg.byFirmware || grubDevices != [ ];
        message =
          "You must set the option ‘boot.loader.grub.devices’ or "
          + "'boot.loader.grub.mirroredBoots' to make the system bootable.";
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
      GRUB_DEVICES = lib.concatStringsSep " " grubDevices;
    };
  };
}
