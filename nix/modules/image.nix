# A system as a payload: the closure of this configuration, what it can be rebuilt from, cut into
# frames with a manifest by `netinstall payload pack`. Import it into the configuration of the
# machines that are to be installed; it changes nothing in that system.
{
  config,
  lib,
  pkgs,
  extendModules,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.netinstall.image;
  inherit (config.system) build;

  # Another machine: whatever nixos-generate-config may write beside what this one has. Its values do
  # not count, only that the tools of a rebuild are there.
  other =
    (extendModules {
      modules = [
        {
          _file = "another machine, to see what a rebuild needs";
          boot.initrd.availableKernelModules = [
            "ahci"
            "nvme"
            "usb_storage"
            "sd_mod"
            "virtio_blk"
            "virtio_scsi"
          ];
          boot.initrd.kernelModules = lib.optional cfg.rebuild.lvm "dm-snapshot";
          boot.kernelModules = [ "kvm-intel" ];
          boot.swraid.enable = lib.mkIf cfg.rebuild.raid (lib.mkForce true);
          boot.swraid.mdadmConf = lib.mkIf cfg.rebuild.raid (lib.mkForce "PROGRAM ${pkgs.coreutils}/bin/true");
          boot.initrd.luks.devices = lib.mkIf cfg.rebuild.luks {
            netinstall-example.device = "/dev/disk/by-uuid/00000000-0000-0000-0000-000000000000";
          };
          fileSystems = lib.listToAttrs (
            map (fsType: {
              name = "/netinstall-example/${fsType}";
              value = {
                device = "/dev/disk/by-uuid/00000000-0000-0000-0000-000000000000";
                inherit fsType;
                neededForBoot = true;
              };
            }) cfg.rebuild.filesystems
          );
          swapDevices = [ { device = "/dev/disk/by-uuid/00000000-0000-0000-0000-000000000000"; } ];
        }
      ];
    }).config;

  # What such a machine builds anew: all that a configuration makes of small files. Each has an
  # `inputDerivation`, which keeps everything at hand that it was built from. (With the whole of
  # `system.includeBuildDependencies` it would be gigabytes.)
  sources =
    entries: map (entry: entry.source) (builtins.filter (entry: entry.enable) (lib.attrValues entries));
  units =
    systemd:
    map (unit: unit.unit) (lib.attrValues systemd.units);
  rebuilt =
    system:
    [
      system.system.build.toplevel
      system.system.build.etc
      system.system.build.initialRamdisk
      system.system.build.modulesClosure
      system.system.path
    ]
    ++ sources system.environment.etc
    ++ units system.systemd
    ++ units system.systemd.user
    ++ lib.optionals system.boot.initrd.systemd.enable (
      sources system.boot.initrd.systemd.contents ++ units system.boot.initrd.systemd
    );
  forRebuild =
    map (derivation: derivation.inputDerivation) (
      builtins.filter (derivation: derivation ? inputDerivation) (rebuilt config ++ rebuilt other)
    )
    ++ cfg.rebuild.packages;

  channel = pkgs.runCommand "nixos-${config.system.nixos.version}" { preferLocalBuild = true; } ''
    mkdir -p $out
    cp -prd ${lib.cleanSource cfg.channel} $out/nixos
    chmod -R u+w $out/nixos
    ln -sfn . $out/nixos/nixpkgs
    printf '%s' ${lib.escapeShellArg config.system.nixos.versionSuffix} > $out/nixos/.version-suffix
  '';

  # import ./a from a flake's store path: the flake and all that it locks
  flakeSources =
    flake:
    [ flake.outPath ]
    ++ builtins.concatMap flakeSources (
      builtins.filter (input: input ? outPath) (builtins.attrValues (flake.inputs or { }))
    );

  defaultConfiguration = pkgs.writeTextDir "configuration.nix" ''
    { lib, ... }:
    {
      # what netinstall writes beside this file
      imports = builtins.filter builtins.pathExists [
        ./hardware-configuration.nix
        ./networking.nix
        ./storage.nix
        ./boot-device.nix
        ./boot-mirror.nix
      ];
      boot.loader.systemd-boot.enable = lib.mkDefault (!builtins.pathExists ./boot-device.nix);
      boot.loader.efi.canTouchEfiVariables = lib.mkDefault true;
      system.stateVersion = "${config.system.stateVersion}";
    }
  '';

  contents = [
    build.toplevel
  ]
  ++ lib.optional (cfg.channel != null) channel
  ++ lib.optionals (cfg.flake != null) (flakeSources cfg.flake)
  ++ lib.optionals cfg.rebuild.enable forRebuild
  ++ cfg.storeContents;

  closure = pkgs.closureInfo { rootPaths = contents; };
in
{
  options.netinstall.image = {
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../package.nix { };
      defaultText = lib.literalMD "`packages.netinstall` of the flake, built from this system's `pkgs`";
      description = "What packs the payload.";
    };

    name = mkOption {
      type = types.strMatching "[A-Za-z0-9][A-Za-z0-9._+-]{0,127}";
      default = "${config.system.name}-${config.system.nixos.label}";
      defaultText = lib.literalExpression ''"''${config.system.name}-''${config.system.nixos.label}"'';
      example = "db-7";
      description = "The payload's files are NAME.tar.zst and NAME.json.";
    };

    compression = mkOption {
      type = types.ints.between 1 19;
      default = 9;
      description = "zstd's level.";
    };

    expires = mkOption {
      type = types.nullOr (types.strMatching "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z");
      default = null;
      example = "2027-01-01T00:00:00Z";
      description = "When the payload must no longer be installed.";
    };

    built = mkOption {
      type = types.ints.between 1 4294967295;
      default = cfg.flake.lastModified or 1;
      defaultText = lib.literalMD "when the flake was last modified, or 1";
      example = lib.literalExpression "self.lastModified";
      description = ''
        Seconds since 1970 that the manifest gives as the payload's date, which
        `payload.trust.minimum-built` of an answer file looks at. The time of the build would make
        two builds differ.
      '';
    };

    configuration = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./machine";
      description = ''
        The folder that becomes /etc/nixos. Its `configuration.nix` (or its flake) has to import
        what Netinstall writes beside it. Without, a short one is made that imports just that.
      '';
    };

    channel = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "pkgs.path";
      description = "Sources of nixpkgs that become root's channel `nixos`: a rebuild needs them.";
    };

    flake = mkOption {
      type = types.nullOr types.raw;
      default = null;
      example = lib.literalExpression "self";
      description = ''
        A flake whose sources, with those of all its inputs, come along, and of which /etc/nixos
        gets a copy, unless {option}`netinstall.image.configuration` is given.
      '';
    };

    storeContents = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "[ pkgs.git ]";
      description = "What the target's store gets besides the system.";
    };

    rebuild = {
      enable = mkOption {
        type = types.bool;
        default = cfg.channel != null || cfg.flake != null;
        defaultText = lib.literalMD "whether there are sources";
        description = ''
          Whether the payload holds what building this configuration with another hardware
          configuration takes, so that it works without a network.
        '';
      };
      filesystems = mkOption {
        type = types.listOf types.str;
        default = [
          "ext4"
          "vfat"
        ];
        example = [
          "btrfs"
          "xfs"
        ];
        description = "File systems that machines may have.";
      };
      raid = lib.mkEnableOption "rebuilding for machines with software RAID";
      lvm = lib.mkEnableOption "rebuilding for machines with LVM's snapshots and thin volumes";
      luks = lib.mkEnableOption "rebuilding for machines with LUKS";
      packages = mkOption {
        type = types.listOf types.package;
        default = [ ];
        example = lib.literalExpression "[ pkgs.grub2_efi ]";
        description = "What else a rebuild needs.";
      };
    };
  };

  config.system.build.netinstallPayload =
    pkgs.runCommand "netinstall-payload"
      {
        nativeBuildInputs = [ cfg.package ];
        # it holds its own store
        __structuredAttrs = true;
        unsafeDiscardReferences.out = true;
        passthru = { inherit contents; };
      }
      ''
        mkdir -p root/nix/store root/etc/nixos root/nix/var/nix/profiles/per-user/root
        ${lib.optionalString (cfg.channel != null) ''
          ln -s ${channel} root/nix/var/nix/profiles/per-user/root/channels
        ''}
        ${
          if cfg.configuration != null then
            "cp -rT --no-preserve=mode ${cfg.configuration} root/etc/nixos"
          else if cfg.flake != null then
            "cp -rT --no-preserve=mode ${cfg.flake.outPath} root/etc/nixos"
          else
            "cp --no-preserve=mode ${defaultConfiguration}/configuration.nix root/etc/nixos/"
        }
        touch root/etc/NIXOS
        cp ${closure}/registration root/nix-path-registration

        # Builders own what they copy, so the owner is set in the archive. The store's paths are read
        # where they lie. In one go: tar that appends takes the archive for an older format by its
        # first headers, and leaves out links to names of more than 100 bytes.
        tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --format=posix \
          --pax-option=delete=atime,delete=ctime -cf system.tar \
          -C "$PWD/root" . -C / --files-from=<(sed 's,^/,,' ${closure}/store-paths)
        export SOURCE_DATE_EPOCH=${toString cfg.built}
        netinstall payload pack system.tar --output $out --name ${cfg.name} \
          --compression ${toString cfg.compression} ${
            lib.optionalString (cfg.expires != null) "--expires ${cfg.expires}"
          }
        netinstall payload verify $out/${cfg.name}.json
      '';
}
