#!/bin/bash
# Puts the library and what it needs into an initrd of dracut. dracut.modules(7).
# dracut reads this file; `hostonly`, `initdir` and `moddir` are its variables.
# shellcheck disable=SC2154

check() {
    require_binaries busybox || return 1
    # only where it is asked for: --add netinstall
    return 255
}

depends() {
    echo base
}

installkernel() {
    # Whoever boots from the network needs its card, a keyboard for the shell, and the root's file
    # systems. It is not known on which machine that will be.
    hostonly='' instmods \
        '=drivers/net/ethernet' '=drivers/net/phy' '=drivers/net/mdio' '=drivers/net/usb' \
        virtio_net virtio_pci virtio_mmio vmxnet3 hv_netvsc hyperv_keyboard xen-netfront \
        af_packet loop squashfs overlay fuse nfs nfsv3 nfsv4 \
        ehci_pci ohci_pci uhci_hcd xhci_pci usbhid hid_generic atkbd i8042
}

install() {
    local library=/usr/share/netinstall/initrd-hooks/lib name
    inst_simple "$library/netinstall.sh" /lib/netinstall.sh
    inst_script "$library/netinstall-udhcpc" /lib/netinstall-udhcpc
    inst_multiple busybox cat mount readlink rm sed setsid sleep tr umount wc
    inst_multiple -o unionfs-fuse unionfs
    # cards have the names here that they will have later
    inst_multiple -o /usr/lib/systemd/network/99-default.link
    # for whoever sits in the shell; what dracut's own modules bring comes from them
    for name in df free ip nslookup ping poweroff ps reboot top vi wget; do
        [[ -e $initdir/usr/bin/$name || -e $initdir/usr/sbin/$name ]] ||
            ln -s busybox "$initdir/usr/bin/$name"
    done
    inst_hook cmdline 90 "$moddir/netinstall-cmdline.sh"
    inst_hook mount 50 "$moddir/netinstall-mount.sh"
}
