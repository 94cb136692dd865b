# The boot environment in two files, kernel and initrd: the initrd holds the whole store as a
# squashfs, so that iPXE, GRUB, Pixiecore and kexec need nothing else.
{
  config,
  lib,
  pkgs,
  modulesPath,
  ...
}:
let
  inherit (config.system) build;
  kernel = "${build.kernel}/${config.system.boot.loader.kernelFile}";
  parameters = toString ([ "init=${build.toplevel}/init" ] ++ config.boot.kernelParams);
in
{
  imports = [
    ./environment.nix
    "${modulesPath}/installer/netboot/netboot.nix"
  ];

  # The root is there already; the agent needs the network.
  boot.initrd.netinstall.leaseOnly = true;

  system.build = {
    # nixpkgs' script does not say which card booted.
    netbootIpxeScript = lib.mkForce (
      pkgs.writeTextDir "netboot.ipxe" ''
        #!ipxe
        kernel bzImage ${parameters} BOOTIF=01-''${netX/mac:hexhyp} initrd=initrd ''${cmdline}
        initrd --name initrd initrd
        boot
      ''
    );

    netinstallNetboot = pkgs.linkFarm "netinstall-netboot" {
      bzImage = kernel;
      initrd = "${build.netbootRamdisk}/initrd";
      "netboot.ipxe" = "${build.netbootIpxeScript}/netboot.ipxe";
      kexec = build.kexecTree;
    };
  };
}
