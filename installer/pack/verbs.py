"""The arguments of `netinstall payload`, and what it says."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from installer.model.errors import fail

if TYPE_CHECKING:
    from installer.model.manifest import Manifest, System
    from installer.pack.sign import SecretKey

Narrate = Callable[[str], None]
Progress = Callable[[int, int | None], None]
_PASSWORD_LIMIT = 1024


def add_arguments(
    add: Callable[[str, str], argparse.ArgumentParser],
) -> None:
    """Add the three actions; `add` makes a parser of a name and a sentence."""
    packing = add("pack", "make a payload of a folder, a store path or a tarball")
    packing.add_argument("source", metavar="SOURCE", help="folder, toplevel or tarball")
    packing.add_argument("--output", type=Path, required=True, metavar="DIR")
    packing.add_argument("--name", help="default: the source's name")
    packing.add_argument("--sign", type=Path, metavar="KEY", help="minisign's secret key")
    packing.add_argument(
        "--password-file", metavar="FILE", help="the key's password; - for standard input"
    )
    packing.add_argument("--expires", metavar="TIME", help="for example 2027-01-01T00:00:00Z")
    packing.add_argument(
        "--compression",
        type=int,
        choices=range(1, 20),
        metavar="1-19",
        default=9,
        help="zstd's level; default: %(default)s",
    )
    packing.add_argument(
        "--store",
        type=Path,
        default=Path("/"),
        metavar="ROOT",
        help="the folder that holds nix/store; default: %(default)s",
    )
    checking = add("verify", "compare a payload with its manifest and signature")
    checking.add_argument("manifest", metavar="MANIFEST", type=Path)
    checking.add_argument(
        "--public-key", metavar="KEY", help="minisign.pub, or the line in it that begins with RW"
    )
    showing = add("show", "print what a manifest says")
    showing.add_argument("manifest", metavar="MANIFEST", type=Path)


def run_pack(arguments: argparse.Namespace, narrate: Narrate, progress: Progress) -> int:
    """`netinstall payload pack`. Raises InstallError."""
    from installer.model.manifest import time_text  # noqa: PLC0415
    from installer.pack.payload import Wishes, pack  # noqa: PLC0415

    if arguments.expires is not None:
        _check_time(arguments.expires)
    # before hours of packing
    key = _key(arguments.sign, arguments.password_file) if arguments.sign else None
    manifest = pack(
        Wishes(
            source=arguments.source,
            output=arguments.output,
            name=arguments.name,
            key=key,
            expires=arguments.expires,
            level=arguments.compression,
            store=arguments.store,
        ),
        narrate,
        progress,
    )
    narrate(
        f"{arguments.output / manifest.archive_name}: {_sizes(manifest)}, "
        f"built {manifest.built}" + ("" if manifest.built > time_text(1) else " (no time is known)")
    )
    narrate("signed" if key else "not signed: minisign -S -H -m " + f"{manifest.name}.json")
    return 0


def run_verify(arguments: argparse.Namespace, narrate: Narrate, progress: Progress) -> int:
    """`netinstall payload verify`. Raises InstallError."""
    from installer.pack.verify import public_key, read_manifest, verify_archive  # noqa: PLC0415

    key = public_key(arguments.public_key) if arguments.public_key is not None else None
    manifest, comment = read_manifest(arguments.manifest, key)
    if key is None:
        narrate("warning: no --public-key: whoever wrote archive and manifest is not known")
    verify_archive(manifest, arguments.manifest.with_name(manifest.archive_name), progress)
    signed = f", signed with {key.shown} ({comment})" if key is not None else ""
    sys.stdout.write(f"{manifest.archive_name}: right{signed}\n")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """`netinstall payload show`. Raises InstallError."""
    from installer.pack.verify import read_manifest  # noqa: PLC0415

    manifest, _ = read_manifest(arguments.manifest, None)
    system = manifest.system
    rows = [
        ("name", manifest.name),
        ("built", manifest.built),
        ("expires", manifest.expires or "never"),
        ("archive", _sizes(manifest)),
        ("sha256", manifest.archive.sha256),
        ("frames", _frames(manifest)),
    ]
    if system is None:
        rows.append(("system", "no NixOS system"))
    else:
        rows += [
            ("toplevel", system.toplevel),
            ("NixOS", system.nixos_version or "unknown"),
            ("platform", system.platform or "unknown"),
            ("kernel", system.kernel or "unknown"),
            ("boot modes", " ".join(system.boot_modes) or "unknown"),
            ("file systems", " ".join(system.filesystems) or "unknown"),
            ("programs", _programs(system)),
        ]
        if system.rebuild is not None:
            rebuild = system.rebuild
            rows += [
                ("channel", rebuild.channel or "none: it can be installed as prebuilt only"),
                ("configuration", "/etc/nixos is there" if rebuild.configuration else "none"),
                ("build tools", "stdenv is there" if rebuild.stdenv else "none"),
            ]
    sys.stdout.write("".join(f"{name:13} {value}\n" for name, value in rows))
    return 0


def _programs(system: "System") -> str:
    return "unknown" if system.programs is None else " ".join(system.programs) or "none"


def _sizes(manifest: "Manifest") -> str:
    from installer.model.units import format_bytes  # noqa: PLC0415

    archive = manifest.archive
    return (
        f"{format_bytes(archive.size)}, unpacked {format_bytes(archive.usage)}, "
        f"{archive.entries} entries"
    )


def _frames(manifest: "Manifest") -> str:
    from installer.model.manifest import KINDS  # noqa: PLC0415

    counts = {kind: sum(frame.kind == kind for frame in manifest.frames) for kind in KINDS}
    return ", ".join(f"{count} of {kind}" for kind, count in counts.items() if count)


def _check_time(text: str) -> None:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from installer.model.manifest import Time  # noqa: PLC0415

    try:
        TypeAdapter(Time).validate_python(text)
    except ValidationError:
        raise fail(
            "arguments",
            f"{text!r} is no time in UTC",
            where="--expires",
            hint="write it like 2027-01-01T00:00:00Z",
        ) from None


def _key(path: Path, password_file: str | None) -> "SecretKey":
    from installer.model.minisign import KEY_LIMIT  # noqa: PLC0415
    from installer.pack.sign import parse_secret_key  # noqa: PLC0415
    from installer.pack.verify import read_limited  # noqa: PLC0415

    password = None
    if password_file == "-":  # noqa: S105 - the name of a file
        password = sys.stdin.buffer.readline(_PASSWORD_LIMIT)
    elif password_file is not None:
        password = read_limited(Path(password_file), _PASSWORD_LIMIT, "payload.key")
    if password is not None:
        password = password.removesuffix(b"\n")
    return parse_secret_key(read_limited(path, KEY_LIMIT, "payload.key"), password, str(path))
