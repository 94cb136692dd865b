# What one of our modules makes of a NixOS of Debian's programs: its `config`.
{
  nixpkgs,
  debian,
  environment,
  # of nixosModules: installer, nfsroot (boot environments), image (a payload) or server
  module,
  # what the server hands out
  payload ? null,
  # with the stage 1 that is a script, in place of systemd's
  scripted ? false,
}:
let
  pkgs = import ./packages.nix { inherit nixpkgs debian environment; };
  inherit (pkgs) lib;

  environmentOf = module: {
    imports = [ module ];
    netinstall.package = pkgs.netinstall;
    netinstall.onFailure = "shell";
  };
  # its answer file is in it, and names a payload that is not there
  installer = environmentOf {
    netinstall.answers = {
      payload.path = "/not-there.tar.zst";
      payload.unverified = true;
      disks = [
        {
          match.serial = "target";
          partitions = [
            {
              size = "rest";
              mount = "/";
            }
          ];
        }
      ];
    };
    # Debian's kernel was built without `threads=`
    fileSystems."/nix/.ro-store" = lib.mkForce {
      fsType = "squashfs";
      device = "../nix-store.squashfs";
      options = [ "loop" ];
      neededForBoot = true;
    };
    netboot.squashfsCompression = "zstd -Xcompression-level 3";
  };
  nfsroot = environmentOf { netinstall.answersFrom = "http://192.0.2.1:8080/answers/"; };
  image = {
    netinstall.image.package = pkgs.netinstall;
    netinstall.image.name = "machine";
    documentation.enable = false;
    fileSystems."/".device = "/dev/disk/by-label/nixos";
    fileSystems."/".fsType = "ext4";
    boot.loader.grub.enable = false;
  };
  # the one of docs/nixos.md
  server.services.netinstall = {
    enable = true;
    package = pkgs.netinstall;
    images.image =
      (import ./system.nix {
        inherit nixpkgs debian environment;
        module = "nfsroot";
      }).system.build.nfsroot.image;
    files."payloads/system.tar.zst" = payload;
    site = {
      http.url = "http://192.0.2.1:8080";
      tftp.address = "192.0.2.1";
      tftp.user = "root";
      dhcp = {
        interface = "br0";
        subnet = "192.0.2.0/24";
        range = {
          first = "192.0.2.100";
          last = "192.0.2.199";
        };
      };
      answers = "http://192.0.2.1:8080/answers/";
      images = [
        {
          name = "netinstall";
          folder = "image";
        }
      ];
      kernel.arguments = [ "init=/init" ];
      serial = { };
      hosts = [
        {
          mac = "52:54:00:00:00:07";
          ip = "192.0.2.77";
          hostname = "rack7";
        }
      ];
    };
    answers."52-54-00-00-00-07" = {
      payload.url = "http://192.0.2.1:8080/payloads/system.tar.zst";
      payload.sha256 = builtins.hashFile "sha256" payload;
      system.install = "rebuild";
      network.mode = "static-from-lease";
      disks = [
        {
          match.serial = "netinstall-root";
          partitions = [
            {
              size = "rest";
              mount = "/";
            }
          ];
        }
      ];
    };
  };
in
(import "${toString nixpkgs}/nixos/lib/eval-config.nix" {
  system = null;
  modules = [
    (../../nix/modules + "/${module}.nix")
    { inherit installer nfsroot image server; }.${module}
    { boot.initrd.systemd.enable = !scripted; }
    (
      { config, ... }:
      {
        nixpkgs.pkgs = pkgs;

        # Debian's programs in place of nixpkgs'
        boot.kernelPackages = pkgs.linuxPackages_debian;
        # units of a systemd that is newer than Debian's
        boot.initrd.systemd.suppressedUnits = [
          "breakpoint-pre-basic.service"
          "breakpoint-pre-mount.service"
          "breakpoint-pre-switch-root.service"
          "breakpoint-pre-udev.service"
          "factory-reset-now.target"
          "systemd-factory-reset-complete.service"
          "systemd-vconsole-setup.service"
        ];
        boot.initrd.systemd.suppressedStorePaths = map (name: "${config.systemd.package}/lib/systemd/${name}") [
          "systemd-factory-reset"
          "system-generators/systemd-factory-reset-generator"
        ];
        systemd.suppressedSystemUnits = [
          "systemd-ask-password.socket"
          "systemd-ask-password@.service"
          "systemd-coredump.socket"
          "systemd-coredump@.service"
          "systemd-factory-reset-reboot.service"
          "systemd-factory-reset-request.service"
          "systemd-factory-reset.socket"
          "systemd-factory-reset@.service"
          "systemd-journalctl.socket"
          "systemd-journalctl@.service"
          "systemd-mute-console.socket"
          "systemd-mute-console@.service"
          "systemd-oomd.service"
          "systemd-oomd.socket"
          "systemd-timesyncd.service"
          "systemd-udevd-varlink.socket"
          "systemd-update-utmp.service"
          "systemd-vconsole-setup.service"
        ];
        console.enable = false;
        boot.initrd.systemd.dbus.enable = false;
        # Debian's looks there for its programs and generators
        boot.initrd.systemd.contents."/usr/lib/systemd".source =
          "${config.boot.initrd.systemd.package}/lib/systemd";
        # What Debian's programs look for there, and nixpkgs' in the booted system (kmod's modules)
        # or in their own folders (udev's rules, dhcpcd's plugin).
        boot.postBootCommands = ''
          mkdir -p /lib /usr/lib/x86_64-linux-gnu
          ln -sfn /run/booted-system/kernel-modules/lib/modules /lib/modules
          ln -sfn ${pkgs.netinstall.userland}/usr/lib/udev /usr/lib/udev
          ln -sfn ${pkgs.debianUserland}/usr/lib/x86_64-linux-gnu/dhcpcd /usr/lib/x86_64-linux-gnu/dhcpcd
        '';
        environment.defaultPackages = [ ];
        environment.stub-ld.enable = false;
        environment.corePackages = lib.mkForce [
          pkgs.bashInteractive
          pkgs.coreutils
          pkgs.gnugrep
          pkgs.util-linux
        ];
        environment.etc.rpc.enable = false;
        # what nothing of the boot environment is about
        boot.bcache.enable = false;
        boot.kexec.enable = false;
        fonts.fontconfig.enable = false;
        networking.dhcpcd.enable = false;
        networking.resolvconf.enable = false;
        programs.bash.completion.enable = false;
        programs.nano.enable = false;
        security.enableWrappers = false;
        services.logrotate.enable = false;
        services.lvm.enable = false;
        services.nscd.enable = false;
        system.disableInstallerTools = true;
        system.switch.enable = false;
        xdg.autostart.enable = false;
        xdg.icons.enable = false;
        xdg.mime.enable = false;
        system.nssModules = lib.mkForce [ ];
        security.sudo.enable = false;
        networking.firewall.enable = false;
      }
    )
  ];
}).config
