# shellcheck shell=sh
# What every initrd does to get from the network to Netinstall's root file system.
#
# A library for POSIX shells (dash, busybox ash, bash), read with `.`. An initramfs system's own
# folder defines two functions:
#
#   netinstall_lease DEVICE   gets a lease (DEVICE may be empty: any) and leaves it in the
#                             /run/net-DEVICE.conf of klibc's ipconfig(8); runs in a subshell.
#                             Where the system has no DHCP client: netinstall_udhcpc "$1"
#   netinstall_modules NAME…  loads kernel modules, quietly
#
# and calls one of these, which come back only when the root is there:
#
#   netinstall_mount_root FOLDER       the root as it is, read-only: this project's own init stacks
#                                      a layer on it by itself
#   netinstall_writable_root FOLDER    for a root whose init may be anybody's
#
# Kernel arguments:
#
#   netinstall.root=http://SERVER/root.squashfs with netinstall.root-sha256=HEX
#   netinstall.root=nfs:SERVER:/PATH[,OPTIONS]
#   root=/dev/nfs nfsroot=[SERVER:]/PATH[,OPTIONS] (admin-guide/nfs/nfsroot.rst of the kernel)
#   in a PATH, %s stands for the host name of the lease, or else for its address
#   none of these: the root path of the lease (DHCP option 17), in any of the forms above
#   BOOTIF=01-MAC             the interface that booted (pxelinux's IPAPPEND 2, iPXE, GRUB)
#   ip=…                      as in nfsroot.rst: dhcp, or a fixed address
#   netinstall.overlay=unionfs    with unionfs-fuse at once, where this library stacks
#   netinstall.network-timeout=SECONDS   wait for interface and link (default 180)
#   netinstall.on-failure=shell|reboot|poweroff   (default shell)
#   netinstall.failure-delay=SECONDS     how long an error stays before reboot or poweroff (60)
#
# Their values are data from strangers: each is matched against a pattern before it is used, and
# none is ever evaluated or left unquoted.

: "${NETINSTALL_CMDLINE:=/proc/cmdline}"
: "${NETINSTALL_SYS:=/sys}"
: "${NETINSTALL_RUN:=/run}"
: "${NETINSTALL_DEV:=/dev}"
: "${NETINSTALL_RESOLV_CONF:=/etc/resolv.conf}"
# what busybox's udhcpc calls: the file of that name beside this one
: "${NETINSTALL_UDHCPC:=/lib/netinstall-udhcpc}"

# netinstall_argument NAME: the value of the last NAME=VALUE on the kernel command line.
# Fails when there is none.
netinstall_argument() (
	set -f
	IFS=' 	
'
	found=1
	value=
	# splitting is what is wanted here, and `set -f` keeps * and ? what they are
	# shellcheck disable=SC2013
	for word in $(cat "$NETINSTALL_CMDLINE"); do
		case $word in
		"$1"=*)
			value=${word#*=}
			found=0
			;;
		esac
	done
	[ "$found" = 0 ] && printf '%s\n' "$value"
	return "$found"
)

# netinstall_number NAME DEFAULT: a whole number from the command line, at most 86400.
netinstall_number() {
	netinstall_value=$(netinstall_argument "$1") || netinstall_value=$2
	case $netinstall_value in
	'' | *[!0-9]* | ??????*) netinstall_value=$2 ;;
	esac
	[ "$netinstall_value" -le 86400 ] || netinstall_value=$2
	# a leading zero would make it octal where it is calculated with
	while case $netinstall_value in 0?*) true ;; *) false ;; esac do
		netinstall_value=${netinstall_value#0}
	done
	printf '%s\n' "$netinstall_value"
}

# The names of all kernel consoles, one a line; the last is the one behind /dev/console.
netinstall_consoles() (
	set -f
	active=$(cat "$NETINSTALL_SYS/class/tty/console/active" 2>/dev/null) || active=
	# shellcheck disable=SC2086 # a list of names, written by the kernel
	printf '%s\n' ${active:-console}
)

# netinstall_say TEXT: to every console (what init's own output does not reach).
netinstall_say() {
	for netinstall_console in $(netinstall_consoles); do
		printf '%s\r\n' "$1" 2>/dev/null >>"$NETINSTALL_DEV/$netinstall_console" || :
	done
}

