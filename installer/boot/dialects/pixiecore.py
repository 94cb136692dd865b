"""Pixiecore: documents for its API (GET /v1/boot/MAC), and the command line without an API.

Publish the output as http.root, and run `pixiecore api URL/pixiecore`. A machine without a document
gets a 404 and is left alone; pixiecore-boot boots every machine alike.
"""

import json
from collections.abc import Mapping

from installer.boot.dialects import encoding
from installer.boot.site import Encoder, Site


def render(site: Site) -> Mapping[str, str]:
    """Write pixiecore/v1/boot/MAC for each host that has one, and pixiecore-boot.

    Raises InstallError.
    """
    encode = Encoder(site, "Pixiecore", encoding.pixiecore)
    files = {"pixiecore-boot": _static(site, encode)}
    for number, host in enumerate(site.file.hosts):
        if host.mac is None:
            continue
        image = site.file.image_of(host)
        mac = host.mac.replace(":", "-")
        document: dict[str, object] = {"kernel": site.url(image.folder, image.kernel)}
        if image.root != "kernel-nfs":
            document["initrd"] = [site.url(image.folder, image.initrd)]
        document["cmdline"] = " ".join([f"BOOTIF=01-{mac}", *encode.arguments(number)])
        document["message"] = f"Netinstall: {host.hostname or host.mac}"
        files[f"pixiecore/v1/boot/{host.mac}"] = json.dumps(document, indent=2) + "\n"
    encode.done()
    return files


def _static(site: Site, encode: Encoder) -> str:
    image = site.file.images[0]
    words = [
        *("exec", "pixiecore", "boot", site.url(image.folder, image.kernel)),
        *([site.url(image.folder, image.initrd)] if image.root != "kernel-nfs" else []),
        # in the iPXE script that Pixiecore makes of it, a setting is replaced
        "--cmdline=" + " ".join(["BOOTIF=01-${netX/mac:hexhyp}", *encode.arguments(None)]),
        # a DHCP server beside it gives the addresses
        "--dhcp-no-bind",
    ]
    return (
        "#!/bin/sh\n# Written by netinstall boot render. Further options of pixiecore may follow.\n"
        "# shellcheck disable=SC2016 # iPXE replaces ${netX/mac:hexhyp}, not the shell\n"
        + " ".join(encoding.shell(word) for word in words)
        + ' "$@"\n'
    )
