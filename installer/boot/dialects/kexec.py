"""kexec from a running Linux: the script `kexec-boot`, to lie beside bzImage and initrd.gz.

The names are those of NixOS's own kexec tree. See kexec(8), and kernel_lockdown(7) for what a
machine with Secure Boot refuses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site

_SCRIPT = """\
#!/bin/sh
# Written by netinstall. Starts @WHAT@ from the running system.
#
#   kexec-boot [--dry-run] [ARGUMENT...]
#
# Arguments are added to the kernel's; --dry-run (-n) shows what would be done. Kernel and initrd
# lie beside this script. initrd.gz is the customary name: the kernel tells the compression by
# the content.
set -eu
arguments=@ARGUMENTS@
kernel=bzImage
initrd=@INITRD@
# MiB that the machine must have (0: unknown), and the network card that this was made for (if any)
memory=@MEMORY@
card=@CARD@

sys=${NETINSTALL_SYS:-/sys}
proc=${NETINSTALL_PROC:-/proc}
# where su leaves out the folders of the administrator's programs
PATH=$PATH:/usr/sbin:/sbin

say() {
	printf 'kexec-boot: %s\\n' "$*" >&2
}

# read_first FILE: its first line, or nothing
read_first() {
	line=
	# shellcheck disable=SC2015 # a file without a newline at its end counts as well
	[ -r "$1" ] && read -r line <"$1" || :
	printf '%s\\n' "$line"
}

# The interface of the default route with the lowest metric (proc_net_route: hexadecimal, flag 1
# is "up").
default_interface() {
	[ -r "$proc/net/route" ] || return 0
	found=
	lowest=
	while read -r interface destination _ flags _ _ metric mask _; do
		# the first line is a heading
		[ "$interface" != Iface ] || continue
		[ "$destination$mask$((0x$flags & 1))" = 00000000000000001 ] || continue
		if [ -z "$lowest" ] || [ "$metric" -lt "$lowest" ]; then
			found=$interface lowest=$metric
		fi
	done <"$proc/net/route"
	printf '%s\\n' "$found"
}

# hardware INTERFACE: the card below a bridge, bond or VLAN, which the next kernel will see
hardware() {
	[ -e "$sys/class/net/$1/device" ] && printf '%s\\n' "$1" && return
	for lower in "$sys/class/net/$1"/lower_*; do
		[ -e "$lower" ] && hardware "${lower##*/lower_}" && return
	done
	return 1
}

# address INTERFACE: its MAC address; a bond has given its own to its cards
address() {
	mac=$(read_first "$sys/class/net/$1/bonding_slave/perm_hwaddr")
	printf '%s\\n' "${mac:-$(read_first "$sys/class/net/$1/address")}"
}

# quote WORD: so that a shell reads it as one
quote() {
	printf " '%s'" "$(printf '%s\\n' "$1" | sed "s/'/'\\\\\\\\''/g")"
}

dry_run=
case ${1-} in
-n | --dry-run)
	dry_run=yes
	shift
	;;
-h | --help)
	sed -n '2,/^set -eu/s/^# \\{0,1\\}//p' "$0"
	exit 0
	;;
-*)
	say "unknown option $1 (there are --dry-run and --help; a kernel argument begins with a letter)"
	exit 2
	;;
esac

if ! command -v kexec >/dev/null 2>&1; then
	say "there is no kexec here. Install the package kexec-tools:"
	echo "  apt-get install kexec-tools, dnf install kexec-tools, apk add kexec-tools," >&2
	echo "  pacman -S kexec-tools, or on NixOS: nix-shell -p kexec-tools" >&2
	exit 127
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for file in $kernel $initrd; do
	if [ ! -r "$here/$file" ]; then
		say "$here/$file is missing: it belongs beside this script"
		exit 1
	fi
done
if [ -z "$dry_run" ] && [ "$(id -u)" != 0 ]; then
	say "only root may load a kernel: sudo $0"
	exit 1
fi
if [ "$(read_first "$proc/sys/kernel/kexec_load_disabled")" = 1 ]; then
	say "this system forbids kexec until it is rebooted (sysctl kernel.kexec_load_disabled = 1)"
	echo "  look for it in /etc/sysctl.d, take it out, and reboot; or boot from the network" >&2
	exit 1
fi

# The kernel keeps something for itself before it counts.
total=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB$/\\1/p' "$proc/meminfo")
total=$((${total:-0} / 1024))
if [ "$total" -lt $((memory - memory / 8 - 32)) ]; then
	say "this machine has $total MiB of memory; $memory are needed"
	echo "  an image whose root is on NFS needs less; the number is in this script (memory=)" >&2
	exit 1
