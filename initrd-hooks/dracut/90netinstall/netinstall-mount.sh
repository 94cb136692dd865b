#!/bin/sh
# Mounts the root. Read by dracut's shell; it comes back only when $NEWROOT is mounted.

if [ "${root:-}" = netinstall ]; then
    # shellcheck source=initrd-hooks/lib/netinstall.sh
    . /lib/netinstall.sh

    # dracut's network modules keep their leases in formats of their own, each in another one
    netinstall_lease() {
        netinstall_udhcpc "$1"
    }

    netinstall_modules() {
        modprobe -a -q "$@" || :
    }

    # the root may be anybody's, with systemd in it
    netinstall_writable_root "${NEWROOT:?}"
fi
