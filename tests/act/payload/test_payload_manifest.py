"""A manifest and its signature: whatever is wrong with them, nothing of it is believed."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from framing import Payload as Made
from framing import payload, plain_frames, system_files
from nacl.signing import SigningKey

from installer.model.errors import InstallError, Problem
from installer.model.facts import ImageFacts
from installer.model.manifest import MANIFEST_LIMIT
from installer.model.payload import Payload
from installer.observe import kernel
from installer.observe.packed import Packed, look
from installer.pack.sign import SecretKey

HERE = Path(__file__).parent
NOW = 1_790_000_000.0  # 2026-09-21
SECRET = SecretKey(b"12345678", bytes(range(32)))
OTHER = SecretKey(b"87654321", bytes(32))


def public(secret: SecretKey) -> str:
    key = SigningKey(secret.seed).verify_key.encode()
    return base64.b64encode(b"Ed" + secret.number + key).decode()


@pytest.fixture(scope="module")
def made() -> Made:
    files = system_files()
    return payload(plain_frames(files, per_frame=4), files)


@pytest.fixture
def folder(made: Made, tmp_path: Path) -> Path:
    place(tmp_path / "p", made)
    return tmp_path / "p"


def place(folder: Path, made: Made, key: SecretKey = SECRET) -> None:
    folder.mkdir()
    (folder / "demo.json").write_bytes(made.text)
    (folder / "demo.json.minisig").write_bytes(key.sign(made.text, "demo"))


def at(location: Path | str, *mirrors: Path | str, **trust: Any) -> Payload:
    return Payload.model_validate(
        {
            "manifest": str(location),
            "mirrors": [str(mirror) for mirror in mirrors],
            "trust": trust or {"public-keys": [public(SECRET)]},
        }
    )


def seen(given: Payload, said: list[str] | None = None, **more: Any) -> Packed:
    image = more.pop("image", ImageFacts())
    more = {"seconds": 0.0, "timeouts": (1.0, 1.0), "now": NOW, **more}
    return look(given, image, (said if said is not None else []).append, **more)


def refused(given: Payload, **more: Any) -> tuple[Problem, ...]:
    with pytest.raises(InstallError) as caught:
        seen(given, **more)
    return caught.value.problems


@contextmanager
def serving(folder: Path, faults: Sequence[Any] = ()) -> Iterator[str]:
    argv = [sys.executable, str(HERE / "faulty.py"), str(folder), json.dumps(list(faults))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def test_a_right_one(made: Made, folder: Path) -> None:
    found = seen(at(folder / "demo.json"))
    assert found.manifest == made.manifest
    facts = found.facts.manifest
    assert facts is not None
    assert facts.signed_by == "3837363534333231"
    assert facts.judged == "2026-09-21T14:13:20Z"
    assert (found.facts.size, facts.frames) == (len(made.archive), len(made.manifest.frames))
    with serving(folder) as url:
        assert seen(at(f"{url}/demo.json")).manifest == made.manifest


def test_the_images_keys_and_date_count(folder: Path) -> None:
    image = ImageFacts((public(OTHER), public(SECRET)), "2026-10-01T00:00:00Z")
    given = at(folder / "demo.json", **{"minimum-nixos": "26.05"})
    facts = seen(given, image=image).facts.manifest
    assert facts is not None
    # the clock stands before the image was built: it is wrong
    assert facts.judged == "2026-10-01T00:00:00Z"
    facts = seen(given, image=image, now=0.0).facts.manifest
    assert facts is not None
    assert facts.judged == "2026-10-01T00:00:00Z"


@pytest.mark.parametrize("name", ["demo.json", "demo.json.minisig"])
def test_every_changed_byte_is_refused(folder: Path, name: str) -> None:
    file = folder / name
    right = file.read_bytes()
    for index in range(len(right)):
        file.write_bytes(right[:index] + bytes([right[index] ^ 0x20]) + right[index + 1 :])
        assert {problem.code for problem in refused(at(folder / "demo.json"))} == {
            "payload.signature"
        }


@pytest.mark.parametrize("name", ["demo.json", "demo.json.minisig"])
def test_every_other_length_is_refused(folder: Path, name: str) -> None:
    file = folder / name
    right = file.read_bytes()
    for wrong in (*(right[:size] for size in range(len(right))), right + b"\n", right + b"\0"):
        file.write_bytes(wrong)
        assert {problem.code for problem in refused(at(folder / "demo.json"))} == {
            "payload.signature"
        }


def test_another_key(made: Made, tmp_path: Path) -> None:
    place(tmp_path / "p", made, OTHER)
    (problem,) = refused(at(tmp_path / "p/demo.json"))
    assert problem == Problem(
        "payload.signature",
        "the signature was made with the key 3132333435363738, trusted is 3837363534333231",
        f"{tmp_path}/p/demo.json.minisig",
        "fetch manifest and signature again; if it stays, do not use this payload",
    )
    third = SecretKey(b"abcdefgh", bytes(32))
    keys = {"public-keys": [public(SECRET), public(third)]}
    (problem,) = refused(at(tmp_path / "p/demo.json", **keys))
    assert problem.what == (
        "the signature was made with the key 3132333435363738, trusted are 3837363534333231, "
        "6867666564636261"
    )
    keys["public-keys"].append(public(OTHER))
    assert seen(at(tmp_path / "p/demo.json", **keys))


def test_without_a_signature(folder: Path) -> None:
    (folder / "demo.json.minisig").unlink()
    (problem,) = refused(at(folder / "demo.json"))
    assert problem == Problem(
        "payload.not-found",
        f"{folder}/demo.json.minisig: No such file or directory",
        "payload.manifest",
        "is the share mounted in the boot environment, and the path right?",
    )
    found = seen(at(folder / "demo.json", **{"allow-unsigned": True}))
    assert found.facts.manifest is not None
    assert found.facts.manifest.signed_by is None


def test_no_kernel_argument_lowers_trust() -> None:
    for name in ("allow-unsigned", "public-keys", "trust", "minimum-built", "unverified"):
        arguments, problems = kernel.parse(f"netinstall.{name}=1 ip=dhcp")
        (problem,) = problems
        assert problem.what == f"netinstall.{name}: this name is not known"
        assert arguments.shown() == {"ip": "dhcp"}


def test_a_wrong_mirror_is_named_and_the_next_one_asked(
    made: Made, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    place(tmp_path / "b", made, OTHER)
    said: list[str] = []
    with serving(tmp_path / "b") as wrong:
        given = at(tmp_path / "a/demo.json", f"{wrong}/", folder)
        assert seen(given, said).facts.source == f"{folder}/demo.json"
        assert said == [
            (
                f"{tmp_path}/a/demo.json is passed over: {tmp_path}/a/demo.json: No such file or "
                "directory"
            ),
            (
                f"{wrong}/demo.json is passed over: the signature was made with the key "
                "3132333435363738, trusted is 3837363534333231"
            ),
        ]
        problems = refused(at(tmp_path / "a/demo.json", wrong))
    assert [problem.code for problem in problems] == ["payload.not-found", "payload.signature"]


def test_a_place_that_cannot_be_reached(folder: Path) -> None:
    with serving(folder) as url:
        pass
    (problem,) = refused(at(f"{url}/demo.json"))
    assert problem == Problem(
        "network.unreachable",
        f"{url}/demo.json cannot be read: Connection refused",
        "payload.manifest",
        "check cable, address, gateway and name servers of this machine, then the server",
    )
    said: list[str] = []
    assert seen(at(f"{url}/demo.json", folder), said)


def test_the_server_does_not_have_it(folder: Path) -> None:
    with serving(folder) as url:
        (problem,) = refused(at(f"{url}/other.json"))
    assert problem == Problem(
        "payload.not-found",
        f"the server answered 404 for {url}/other.json",
        "payload.manifest",
        "check payload.manifest: is the file there under exactly this name?",
    )


@pytest.mark.parametrize("fault", [{"drip": 0.05}, {"header-drip": 0.05}], ids=str)
def test_a_server_that_sends_byte_by_byte_does_not_hold_us(
    folder: Path, fault: dict[str, float]
) -> None:
    # faults are for archives
    (folder / "demo.tar.zst").write_bytes((folder / "demo.json").read_bytes())
    begun = time.monotonic()
    with serving(folder, [{"always": fault}]) as url:
        (problem,) = refused(at(f"{url}/demo.tar.zst"), read_seconds=0.5)
    assert time.monotonic() - begun < 10
    assert problem.what == f"{url}/demo.tar.zst cannot be read: it comes too slowly"


def test_no_more_is_read_than_a_manifest_may_have(folder: Path) -> None:
    (folder / "demo.json").write_bytes(bytes(4 * MANIFEST_LIMIT))
    with serving(folder) as url:
        for location in (f"{url}/demo.json", f"{folder}/demo.json"):
            (problem,) = refused(at(location))
            assert problem == Problem(
                "payload.manifest",
                "it has more than 2.00 MiB",
                location,
                "is this the file that netinstall payload pack wrote?",
            )