# netinstall_problem CODE WHAT WHERE TRY: what is said when the work stops. The codes are those of
# docs/errors.md.
netinstall_problem() {
	netinstall_say ""
	netinstall_say "error[$1]: $2"
	netinstall_say "  where: $3"
	netinstall_say "  try:   $4"
}

# Seconds since the kernel started.
netinstall_uptime() (
	read -r up _ </proc/uptime
	printf '%s\n' "${up%%.*}"
)

# netinstall_applet NAME ARGUMENT…: busybox's own tool where there is a busybox. Other programs
# of the name have other options (klibc's mount knows no loop devices).
netinstall_applet() {
	if command -v busybox >/dev/null 2>&1; then
		busybox "$@"
	else
		"$@"
	fi
}

# netinstall_mac VALUE: the MAC address in a BOOTIF value, in lower case with colons.
# 01- before it is its hardware type (RFC 1700: Ethernet); GRUB leaves it out and writes colons.
netinstall_mac() (
	mac=$(printf '%s\n' "$1" | tr 'ABCDEF-' 'abcdef:')
	case $mac in
	01:??:??:??:??:??:??) mac=${mac#01:} ;;
	esac
	case $mac in
	*[!0-9a-f:]*) return 1 ;;
	??:??:??:??:??:??) printf '%s\n' "$mac" ;;
	*) return 1 ;;
	esac
)

# Names of the network interfaces that are hardware (type 1 is Ethernet, include/uapi/linux/if_arp.h).
netinstall_interfaces() (
	for folder in "$NETINSTALL_SYS"/class/net/*; do
		[ "$(cat "$folder/type" 2>/dev/null)" = 1 ] && printf '%s\n' "${folder##*/}"
	done
	:
)

# netinstall_interface_of MAC: the interface that has this address. Bonds and VLANs repeat the
# address of their lower device, but there are none in an initrd.
netinstall_interface_of() (
	for name in $(netinstall_interfaces); do
		if [ "$(cat "$NETINSTALL_SYS/class/net/$name/address" 2>/dev/null)" = "$1" ]; then
			printf '%s\n' "$name"
			return 0
		fi
	done
	return 1
)

# netinstall_linked NAME: whether it has a link. `carrier` cannot be read while it is down.
netinstall_linked() {
	[ "$(cat "$NETINSTALL_SYS/class/net/$1/carrier" 2>/dev/null)" = 1 ]
}

# netinstall_wait_for_link MAC TIMEOUT: wait until the interface with this address (empty: any)
# exists and has a link; NETINSTALL_DEVICE is its name (empty: any).
#
# A switch port that runs spanning tree, or a 10G PHY that trains, takes its time: 30 to 60 s.
netinstall_wait_for_link() {
	NETINSTALL_DEVICE=
	netinstall_until=$(($(netinstall_uptime) + $2))
	netinstall_told=
	while :; do
		netinstall_seen=
		if [ -n "$1" ]; then
			netinstall_seen=$(netinstall_interface_of "$1") && NETINSTALL_DEVICE=$netinstall_seen
		else
			netinstall_seen=$(netinstall_interfaces)
		fi
		for netinstall_name in $netinstall_seen; do
			netinstall_applet ip link set dev "$netinstall_name" up 2>/dev/null || :
			netinstall_linked "$netinstall_name" && return 0
		done
		[ "$(netinstall_uptime)" -lt "$netinstall_until" ] || break
		if [ -z "$netinstall_told" ]; then
			netinstall_told=yes
			netinstall_say "netinstall: waiting up to $2 s for a link on ${1:-any network interface}"
		fi
		sleep 1
	done
	if [ -z "$netinstall_seen" ]; then
		netinstall_problem network.no-interface \
			"no network interface${1:+ with the address $1} appeared in $2 s" \
			"waited for a driver to find the card (ls $NETINSTALL_SYS/class/net)" \
			"a kernel with its driver (linux-image-amd64 has more than the cloud kernel; some cards need firmware), or another BOOTIF="
	else
		netinstall_problem network.no-lease \
			"no link on $(printf '%s' "$netinstall_seen" | tr '\n' ' ') in $2 s" \
			"waited for a carrier" \
			"the cable, the switch port, or a longer netinstall.network-timeout="
	fi
	return 1
}

