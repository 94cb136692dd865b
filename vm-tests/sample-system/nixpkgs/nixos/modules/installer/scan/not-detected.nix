# What hardware-configuration.nix imports on bare metal: nothing is needed for
# hardware that was not recognised but firmware, and this system has none.
{ lib, ... }:
{
  hardware.enableRedistributableFirmware = lib.mkDefault true;
}
