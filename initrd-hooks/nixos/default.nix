# NixOS: a root from the network in stage 1, by the library of ../lib.
#
#   imports = [ ./initrd-hooks/nixos ];
#   boot.initrd.netinstall.enable = true;
#
# Its kernel arguments are those of docs/kernel-arguments.md; `init=` names the system in the root,
# as always. The drivers of the network card belong into boot.initrd.availableKernelModules
# (profiles/all-hardware.nix of nixpkgs has those of most).
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.boot.initrd.netinstall;
  withSystemd = config.boot.initrd.systemd.enable;
  library = "${../lib}";
  # The root may hold any NixOS: its stage 2 wants to write to it. Leases are asked for by udhcpc:
  # networkd would be asked for a lease only when stage 1's own configuration says so, and keeps it
  # in a format of its own.
  mountAt = folder: ''
    # systemd's scripts are run with -e; here a shell that is left with an error means "try again"
    set +e
    . ${library}/netinstall.sh
    NETINSTALL_UDHCPC=${library}/netinstall-udhcpc
    netinstall_lease() {
      netinstall_udhcpc "$1"
    }
    netinstall_modules() {
      modprobe -a -q "$@" || :
    }
    mkdir -p "${folder}"
    netinstall_writable_root "${folder}"
  '';
  root = "/run/netinstall/root";
in
{
  options.boot.initrd.netinstall.enable = lib.mkEnableOption ''
    a root file system from the network (HTTP with a SHA-256, or NFS), as the kernel command line
    or DHCP says
  '';

  config = lib.mkIf cfg.enable {
    boot.initrd.availableKernelModules = [
      "af_packet"
      "loop"
      "squashfs"
      "overlay"
      "nfs"
      "nfsv3"
      "nfsv4"
      "virtio_net"
      "virtio_pci"
    ];

    boot.initrd.systemd = lib.mkIf withSystemd {
      # fileSystems does not say what the root is
      root = null;
      # udhcpc, mount that hands over every option, a shell for whoever sits in front of it
      storePaths = [
        library
        pkgs.busybox
      ];
      services.netinstall-root = {
        description = "Root file system from the network";
        unitConfig.DefaultDependencies = false;
        after = [
          "systemd-modules-load.service"
          "systemd-udev-trigger.service"
        ];
        before = [ "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          # unionfs-fuse lives on
          KillMode = "process";
        };
        script = ''
          export PATH=/bin:${pkgs.busybox}/bin
          ${mountAt root}
        '';
      };
      # A unit for /sysroot itself: whatever else is mounted below waits for it.
      mounts = [
        {
          where = "/sysroot";
          what = root;
          type = "none";
          options = "bind";
          unitConfig.DefaultDependencies = false;
          requires = [ "netinstall-root.service" ];
          after = [ "netinstall-root.service" ];
          requiredBy = [ "initrd-root-fs.target" ];
          before = [ "initrd-root-fs.target" ];
        }
      ];
    };

    # The scripted stage 1 mounts what fileSystems says: once more what is there already.
    boot.initrd.postDeviceCommands = lib.mkIf (!withSystemd) (mountAt "$targetRoot");
    fileSystems = lib.mkIf (!withSystemd) {
      "/" = {
        device = "/";
        fsType = "none";
        options = [ "bind" ];
      };
    };
  };
}