# netinstall_from_lease NAME: a value of the lease (ROOTPATH, ROOTSERVER, IPV4DNS0, IPV4ADDR …).
# ipconfig writes NAME='VALUE' for a shell to read; it is read as text instead: DHCP is not to be
# trusted with a shell.
netinstall_from_lease() (
	for file in "$NETINSTALL_RUN"/net-*.conf; do
		[ -e "$file" ] || continue
		value=$(sed -n "s/^$1=['\"]\{0,1\}\([^'\"]*\)['\"]\{0,1\}\$/\1/p" "$file")
		if [ -n "$value" ]; then
			printf '%s\n' "$value"
			return 0
		fi
	done
	return 1
)

# Whether there is a lease.
netinstall_has_lease() (
	for file in "$NETINSTALL_RUN"/net-*.conf; do
		[ -e "$file" ] && return 0
	done
	return 1
)

# netinstall_write_lease DEVICE NAME=VALUE…: /run/net-DEVICE.conf, as klibc's ipconfig(8) writes it
# (usr/kinit/ipconfig/main.c). Values come from the network: nothing but printable ASCII stays.
netinstall_write_lease() (
	file=$NETINSTALL_RUN/net-$1.conf
	{
		printf "DEVICE='%s'\n" "$1"
		shift
		for pair in "$@"; do
			value=$(printf '%s' "${pair#*=}" | tr -cd ' -~' | sed "s/'/'\\\\''/g")
			printf "%s='%s'\n" "${pair%%=*}" "$value"
		done
	} >"$file.new" && mv "$file.new" "$file"
)

# netinstall_configure DEVICE ADDRESS NETMASK GATEWAY: the first gateway of a list.
netinstall_configure() (
	gateway=${4%% *}
	netinstall_applet ifconfig "$1" "$2" ${3:+netmask "$3"} up || return 1
	case $gateway in
	'' | 0.0.0.0) ;;
	# onlink: clouds give /32 and a gateway outside of it
	*) netinstall_applet ip route replace default via "$gateway" dev "$1" onlink ;;
	esac
)

# netinstall_udhcpc_event EVENT: what the file netinstall-udhcpc does. Its environment: networking/
# udhcp/dhcpc.c of busybox.
netinstall_udhcpc_event() {
	case $1 in
	deconfig)
		netinstall_applet ip addr flush dev "${interface:?}"
		netinstall_applet ip link set dev "$interface" up
		;;
	bound | renew)
		# classless routes (RFC 3442) take the place of the router
		set -f
		# shellcheck disable=SC2086 # NETWORK/BITS GATEWAY NETWORK/BITS GATEWAY …
		set -- ${staticroutes:-}
		netinstall_routes=
		netinstall_count=0
		netinstall_gateway=${router:-}
		[ $# -lt 2 ] || netinstall_gateway=
		while [ $# -ge 2 ]; do
			[ "$1" != 0.0.0.0/0 ] || netinstall_gateway=$2
			netinstall_routes="$netinstall_routes $1 $2"
			shift 2
		done
		netinstall_configure "${interface:?}" "${ip:?}" "${subnet:-}" "$netinstall_gateway"
		# shellcheck disable=SC2086
		set -- $netinstall_routes
		netinstall_routes=
		while [ $# -ge 2 ]; do
			case $1/$2 in
			0.0.0.0/0/*) ;;
			*/0.0.0.0) netinstall_applet ip route replace "$1" dev "$interface" ;;
			*) netinstall_applet ip route replace "$1" via "$2" dev "$interface" onlink ;;
			esac
			netinstall_count=$((netinstall_count + 1))
			netinstall_routes="$netinstall_routes IPV4ROUTE${netinstall_count}SUBNET=$1"
			netinstall_routes="$netinstall_routes IPV4ROUTE${netinstall_count}GATEWAY=$2"
			shift 2
		done
		netinstall_count=0
		netinstall_servers=
		for netinstall_server in ${dns:-}; do
			[ "$netinstall_count" -lt 10 ] || break
			netinstall_servers="$netinstall_servers IPV4DNS$netinstall_count=$netinstall_server"
			netinstall_count=$((netinstall_count + 1))
		done
		# CLIENT says how the server knows this machine: udhcpc sends an identifier, others none
		# shellcheck disable=SC2086
		netinstall_write_lease "$interface" PROTO=dhcp CLIENT=udhcpc \
			"IPV4ADDR=$ip" "IPV4NETMASK=${subnet:-}" "IPV4BROADCAST=${broadcast:-}" \
			"IPV4GATEWAY=${netinstall_gateway%% *}" "IPV4ROUTERS=${router:-}" \
			$netinstall_servers "IPV4NTP=${ntpsrv:-}" "IPV4MTU=${mtu:-}" \
			"HOSTNAME=${hostname:-}" "DNSDOMAIN=${domain:-}" "DOMAINSEARCH=${search:-}" \
			"ROOTSERVER=${siaddr:-${serverid:-}}" "ROOTPATH=${rootpath:-}" \
			"filename=${boot_file:-}" "DHCPLEASETIME=${lease:-}" $netinstall_routes
		;;
	esac
}

