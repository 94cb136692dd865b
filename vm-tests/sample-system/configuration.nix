# The machine's configuration.  Netinstall adds networking.nix and, on a machine
# with a BIOS, boot-device.nix, which names the disk for GRUB.
{ lib, ... }:
let
  written = builtins.filter builtins.pathExists [
    ./networking.nix
    ./boot-device.nix
  ];
in
{
  imports = [ ./hardware-configuration.nix ] ++ written;

  boot.loader.systemd-boot.enable = lib.mkDefault (!builtins.pathExists ./boot-device.nix);
  boot.loader.efi.canTouchEfiVariables = true;

  system.stateVersion = "26.05";
}
