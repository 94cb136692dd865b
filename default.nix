# Everything that Nix makes of this repository, for those without flakes:
#
#   nix-build -A packages.netboot
#   imports = [ (import ./netinstall { }).nixosModules.image ];
{
  pkgs ? import <nixpkgs> { },
}:
let
  inherit (pkgs) lib;
  nixosModules = {
    installer = ./nix/modules/installer.nix;
    nfsroot = ./nix/modules/nfsroot.nix;
    image = ./nix/modules/image.nix;
    server = ./nix/modules/server.nix;
  };

  system =
    modules:
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = modules ++ [ { nixpkgs.pkgs = lib.mkDefault pkgs; } ];
    };

  library = {
    schema = import ./nix/schema.nix { inherit lib; };

    # The boot environment in kernel and initrd: bzImage, initrd, netboot.ipxe, kexec/.
    netboot =
      module:
      (system [
        nixosModules.installer
        module
      ]).config.system.build.netinstallNetboot;

    # The boot environment with its root on a server: tarball, image, bootLoader, kernel, initrd, tftp.
    nfsroot =
      module:
      (system [
        nixosModules.nfsroot
        module
      ]).config.system.build.nfsroot;

    # The payload of a system, which need not have imported nixosModules.image.
    payload =
      nixos: module:
      (nixos.extendModules {
        modules = [
          nixosModules.image
          module
        ];
      }).config.system.build.netinstallPayload;

    # Field by field what `netinstall check` would say, and the attribute set that goes into the file.
    answers =
      value:
      library.schema.given
        (lib.evalModules {
          modules = [
            {
              options.answers = lib.mkOption { type = library.schema.answerFile { }; };
              config.answers = value;
            }
          ];
        }).config.answers;
  };

  # What machines boot without further words: the answer file is named on the kernel command line.
  nfsroot = library.nfsroot { };
  netboot = library.netboot { };
in
{
  inherit nixosModules;
  lib = library;

  packages = {
    netinstall = pkgs.callPackage ./nix/package.nix { };
    inherit netboot;
    kexec = (system [ nixosModules.installer ]).config.system.build.kexecTree;
    inherit (nfsroot)
      bootLoader
      image
      initrd
      kernel
      tarball
      tftp
      ;
  };

  checks.netboot = import ./nix/checks/netboot.nix { inherit pkgs nixosModules; };

  shell = pkgs.mkShell {
    packages = with pkgs; [
      deadnix
      dnsmasq
      minisign
      mypy
      nixfmt
      python3
      qemu
      ruff
      shellcheck
      squashfsTools
    ];
    inputsFrom = [ (pkgs.callPackage ./nix/package.nix { }) ];
  };
}
