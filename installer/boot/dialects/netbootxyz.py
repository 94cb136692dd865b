"""netboot.xyz: a menu entry that chains to our iPXE script.

netboot.xyz offers the file as "Custom URL Menu" when its `custom_url` is the folder around it.
"""

from collections.abc import Mapping

from installer.boot.dialects import ipxe
from installer.boot.site import Site


def render(site: Site) -> Mapping[str, str]:
    """Write custom.ipxe."""
    return {
        "custom.ipxe": "\n".join(
            [
                "#!ipxe",
                "# Written by netinstall boot render.",
                ":custom",
                "menu Netinstall",
                "item --key i netinstall Install this machine (i)",
                "item back Back to netboot.xyz",
                # whoever came here by accident loses nothing by waiting
                "choose --default back netinstall_choice || goto back",
                "goto ${netinstall_choice}",
                ":netinstall",
                f"chain {site.url(ipxe.MAIN)} || goto custom",
                ":back",
                "exit",
                "",
            ]
        )
    }
