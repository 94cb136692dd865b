#!/bin/sh
# Says that the root is this module's: dracut.modules(7), "cmdline" hooks set root and rootok.
# Read by dracut's shell, whose functions and variables these are.

netinstall_root=$(getarg root=)
# The kernel's own words for a network root, and nothing at all, are ours. Another root= means that
# somebody boots a disk with this initrd.
case $netinstall_root in
'' | /dev/nfs | netinstall) netinstall_wanted=1 ;;
*) netinstall_wanted=$(getarg netinstall.root=) ;;
esac
if [ -n "$netinstall_wanted" ] || [ "$(getarg boot=)" = netinstall ]; then
    # shellcheck disable=SC2034
    root=netinstall rootok=1
fi
unset netinstall_root netinstall_wanted