# netinstall_static DEVICE IP…: the fields of ip=, CLIENT:SERVER:GATEWAY:NETMASK:NAME:DEVICE:
# AUTOCONF:DNS0:DNS1 (nfsroot.rst), already split.
netinstall_static() {
	netinstall_configure "$1" "$2" "${5:-}" "${4:-}" || return 1
	netinstall_write_lease "$1" PROTO=none "IPV4ADDR=$2" "IPV4NETMASK=${5:-}" \
		"IPV4GATEWAY=${4:-}" "IPV4DNS0=${9:-}" "IPV4DNS1=${10:-}" "HOSTNAME=${6:-}" \
		"ROOTSERVER=${3:-}"
}

# netinstall_udhcpc DEVICE: netinstall_lease for initrds that have no client of their own.
#
# Asks on each interface that has a link, in turn: the first one may lie in a network without a
# DHCP server. A switch port may have a link half a minute before it lets anything through.
netinstall_udhcpc() (
	device=$1
	netinstall_modules af_packet
	words=$(netinstall_argument ip) || words=
	set -f
	IFS=:
	# shellcheck disable=SC2086
	set -- $words
	unset IFS
	case $words in
	off | none) return 1 ;;
	*:*)
		device=${6:-$device}
		# dracut's own form, ip=DEVICE:dhcp (dracut.cmdline(7))
		case ${2:-} in dhcp | on | any) device=$1 ;; esac
		;;
	esac
	case $device in */* | *[!A-Za-z0-9_.:@-]*) device= ;; esac
	until=$(($(netinstall_uptime) + $(netinstall_number netinstall.network-timeout 180)))
	while :; do
		set +f
		for name in ${device:-$(netinstall_interfaces)}; do
			netinstall_applet ip link set dev "$name" up 2>/dev/null || :
			netinstall_linked "$name" || continue
			case $words in
			[0-9]*.*:*) netinstall_static "$name" "$@" ;;
			*)
				export NETINSTALL_RUN
				# a server may look for 3 s whether the address is taken; then comes the next card
				netinstall_applet udhcpc -i "$name" -f -q -n -t 2 -T 3 \
					-O search -O staticroutes -O rootpath -O ntpsrv -O mtu -s "$NETINSTALL_UDHCPC"
				;;
			esac >/dev/null 2>&1
			netinstall_has_lease && return 0
		done
		[ "$(netinstall_uptime)" -lt "$until" ] || return 1
		sleep 1
	done
)

# Name servers for the initrd itself: a URL may hold a name.
netinstall_resolv_conf() {
	for netinstall_number in 0 1; do
		netinstall_server=$(netinstall_from_lease "IPV4DNS$netinstall_number") || continue
		case $netinstall_server in
		'' | 0.0.0.0 | *[!0-9.]*) ;;
		*) printf 'nameserver %s\n' "$netinstall_server" ;;
		esac
	done >"$NETINSTALL_RESOLV_CONF"
}

# Get a lease on the interface that booted.
netinstall_network() {
	netinstall_has_lease && return 0
	netinstall_mac=
	if netinstall_bootif=$(netinstall_argument BOOTIF); then
		if ! netinstall_mac=$(netinstall_mac "$netinstall_bootif"); then
			netinstall_say "netinstall: BOOTIF holds no MAC address, so any interface will do"
			netinstall_mac=
		fi
	fi
	netinstall_timeout=$(netinstall_number netinstall.network-timeout 180)
	netinstall_wait_for_link "$netinstall_mac" "$netinstall_timeout" || return 1
	(netinstall_lease "$NETINSTALL_DEVICE")
	if ! netinstall_has_lease; then
		netinstall_problem network.no-lease "no DHCP server answered" \
			"asked on ${NETINSTALL_DEVICE:-every interface that has a link}" \
			"the DHCP server's log and VLAN; BOOTIF= where the wrong interface was asked; ip= for a fixed address"
		return 1
	fi
	netinstall_resolv_conf
}

# netinstall_parse_root VALUE: sets NETINSTALL_KIND (http or nfs) and NETINSTALL_URL, or
# NETINSTALL_SERVER, NETINSTALL_PATH and NETINSTALL_OPTIONS. Fails on anything else.
netinstall_parse_root() {
	NETINSTALL_KIND=
	NETINSTALL_OPTIONS=
	netinstall_rest=$1
	case $netinstall_rest in
	http://?*)
		# RFC 3986, appendix A, without quotes. No https: busybox's TLS does not check whom it
		# talks to and fails with common servers, and the hash is checked anyway.
		case $netinstall_rest in
		*[!A-Za-z0-9._~:/?#@!\$\&\(\)*+,\;=%\[\]-]*) return 1 ;;
		esac
		NETINSTALL_KIND=http
		NETINSTALL_URL=$netinstall_rest
		return 0
		;;
	nfs://?*/*)
		netinstall_rest=${netinstall_rest#nfs://}
		netinstall_rest=${netinstall_rest%%/*}:/${netinstall_rest#*/}
		;;
	nfs:*) netinstall_rest=${netinstall_rest#nfs:} ;;
	esac
	case $netinstall_rest in
	*,*)
		NETINSTALL_OPTIONS=${netinstall_rest#*,}
		netinstall_rest=${netinstall_rest%%,*}
		;;
	esac
	case $netinstall_rest in
	/*)
		# without a server, the one that gave the lease (nfsroot.rst)
		NETINSTALL_SERVER=$(netinstall_from_lease ROOTSERVER) || return 1
		NETINSTALL_PATH=$netinstall_rest
		;;
	\[*\]:/*)
		NETINSTALL_SERVER=${netinstall_rest%%\]*}
		NETINSTALL_SERVER=${NETINSTALL_SERVER#\[}
		NETINSTALL_PATH=${netinstall_rest#*\]:}
		case $NETINSTALL_SERVER in
		*[!0-9A-Fa-f:.]*) return 1 ;;
		esac
		;;
	*:/*)
		NETINSTALL_SERVER=${netinstall_rest%%:*}
		NETINSTALL_PATH=${netinstall_rest#*:}
		;;
	*) return 1 ;;
	esac
	case $NETINSTALL_SERVER in
	'' | [-.]* | *[!A-Za-z0-9.:-]*) return 1 ;;
	esac
	case $NETINSTALL_PATH in
	*%s*)
		# the kernel puts its node name there: the lease's host name, or else its address
		# (fs/nfs/nfsroot.c, net/ipv4/ipconfig.c)
		netinstall_node=$(netinstall_from_lease HOSTNAME) ||
			netinstall_node=$(netinstall_from_lease IPV4ADDR) || return 1
		case $netinstall_node in
		[-.]* | *[!A-Za-z0-9._-]*) return 1 ;;
		esac
		NETINSTALL_PATH=${NETINSTALL_PATH%%%s*}$netinstall_node${NETINSTALL_PATH#*%s}
		;;
	esac
	case $NETINSTALL_PATH in
	# what is left of another kind of URL
	//* | *[!A-Za-z0-9/._@%+-]*) return 1 ;;
	esac
	case $NETINSTALL_OPTIONS in
	*[!A-Za-z0-9=.,_:-]*) return 1 ;;
	esac
	NETINSTALL_KIND=nfs
}

# What the machine was told to use as its root; fails when nothing was said.
netinstall_find_root() (
	netinstall_argument netinstall.root && return 0
	# `auto` is initramfs-tools' word for "as DHCP says" (initramfs-tools(7))
	if value=$(netinstall_argument nfsroot) && [ "$value" != auto ] && [ -n "$value" ]; then
		printf 'nfs:%s\n' "${value#nfs:}"
		return 0
	fi
	netinstall_from_lease ROOTPATH
)

# netinstall_address NAME: its IPv4 or IPv6 address, because the kernel's NFS client knows no names.
netinstall_address() (
	case $1 in
	*:*)
		printf '%s\n' "$1"
		return 0
		;;
	*[!0-9.]*) ;;
	*)
		printf '%s\n' "$1"
		return 0
		;;
	esac
	# the first addresses are those of the name server itself; then comes an empty line
	address=$(netinstall_applet nslookup "$1" 2>/dev/null |
		sed -n '1,/^$/d;s/^Address[ 0-9]*: *\([0-9A-Fa-f.:]*\).*/\1/p' | sed -n 1p)
	[ -n "$address" ] && printf '%s\n' "$address"
)

