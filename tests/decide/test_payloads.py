"""What a manifest says is compared with machine, layout and trust, before anything is done."""

from dataclasses import replace
from typing import Any

import pytest
from deciding import answers, machine, plan, refusal

from installer.model.facts import Facts, ImageFacts, ManifestFacts, PayloadFacts
from installer.model.payload_steps import (
    CheckClosure,
    CheckPayload,
    CheckSquashfs,
    CopyClosure,
    UnpackFrames,
    UnpackSquashfs,
)
from installer.model.plan import RegisterStore
from installer.model.units import GIB

KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
OTHER = "RWSL39JOzDMYtJ4sjZDUI5WYCvW1Q1r1iMEZ3SA0XOXyZ1Tb0i3Bq9mG"
TOPLEVEL = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-26.05"
MANIFEST = ManifestFacts(
    name="web",
    sha256="0" * 64,
    built="2026-11-01T00:00:00Z",
    judged="2026-11-21T12:00:00Z",
    size=GIB,
    usage=3 * GIB,
    frames=200,
    entries=60_000,
    signed_by="E7620F1842B4E81F",
    toplevel=TOPLEVEL,
    nixos_version="26.05.20261030.abcdef",
    platform="x86_64-linux",
    kernel="6.12.1",
    boot_modes=("bios", "uefi"),
    filesystems=("ext4", "vfat"),
)


def given(trust: dict[str, Any] | None = None, **more: Any) -> Any:
    payload = {"manifest": "http://192.0.2.1/web.json", "trust": trust or {"public-keys": [KEY]}}
    tables = {key: more.pop(key) for key in ("system", "disks") if key in more}
    return answers(payload={**payload, **more}, **tables)


def seen(**changes: Any) -> Facts:
    facts = {key: changes.pop(key) for key in ("image", "firmware") if key in changes}
    manifest = replace(MANIFEST, **changes)
    return machine(
        payload=PayloadFacts("http://192.0.2.1/web.json", manifest.size, manifest=manifest), **facts
    )


def test_frames_are_planned_with_the_verified_manifest() -> None:
    made = plan(seen(), given(mirrors=["http://u:hunter2@192.0.2.2/p/", "/payloads"]))
    (step,) = [step for step in made.steps if isinstance(step, UnpackFrames)]
    assert step.sha256 == MANIFEST.sha256
    assert step.mirrors == ("http://u:hunter2@192.0.2.2/p/", "/payloads")
    assert step.title == "unpack http://192.0.2.1/web.tar.zst"
    assert CheckPayload not in map(type, made.steps)
    (step,) = [s for s in plan(machine(), given()).steps if isinstance(s, UnpackFrames)]
    assert step.sha256 is None


def _all_tools() -> dict[str, str]:
    return {**machine().tools, "unsquashfs": "/usr/bin/unsquashfs", "nix": "/usr/bin/nix"}


def test_other_sources_have_steps_of_their_own() -> None:
    squashfs = {"squashfs": "/nix-store.squashfs", "unverified": True}
    tools = _all_tools()
    steps = plan(machine(tools=tools), answers(payload=squashfs)).steps
    assert isinstance(steps[0], CheckSquashfs)
    assert {UnpackSquashfs, RegisterStore} <= set(map(type, steps))
    squashfs["squashfs"] = "http://192.0.2.1/nix-store.squashfs"
    steps = plan(machine(tools=tools), answers(payload=squashfs)).steps
    assert UnpackSquashfs in map(type, steps)
    # what a server has cannot be looked through before there is a disk to keep it on
    assert CheckSquashfs not in map(type, steps)
    closure = {"from": "http://192.0.2.1/cache", "toplevel": TOPLEVEL, "allow-unsigned": True}
    steps = plan(machine(tools=tools), answers(payload={"closure": closure})).steps
    (step,) = [step for step in steps if isinstance(step, CopyClosure)]
    assert (step.cache, step.toplevel, step.public_keys) == (closure["from"], TOPLEVEL, ())
    assert isinstance(steps[0], CheckClosure)
    assert RegisterStore not in map(type, steps)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (
            {"squashfs": "/nix-store.squashfs", "unverified": True},
            (
                "error[tool.missing]: unsquashfs is not in this boot environment; "
                "it is needed for a squashfs as the payload\n"
                "  where: answers.toml\n"
                "  try:   build the boot environment with Debian's package squashfs-tools"
            ),
        ),
        (
            {"closure": {"from": "/cache", "toplevel": TOPLEVEL, "allow-unsigned": True}},
            (
                "error[tool.missing]: nix is not in this boot environment; "
                "it is needed for a closure as the payload (netinstall image build --nix)\n"
                "  where: answers.toml\n"
                "  try:   build the boot environment with Debian's package nix-bin"
            ),
        ),
    ],
)
def test_their_programs_are_not_in_every_image(payload: dict[str, Any], text: str) -> None:
    assert refusal(machine(), answers(payload=payload)) == text


