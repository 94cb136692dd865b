# The boot environment with its root on a server: NFS, or a squashfs by HTTP. `system.build.nfsroot`
# has what the servers hand out.
{
  config,
  lib,
  pkgs,
  modulesPath,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (config.system) build;
  cfg = config.nfsroot;
  kernelFile = "${build.kernel}/${config.system.boot.loader.kernelFile}";
  initrdFile = "${build.initialRamdisk}/${config.system.boot.loader.initrdFile}";

  # "IXGB y IXGBE y" -> [ "IXGB" "y" "IXGBE" "y" ]
  words = builtins.filter (word: builtins.isString word && word != "") (
    builtins.split "[[:space:]]+" cfg.extraKernelOptions
  );
  pairs = builtins.genList (index: {
    name = builtins.elemAt words (2 * index);
    value = lib.mkForce (option (builtins.elemAt words (2 * index + 1)));
  }) (builtins.length words / 2);
  option =
    value:
    {
      y = lib.kernel.yes;
      m = lib.kernel.module;
      n = lib.kernel.no;
    }
    .${value} or (lib.kernel.freeform value);
  # what a kernel needs to mount its root by NFS without an initrd
  rootByItself = lib.genAttrs [
    "IP_PNP"
    "IP_PNP_DHCP"
    "NFS_FS"
    "NFS_V3"
    "NFS_V4"
    "ROOT_NFS"
    "OVERLAY_FS"
  ] (_: lib.mkForce lib.kernel.yes);

  tarball = pkgs.callPackage "${modulesPath}/../lib/make-system-tarball.nix" {
    fileName = "nfsroot";
    inherit (cfg) contents;
    storeContents = [
      {
        object = build.toplevel;
        symlink = "none";
      }
    ]
    ++ cfg.storeContents;
    extraCommands = toString (
      pkgs.writeShellScript "add-folders" ''
        mkdir -p dev etc proc root run sys tmp usr var mnt
        chmod 1777 tmp
        ln -s ${build.toplevel}/init init
      ''
    );
  };

  # As the original has it: the file is in the result itself.
  nfsRootTarball = pkgs.runCommand "nfsroot" { } ''
    mkdir $out
    ln -s ${tarball}/tarball/nfsroot.tar.xz $out/nfsroot.tar.xz
  '';

  # The folder that a site file calls an image: what `netinstall image build` leaves.
  image =
    pkgs.runCommand "netinstall-image"
      {
        nativeBuildInputs = [
          pkgs.squashfsTools
          pkgs.jq
          pkgs.xz
        ];
      }
      ''
        mkdir root $out
        tar -C root -xf ${nfsRootTarball}/nfsroot.tar.xz --no-same-owner
        cp ${kernelFile} $out/vmlinuz
        cp ${initrdFile} $out/initrd
        mksquashfs root $out/root.squashfs -noappend -no-progress -all-root -no-xattrs \
          -comp zstd -Xcompression-level 15 -b 128K -processors $NIX_BUILD_CORES
        cd $out
        for file in vmlinuz initrd root.squashfs; do
          jq -n --arg name $file --argjson bytes "$(stat -c %s $file)" \
            --arg sha256 "$(sha256sum $file | cut -d ' ' -f 1)" \
            '{($name): {$bytes, $sha256}}'
        done | jq -s --arg kernel ${lib.escapeShellArg config.boot.kernelPackages.kernel.modDirVersion} \
          '{kernel: $kernel, files: add}' > image.json
      '';

  arguments = [
    "init=/init"
    "root=/dev/nfs"
  ]
  ++ lib.optional (
    cfg.bootLoader.linuxPnPInterface != null
  ) "ip=:::::${cfg.bootLoader.linuxPnPInterface}:dhcp::"
  ++ lib.optional (cfg.bootLoader.linuxPnPInterface == null) "BOOTIF=$net_default_mac"
  ++ config.boot.kernelParams;

  bootLoader = import ../boot-loader.nix {
    inherit lib arguments;
    inherit (pkgs) runCommand grub2_efi;
    inherit (config.netinstall) serial;
    card = cfg.bootLoader.efinetDHCPInterface;
  };
in
{
  imports = [ ./environment.nix ];

  options.nfsroot = {
    bootLoader = {
      efinetDHCPInterface = mkOption {
        type = types.strMatching "efinet[0-9]{1,2}";
        default = "efinet0";
        example = "efinet6";
        description = ''
          The card, by GRUB's name, on which the boot loader asks DHCP for its address and for the
          TFTP server (option 66) that has the kernel.
        '';
      };
      linuxPnPInterface = mkOption {
        type = types.nullOr (types.strMatching "[A-Za-z0-9][A-Za-z0-9_.-]{0,14}");
        default = null;
        example = "enp6s0";
        description = ''
          The interface, by Linux's name, on which stage 1 asks DHCP for the root
          (`ip=:::::INTERFACE:dhcp::`). Without, it is the card that GRUB booted from: its MAC
          address is handed over, and no name has to be known.
        '';
      };
    };

    contents = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            source = mkOption {
              type = types.either types.path types.str;
              description = "Absolute path of what is copied.";
            };
            target = mkOption {
              type = types.str;
              description = "Path in the root file system.";
            };
          };
        }
      );
      default = [ ];
      example = lib.literalExpression ''
        [
          {
            source = ./system.tar.zst;
            target = "/installer/system.tar.zst";
          }
        ]
      '';
      description = "Files and folders that the root file system has besides the store.";
    };

    storeContents = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            object = mkOption {
              type = types.package;
              description = "What goes into the store, with its closure.";
            };
            symlink = mkOption {
              type = types.str;
              default = "none";
              description = ''Where in the root file system a link to it is made, or "none".'';
            };
          };
        }
      );
      default = [ ];
      example = lib.literalExpression ''
        [
          {
            object = pkgs.tcpdump;
            symlink = "/tcpdump";
          }
        ]
      '';
      description = "What the store of the root file system has besides the boot environment.";
    };

    extraKernelOptions = mkOption {
      type = types.addCheck types.str (
        text:
        let
          count = builtins.length (
            builtins.filter (word: builtins.isString word && word != "") (
              builtins.split "[[:space:]]+" text
            )
          );
        in
        count - count / 2 * 2 == 0
      );
      default = "";
      example = "IXGB y IXGBE y";
      description = ''
        Options of the kernel and their values. With any, a kernel of its own is built, which can
        also mount its root by NFS without an initrd, if the driver of its card is among them;
        without, NixOS's kernel is taken, and the initrd has the drivers.
      '';
    };
  };

  config = {
    boot.kernelPatches = lib.mkIf (cfg.extraKernelOptions != "") [
      {
        name = "netinstall-nfs-root";
        patch = null;
        structuredExtraConfig = rootByItself // builtins.listToAttrs pairs;
      }
    ];

    system.build.nfsroot = {
      inherit bootLoader nfsRootTarball image;
      tarball = nfsRootTarball;
      inherit (build) kernel;
      initrd = build.initialRamdisk;
      # for /nixos of a TFTP server
      tftp = pkgs.linkFarm "netinstall-tftp" {
        "nixos/bootx64.efi" = "${bootLoader}/bootx64.efi";
        "nixos/bzImage" = kernelFile;
        "nixos/initrd" = initrdFile;
      };
    };
  };
}