# netinstall_mount_nfs FOLDER
#
# busybox's mount hands the options to the kernel as they are; unlike klibc's nfsmount it can do
# version 4. The newest version that the server speaks is found by trying.
netinstall_mount_nfs() {
	netinstall_modules nfs nfsv4 nfsv3
	netinstall_source=$NETINSTALL_SERVER:$NETINSTALL_PATH
	case $NETINSTALL_SERVER in
	*:*) netinstall_source="[$NETINSTALL_SERVER]:$NETINSTALL_PATH" ;;
	esac
	case ,$NETINSTALL_OPTIONS in
	*,vers=* | *,nfsvers=*) netinstall_versions= ;;
	*) netinstall_versions='vers=4.2 vers=4.1 vers=4.0 vers=3' ;;
	esac
	for netinstall_pause in 1 2 4 8 16 30 30 30; do
		if netinstall_server=$(netinstall_address "$NETINSTALL_SERVER"); then
			for netinstall_version in ${netinstall_versions:-given}; do
				case ${netinstall_version}${NETINSTALL_OPTIONS} in
				*vers=4*) netinstall_type=nfs4 ;;
				*) netinstall_type=nfs ;;
				esac
				[ "$netinstall_version" = given ] && netinstall_version=
				# nolock: there is no statd here, and nobody writes
				netinstall_all=ro,nolock,proto=tcp${netinstall_version:+,$netinstall_version}
				netinstall_all=$netinstall_all${NETINSTALL_OPTIONS:+,$NETINSTALL_OPTIONS}
				netinstall_said=$(netinstall_applet mount -i -t "$netinstall_type" \
					-o "$netinstall_all,addr=$netinstall_server" \
					"$netinstall_source" "$1" 2>&1) && return 0
			done
		else
			netinstall_said="$NETINSTALL_SERVER has no address"
		fi
		netinstall_say "netinstall: $netinstall_source: $netinstall_said; again in $netinstall_pause s"
		sleep "$netinstall_pause"
	done
	netinstall_problem network.unreachable "the NFS root could not be mounted: $netinstall_said" \
		"$netinstall_source${NETINSTALL_OPTIONS:+ ($NETINSTALL_OPTIONS)}" \
		"showmount -e $NETINSTALL_SERVER; is the export readable for $(netinstall_from_lease IPV4ADDR), from any port?"
	return 1
}

