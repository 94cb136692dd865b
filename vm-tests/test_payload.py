"""A signed, packed payload: installed although servers lie and die, refused if unvouched for."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import disk, report, sample, signing
from lab.bench import Bench
from lab.boot_server import BootServer
from lab.http import Fault
from lab.network import UserNetwork
from lab.vm import Nic, Vm

pytestmark = pytest.mark.vm

ANSWERS = f"""
version = 1

[payload]
manifest = "@FIRST@/sample.json"
mirrors = ["@SECOND@"]

[payload.trust]
public-keys = ["{signing.PUBLIC}"]

[system]
install = "rebuild"

[[disks]]
match = {{ serial = "netinstall-root" }}

[[disks.partitions]]
size = "rest"
mount = "/"
"""


def answer(server: BootServer, first: str, second: str) -> None:
    text = ANSWERS.replace("@FIRST@", first).replace("@SECOND@", second)
    server.answers(text.replace("match", "wipe = 'force'\nmatch"))


def machine(bench: Bench, server: BootServer) -> Vm:
    return Vm(
        firmware="uefi",
        memory=1024,
        disks=(bench.disk("4G", serial="netinstall-root", canary=True),),
        nics=(Nic(UserNetwork(bootfile=server.ipxe(), hostname="rack7.example.test")),),
    )


def test_a_mirror_that_serves_wrong_frames_is_named_and_left(bench: Bench, tmp_path: Path) -> None:
    manifest = signing.packed(sample.tarball(), tmp_path)
    server = BootServer(bench.web)
    answer(server, bench.web.url("/first"), bench.web.url("/second"))
    right = (tmp_path / "sample.tar.zst").read_bytes()
    wrong = bytearray(right)
    frame = next(frame for frame in manifest.frames if frame.kind == "files")
    wrong[frame.offset + frame.length // 2] ^= 1
    for place, archive in (("first", bytes(wrong)), ("second", right)):
        for name in ("sample.json", "sample.json.minisig"):
            bench.web.publish(f"/{place}/{name}", tmp_path / name)
        bench.web.publish(f"/{place}/sample.tar.zst", archive)
    vm = machine(bench, server)
    booted = bench.boot(vm)
    failures = [r"INSTALLATION FAILED"]
    booted.console.expect(r"WILL BE DESTROYED", 240, fail_on=failures)
    booted.console.expect(r"INSTALLED in", 400, fail_on=failures)
    assert booted.wait_for_exit(60) == "reboot"
    number = manifest.frames.index(frame)
    said = f"first/sample.tar.zst is not used any more: frame {number} (bytes "
    assert any(said in str(event.get("text", "")) for event in bench.web.reports)

    installed = bench.boot(vm.without_network_boot())
    up = report.wait(installed.console, 180)
    assert up["configured_from"] == "rebuilt"
    assert up["nix"]["verify"] == "ok"


def test_a_server_that_dies_and_lines_that_are_cut(bench: Bench, tmp_path: Path) -> None:
    manifest = signing.packed(sample.tarball(), tmp_path)
    archive = "/packed/sample.tar.zst"
    first, second = bench.web_on(UserNetwork()), bench.web_on(UserNetwork())
    server = BootServer(bench.web)
    answer(server, *(one.publish_folder("/packed", tmp_path) for one in (first, second)))
    # four lines at once, none of which gets further than so
    first.fail(archive, Fault(cut_after=700_000, times=4))
    second.fail(archive, Fault(cut_after=900_000, reset=True, times=3))
    first.pace(1_000_000)
    vm = machine(bench, server)
    booted = bench.boot(vm)
    failures = [r"INSTALLATION FAILED"]
    # a line that was cut is mended, and two of the next ones are in the middle of a frame
    first.wait_for_request(archive, 240, method="GET", skip=5, sent=500_000)
    first.stop()
    booted.console.expect(r"INSTALLED in", 400, fail_on=failures)
    assert booted.wait_for_exit(60) == "reboot"

    said = [str(event["text"]) for event in bench.web.reports if event["kind"] == "message"]
    lost = [text for text in said if "; going on " in text]
    assert any(text.startswith(f"{second.base}{archive}: ") for text in lost)
    (refused,) = {
        (text.split(": ")[0], text.rpartition("; ")[2]) for text in lost if "refused" in text
    }
    assert refused == (first.base + archive, f"going on from {second.base}{archive}")
    gets = [
        one
        for place in (first, second)
        for one in place.requests
        if (one.path, one.method) == (archive, "GET")
    ]
    assert {one.status for one in gets} == {206}
    # what was on its way when a line was cut is fetched again, and nothing else
    broken = sum(not one.complete for one in gets)
    assert broken >= 8
    again = sum(one.sent for one in gets) - manifest.archive.size
    frame = max(frame.length for frame in manifest.frames)
    assert 0 <= again < broken * frame / 4

    installed = bench.boot(vm.without_network_boot())
    up = report.wait(installed.console, 180)
    assert up["nix"]["verify"] == "ok"


def test_a_manifest_that_was_changed_leaves_the_disk_alone(bench: Bench, tmp_path: Path) -> None:
    signing.packed(sample.tarball(), tmp_path)
    server = BootServer(bench.web)
    answer(server, bench.web.url("/first"), bench.web.url("/second"))
    text = (tmp_path / "sample.json").read_bytes()
    for place in ("first", "second"):
        bench.web.publish(f"/{place}/sample.json", text.replace(b"26.05", b"26.06"))
        bench.web.publish(f"/{place}/sample.json.minisig", tmp_path / "sample.json.minisig")
    vm = machine(bench, server)
    before = disk.fingerprint(vm.disks[0].image)
    booted = bench.boot(vm)
    booted.console.expect(r"INSTALLATION FAILED", 240, fail_on=[r"WILL BE DESTROYED"])
    booted.console.expect(r"payload\.signature", 30)
    booted.kill()
    assert disk.fingerprint(vm.disks[0].image) == before
