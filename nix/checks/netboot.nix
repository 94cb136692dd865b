# A server made of nixosModules.server, a blank UEFI machine beside it, and a payload made of
# nixosModules.image: the machine boots from the network, is installed, and comes up from its disk.
{ pkgs, nixosModules }:
let
  inherit (pkgs) lib;
  evaluate =
    modules:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = modules ++ [ { nixpkgs.pkgs = pkgs; } ];
    }).config.system.build;

  boot = evaluate [ nixosModules.nfsroot ];

  machine = evaluate [
    nixosModules.image
    {
      netinstall.image.name = "machine";
      boot.loader.systemd-boot.enable = true;
      boot.loader.efi.canTouchEfiVariables = true;
      boot.initrd.availableKernelModules = [
        "virtio_pci"
        "virtio_blk"
      ];
      boot.kernelParams = [ "console=ttyS0" ];
      fileSystems."/" = {
        device = "/dev/disk/by-label/nixos";
        fsType = "ext4";
      };
      fileSystems."/boot" = {
        device = "/dev/disk/by-label/ESP";
        fsType = "vfat";
      };
      networking.hostName = "installed";
      documentation.enable = false;
      system.stateVersion = lib.trivial.release;
    }
  ];

  server = "192.168.1.1";
in
pkgs.testers.runNixOSTest {
  name = "netinstall-netboot";

  nodes.server = {
    imports = [ nixosModules.server ];
    virtualisation.vlans = [ 1 ];
    networking.firewall.enable = false;
    services.netinstall = {
      enable = true;
      images.image = boot.nfsroot.image;
      files.payloads = machine.netinstallPayload;
      site = {
        http.url = "http://${server}:8080";
        tftp.address = server;
        tftp.uefi = "ipxe.efi";
        dhcp = {
          interface = "eth1";
          subnet = "192.168.1.0/24";
          range = {
            first = "192.168.1.100";
            last = "192.168.1.199";
          };
        };
        answers = "http://${server}:8080/answers/";
        images = [
          {
            name = "netinstall";
            folder = "image";
          }
        ];
        # the system in the root, whose activation stage 1 runs
        kernel.arguments = [ "init=/init" ];
        serial = { };
      };
      answers.default = {
        payload = {
          url = "http://${server}:8080/payloads/machine.tar.zst";
          # its hash would have to be known before it is built
          unverified = true;
        };
        disks = [
          {
            match.serial = "target";
            partitions = [
              {
                type = "esp";
                size = "256 MiB";
                label = "ESP";
                mount = "/boot";
              }
              {
                size = "rest";
                label = "nixos";
                mount = "/";
              }
            ];
          }
        ];
      };
    };
  };

  testScript = ''
    import os
    import shutil
    import subprocess

    server.start()
    for unit in ["dnsmasq.service", "nginx.service"]:
        server.wait_for_unit(unit)
    server.succeed("curl --fail http://${server}:8080/ipxe/boot.ipxe")

    subprocess.run(["${pkgs.qemu_test}/bin/qemu-img", "create", "-f", "raw", "disk.img", "4G"], check=True)
    shutil.copyfile("${pkgs.OVMF.variables}", "vars.fd")
    os.chmod("vars.fd", 0o600)
    here = os.getcwd()
    client = create_machine(
        "${pkgs.qemu_test}/bin/qemu-kvm -m 2048 -machine q35"
        " -drive if=pflash,format=raw,unit=0,readonly=on,file=${pkgs.OVMF.firmware}"
        f" -drive if=pflash,format=raw,unit=1,file={here}/vars.fd"
        f" -drive if=none,id=disk,format=raw,file={here}/disk.img"
        " -device virtio-blk-pci,drive=disk,serial=target"
        " -netdev vde,id=net,sock=$QEMU_VDE_SOCKET_1"
        # the firmware's own PXE
        " -device virtio-net-pci,netdev=net,romfile="
    )
    client.start()
    client.wait_for_console_text("installed login:")
  '';
}