# netinstall_size FILE: in bytes, 0 when there is none.
netinstall_size() {
	if [ -e "$1" ]; then wc -c <"$1"; else echo 0; fi
}

# netinstall_fetch URL FILE: download, going on where it broke off for as long as it gets further.
#
# busybox's wget tells a body that is shorter than its Content-Length. A server that stalls is
# left after two minutes by timeout: wget's own -T crashes in Debian 12 (busybox 1.35).
netinstall_fetch() {
	netinstall_tries=0
	netinstall_pause=1
	while :; do
		netinstall_before=$(netinstall_size "$2")
		netinstall_said=$(netinstall_applet timeout 120 \
			wget -q -c -O "$2" "$1" 2>&1) && return 0
		netinstall_free=$(netinstall_applet df -P -k "${2%/*}" | {
			read -r _
			read -r _ _ _ free _
			printf '%s\n' "$free"
		})
		if [ "${netinstall_free:-1}" = 0 ]; then
			netinstall_problem payload.too-large "the root file system does not fit into memory" \
				"$1" "a machine with more memory, or the NFS root, which needs less"
			return 1
		fi
		case $netinstall_said in
		# the server is there and says no: waiting does not change its mind
		*' HTTP/1.'?' 4'*) break ;;
		esac
		if [ "$(netinstall_size "$2")" -gt "$netinstall_before" ]; then
			netinstall_tries=0
			netinstall_pause=1
		fi
		netinstall_tries=$((netinstall_tries + 1))
		[ "$netinstall_tries" -le 8 ] || break
		netinstall_say "netinstall: ${netinstall_said:-the download broke off}; again in $netinstall_pause s"
		sleep "$netinstall_pause"
		[ "$netinstall_pause" -ge 30 ] || netinstall_pause=$((netinstall_pause * 2))
	done
	netinstall_problem network.unreachable \
		"the root file system could not be downloaded: ${netinstall_said:-it broke off}" \
		"$1" "the same URL from another machine; the server's log; netinstall.root="
	return 1
}

