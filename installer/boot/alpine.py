"""What Alpine Linux's initramfs-init (mkinitfs) would make of a site's kernel arguments."""

import re
from collections.abc import Iterator

from installer.boot.site import Site
from installer.model.errors import InstallError, Problem

_ITS_OWN = frozenset(
    (
        *("root", "init", "init_args", "overlaytmpfs", "nbd", "noip", "s", "single", "1"),
        *("apkovl", "modloop", "alpine_dev", "alpine_repo"),
    )
)
"""Arguments that lead it away from our apkovl, or that are written for it already."""


def conflicts(site: Site) -> Iterator[Problem]:
    """Find arguments of [kernel] and [[hosts]] that it would take for itself or cannot read."""
    for number, host in site.machines():
        alpine = site.file.image_of(host).alpine
        if alpine is None:
            continue
        try:
            found = site.kernel_arguments(number)
        except InstallError:
            # every dialect says so
            continue
        for text, location in found:
            where = site.where(location)
            if location[-2:-1] == ("arguments",) and text.partition("=")[0] in _ITS_OWN:
                what = f"{text} means something to Alpine's initramfs-init"
                yield Problem("site.conflict", what, where, "leave it out")
            elif alpine.nfs is not None and not re.fullmatch(r"[A-Za-z0-9._:/,=@%+{}-]+", text):
                what = f"mkinitfs before 3.0 would have a shell evaluate {text!r}"
                hint = "use letters, digits and ._:/,=@%+- only, or a newer Alpine and no nfs"
                yield Problem("site.conflict", what, where, hint)
