# fileSystems and swapDevices -> /etc/fstab, and the part of it stage 1 mounts.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;

  neededByNixOS = [
    "/"
    "/nix"
    "/nix/store"
    "/var"
    "/var/log"
    "/var/lib"
    "/var/lib/nixos"
    "/etc"
    "/usr"
  ];

  fileSystem =
    { name, ... }:
    {
      options = {
        mountPoint = mkOption {
          type = types.path;
          default = name;
        };
        device = mkOption {
          type = types.nullOr types.str;
          default = null;
        };
        label = mkOption {
          type = types.nullOr types.str;
          default = null;
        };
        fsType = mkOption {
          type = types.str;
          default = "auto";
        };
        options = mkOption {
          type = types.listOf types.str;
          default = [ "defaults" ];
        };
        neededForBoot = mkOption {
          type = types.bool;
          default = false;
        };
        noCheck = mkOption {
          type = types.bool;
          default = false;
        };
        autoResize = mkOption {
          type = types.bool;
          default = false;
        };
        depends = mkOption {
          type = types.listOf types.str;
          default = [ ];
        };
      };
    };

  swapDevice = {
    options = {
      device = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      label = mkOption {
        type = types.nullOr types.str;
        default = null;
      };
      priority = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      discardPolicy = mkOption {
        type = types.nullOr (
          types.enum [
            "once"
            "pages"
            "both"
          ]
        );
        default = null;
      };
      options = mkOption {
        type = types.listOf types.str;
        default = [ "defaults" ];
      };
    };
  };

  # fstab(5) separates by white space and has \040 for a space.
  escape = builtins.replaceStrings [ " " "\t" ] [ "\\040" "\\011" ];
  deviceOf = fs: if fs.device != null then fs.device else "/dev/disk/by-label/${fs.label}";
  line =
    fs:
    lib.concatStringsSep " " [
      (escape (deviceOf fs))
      (escape fs.mountPoint)
      fs.fsType
      (escape (lib.concatStringsSep "," (lib.unique fs.options)))
      "0"
      (if fs.mountPoint == "/" && !fs.noCheck then "1" else if fs.noCheck then "0" else "2")
    ];
  swapLine =
    swap:
    lib.concatStringsSep " " [
      (escape (deviceOf swap))
      "none"
      "swap"
      (lib.concatStringsSep "," (
        lib.unique (
          swap.options
          ++ lib.optional (swap.priority != null) "pri=${toString swap.priority}"
          ++ lib.optional (swap.discardPolicy != null) "discard"
        )
      ))
      "0"
      "0"
    ];

  # "/" sorts before "/nix" sorts before "/nix/store".
  ordered = builtins.sort (a: b: a.mountPoint < b.mountPoint) (builtins.attrValues config.fileSystems);
  neededForBoot = fs: fs.neededForBoot || builtins.elem fs.mountPoint neededByNixOS;
in
{
  options = {
    fileSystems = mkOption {
      type = types.attrsOf (types.submodule fileSystem);
      default = { };
    };
    swapDevices = mkOption {
      type = types.listOf (types.submodule swapDevice);
      default = [ ];
    };
  };

  config = {
    assertions =
      [
        {
          assertion = config.fileSystems ? "/";
          message = "The ‘fileSystems’ option does not specify your root file system.";
        }
      ]
      ++ map (fs: {
        assertion = fs.device != null || fs.label != null;
        message = "No device specified for mount point ‘${fs.mountPoint}’.";
      }) ordered
      ++ map (swap: {
        assertion = swap.device != null || swap.label != null;
        message = "An element of ‘swapDevices’ has neither a device nor a label.";
      }) config.swapDevices;

    environment.etc."fstab".text = lib.concatLines (map line ordered ++ map swapLine config.swapDevices);

    boot.initrd.fstab = lib.concatLines (map line (builtins.filter neededForBoot ordered));
  };
}