# netinstall_mount_http FOLDER
netinstall_mount_http() {
	netinstall_sum=$(netinstall_argument netinstall.root-sha256) || netinstall_sum=
	case $netinstall_sum in
	*[!0-9a-f]*) netinstall_sum= ;;
	esac
	if [ "${#netinstall_sum}" != 64 ]; then
		netinstall_problem arguments \
			"netinstall.root-sha256= is missing or no SHA-256 (64 lower-case hex digits)" \
			"kernel command line" \
			"the sha256 of root.squashfs in image.json: without it anybody on the network could replace the root"
		return 1
	fi
	netinstall_modules loop squashfs
	netinstall_store=$NETINSTALL_RUN/netinstall/image
	mkdir -p "$netinstall_store"
	# a memory file system of its own: the initrd's /run is limited to a tenth of the memory
	netinstall_applet mount -t tmpfs -o mode=0700,size=80% netinstall "$netinstall_store" || return 1
	netinstall_say "netinstall: fetching $NETINSTALL_URL"
	for netinstall_try in 1 2; do
		netinstall_fetch "$NETINSTALL_URL" "$netinstall_store/root.squashfs" || break
		netinstall_is=$(netinstall_applet sha256sum "$netinstall_store/root.squashfs")
		if [ "${netinstall_is%% *}" = "$netinstall_sum" ]; then
			netinstall_said=$(netinstall_applet mount -t squashfs -o ro,loop \
				"$netinstall_store/root.squashfs" "$1" 2>&1) && return 0
			netinstall_problem payload.format "the root file system cannot be mounted: $netinstall_said" \
				"$NETINSTALL_URL" "an image and a kernel that were built together"
			break
		fi
		rm -f "$netinstall_store/root.squashfs"
		if [ "$netinstall_try" = 2 ]; then
			netinstall_problem payload.hash "the root file system is not the one that was announced" \
				"$NETINSTALL_URL has the SHA-256 ${netinstall_is%% *}" \
				"netinstall.root-sha256= of the same image ($netinstall_sum was expected)"
		fi
	done
	netinstall_applet umount "$netinstall_store"
	return 1
}

# netinstall_try_root FOLDER: one whole attempt; what went wrong has been said when it fails.
netinstall_try_root() {
	netinstall_network || return 1
	if ! netinstall_root=$(netinstall_find_root); then
		netinstall_problem arguments "nothing says where the root file system is" \
			"kernel command line, and root path (option 17) of the lease" \
			"netinstall.root=http://… with netinstall.root-sha256=…, or netinstall.root=nfs:SERVER:/PATH"
		return 1
	fi
	if ! netinstall_parse_root "$netinstall_root"; then
		netinstall_problem arguments "this is no place for a root file system: $netinstall_root" \
			"netinstall.root=, nfsroot=, or the root path of the lease" \
			"http://SERVER/root.squashfs (its hash is checked, TLS is not needed) or nfs:SERVER:/PATH[,OPTIONS]"
		return 1
	fi
	"netinstall_mount_$NETINSTALL_KIND" "$1"
}

# netinstall_has_our_init FOLDER: whether the init that will be started there is this project's.
netinstall_has_our_init() (
	init=$(netinstall_argument init) || init=/sbin/init
	case $init:$(netinstall_applet readlink "$1$init") in
	*/netinstall/init:* | */netinstall/init) return 0 ;;
	esac
	return 1
)

# netinstall_writable FOLDER: modes and mount options do not tell.
netinstall_writable() {
	(: >"$1/.netinstall-$$") 2>/dev/null && rm -f "$1/.netinstall-$$"
}

