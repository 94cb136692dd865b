"""GRUB for 64-bit UEFI with a site's grub.cfg in it, made by GRUB's own grub-mkimage.

The loader is one file: every module that it needs is linked in, and grub.cfg lies in its memory
disk (the GRUB manual: "Making a GRUB bootable image", "Embedded configuration"). grub-mkstandalone
would add modules as files with the time at which it ran, in the order in which a folder lists them:
no two of its loaders are the same. This one depends on the site and on GRUB's version alone.
"""

import argparse
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from installer.act.run import Runner
from installer.boot import site as sites
from installer.boot.dialects import grub
from installer.boot.output import unwritable
from installer.boot.site import Site
from installer.model.errors import fail
from installer.model.programs import SEARCH_PATH

NAME = "bootx64.efi"
"""What the loader is called in a folder."""

PLATFORM = "x86_64-efi"

MODULES = (
    # the network, and where grub.cfg and its files come from
    *("efinet", "net", "tftp", "http", "memdisk", "tar"),
    # the language, and what grub.cfg says in it
    *("normal", "configfile", "echo", "eval", "test", "true", "sleep", "smbios"),
    *("serial", "terminal"),
    # the end: a kernel, the disk, or another start. Kernels before EFI stubs need a video mode
    *("linux", "efi_gop", "efi_uga", "boot", "chain", "reboot", "halt", "minicmd"),
    # the disk's own boot loader
    *("search", "search_fs_file", "search_fs_uuid", "search_label"),
    *("part_gpt", "part_msdos", "fat"),
    # what a person types
    *("ls", "cat"),
)
"""GRUB's modules, and with them their commands. More cannot be loaded later."""

_CONFIG = "boot/grub/grub.cfg"
_WRITTEN_BY_US = b"# Written by netinstall boot render."
_SECONDS = 60
_HINT = "install GRUB for UEFI: apt-get install grub-common grub-efi-amd64-bin"


def build(site: Site, output: Path, runner: Runner | None = None) -> Path:
    """Make the loader; equal bytes for an equal site and version of GRUB.

    Args:
        output: the file, if its name ends in .efi; or the folder that gets `bootx64.efi`, which
            is made if missing.

    Returns:
        the file, which is replaced only when the new one is whole.

    Raises:
        InstallError: `tool.missing` (no grub-mkimage, or no modules for UEFI), `command.failed`,
            `command.timeout`, or `arguments`: the file cannot be written.
    """
    program, modules = _grub()
    is_file = output.suffix.lower() == ".efi" and not output.is_dir()
    target = output if is_file else output / NAME
    try:
        with tempfile.TemporaryDirectory(prefix="netinstall-") as folder:
            memdisk, made = Path(folder, "memdisk.tar"), Path(folder, NAME)
            _pack(memdisk, grub.main(site).encode("ascii"))
            (runner or Runner()).run(
                [
                    *(program, "-O", PLATFORM, "-d", str(modules), "-o", str(made)),
                    *("-p", "(memdisk)/boot/grub", "-m", str(memdisk), *MODULES),
                ],
                timeout=_SECONDS,
                purpose=f"making {target}",
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            # beside it, so that a machine which asks meanwhile gets the old one or the new one
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copyfile(made, beside)
                beside.chmod(0o644)
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as error:
        hint = "name a file or folder that you may write to"
        raise unwritable(error.filename or target, error, hint) from None
    return target


def is_outdated(loader: bytes, site: Site) -> bool:
    """Say whether this is a loader of ours, with another grub.cfg than the site has now.

    The memory disk lies in it as it is: a tar archive, not compressed.
    """
    return _WRITTEN_BY_US in loader and grub.main(site).encode("ascii") not in loader


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """`netinstall boot loader`. Raises InstallError."""
    # image.json is for the files that the loader reads, not for the loader
    site, _problems = sites.load(arguments.site)
    made = build(site, arguments.output)
    say(str(made))
    if Path(site.file.tftp.uefi).name != made.name:
        say(
            f"note: tftp.uefi of {arguments.site} is {site.file.tftp.uefi}, and that is what UEFI "
            f'machines are told to load; for this loader write uefi = "{made.name}"'
        )


def _grub() -> tuple[str, Path]:
    """Find grub-mkimage and the modules that belong to it. Raises InstallError."""
    for name in ("grub-mkimage", "grub2-mkimage"):
        program = shutil.which(name, path=SEARCH_PATH)
        if program is None:
            continue
        modules = Path(program).resolve().parent.parent / "lib/grub" / PLATFORM
        if (modules / "kernel.img").is_file():
            return program, modules
        raise fail(
            "tool.missing",
            f"GRUB's modules for 64-bit UEFI are not installed here: {modules} has no kernel.img",
            where="netinstall boot loader",
            hint=_HINT,
        )
    raise fail(
        "tool.missing",
        "grub-mkimage is not installed here",
        where="netinstall boot loader",
        hint=_HINT,
    )


def _pack(archive: Path, config: bytes) -> None:
    """Write the memory disk; tarfile dates an entry 1970 unless told otherwise."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(_CONFIG)
        entry.size = len(config)
        tar.addfile(entry, io.BytesIO(config))
