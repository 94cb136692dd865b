# fileSystems and swapDevices -> /etc/fstab, and the part of it stage 1 mounts.
{
  config,
  lib,
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

  randomEncryption = {
    options = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      cipher = mkOption {
        type = types.str;
        default = "aes-xts-plain64";
      };
      source = mkOption {
        type = types.str;
        default = "/dev/urandom";
      };
      allowDiscards = mkOption {
        type = types.bool;
        default = false;
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
      # MiB, of a file that is made if it is not there
      size = mkOption {
        type = types.nullOr types.int;
        default = null;
      };
      randomEncryption = mkOption {
        type = types.coercedTo types.bool (enable: { inherit enable; }) (types.submodule randomEncryption);
        default = false;
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
  mappedName = swap: builtins.replaceStrings [ "/" ] [ "-" ] (builtins.substring 1 999 swap.device);
  swapLine =
    swap:
    lib.concatStringsSep " " [
      (if swap.randomEncryption.enable then "/dev/mapper/${mappedName swap}" else escape (deviceOf swap))
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

  # For programs/start: what must be made before it is swapped to.
  swapToMake =
    swap:
    lib.optional (swap.size != null) "file ${swap.device} ${toString swap.size}"
    ++ lib.optional swap.randomEncryption.enable (
      lib.concatStringsSep " " (
        [
          "random"
          swap.device
          (mappedName swap)
          swap.randomEncryption.cipher
          swap.randomEncryption.source
        ]
        ++ lib.optional swap.randomEncryption.allowDiscards "--allow-discards"
      )
    );

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
      }) config.swapDevices
      ++ map (swap: {
        # as in NixOS: with a new key each time, UUID and label are gone
        assertion =
          !swap.randomEncryption.enable
          || swap.device != null && builtins.match "/dev/disk/by-(uuid|label)/.*" swap.device == null;
        message = "You cannot use swap device \"${toString swap.device}\" with randomEncryption enabled.";
      }) config.swapDevices;

    environment.etc."sample/swap".text = lib.concatLines (lib.concatMap swapToMake config.swapDevices);

    environment.etc."fstab".text = lib.concatLines (map line ordered ++ map swapLine config.swapDevices);

    boot.initrd.fstab = lib.concatLines (map line (builtins.filter neededForBoot ordered));
  };
}