# netinstall_stack FOLDER: make what is mounted there writable, in memory.
#
# With overlayfs, or with unionfs-fuse, if the initrd has it, where overlayfs does not stack
# (overlayfs.rst: not every file system can be a lower layer). The layers are below /run, which
# every initrd hands over.
netinstall_stack() {
	netinstall_writable "$1" && return 0
	netinstall_layers=$NETINSTALL_RUN/netinstall/layers
	netinstall_why=
	if netinstall_said=$(netinstall_make_layers "$netinstall_layers" "$1" 2>&1); then
		for netinstall_kind in overlayfs unionfs; do
			case $netinstall_kind/$(netinstall_argument netinstall.overlay) in
			overlayfs/unionfs) continue ;;
			esac
			if netinstall_said=$("netinstall_$netinstall_kind" "$netinstall_layers" "$1" 2>&1); then
				netinstall_writable "$1" && return 0
				netinstall_applet umount "$1"
				netinstall_said="mounted, but nothing can be written there"
			fi
			netinstall_why="$netinstall_why$netinstall_kind: $netinstall_said; "
		done
		netinstall_applet umount "$netinstall_layers/lower"
		netinstall_applet umount "$netinstall_layers"
	else
		netinstall_why=$netinstall_said
	fi
	netinstall_problem root.not-writable \
		"the root file system could not be made writable: ${netinstall_why%; }" \
		"$1" "a kernel and an initrd that have overlay or fuse, and more memory"
	return 1
}

# netinstall_make_layers LAYERS FOLDER
netinstall_make_layers() {
	mkdir -p "$1" || return 1
	netinstall_applet mount -t tmpfs -o mode=0755,size=80% netinstall "$1" || return 1
	mkdir "$1/upper" "$1/work" "$1/lower" || return 1
	netinstall_applet mount -o bind "$2" "$1/lower"
}

# netinstall_overlayfs LAYERS FOLDER
netinstall_overlayfs() {
	netinstall_modules overlay
	netinstall_applet mount -t overlay \
		-o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" overlay "$2"
}

# netinstall_unionfs LAYERS FOLDER: unionfs-fuse(8), confined to the layers, so that what it looks
# up does not depend on where the initrd's root goes.
netinstall_unionfs() (
	netinstall_modules fuse
	program=$(command -v unionfs-fuse || command -v unionfs) || {
		echo "it is not in the initrd"
		return 1
	}
	# systemd does not kill what begins with @ when it leaves the initrd
	# (systemd.io/ROOT_STORAGE_DAEMONS)
	ln -sf "$program" "$NETINSTALL_RUN/netinstall/@unionfs"
	PATH=$NETINSTALL_RUN/netinstall:$PATH
	options=cow,allow_other,use_ino,suid,dev,nonempty
	@unionfs -o "$options,chroot=$1" /upper=RW:/lower=RO "$2"
)

# Do what netinstall.on-failure says. Comes back when somebody left the shell: try again.
netinstall_failed() {
	netinstall_action=$(netinstall_argument netinstall.on-failure) || netinstall_action=shell
	netinstall_delay=$(netinstall_number netinstall.failure-delay 60)
	case $netinstall_action in
	reboot | poweroff)
		netinstall_say "netinstall: $netinstall_action in $netinstall_delay s"
		sleep "$netinstall_delay"
		netinstall_applet "$netinstall_action" -f
		;;
	esac
	netinstall_say "netinstall: a shell; leave it with \"exit\" to try again"
	netinstall_console=$(netinstall_consoles | sed -n '$p')
	# the one terminal that cannot be anybody's controlling terminal
	[ "$netinstall_console" = tty0 ] && netinstall_console=tty1
	# shellcheck disable=SC2016 # the inner shell expands it
	netinstall_applet setsid sh -c \
		'PS1="(netinstall initrd) "; export PS1; exec sh -i <>"$1" >&0 2>&1' \
		sh "$NETINSTALL_DEV/$netinstall_console"
}

# netinstall_mount_root FOLDER: mount the root there; returns only when it is.
netinstall_mount_root() {
	until netinstall_try_root "$1"; do
		netinstall_failed
	done
}

# netinstall_writable_root FOLDER: mount the root there, and make it writable unless its init does
# that itself: this project's has unionfs-fuse, and needs nothing of the initrd for it.
netinstall_writable_root() {
	netinstall_mount_root "$1"
	until netinstall_has_our_init "$1" || netinstall_stack "$1"; do
		netinstall_failed
	done
}
