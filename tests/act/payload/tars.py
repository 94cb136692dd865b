"""Archives by hand: what no honest program writes."""

from collections.abc import Iterable

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
TOPLEVEL = f"/nix/store/{HASH}-nixos-system-demo-26.05"
POSIX = b"ustar\x0000"
GNU = b"ustar  \0"
END = bytes(1024)


def header(
    name: bytes,
    size: int = 0,
    kind: bytes = b"0",
    target: bytes = b"",
    *,
    magic: bytes = POSIX,
    prefix: bytes = b"",
    size_field: bytes | None = None,
    mode: int = 0o755,
    owner: bytes = b"0000000\0" * 2,
) -> bytes:
    """Make one header block; see POSIX.1-2017, pax, "ustar Interchange Format"."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:124] = owner
    block[124:136] = size_field if size_field is not None else b"%011o\0" % size
    block[136:148] = b"%011o\0" % 1
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(target)] = target
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", *, magic: bytes = POSIX) -> bytes:
    return header(name, len(data), magic=magic) + padded(data)


def folder(name: bytes) -> bytes:
    return header(name, kind=b"5")


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, kind=b"2", target=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, kind=b"1", target=target)


def record(key: bytes, value: bytes) -> bytes:
    """Make a pax record, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(b"%d" % size) + len(rest):
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """Make an extended header of records as they are."""
    data = b"".join(records)
    return header(b"PaxHeaders/x", len(data), kind) + padded(data)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Make GNU's header for a long name or (`K`) a long target."""
    return header(b"././@LongLink", len(name) + 1, kind, magic=GNU) + padded(name + b"\0")


def system(toplevel: str = TOPLEVEL, leave_out: Iterable[str] = ()) -> bytes:
    """Make the members that a NixOS system must have, except some."""
    store = toplevel.removeprefix("/").encode()
    parts = {
        "registration": file(b"nix-path-registration", b"registered\n"),
        "folder": folder(store) + folder(store + b"/bin"),
        "init": file(store + b"/init", b"#!/bin/sh\n"),
        "nixos-version": file(store + b"/nixos-version", b"26.05"),
        "switch": symlink(store + b"/bin/switch-to-configuration", b"/nix/store/x/bin/s"),
    }
    return b"".join(data for name, data in parts.items() if name not in leave_out)


SYSTEM = system()
