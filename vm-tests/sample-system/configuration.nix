# The machine's configuration.  Netinstall adds networking.nix; where the storage needs it,
# storage.nix; where GRUB boots, boot-device.nix, which names its disks; and with several ESPs,
# boot-mirror.nix.
{ lib, ... }:
let
  written = builtins.filter builtins.pathExists [
    ./networking.nix
    ./boot-device.nix
    ./boot-mirror.nix
    ./storage.nix
  ];
in
{
  imports = [ ./hardware-configuration.nix ] ++ written;

  boot.loader.systemd-boot.enable = lib.mkDefault (!builtins.pathExists ./boot-device.nix);
  boot.loader.efi.canTouchEfiVariables = true;

  system.stateVersion = "26.05";
}
