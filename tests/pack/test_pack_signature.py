"""Signatures: ours and minisign's, and every way in which one can be wrong."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import packed, payload_verb

from installer.model.errors import InstallError
from installer.model.minisign import parse_public_key, verify
from installer.pack.sign import parse_secret_key


def minisign(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["minisign", *arguments], input=typed, capture_output=True, text=True, check=False
    )


def keys(folder: Path, name: str = "key", password: str | None = None) -> tuple[Path, Path]:
    """Let minisign make a pair: the public and the secret key's file."""
    public, secret = folder / f"{name}.pub", folder / f"{name}.key"
    option = ["-W"] if password is None else []
    done = minisign(
        "-G", *option, "-p", public, "-s", secret, typed=f"{password}\n{password}\n" * 1
    )
    assert done.returncode == 0, done.stderr
    return public, secret


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A small payload, signed: its manifest and the public key."""
    public, secret = keys(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s/file").write_bytes(b"hello")
    key = parse_secret_key(secret.read_bytes(), None, str(secret))
    packed(tmp_path / "s", tmp_path / "out", key=key)
    yield tmp_path / "out/s.json", public  # noqa: PT022


def test_minisign_verifies_ours(signed: tuple[Path, Path]) -> None:
    manifest, public = signed
    done = minisign("-V", "-m", manifest, "-p", public)
    assert done.returncode == 0, done.stderr
    assert "file:s.json\thashed" in done.stdout


def test_we_verify_minisigns(signed: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, public = signed
    signature = manifest.with_name("s.json.minisig")
    signature.unlink()
    done = minisign("-S", "-H", "-s", tmp_path / "key.key", "-m", manifest, "-t", "version 3 ü")
    assert done.returncode == 0, done.stderr
    key = parse_public_key(public.read_bytes(), "key.pub")
    assert verify(manifest.read_bytes(), signature.read_bytes(), key, "x") == "version 3 ü"
    line = public.read_text().splitlines()[1]
    for given in (str(public), line):
        code, said, _ = payload_verb("verify", manifest, "--public-key", given)
        assert code == 0
        assert said == f"s.tar.zst: right, signed with {key.shown} (version 3 ü)\n"


def test_a_key_with_a_password(tmp_path: Path) -> None:
    public, secret = keys(tmp_path, password="pass word")
    (tmp_path / "s").mkdir()
    (tmp_path / "password").write_text("pass word\n")
    arguments = ("pack", tmp_path / "s", "--output", tmp_path / "out", "--sign", secret)
    code, _, said = payload_verb(*arguments)
    assert code == 4
    assert said == (
        f"error[payload.key]: {secret} is protected by a password\n"
        f"  where: {secret}\n"
        "  try:   give it: --password-file FILE or -\n"
    )
    code, _, said = payload_verb(*arguments, "--password-file", "-", stdin=b"wrong\n")
    assert code == 4
    assert f"error[payload.key]: the password does not open {secret}\n" in said
    for given, stdin in ((str(tmp_path / "password"), b""), ("-", b"pass word\n")):
        code, _, said = payload_verb(*arguments, "--password-file", given, stdin=stdin)
        assert (code, said.splitlines()[-1]) == (0, "signed")
        assert minisign("-V", "-m", tmp_path / "out/s.json", "-p", public).returncode == 0


def _refused(message: bytes, signature: bytes, public: Path) -> str:
    key = parse_public_key(public.read_bytes(), "key.pub")
    with pytest.raises(InstallError) as caught:
        verify(message, signature, key, "s.json.minisig")
    assert caught.value.problems[0].code == "payload.signature"
    return caught.value.problems[0].what


def test_every_changed_byte_is_refused(signed: tuple[Path, Path]) -> None:
    manifest, public = signed
    message = manifest.read_bytes()
    signature = manifest.with_name("s.json.minisig").read_bytes()
    for data in (message, signature):
        for place in range(len(data)):
            for flip in (1, 0x20, 0x80):
                wrong = bytearray(data)
                wrong[place] ^= flip
                if data is message:
                    _refused(bytes(wrong), signature, public)
                else:
                    _refused(message, bytes(wrong), public)


def test_every_truncation_and_anything_more_is_refused(signed: tuple[Path, Path]) -> None:
    manifest, public = signed
    message = manifest.read_bytes()
    signature = manifest.with_name("s.json.minisig").read_bytes()
    for end in range(len(message)):
        _refused(message[:end], signature, public)
    for end in range(len(signature)):
        _refused(message, signature[:end], public)
    for more in (b"\n", b" ", b"\0", b"x\n", signature):
        _refused(message + more, signature, public)
        _refused(message, signature + more, public)
    _refused(message, signature.replace(b"\n", b"\r\n"), public)


def test_another_key_another_comment_and_the_old_kind(
    signed: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest, public = signed
    message = manifest.read_bytes()
    path = manifest.with_name("s.json.minisig")
    signature = path.read_bytes()
    other, other_secret = keys(tmp_path, "other")
    assert "was made with the key" in _refused(message, signature, other)
    assert minisign("-S", "-H", "-s", other_secret, "-m", manifest, "-t", "else").returncode == 0
    lines, theirs = signature.split(b"\n"), path.read_bytes().split(b"\n")
    for line in (2, 3):
        mixed = [*lines]
        mixed[line] = theirs[line]
        _refused(message, b"\n".join(mixed), public)
    # the other's signature under the number of the trusted key
    assert (
        minisign("-S", "-H", "-s", tmp_path / "key.key", "-m", manifest, "-c", "hi").returncode == 0
    )
    assert "untrusted comment" in _refused(message, path.read_bytes(), public)
    assert minisign("-S", "-l", "-s", tmp_path / "key.key", "-m", manifest).returncode == 0
    assert "old kind" in _refused(message, path.read_bytes(), public)


def test_what_a_person_reads(signed: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, public = signed
    data = manifest.read_bytes()
    manifest.write_bytes(data.replace(b'"name": "s"', b'"name": "t"'))
    code, said, errors = payload_verb("verify", manifest, "--public-key", public)
    assert (code, said) == (4, "")
    assert errors == (
        "error[payload.signature]: the signature is not right: manifest or signature were changed\n"
        f"  where: {manifest}.minisig\n"
        "  try:   fetch manifest and signature again; if it stays, do not use this payload\n"
    )
    manifest.write_bytes(data)
    code, said, errors = payload_verb("verify", manifest)
    assert (code, said) == (0, "s.tar.zst: right\n")
    assert errors.startswith("warning: no --public-key: whoever wrote archive and manifest")
    manifest.with_name("s.json.minisig").unlink()
    code, _, errors = payload_verb("verify", manifest, "--public-key", public)
    assert code == 4
    assert "error[payload.signature]" in errors
    code, _, errors = payload_verb("verify", manifest, "--public-key", tmp_path / "key.key")
    assert code == 4
    assert errors == (
        f"error[payload.key]: {tmp_path}/key.key is no public key of minisign, but a secret one\n"
        f"  where: {tmp_path}/key.key\n"
        "  try:   give minisign.pub, or the line in it that begins with RW\n"
    )
