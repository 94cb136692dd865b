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
  begin = ''
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
  '';
  mountAt = folder: ''
    ${begin}
    mkdir -p "${folder}"
    netinstall_writable_root "${folder}"
  '';
  lease = ''
    ${begin}
    until netinstall_network; do
      netinstall_failed
    done
  '';
  root = "/run/netinstall/root";
  modules = [
    "af_packet"
    "virtio_net"
    "virtio_pci"
  ];
in
{
  options.boot.initrd.netinstall = {
    enable = lib.mkEnableOption ''
      a root file system from the network (HTTP with a SHA-256, or NFS), as the kernel command line
      or DHCP says
    '';
    leaseOnly = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether only a lease is asked for, and left in /run for what comes after stage 1: the root
        is what {option}`fileSystems` says.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    boot.initrd.availableKernelModules =
      if cfg.leaseOnly then
        modules
      else
        modules
        ++ [
          "loop"
          "squashfs"
          "overlay"
          "nfs"
          "nfsv3"
          "nfsv4"
        ];

    boot.initrd.systemd = lib.mkIf withSystemd {
      # fileSystems does not say what the root is
      root = lib.mkIf (!cfg.leaseOnly) null;
      # udhcpc, mount that hands over every option, a shell for whoever sits in front of it
      storePaths = [
        library
        pkgs.busybox
      ];
      services.netinstall-lease = lib.mkIf cfg.leaseOnly {
        description = "Network";
        unitConfig.DefaultDependencies = false;
        after = [
          "systemd-modules-load.service"
          "systemd-udev-trigger.service"
        ];
        requiredBy = [ "initrd.target" ];
        before = [
          "initrd.target"
          "shutdown.target"
        ];
        conflicts = [ "shutdown.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
        };
        script = ''
          export PATH=/bin:${pkgs.busybox}/bin
          ${lease}
        '';
      };
      services.netinstall-root = lib.mkIf (!cfg.leaseOnly) {
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
      mounts = lib.mkIf (!cfg.leaseOnly) [
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
    boot.initrd.postDeviceCommands = lib.mkIf (!withSystemd) (
      if cfg.leaseOnly then lease else mountAt "$targetRoot"
    );
    fileSystems = lib.mkIf (!withSystemd && !cfg.leaseOnly) {
      "/" = {
        device = "/";
        fsType = "none";
        options = [ "bind" ];
      };
    };
  };
}
