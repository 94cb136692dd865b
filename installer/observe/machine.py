"""Everything that can be seen of this machine, as one `Facts`."""

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from installer.model.errors import fail
from installer.model.facts import Dmi, Facts, Firmware, ImageFacts, Lease, Nic
from installer.model.filesystems import FILESYSTEMS, SWAP
from installer.model.minisign import parse_public_key
from installer.model.programs import SEARCH_PATH
from installer.model.trust import IMAGE_BUILT, IMAGE_KEYS
from installer.observe import disks, kernel, layers, lease, lldp, nics
from installer.observe.blocks import Blocks, UdevProperties

TOOLS = (
    *sorted({filesystem.tool for filesystem in (*FILESYSTEMS.values(), SWAP)}),
    *("wipefs", "sfdisk", "blkid", "udevadm", "mount", "umount", "swapon", "swapoff"),
    *("chroot", "tar", "gzip", "xz", "zstd", "efibootmgr", "btrfs", "chattr", "partx"),
    *("mdadm", "lvm", "thin_check", "cryptsetup", "systemd-cryptenroll", "dmsetup", "zpool"),
    *("blkdiscard", "nvme", "hdparm", "unsquashfs", "nix"),
)
"""Programs that an installation may need; which it does need is decided with the plan."""


@dataclass(frozen=True)
class Said:
    """What programs say that no file does: `installer.act.clients` asks them.

    `leases` maps interfaces to what `dhcpcd -4 -U` printed, `lldp` is `lldpctl -f json0`.
    """

    leases: Mapping[str, str] = field(default_factory=dict)
    lldp: str = ""


def look(
    root: Path = Path("/"),
    *,
    udev: UdevProperties | None = None,
    include: Iterable[str] = (),
    said: Said | None = None,
) -> Facts:
    """Look at this machine; see `look_with_warnings`."""
    return look_with_warnings(root, udev=udev, include=include, said=said)[0]


def look_with_warnings(
    root: Path = Path("/"),
    *,
    udev: UdevProperties | None = None,
    include: Iterable[str] = (),
    said: Said | None = None,
) -> tuple[Facts, tuple[str, ...]]:
    """Look at this machine and change nothing.

    Args:
        root: a tree with proc, sys and run in it; of a saved one, programs are looked for too.
        udev: udev's database, where it is not that of this machine.
        include: nodes that count as disks although they are none (/dev/loop0).
        said: by programs.

    Returns:
        what was seen, and what was left out of it and why.
    """
    if udev is None:
        udev = disks.udev_properties() if root == Path("/") else {}
    arguments, _ = kernel.read(root)
    said = said or Said()
    leases = lease.look(root, said.leases)
    cards = nics.look(root, udev=udev, neighbours=lldp.neighbours(said.lldp))
    blocks = Blocks(root, udev)
    include = tuple(include)
    facts = Facts(
        version=1,
        firmware=firmware(root),
        architecture=_line(root / "proc/sys/kernel/arch") or os.uname().machine,
        kernel=_line(root / "proc/sys/kernel/osrelease") or "unknown",
        memory=_memory(root),
        entropy=secrets.token_hex(16),
        dmi=_dmi(root),
        disks=disks.of(blocks, include),
        layers=layers.of(blocks, include),
        nics=cards,
        leases=leases.v4,
        leases6=leases.v6,
        boot_mac=arguments.boot_mac or _leased_by_the_boot(root, cards, leases.v4),
        tools=_tools(root),
        kernel_arguments=arguments.shown(),
        observed=datetime.now(UTC),
        image=image(root),
    )
    return facts, leases.warnings


def _leased_by_the_boot(root: Path, cards: Sequence[Nic], leases: Sequence[Lease]) -> str | None:
    """The address of the one card that the boot had a lease for.

    Only where our own client has leases for others since: otherwise the leases themselves say it.
    """
    booted = {one.interface for one in lease.boot_leases(root)}
    if len(booted) != 1 or len(leases) < 2:
        return None
    return next((card.mac for card in cards if card.name in booted), None)


def image(root: Path = Path("/")) -> ImageFacts:
    """What the boot image says of itself: its date, and whom it trusts.

    Raises:
        InstallError: `payload.key`: a line that is no key must not leave the others out.
    """
    path = root / IMAGE_KEYS.lstrip("/")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    lines = [line.strip() for line in text.split(b"\n")]
    keys = [line for line in lines if line and not line.startswith((b"#", b"untrusted comment:"))]
    for line in keys:
        parse_public_key(line, IMAGE_KEYS)
    if path.exists() and not keys:
        raise fail(
            "payload.key",
            f"{IMAGE_KEYS} holds no key",
            where=IMAGE_KEYS,
            hint="build the boot image again: netinstall image build --trusted-key minisign.pub",
        )
    built = _line(root / IMAGE_BUILT.lstrip("/"))
    if built is not None and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", built, re.ASCII):
        built = None
    return ImageFacts(tuple(key.decode() for key in keys), built)


def firmware(root: Path = Path("/")) -> Firmware:
    """How this machine booted: the kernel makes /sys/firmware/efi only under UEFI."""
    return "uefi" if (root / "sys/firmware/efi").is_dir() else "bios"


def _line(path: Path) -> str | None:
    try:
        text = path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return None
    return text or None


def _memory(root: Path) -> int:
    """Bytes of RAM that the kernel manages (proc_meminfo(5): kB are KiB)."""
    match = re.search(r"^MemTotal: *([0-9]+) kB$", _line(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


_FILLERS = re.compile(
    r"to be filled by o\.?e\.?m\.?|default string|not (?:specified|applicable|available)"
    r"|system (?:serial number|manufacturer|product name)|none|n/?a|unknown"
    r"|x+|0?123456789|[0-]+|[f-]+"
    # the UUID of every board whose maker kept AMI's example
    r"|03000200-0400-0500-0006-000700080009",
    re.IGNORECASE,
)
"""What vendors leave in SMBIOS fields that they did not fill: it identifies nothing."""


def _dmi(root: Path) -> Dmi:
    folder = root / "sys/class/dmi/id"

    def field(name: str) -> str | None:
        text = "".join(char if char.isprintable() else "?" for char in _line(folder / name) or "")
        return None if not text or _FILLERS.fullmatch(text) else text

    uuid = field("product_uuid")
    return Dmi(
        vendor=field("sys_vendor"),
        product=field("product_name"),
        serial=field("product_serial"),
        uuid=uuid.lower() if uuid else None,
    )


def _tools(root: Path) -> dict[str, str]:
    path = ":".join(str(root / folder.lstrip("/")) for folder in SEARCH_PATH.split(":"))
    found = {}
    for name in TOOLS:
        where = shutil.which(name, path=path)
        if where is not None:
            found[name] = f"/{Path(where).relative_to(root)}"
    return found
