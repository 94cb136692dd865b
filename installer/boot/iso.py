"""`netinstall boot from-iso`: a NixOS ISO's own system, to be booted without the ISO.

The kernel unpacks all archives of its initrd, one after the other, and later files win
(Documentation/driver-api/early-userspace/buffer-format.rst). So the ISO's initrd stays as it is,
and a second archive comes after it: the ISO's Nix store, and the list of what stage 1 mounts, with
the store taken from the initrd instead of the ISO. That is how NixOS's netboot.nix does it.
"""

import argparse
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from installer.act.run import Runner
from installer.boot.dialects import encoding, ipxe, kexec
from installer.boot.kexec import link_or_copy, write_script
from installer.boot.output import unwritable
from installer.model.errors import InstallError, fail
from installer.model.units import format_bytes

STORE = "nix-store.squashfs"
_LARGEST_INITRD = 4 * 1024**3 - 1
"""Bytes. The boot protocol has 32 bits for its size (boot.rst: ramdisk_size), as newc has for a
file's."""

_SECONDS = 1800.0
_LARGEST_LIST = 1024**2
_LONGEST_NAME = 4096
_SYSTEM_MIB = 512
"""MiB for a text installer beside what lies in memory: NixOS asks for no less."""

_IN_STORE = re.compile(r"nix/store/[0-9A-Za-z+._?=-]+")
"""The names that Nix allows; a file of this name is written here."""

_DECOMPRESS = {
    b"\x1f\x8b": ["gzip", "--decompress", "--stdout"],
    b"\xfd7zXZ": ["xz", "--decompress", "--stdout"],
    b"\x28\xb5\x2f\xfd": ["zstd", "--decompress", "--stdout", "--quiet"],
}
"""By the first bytes; NixOS takes zstd, and took gzip for kernels before 5.9."""

Narrate = Callable[[str], None]


@dataclass(frozen=True)
class Stage1:
    """A kind of NixOS's stage 1: how its /init and its list of mounts are called in the initrd,
    and how the list is changed. With `keeps_root` it reads root= itself."""

    init: str
    mounts: str
    change: Callable[[str], str]
    keeps_root: bool


def _change_fsinfo(text: str) -> str:
    """Four lines each: mount point, device, type, options. Raises ValueError."""
    lines = text.splitlines()
    if len(lines) % 4:
        raise ValueError("its lines are not four for each file system")
    rows = [lines[start : start + 4] for start in range(0, len(lines), 4)]
    found = set()
    for row in rows:
        if row[0] == "/iso":
            row[1:] = ["tmpfs", "tmpfs", "mode=0755"]
            found.add("iso")
        elif row[1] == f"/iso/{STORE}":
            # a path that begins with a slash would be looked for below the new root
            row[1] = f"../{STORE}"
            found.add("store")
    _demand(found)
    # the list has no newline at its end
    return "\n".join(itertools.chain.from_iterable(rows))


def _change_fstab(text: str) -> str:
    """fstab(5). Raises ValueError."""
    found = set()
    lines = []
    for line in text.splitlines():
        match line.split():
            case [_, "/iso", *_]:
                lines.append("tmpfs /iso tmpfs x-initrd.mount,mode=0755 0 0")
                found.add("iso")
            case [device, *rest] if device == f"/sysroot/iso/{STORE}":
                lines.append(" ".join([f"/{STORE}", *rest]))
                found.add("store")
            case _:
                lines.append(line)
    _demand(found)
    return "".join(f"{line}\n" for line in lines)


def _demand(found: set[str]) -> None:
    if found != {"iso", "store"}:
        raise ValueError(f"it does not mount /iso and {STORE} from there")


STAGES_1 = (
    Stage1("-stage-1-init.sh", "-initrd-fsinfo", _change_fsinfo, keeps_root=False),
    Stage1("/lib/systemd/systemd", "-initrd-fstab", _change_fstab, keeps_root=True),
)
"""The scripted one, and systemd's (the default since NixOS 26.05)."""


@dataclass(frozen=True)
class Entry:
    """What the ISO's boot menu starts: paths on the ISO, and kernel arguments."""

    kernel: str
    initrd: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Mounts:
    """The list of mounts that an initrd holds: its path there and what it is to become; and the
    bytes that the initrd unpacks to."""

    stage: Stage1
    path: str
    text: str
    unpacked: int


@dataclass(frozen=True)
class Report:
    """What was made. `memory_mib` is what a machine needs for a text installer."""

    arguments: str
    initrd_bytes: int
    memory_mib: int


