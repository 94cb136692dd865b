"""kexec from a running Linux: the script `kexec-boot`, to lie beside bzImage and initrd.gz."""

from collections.abc import Mapping

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site

_SCRIPT = """\
#!/bin/sh
# Written by netinstall boot render. Starts the installer from the running system; arguments are
# added to the kernel's.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if ! command -v kexec >/dev/null 2>&1; then
	echo "kexec-boot: there is no kexec here. Install the package kexec-tools:" >&2
	echo "  apt-get install kexec-tools, dnf install kexec-tools, apk add kexec-tools," >&2
	echo "  pacman -S kexec-tools, or on NixOS: nix-shell -p kexec-tools" >&2
	exit 127
fi
if [ "$(id -u)" != 0 ]; then
	echo "kexec-boot: only root may load a kernel: sudo $0" >&2
	exit 1
fi
for file in @FILES@; do
	if [ ! -r "$here/$file" ]; then
		echo "kexec-boot: $here/$file is missing: it belongs beside this script" >&2
		exit 1
	fi
done
arguments=@ARGUMENTS@
kexec --load "$here/bzImage"@INITRD@ --command-line="$arguments${*:+ $*}"
sync
# systemd stops what is running and unmounts first
if [ -d /run/systemd/system ]; then
	exec systemctl kexec
fi
exec kexec --exec
"""


def render(site: Site) -> Mapping[str, str]:
    """Write kexec-boot, for the first image. Raises InstallError."""
    encode = Encoder(site, "kexec", str)
    arguments = " ".join(encode.arguments(None))
    encode.done()
    with_initrd = site.file.images[0].root != "kernel-nfs"
    script = _SCRIPT.replace("@FILES@", "bzImage initrd.gz" if with_initrd else "bzImage")
    script = script.replace("@INITRD@", ' --initrd="$here/initrd.gz"' if with_initrd else "")
    # last: the arguments may hold anything
    return {"kexec-boot": script.replace("@ARGUMENTS@", encoding.shell(arguments))}