fi

if [ -n "$card" ]; then
	own=
	for interface in "$sys"/class/net/*; do
		[ "$(address "${interface##*/}")" != "$card" ] || own=yes
	done
	if [ -z "$own" ]; then
		say "this was made for the machine with the network card $card, and here is none"
		echo "  make one for this machine: netinstall boot kexec SITE --host NAME" >&2
		exit 1
	fi
fi

# What a loader on the network would say: the card that booted. ip=dhcp names none.
named=
set -f
for word in $arguments "$@"; do
	case $word in
	BOOTIF=* | ip=*:*) named=yes ;;
	esac
done
set +f
if [ -z "$named" ]; then
	bootif=$card
	interface=$(default_interface)
	if [ -z "$bootif" ] && [ -n "$interface" ] && interface=$(hardware "$interface") &&
		[ "$(read_first "$sys/class/net/$interface/type")" = 1 ]; then
		bootif=$(address "$interface")
	fi
	if [ -n "$bootif" ]; then
		arguments="BOOTIF=01-$(printf '%s\\n' "$bootif" | tr : -) $arguments"
	else
		say "no card has the default route: any that has a link will do (BOOTIF=01-MAC names one)"
	fi
fi
arguments="$arguments${*:+ $*}"
if [ "${#arguments}" -gt 2047 ]; then
	say "the kernel arguments have ${#arguments} bytes, and the kernel keeps 2047"
	exit 1
fi

# kexec_file_load(2) lets the kernel check a signature, which a locked one insists on; kexec_load(2)
# is what older kernels and unsigned images need.
calls='-s -c'
case $(read_first "$sys/kernel/security/lockdown") in
*'[integrity]'* | *'[confidentiality]'*) calls=-s ;;
esac

# systemd stops what is running and unmounts first
leave='kexec --exec'
[ ! -d "${NETINSTALL_RUN:-/run}/systemd/system" ] || leave='systemctl kexec'

set -- --load "$here/$kernel" ${initrd:+--initrd="$here/$initrd"} --command-line="$arguments"
if [ -n "$dry_run" ]; then
	printf 'kexec %s' "${calls%% *}"
	for word in "$@"; do quote "$word"; done
	printf '\\n%s\\n' "$leave"
	exit 0
fi

loaded=
said=
for call in $calls; do
	if answer=$(kexec "$call" "$@" 2>&1); then
		loaded=yes
		break
	fi
	said="$said
  kexec $call: $answer"
done
if [ -z "$loaded" ]; then
	if [ "$calls" = -s ]; then
		say "this system is locked down (Secure Boot): it wants a kernel signed by its vendor:$said"
		echo "  switch Secure Boot off, or boot from the network: see docs/kexec.md" >&2
	else
		say "the kernel could not be loaded:$said"
	fi
	exit 1
fi
say "leaving the running system; @WHAT@ goes on at its consoles"
sync
exec $leave
"""


@dataclass(frozen=True)
class Boot:
    """What `kexec-boot` starts: `what` for people; `arguments` is the kernel's command line.

    `memory_mib` is what the machine must have (0: unknown), `mac` the network card of the only
    machine that it is for.
    """

    what: str
    arguments: str
    with_initrd: bool = True
    memory_mib: int = 0
    mac: str | None = None


def script(boot: Boot) -> str:
    """Write kexec-boot: POSIX sh, for dash, bash and busybox."""
    parts = {
        "ARGUMENTS": encoding.shell(boot.arguments),
        "INITRD": "initrd.gz" if boot.with_initrd else "",
        "MEMORY": str(boot.memory_mib),
        "CARD": boot.mac or "",
        "WHAT": boot.what,
    }
    # in one go: the arguments may hold anything, also what looks like a placeholder
    return re.sub(r"@([A-Z_]+)@", lambda found: parts[found[1]], _SCRIPT)


def render(site: Site) -> Mapping[str, str]:
    """Write kexec-boot, for the first image. Raises InstallError."""
    return {"kexec-boot": script(boot_of(site, None))}


def boot_of(site: Site, number: int | None, memory_mib: int = 0) -> Boot:
    """Return what starts a host (None: any machine) of a site. Raises InstallError."""
    encode = Encoder(site, "kexec", str)
    arguments = " ".join(encode.arguments(number))
    encode.done()
    host = None if number is None else site.file.hosts[number]
    image = site.file.image_of(host)
    return Boot(
        what="the installer",
        arguments=arguments,
        with_initrd=image.root != "kernel-nfs",
        memory_mib=memory_mib,
        mac=None if host is None else host.mac,
    )