@pytest.mark.parametrize(
    ("changes", "trust", "text"),
    [
        (
            {"expires": "2026-11-21T12:00:00Z"},
            {},
            (
                "error[payload.expired]: web is valid until 2026-11-21T12:00:00Z, "
                "and now it is 2026-11-21T12:00:00Z\n"
                "  where: answers.toml: payload.manifest\n"
                "  try:   pack and sign it again; if the time is wrong, set this machine's clock"
            ),
        ),
        (
            {},
            {"minimum-built": "2026-11-01T00:00:01Z"},
            (
                "error[payload.old]: web was built 2026-11-01T00:00:00Z, "
                "wanted is 2026-11-01T00:00:01Z or later\n"
                "  where: answers.toml: payload.trust.minimum-built\n"
                "  try:   serve the newer payload: an old one with a right signature may be "
                "somebody's attack"
            ),
        ),
        (
            {"nixos_version": "25.11.20261030"},
            {"minimum-nixos": "26.05"},
            (
                "error[payload.old]: web is NixOS 25.11.20261030, wanted is 26.05 or newer\n"
                "  where: answers.toml: payload.trust.minimum-nixos\n"
                "  try:   serve the newer payload: an old one with a right signature may be "
                "somebody's attack"
            ),
        ),
        (
            {"nixos_version": None},
            {"minimum-nixos": "26.05"},
            (
                "error[payload.old]: web is NixOS of an unknown version, wanted is 26.05 or newer\n"
                "  where: answers.toml: payload.trust.minimum-nixos\n"
                "  try:   serve the newer payload: an old one with a right signature may be "
                "somebody's attack"
            ),
        ),
        (
            {"platform": "aarch64-linux"},
            {},
            (
                "error[payload.unfit]: web is made for aarch64-linux, this machine is x86_64\n"
                "  where: answers.toml: payload.manifest\n"
                "  try:   serve a payload for this machine"
            ),
        ),
        (
            {"boot_modes": ("bios",), "firmware": "uefi"},
            {},
            (
                "error[payload.unfit]: the boot loader of web is for BIOS, this machine booted in "
                "UEFI mode\n"
                "  where: answers.toml: payload.manifest\n"
                "  try:   switch the mode in the firmware's setup, or serve a payload for this one"
            ),
        ),
        (
            {"filesystems": ("btrfs", "nfs", "vfat"), "firmware": "uefi"},
            {},
            (
                "error[payload.unfit]: the /etc/fstab of web mounts btrfs, and the layout "
                "makes only ext4, vfat: as it is, it would not boot\n"
                "  where: answers.toml: disks\n"
                '  try:   make the file systems that it mounts, or say install = "rebuild"'
            ),
        ),
        (
            {"toplevel": None},
            {},
            (
                "error[payload.not-nixos]: web holds no NixOS system\n"
                "  where: answers.toml: payload.manifest\n"
                "  try:   pack a system's toplevel, or a folder or tarball with one in its store"
            ),
        ),
        (
            {"usage": 30 * GIB},
            {},
            (
                "error[payload.too-large]: web needs 30.0 GiB on /, which takes 18.1 GiB\n"
                "  where: answers.toml: disks\n"
                "  try:   make the file system larger, or the payload smaller"
            ),
        ),
        (
            {"files": 2_000_000},
            {},
            (
                "error[payload.too-large]: web holds 2000000 files, folders and links, and the "
                "ext4 of the layout has inodes for 1220138\n"
                "  where: answers.toml: disks\n"
                "  try:   give the file system more of them, for example mkfs-options = "
                '["-i", "4096"], make it larger, or take another type'
            ),
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused(
    changes: dict[str, Any], trust: dict[str, Any], text: str
) -> None:
    changes.setdefault("firmware", "uefi")
    assert refusal(seen(**changes), given({"public-keys": [KEY], **trust})) == text


def test_what_is_just_right() -> None:
    trust = {
        "public-keys": [KEY],
        "minimum-built": "2026-11-01T00:00:00Z",
        "minimum-nixos": "26.05.20261030",
    }
    assert plan(seen(expires="2026-11-21T12:00:01Z"), given(trust))
    # a rebuild writes its own fstab
    rebuilt = given(system={"install": "rebuild"})
    assert plan(seen(filesystems=("btrfs",)), rebuilt)


def test_each_mount_point_has_to_take_its_part() -> None:
    parts = [{"size": "4 GiB", "mount": "/nix"}, {"size": "rest", "mount": "/"}]
    disks = [{"match": {"transport": "virtio"}, "wipe": "force", "partitions": parts}]
    folders = {"/nix/store": 4 * GIB, "/var": GIB}
    facts = seen(usage=6 * GIB, folders=folders)
    assert refusal(facts, given(disks=disks)).startswith(
        "error[payload.too-large]: web needs 4.00 GiB on /nix, which takes 3."
    )
    assert plan(seen(usage=6 * GIB, folders={"/nix/store": 3 * GIB}), given(disks=disks))


@pytest.mark.parametrize(
    "root",
    [
        {"mkfs-options": ["-i", "4096"]},
        {"mkfs-options": ["-N2500000"]},
        {"filesystem": "xfs"},
    ],
)
def test_inodes_are_counted_where_their_number_is_known(root: dict[str, Any]) -> None:
    parts = [{"size": "8 GiB", "mount": "/nix"}, {"size": "rest", "mount": "/", **root}]
    disks = [{"match": {"transport": "virtio"}, "wipe": "force", "partitions": parts}]
    assert plan(seen(files=2_000_000), given(disks=disks))


def test_a_manifest_needs_somebody_who_vouches_for_it() -> None:
    assert refusal(machine(), given({"minimum-nixos": "26.05"})) == (
        "error[payload.signature]: no public key is known that the manifest could be verified "
        "with\n"
        "  where: answers.toml: payload.trust\n"
        '  try:   say public-keys = ["RW…"], the second line of minisign.pub; or accept any '
        "content with allow-unsigned = true"
    )
    assert plan(machine(), given({"allow-unsigned": True}))
    assert plan(machine(image=ImageFacts((KEY,))), given({"minimum-nixos": "26.05"}))


def test_an_image_with_keys_has_the_last_word() -> None:
    """The answer file is found by the kernel command line, and that may come from DHCP."""
    facts = machine(image=ImageFacts((KEY,)), tools=_all_tools())
    assert plan(facts, given())
    assert refusal(facts, given({"public-keys": [KEY, OTHER]})) == (
        f"error[payload.key]: this boot image does not trust the key {OTHER}\n"
        "  where: answers.toml: payload.trust.public-keys\n"
        "  try:   take one of the image's keys (/etc/netinstall/trusted-keys), or none for all of "
        "them"
    )
    assert refusal(facts, given({"allow-unsigned": True})) == (
        "error[payload.signature]: this boot image has trusted keys, and takes nothing that is not "
        "signed\n"
        "  where: answers.toml: payload.trust.allow-unsigned\n"
        "  try:   sign the payload, or boot an image without /etc/netinstall/trusted-keys"
    )
    for payload in (
        {"url": "http://192.0.2.1/x.tar", "sha256": "0" * 64},
        {"path": "/x.tar", "unverified": True},
        {"squashfs": "/x.squashfs", "sha256": "0" * 64},
        {"closure": {"from": "/cache", "toplevel": TOPLEVEL, "allow-unsigned": True}},
    ):
        kind = next(iter(payload))
        assert refusal(facts, answers(payload=payload)) == (
            f"error[payload.signature]: this boot image has trusted keys, and takes no {kind} that "
            "none of them signed\n"
            f"  where: answers.toml: payload.{kind}\n"
            "  try:   pack and sign it (netinstall payload pack), or boot an image without "
            "/etc/netinstall/trusted-keys"
        )
