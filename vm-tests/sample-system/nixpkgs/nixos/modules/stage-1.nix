# boot.initrd and boot.kernel*: the initrd is one small archive of this
# configuration's settings and the programs it needs in front of the prebuilt one with the modules.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  list =
    default:
    mkOption {
      type = types.listOf types.str;
      inherit default;
    };
in
{
  options.boot = {
    initrd = {
      availableKernelModules = list [ ];
      kernelModules = list [ ];
      fstab = mkOption {
        type = types.lines;
        default = "";
      };
    };
    kernelModules = list [ ];
    kernelParams = list [ ];
    consoleLogLevel = mkOption {
      type = types.int;
      default = 4;
    };
  };

  config = {
    boot.initrd.availableKernelModules = [
      # NixOS's own defaults, as far as the sample's kernel has them.
      "ahci"
      "ata_piix"
      "nvme"
      "sd_mod"
      "sr_mod"
      "ehci_pci"
      "uhci_hcd"
      "xhci_pci"
      "usbhid"
      "hid_generic"
    ];
    boot.kernelParams = [
      "root=fstab"
      "loglevel=${toString config.boot.consoleLogLevel}"
      "console=tty0"
      "console=ttyS0,115200"
    ];

    environment.etc."modules-load.d/nixos.conf".text = lib.concatLines config.boot.kernelModules;

    system.build.initialRamdisk =
      pkgs.runCommand "initrd"
        {
          inherit (config.boot.initrd) fstab;
          modules = lib.concatLines (
            lib.unique (config.boot.initrd.kernelModules ++ config.boot.initrd.availableKernelModules)
          );
          tools = map (name: "${pkgs.storage-tools}/initrd/${name}") config.boot.initrd.tools;
        }
        ''
          mkdir -p $out root/etc
          cd root
          printf '%s' "$fstab" > etc/fstab
          printf '%s' "$modules" > etc/modules
          ${lib.concatLines (
            lib.mapAttrsToList (name: text: ''
              mkdir -p etc/${dirOf name}
              cp ${pkgs.writeText "stage-1-${baseNameOf name}" text} etc/${name}
            '') config.boot.initrd.files
          )}
          cat $tools /dev/null | sort -u > ../tools
          while read -r file place; do
            mkdir -p $(dirname $place)
            cp -L $file $place
          done < ../tools
          find . | sort > ../list
          xargs touch -h -d @1 < ../list
          cpio -o -H newc -R 0:0 --renumber-inodes --ignore-devno < ../list | gzip -1 > $out/initrd
          cat ${pkgs.base-initrd}/initrd >> $out/initrd
        '';
  };
}
