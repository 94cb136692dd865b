# The system that the tarball holds ready built.  It knows no machine, so it
# finds everything by what the installer is expected to name it.
{ ... }:
{
  system.name = "sample";
  system.sample.origin = "prebuilt";

  # systemd-boot where /sys/firmware/efi exists, otherwise GRUB on the disk of /.
  boot.loader.byFirmware = true;
  boot.loader.efi.canTouchEfiVariables = true;

  imports = [ ./nixos/modules/profiles/qemu-guest.nix ];
  boot.initrd.availableKernelModules = [
    "ext4"
    "xfs"
    "btrfs"
    "usb_storage"
    "uas"
  ];

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "auto";
  };
  fileSystems."/boot" = {
    device = "/dev/disk/by-label/ESP";
    fsType = "vfat";
    options = [
      "umask=0077"
      "nofail"
    ];
  };
  swapDevices = [ { label = "swap"; } ];

  # The lease names the machine; without one it is called "sample".
  networking.hostName = "";
  networking.useDHCP = true;
}
