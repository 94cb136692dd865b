# The system's store path, in the shape NixOS gives it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  build = config.system.build;
  label = config.system.nixos.label;
  quote = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] text}'";
  exports = lib.concatLines (
    lib.mapAttrsToList (name: value: "export ${name}=${quote value}") config.system.boot.loader.environment
  );

  systemPath = pkgs.runCommand "system-path" { } ''
    mkdir -p $out/bin
    for file in ${pkgs.busybox}/bin/* ${lib.optionalString pkgs.hasStorage "${pkgs.storage-tools}/bin/*"} \
      ${pkgs.nix}/bin/* ${pkgs.grub}/bin/* ${pkgs.efibootmgr}/bin/* \
      ${pkgs.util-linux}/bin/* ${pkgs.kmod}/bin/* ${pkgs.udev}/bin/* ${pkgs.programs}/bin/nixos-*; do
      ln -sfn $file $out/bin/
    done
    ln -s ${pkgs.busybox}/bin/sh $out/bin/bash
  '';
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.raw;
      default = [ ];
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [ ];
    };
    system = {
      name = mkOption {
        type = types.str;
        default = if config.networking.hostName == "" then "unnamed" else config.networking.hostName;
      };
      boot.loader.environment = mkOption {
        type = types.attrsOf types.str;
      };
      nixos = {
        release = mkOption {
          type = types.str;
          # A name must not refer to the channel that the file is read from.
          default = builtins.unsafeDiscardStringContext (builtins.readFile ../../.version);
        };
        label = mkOption {
          type = types.str;
          default = "${config.system.nixos.release}.sample";
        };
      };
      # Not NixOS's: what the report calls configured_from.
      sample.origin = mkOption {
        type = types.enum [
          "prebuilt"
          "rebuilt"
        ];
        default = "rebuilt";
      };
    };
  };

  config = {
    environment.etc."sample/origin".text = config.system.sample.origin + "\n";

    system.build.toplevel =
      pkgs.runCommand "nixos-system-${config.system.name}-${label}"
        {
          bootspec = builtins.toJSON {
            "org.nixos.bootspec.v1" = {
              init = "@out@/init";
              initrd = "${build.initialRamdisk}/initrd";
              kernel = "${pkgs.kernel}/bzImage";
              kernelParams = config.boot.kernelParams;
              label = "NixOS ${label}";
              system = "x86_64-linux";
              toplevel = "@out@";
            };
            "org.nixos.specialisation.v1" = { };
            "org.nixos.systemd-boot" = {
              sortKey = "nixos";
            };
          };
        }
        ''
          mkdir -p $out/bin $out/specialisation
          ln -s ${pkgs.kernel}/bzImage $out/kernel
          ln -s ${build.initialRamdisk}/initrd $out/initrd
          ln -s ${pkgs.kernel} $out/kernel-modules
          ln -s ${build.etc}/etc $out/etc
          ln -s ${systemPath} $out/sw
          printf %s ${quote (lib.concatStringsSep " " config.boot.kernelParams)} > $out/kernel-params
          printf %s ${label} > $out/nixos-version
          printf %s x86_64-linux > $out/system
          printf %s 'systemd 2' > $out/init-interface-version
          : > $out/extra-dependencies
          printf '%s\n' "$bootspec" | sed "s,@out@,$out,g" > $out/boot.json

          printf '#!%s\nexec %s %s "$@"\n' ${pkgs.busybox}/bin/sh ${pkgs.programs}/bin/stage-2 $out > $out/init
          printf '#!%s\nexec %s %s "$@"\n' ${pkgs.busybox}/bin/sh ${pkgs.programs}/bin/activate $out > $out/activate
          {
            printf '#!%s\n' ${pkgs.busybox}/bin/sh
            cat ${pkgs.writeText "boot-loader-settings" exports}
            printf 'exec %s %s "$@"\n' ${pkgs.programs}/bin/switch-to-configuration $out
          } > $out/bin/switch-to-configuration
          chmod 755 $out/init $out/activate $out/bin/switch-to-configuration
        '';
  };
}