def from_iso(iso: Path, output: Path, arguments: Sequence[str] = (), *, narrate: Narrate) -> Report:
    """Make bzImage, initrd, initrd.gz (the same file), boot.ipxe and kexec-boot in a folder.

    Args:
        iso: a NixOS ISO (installer or live system) of any architecture.
        output: made if missing; what an earlier run left there is replaced at the end.
        arguments: kernel arguments, added to those of the ISO's boot menu.
        narrate: told each step.

    Raises:
        InstallError: `arguments`, `iso.not-nixos`, `iso.too-large`, `tool.missing`,
            `command.failed` or `command.timeout`.
    """
    runner = Runner()
    _check_iso(iso)
    iso = iso.resolve()
    narrate(f"reading {iso}")
    files = _files(iso, runner)
    check_sizes(iso, files, output)
    try:
        return _make(iso, output.resolve(), arguments, files=files, runner=runner, narrate=narrate)
    except OSError as error:
        raise unwritable(output, error) from None


def _make(
    iso: Path,
    output: Path,
    arguments: Sequence[str],
    *,
    files: dict[str, int],
    runner: Runner,
    narrate: Narrate,
) -> Report:
    # beside the result: it is moved there, and /tmp may be small
    with tempfile.TemporaryDirectory(prefix=".from-iso-", dir=output) as folder:
        work = Path(folder)
        entry = _entry(iso, files, runner, work)
        _check_words(iso, entry.arguments, arguments)
        _extract(iso, {entry.kernel: work / "bzImage", entry.initrd: work / "initrd"}, runner)
        narrate("looking into its initrd")
        mounts = _mounts(iso, work / "initrd", runner, work)
        # with root= the scripted one would wait for a disk of that label
        keeps = mounts.stage.keeps_root
        own = [word for word in entry.arguments if keeps or not word.startswith("root=")]
        narrate("nesting its Nix store in the initrd")
        nested = work / "nested"
        _extract(iso, {f"/{STORE}": nested / STORE}, runner)
        (nested / mounts.path).parent.mkdir(parents=True, exist_ok=True)
        (nested / mounts.path).write_text(mounts.text)
        store = (nested / STORE).stat().st_size
        _append(work / "initrd", nested, [STORE, mounts.path], runner)
        size = (work / "initrd").stat().st_size
        if size > _LARGEST_INITRD:
            raise _too_large(iso, size)
        line = " ".join([*own, *arguments])
        # for a moment everything lies in memory twice; later the store may fill half of it
        # (Documentation/filesystems/ramfs-rootfs-initramfs.rst)
        unpacked = store + mounts.unpacked
        needed = max(size + unpacked, 2 * unpacked) // 1024**2 + _SYSTEM_MIB
        report = Report(line, size, -(-needed // 64) * 64)
        _write_scripts(work, iso.name, report)
        for name in ("bzImage", "initrd", "initrd.gz", "boot.ipxe", "kexec-boot"):
            (work / name).replace(output / name)
    return report


def run(arguments: argparse.Namespace, say: Narrate) -> None:
    """`netinstall boot from-iso`. Raises InstallError."""
    report = from_iso(arguments.iso, arguments.output, arguments.argument, narrate=say)
    say(f"kernel arguments: {report.arguments}")
    say(
        f"initrd {format_bytes(report.initrd_bytes)}; a machine needs {report.memory_mib} MiB of "
        "memory, more for a graphical system"
    )
    say(f"{arguments.output}: publish it over HTTP, and let iPXE load boot.ipxe of it")


def _check_iso(iso: Path) -> None:
    try:
        with iso.open("rb") as file:
            # ECMA-119, 8.4: the sixteenth sector
            file.seek(16 * 2048 + 1)
            if file.read(5) == b"CD001":
                return
    except OSError as error:
        raise fail(
            "arguments",
            f"{iso} cannot be read: {error.strerror}",
            where="netinstall boot from-iso",
            hint="is the path right?",
        ) from None
    raise _not_nixos(
        iso, "it is no ISO 9660 image", "unpack it first if it is compressed (.iso.zst)"
    )


def _not_nixos(
    iso: Path, what: str, hint: str = "take an ISO of nixos.org, or one of NixOS's iso-image.nix"
) -> InstallError:
    return fail("iso.not-nixos", what, where=str(iso), hint=hint)


def _too_large(iso: Path, size: int) -> InstallError:
    return fail(
        "iso.too-large",
        f"the initrd would have {format_bytes(size)}, and the kernel can be given less",
        where=str(iso),
        hint="a smaller ISO: the minimal one, or one without what you do not need",
    )


def _files(iso: Path, runner: Runner) -> dict[str, int]:
    """Every regular file of the ISO that may matter, with its size in bytes."""
    said = runner.run(
        [
            *("xorriso", "-indev", str(iso), "-find", "/", "-type", "f"),
            *("-exec", "lsdl", "--"),
        ],
        timeout=_SECONDS,
        capture=True,
        purpose="listing the ISO's files",
    )
    # -r--r--r-- LINKS UID GID SIZE DATE 'PATH'
    row = re.compile(r"^-\S+ +\d+ +\S+ +\S+ +(\d+) .*? '(/[^']*)'$", re.MULTILINE)
    return {path: int(size) for size, path in row.findall(said)}


def check_sizes(iso: Path, files: dict[str, int], output: Path) -> None:
    """Refuse what cannot become an initrd, or has no room; `files` are the ISO's, with bytes.

    Raises InstallError: `iso.not-nixos`, `iso.too-large`, `arguments`.
    """
    store = files.get(f"/{STORE}")
    if store is None:
        raise _not_nixos(iso, f"it holds no /{STORE}: no ISO of NixOS")
    if store > _LARGEST_INITRD:
        raise _too_large(iso, store)
    try:
        output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output).free
    except OSError as error:
        raise unwritable(output, error) from None
    # the store twice, once as a file; kernel and initrd are small beside it
    needed = 2 * store + sum(size for path, size in files.items() if path.startswith("/boot/"))
    if free < needed:
        raise fail(
            "iso.too-large",
            f"{output} has room for {format_bytes(free)}, and {format_bytes(needed)} are needed "
            "for a while",
            where=str(iso),
            hint="make room, or name a folder on another file system",
        )


def _entry(iso: Path, files: dict[str, int], runner: Runner, work: Path) -> Entry:
    """The first entry of the boot menu, which is what the ISO starts when nobody chooses."""
    menus = [name for name in ("/isolinux/isolinux.cfg", "/EFI/BOOT/grub.cfg") if name in files]
    for number, name in enumerate(menus):
        target = work / f"menu-{number}"
        _extract(iso, {name: target}, runner)
        entry = first_entry(target.read_text(errors="replace"))
        if entry and {entry.kernel, entry.initrd} <= files.keys():
            return entry
    raise _not_nixos(
        iso, "its boot menu (isolinux.cfg or grub.cfg) names no kernel and initrd that it holds"
    )


def first_entry(menu: str) -> Entry | None:
    """Find the first entry of ISOLINUX's or GRUB's menu that has a kernel and an initrd."""
    kernel, arguments = "", []
    for line in menu.splitlines():
        match line.split():
            case [("LINUX" | "linux"), path, *words]:
                kernel, arguments = path, words
            case ["APPEND", *words]:
                arguments = words
            case [("INITRD" | "initrd"), path, *_] if kernel:
                # what is only known to a GRUB that looks for an ISO file
                known = [word for word in arguments if "${" not in word]
                return Entry(_plain(kernel), _plain(path), tuple(known))
            case _:
                pass
    return None


def _plain(path: str) -> str:
    # /boot//nix/store/…
    return "/" + str(PurePosixPath("/", path)).lstrip("/")


def _check_words(iso: Path, own: Sequence[str], added: Sequence[str]) -> None:
    for words, where in ((own, f"{iso}: its boot menu"), (added, "--argument")):
        for word in words:
            try:
                _check_word(word)
            except ValueError as error:
                raise fail(
                    "arguments",
                    f"the kernel argument {word!r} cannot be written: {error}",
                    where=where,
                    hint="choose another value",
                ) from None


def _check_word(word: str) -> None:
    if not re.fullmatch(r"[!#-~]+", word):
        raise ValueError("it is not printable ASCII without spaces and double quotes")
    encoding.ipxe(word)


def _extract(iso: Path, paths: dict[str, Path], runner: Runner) -> None:
    argv = ["xorriso", "-osirrox", "on", "-indev", str(iso)]
    for path, target in paths.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        argv += ["-extract", path, str(target)]
    runner.run(argv, timeout=_SECONDS, purpose="unpacking the ISO")
    for target in paths.values():
        target.chmod(0o644)


def _mounts(iso: Path, initrd: Path, runner: Runner, work: Path) -> Mounts:
    """Find out how the initrd's stage 1 is told what to mount."""
    unpacked = 0
    init = ""
    lists: list[tuple[str, str]] = []
    try:
        for member in _members(initrd, runner, work):
            unpacked += member.size
            if member.name == "init":
                init = member.text()
            elif _IN_STORE.fullmatch(member.name) and member.name.endswith(
                tuple(stage.mounts for stage in STAGES_1)
            ):
                lists.append((member.name, member.text()))
    except (ValueError, UnicodeDecodeError) as error:
        raise _not_nixos(iso, f"its initrd cannot be read: {error}") from None
    for stage in STAGES_1:
        found = [one for one in lists if one[0].endswith(stage.mounts)]
        if init.endswith(stage.init) and len(found) == 1:
            ((name, text),) = found
            try:
                return Mounts(stage, name, stage.change(text), unpacked)
            except ValueError as error:
                raise _not_nixos(iso, f"/{name} of its initrd is not understood: {error}") from None
    raise _not_nixos(
        iso,
        "its initrd has a stage 1 that is not known here: /init is "
        f"{init or 'missing'}, with {len(lists)} lists of mounts",
        "NixOS's scripted and systemd's stage 1 are known; please report this ISO",
    )


@dataclass(frozen=True)
class _Member:
    """A file of an archive; `size` in bytes."""

    name: str
    size: int
    offset: int
    file: BinaryIO

    def text(self) -> str:
        """Its content, or where a symbolic link leads. Raises ValueError."""
        if self.size > _LARGEST_LIST:
            raise ValueError(f"/{self.name} has {self.size} bytes")
        self.file.seek(self.offset)
        return self.file.read(self.size).decode()


def _members(initrd: Path, runner: Runner, work: Path) -> Iterator[_Member]:
    """What an initrd holds: archives without compression (microcode), then one with.

    Raises ValueError, InstallError.
    """
    with initrd.open("rb") as file:
        position = yield from _archives(file)
        magic = file.read(6)
        if not magic:
            return
        program = next((argv for first, argv in _DECOMPRESS.items() if magic.startswith(first)), [])
        if not program:
            raise ValueError(f"no known compression begins with {magic.hex(' ')}")
        os.lseek(file.fileno(), position, os.SEEK_SET)
        with (work / "unpacked").open("w+b") as plain:
            with runner.start(program, stdin=file.fileno(), stdout=plain.fileno()) as running:
                if code := running.end(_SECONDS):
                    raise running.failure(code)
            yield from _archives(plain)
            if plain.read(1):
                raise ValueError("something follows its last archive")
    (work / "unpacked").unlink()


def _archives(file: BinaryIO) -> Generator[_Member, None, int]:
    """Walk through archives in cpio's newc format, one after the other (buffer-format.rst).

    cpio(1) does not tell where an archive ends, and what comes after it. Returns, with the file
    there, the position of what is none: padding is skipped.
    """
    position = 0
    while True:
        file.seek(position)
        header = file.read(110)
        if header[:4] == bytes(4):
            position += 4
            continue
        if header[:6] not in (b"070701", b"070702"):
            file.seek(position)
            return position
        try:
            fields = [int(header[start : start + 8], 16) for start in range(6, 110, 8)]
        except ValueError:
            raise ValueError("a header in it is damaged") from None
        size, length = fields[6], fields[11]
        if not 0 < length <= _LONGEST_NAME:
            raise ValueError("a name in it is too long")
        name = file.read(length)[:-1].decode().removeprefix("./")
        content = position + (110 + length + 3) // 4 * 4
        position = content + (size + 3) // 4 * 4
        if name != "TRAILER!!!":
            yield _Member(name, size, content, file)


def _append(initrd: Path, folder: Path, names: list[str], runner: Runner) -> None:
    """Add files of a folder to an initrd, as another archive."""
    for name in names:
        # the same ISO gives the same initrd
        os.utime(folder / name, (1, 1))
    listing = folder / "names"
    listing.write_text("".join(f"{name}\n" for name in names))
    with initrd.open("r+b") as file, listing.open("rb") as listed:
        file.seek(0, os.SEEK_END)
        # an archive begins at a multiple of four
        file.write(bytes(-file.tell() % 4))
        file.flush()
        argv = ["cpio", "--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet"]
        argv += [f"--directory={folder}"]
        with runner.start(
            argv, stdin=listed.fileno(), stdout=file.fileno(), purpose="packing the Nix store"
        ) as running:
            if code := running.end(_SECONDS):
                raise running.failure(code)


def _write_scripts(folder: Path, name: str, report: Report) -> None:
    title = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    needs = f"A machine needs {report.memory_mib} MiB of memory."
    comment = f"Written by netinstall boot from-iso {title}. {needs}"
    script = ipxe.boot_script(comment, title, "bzImage", "initrd", report.arguments.split())
    (folder / "boot.ipxe").write_text(script)
    link_or_copy(folder / "initrd", folder / "initrd.gz")
    boot = kexec.Boot(title, report.arguments, memory_mib=report.memory_mib)
    write_script(folder, kexec.script(boot))
