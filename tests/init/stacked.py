# ruff: noqa: T201 - its output is what the test reads
"""Makes a read-only copy of the host's mounts its root, then lets init make it writable.

    stacked.py FOLDER overlay|union|neither

Run in a mount and PID namespace. Prints what init said, then what kind of root there is.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from installer.init import kernel, root
from installer.init.children import Children
from installer.model.errors import InstallError

image, wanted = Path(sys.argv[1]), sys.argv[2]
kernel.mount("/", image, "", kernel.MS_BIND)
kernel.mount("none", image, "", kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
os.chroot(image)
os.chdir("/")
root.mount_virtual()
children = Children()
if wanted == "neither":
    os.environ["PATH"] = "/nowhere"
try:
    print(root.make_writable(children, union=wanted != "overlay"))
except InstallError as error:
    print(error)
    sys.exit(1)
Path("/written").write_text("by the guest")
Path("/etc/hostname").write_text("changed\n")
kinds = [(kind, source) for source, target, kind in kernel.mounts() if target == Path("/")]
print("root:", *kinds[-1])
print(
    "handed over:", *(name for name in ("dev", "proc", "run", "sys") if Path("/", name).is_mount())
)
print("lower:", Path("/run/netinstall/lower/etc/passwd").exists())
print("null:", Path("/dev/null").is_char_device())
print("again:", root.make_writable(children, union=False))
