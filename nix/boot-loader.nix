# GRUB for UEFI with its grub.cfg in it: it asks DHCP on one card, and fetches nixos/bzImage and
# nixos/initrd from the TFTP server of option 66. `netinstall boot loader` makes one for a site with
# many kinds of machines.
{
  lib,
  runCommand,
  grub2_efi,
  serial,
  card,
  arguments,
}:
let
  # GRUB's language (its manual, "Quoting"): in double quotes, $ stays special where it is wanted
  quoted = map (word: "\"${builtins.replaceStrings [ "\\" "\"" ] [ "\\\\" "\\\"" ] word}\"") arguments;
  parity = if serial.parity == "none" then "no" else serial.parity;
  config = ''
    ${lib.optionalString (serial != null) ''
      serial --unit=${toString serial.unit} --speed=${toString serial.speed} --word=8 --parity=${parity} --stop=1
      terminal_input serial console
      terminal_output serial console
    ''}
    for pause in 5 10 20 40; do
      net_ls_cards
      if net_bootp ${card}; then
        set net_default_interface=${card}_dhcp
        net_get_dhcp_option net_default_server ${card}:dhcp 66 string
        # some versions make routes of a relay's address that lead nowhere
        net_ls_addr
        net_ls_routes
        echo "netinstall: fetching nixos/bzImage and nixos/initrd from $net_default_server"
        if linux "(tftp,$net_default_server)/nixos/bzImage" ${lib.concatStringsSep " " quoted}; then
          if initrd "(tftp,$net_default_server)/nixos/initrd"; then
            boot
          fi
        fi
      fi
      echo "netinstall: ${card} did not boot; trying again in $pause s"
      sleep $pause
    done
    reboot
  '';
  modules = lib.concatStringsSep " " [
    "efinet net tftp memdisk tar normal configfile echo test true sleep serial terminal"
    "linux efi_gop efi_uga boot reboot halt minicmd ls cat"
  ];
in
runCommand "grub-efi-bootloader"
  {
    nativeBuildInputs = [ grub2_efi ];
    inherit config;
    passAsFile = [ "config" ];
    passthru = { inherit config; };
  }
  ''
    mkdir -p $out memdisk/boot/grub
    cp $configPath $out/grub.cfg
    cp $out/grub.cfg memdisk/boot/grub/
    tar -C memdisk --sort=name --mtime=@1 --owner=0 --group=0 --format=ustar -cf memdisk.tar boot
    grub-script-check $out/grub.cfg
    grub-mkimage -O x86_64-efi -o $out/bootx64.efi -p '(memdisk)/boot/grub' -m memdisk.tar ${modules}
  ''
