"""Runs in the boot environment of a machine, see test_storage_steps.py: real steps, real kernel.

Each function is one scenario; its name is the argument. It prints what tools say, and ends with an
AssertionError where something is not as it should be.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from lab.steps import edited, gpt, row, run, signatures, wiped

from installer.act import disk, engine
from installer.act.devices import device_size, node_of, partition_nodes
from installer.act.holders import is_mount_point
from installer.act.narrator import Narrator
from installer.act.run import Runner
from installer.model.errors import InstallError
from installer.model.events import AnyEvent, Message, StepStarted
from installer.model.facts import FoundPartition, Layer
from installer.model.plan import LeaveTarget, Plan, Step
from installer.model.steps import Device, PartitionRef, StackedRef
from installer.model.storage import Tpm2
from installer.model.storage_steps import (
    CreateArray,
    CreateVolume,
    CreateVolumeGroup,
    EnableSwap,
    EraseDisk,
    FormatLuks,
    MakeFilesystem,
    MakeSwapFile,
    MountFilesystem,
    TearDown,
    WipeDisk,
    WriteTable,
)
from installer.model.units import MIB

MIRROR = tuple(Path(f"/dev/disk/by-id/virtio-{name}").resolve() for name in ("one", "two"))
OTHER = Path("/dev/disk/by-id/virtio-three").resolve()
TARGET = Path("/mnt")
LUKS_UUID = "0c1c1f9c-4ed2-4e0c-9a7d-1f5a3a0d1111"
FAST = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


def perform(*steps: Step) -> str:
    """Perform steps as the agent does; return all that was told."""
    told: list[str] = []

    def hear(event: AnyEvent) -> None:
        if isinstance(event, Message):
            told.append(event.text)
        if isinstance(event, StepStarted):
            print(f"- {event.title}", flush=True)

    engine.perform(Plan(1, "bios", (), (), steps), Narrator(hear), target=TARGET, logs=None)
    return "\n".join(told)


def array(
    name: str, level: int, members: Sequence[Device], *, metadata: str = "1.2"
) -> tuple[CreateArray, StackedRef]:
    """The step that makes an array."""
    ref = StackedRef(f"/dev/md/{name}")
    argv = ["mdadm", "--create", ref.path, "--run", f"--level={level}", f"--metadata={metadata}"]
    argv += [f"--raid-devices={len(members)}", f"--name={name}", "--homehost=any"]
    return CreateArray(ref, level, tuple(members), tuple(argv)), ref


def luks(on: Device, name: str, *, passphrase: str | None, tpm2: bool) -> FormatLuks:
    """The step that encrypts."""
    argv = ("cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--uuid", LUKS_UUID)
    return FormatLuks(
        on=on,
        opened=StackedRef(f"/dev/mapper/{name}", LUKS_UUID),
        name=name,
        argv=(*argv, *FAST),
        passphrase=passphrase,
        tpm2=Tpm2(pcrs=[7]) if tpm2 else None,
        recovery_path=f"/var/lib/netinstall/recovery-{name}",
        discard=True,
    )


def volume(
    group: str, name: str, size: int, *, kind: str = "linear", pool: str | None = None
) -> CreateVolume:
    """The step that makes a volume; `size` in MiB."""
    assert kind in ("linear", "thin-pool", "thin")
    return CreateVolume(
        volume=StackedRef(f"/dev/{group}/{name}"),
        group=group,
        name=name,
        size=size * MIB,
        fill=False,
        type="thin-pool" if kind == "thin-pool" else "thin" if kind == "thin" else "linear",
        pool=pool,
    )


def tables(
    start: int = 1, size: int = 700
) -> tuple[list[WipeDisk | WriteTable], list[PartitionRef]]:
    """The steps that give both disks of the mirror one partition each, and the partitions."""
    steps: list[WipeDisk | WriteTable] = [wiped(node) for node in MIRROR]
    refs = []
    for node in MIRROR:
        part = row(node, 1, start, size, "member")
        steps.append(gpt(node, part))
        refs.append(part.ref)
    return steps, refs


def the_stack(url: str) -> None:
    """RAID 1, LUKS with three keys, thin and thick volumes, swap; all of it closed at the end."""
    begin, refs = tables()
    made, md = array("root", 1, refs)
    crypt = luks(md, "crypt", passphrase=url, tpm2=True)
    group = CreateVolumeGroup("vg0", (crypt.opened,))
    thick = volume("vg0", "root", 300)
    pool = volume("vg0", "pool", 200, kind="thin-pool")
    thin = volume("vg0", "home", 400, kind="thin", pool="pool")
    swap = volume("vg0", "swap", 64)
    make: list[Step] = [
        MakeFilesystem((thick.volume,), "ext4", "u1", ("mkfs.ext4", "-q")),
        MakeFilesystem((thin.volume,), "btrfs", "u2", ("mkfs.btrfs", "-q"), ("@home", "@home/x")),
        MakeFilesystem((swap.volume,), "swap", "u3", ("mkswap",)),
        MountFilesystem(thick.volume, "ext4", "/", ()),
        MountFilesystem(thin.volume, "btrfs", "/home", ("subvol=@home",)),
        EnableSwap(swap.volume),
        MakeSwapFile("/swap/one", 32 * MIB),
        MakeSwapFile("/home/two", 32 * MIB),
        EnableSwap("/swap/one"),
        EnableSwap("/home/two"),
    ]
    steps: list[Step] = [*begin, made, crypt, group, thick, pool, thin, swap, *make]
    told = perform(*steps, LeaveTarget("/var/log/netinstall"))
    _nothing_is_open()
    assert "secret passphrase" not in told, told

    # what was left on the disks is what was wanted
    md_node = _assemble("root", refs)
    detail = run("mdadm", "--detail", md_node)
    assert "raid1" in detail, detail
    assert "Raid Devices : 2" in detail, detail
    assert run("blkid", "-p", "-o", "value", "-s", "UUID", md_node).strip() == LUKS_UUID
    dump = run("cryptsetup", "luksDump", md_node)
    for token in ("systemd-tpm2", "systemd-recovery"):
        assert token in dump, dump
    assert "Flags:" in dump
    # without the TPM, which would open it before the passphrase is looked at
    key = ["cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--key-file=-"]
    key.append(str(md_node))
    run(*key, stdin="secret passphrase")
    run(*key, stdin="secret passphrase\n", ok=(2,))
    run("cryptsetup", "open", "--key-file=-", md_node, "crypt", stdin="secret passphrase")
    run("vgchange", "-ay", "vg0")
    rows = run("lvs", "--noheadings", "--units=m", "--nosuffix", "-o", "lv_name,lv_size,pool_lv")
    assert {line.split()[0]: line.split()[1:] for line in rows.splitlines()} == {
        "root": ["300.00"],
        "pool": ["200.00"],
        "home": ["400.00", "pool"],
        "swap": ["64.00"],
    }, rows
    run("mount", "/dev/vg0/root", TARGET)
    recovery = TARGET / "var/lib/netinstall/recovery-crypt"
    assert recovery.stat().st_mode & 0o777 == 0o600
    text = recovery.read_text().strip()
    assert text not in told
    assert text.count("-") == 7, text
    run(*key, stdin=text)
    assert (TARGET / "swap/one").stat().st_mode & 0o777 == 0o600
    run("umount", TARGET)
    # it stays as it is for the next scenario: mounted, swapped to, and open
    run("mount", "-o", "subvol=@home", "/dev/vg0/home", TARGET)
    run("swapon", "/dev/vg0/swap")


def without_a_passphrase(_: str) -> None:
    """The stack of before is taken down; then LUKS with TPM and recovery key only."""
    md_node = _holders_of(MIRROR[0])[0]
    crypt = _holders_of(md_node)[0]
    volumes = _volumes_on(crypt)
    on = tuple(str(partition_nodes(node)[0]) for node in MIRROR)
    steps: list[Step] = [
        TearDown(str(node), mounts, swap, Layer(str(node), "lvm", name, (str(crypt),)))
        for node, name, mounts, swap in volumes
    ]
    steps += [
        TearDown(str(crypt), (), False, Layer(str(crypt), "crypt", "crypt", (str(md_node),))),
        TearDown(str(md_node), (), False, Layer(str(md_node), "md", "root", on)),
    ]
    begin, refs = tables()
    crypt_step = luks(refs[0], "alone", passphrase=None, tpm2=True)
    steps += begin
    steps += [
        crypt_step,
        MakeFilesystem((crypt_step.opened,), "ext4", "u4", ("mkfs.ext4", "-q")),
        MountFilesystem(crypt_step.opened, "ext4", "/", ()),
        LeaveTarget("/var/log/netinstall"),
    ]
    refused = _refusal(lambda: disk.examine(wiped(MIRROR[0])))
    assert "disk.in-use" in refused, refused
    assert "is held by md" in refused, refused
    perform(*steps)
    _nothing_is_open()
    node = node_of(refs[0])
    dump = json.loads(run("cryptsetup", "luksDump", "--dump-json-metadata", node))
    kinds = sorted(token["type"] for token in dump["tokens"].values())
    assert kinds == ["systemd-recovery", "systemd-tpm2"], kinds
    held = sorted(slot for token in dump["tokens"].values() for slot in token["keyslots"])
    assert sorted(dump["keyslots"]) == held, dump
    # the TPM alone opens it
    run("cryptsetup", "open", "--token-only", node, "alone")
    run("cryptsetup", "close", "alone")
    assert signatures(node_of(refs[1])) == []


def what_is_broken(_: str) -> None:
    """A degraded array, a group without a member, two groups of one name, bcache: all go."""
    steps, refs = tables()
    made, md = array("half", 1, refs)
    parts = [row(OTHER, 1, 1, 200), row(OTHER, 2, 201, 200), row(OTHER, 3, 401, 200)]
    for step in (*steps, wiped(OTHER), gpt(OTHER, *parts)):
        _alone(step)
    one, two = (str(node_of(part.ref)) for part in parts[:2])
    run(*made.argv, *(node_of(ref) for ref in refs))
    md_node = Path(md.path).resolve()
    # while its members are made equal, none can be removed
    run("mdadm", "--wait", md_node, ok=(0, 1))
    run("mdadm", md_node, "--fail", node_of(refs[1]))
    run("mdadm", md_node, "--remove", node_of(refs[1]))
    # two groups of one name, and the first has lost a member
    run("vgcreate", "--devices", two, "vg0", two)
    run("lvcreate", "--devices", two, "-y", "-n", "data", "-L", "64m", "vg0")
    run("mkfs.ext4", "-q", "/dev/mapper/vg0-data")
    run("vgchange", "--devices", two, "-an", "vg0")
    both = f"{md_node},{one}"
    run("vgcreate", "--devices", both, "vg0", md_node, one)
    run("lvcreate", "--devices", both, "-y", "-n", "root", "-L", "64m", "vg0", md_node)
    run("vgchange", "--devices", two, "-ay", "vg0")
    run("wipefs", "--all", "--force", one)
    run("mount", "/dev/mapper/vg0-data", TARGET)
    above = {name: Path(f"/dev/mapper/vg0-{name}").resolve() for name in ("root", "data")}
    members = (str(node_of(refs[0])),)
    perform(
        TearDown(
            str(above["root"]),
            (),
            False,
            Layer(str(above["root"]), "lvm", "vg0-root", (str(md_node),)),
        ),
        TearDown(
            str(above["data"]),
            (str(TARGET),),
            False,
            Layer(str(above["data"]), "lvm", "vg0-data", (two,)),
        ),
        TearDown(str(md_node), (), False, Layer(str(md_node), "md", "half", members)),
        *(wiped(node) for node in (*MIRROR, OTHER)),
    )
    _nothing_is_open()
    for node in (*MIRROR, OTHER):
        assert signatures(node) == [], node
    assert run("pvs", "--noheadings").strip() == ""
    # the same places again: nothing comes back
    for step in (*steps, gpt(OTHER, *parts)):
        _alone(step)
    run("udevadm", "trigger", "--action=add", "--subsystem-match=block", "--settle")
    _nothing_is_open()
    for node in (*(node_of(ref) for ref in refs), *(node_of(part.ref) for part in parts)):
        assert signatures(node) == [], node


def a_bcache(_: str) -> None:
    """What make-bcache left on two disks is registered, used, then taken apart."""
    run("modprobe", "bcache")
    backing, cache = OTHER, MIRROR[0]
    for node in (backing, cache):
        Path("/sys/fs/bcache/register").write_text(str(node))
    run("udevadm", "settle")
    (uuid,) = (path.name for path in Path("/sys/fs/bcache").glob("*-*"))
    Path("/sys/block/bcache0/bcache/attach").write_text(uuid)
    run("mkfs.ext4", "-q", "/dev/bcache0")
    run("mount", "/dev/bcache0", TARGET)
    device = Layer("/dev/bcache0", "bcache", "bcache0", (str(backing), uuid))
    held = Layer(uuid, "bcache", f"cache set {uuid}", (str(cache),))
    perform(
        TearDown("/dev/bcache0", (str(TARGET),), False, device),
        TearDown(uuid, (), False, held),
        wiped(backing),
        wiped(cache),
    )
    assert not Path("/sys/class/block/bcache0").exists()
    assert [signatures(node) for node in (backing, cache)] == [[], []]


def an_edit(_: str) -> None:
    """A table is edited while udev looks on; what is kept is not even re-read wrongly."""
    rows = (row(OTHER, 1, 1, 100), row(OTHER, 2, 101, 100), row(OTHER, 3, 201, 100))
    for one in (wiped(OTHER), gpt(OTHER, *rows)):
        _alone(one)
    for part in rows:
        run("mkfs.ext4", "-q", node_of(part.ref))
    found = [
        FoundPartition(str(node_of(p.ref)), p.ref.number, p.ref.size, p.ref.start, p.ref.partuuid)
        for p in rows
    ]
    added = row(OTHER, 3, 150 + 101, 300)
    step = edited(OTHER, kept=found[:2], removed=found[2:], added=[added])
    perform(
        step,
        MakeFilesystem((added.ref,), "xfs", "u5", ("mkfs.xfs", "-q", "-f")),
        MountFilesystem(added.ref, "xfs", "/", ()),
        MountFilesystem(rows[1].ref, "ext4", "/kept", ()),
        LeaveTarget("/var/log/netinstall"),
    )
    assert [signatures(node) for node in partition_nodes(OTHER)] == [["ext4"], ["ext4"], ["xfs"]]
    run("fsck.ext4", "-fn", node_of(rows[1].ref))


def a_btrfs_on_two(_: str) -> None:
    """A btrfs mirror: the kernel knows both members when it is mounted."""
    steps, refs = tables()
    made = MakeFilesystem(
        tuple(refs), "btrfs", "u6", ("mkfs.btrfs", "-q", "-f", "-d", "raid1", "-m", "raid1"), ("@",)
    )
    perform(
        *steps,
        made,
        MountFilesystem(refs[0], "btrfs", "/", ("subvol=@",)),
        MakeSwapFile("/swapfile", 16 * MIB),
        LeaveTarget("/var/log/netinstall"),
    )
    run("mount", node_of(refs[1]), TARGET)
    shown = run("btrfs", "filesystem", "df", TARGET)
    run("umount", TARGET)
    assert "Data, RAID1" in shown, shown


def a_failure_closes_everything(url: str) -> None:
    """A step that fails in the middle of a stack leaves nothing open."""
    begin, refs = tables()
    made, md = array("root", 1, refs, metadata="1.0")
    crypt = luks(md, "crypt", passphrase=url, tpm2=False)
    group = CreateVolumeGroup("vg0", (crypt.opened,))
    thick = volume("vg0", "root", 300)
    steps: list[Step] = [*begin, made, crypt, group, thick]
    steps += [
        MakeFilesystem((thick.volume,), "ext4", "u7", ("mkfs.ext4", "-q")),
        MountFilesystem(thick.volume, "ext4", "/", ()),
        volume("vg0", "large", 1 << 20),
    ]
    refused = _refusal(lambda: perform(*steps))
    assert "lvcreate" in refused, refused
    assert "secret passphrase" not in refused
    _nothing_is_open()


def names_that_stay(_: str) -> None:
    """An array, an opened LUKS and two groups, one of them not active, on disks that stay."""
    rows = {
        node: [row(node, number, 1 + 200 * (number - 1), 200) for number in (1, 2, 3)]
        for node in MIRROR
    }
    for node, parts in rows.items():
        _alone(wiped(node))
        _alone(gpt(node, *parts))
    (one, crypt, _unused), (two, active, inactive) = (
        [str(node_of(part.ref)) for part in parts] for parts in rows.values()
    )
    made, md = array("root", 1, [parts[0].ref for parts in rows.values()])
    run(*made.argv, "--assume-clean", one, two)
    run("cryptsetup", "luksFormat", "--batch-mode", *FAST, "--key-file=-", crypt, stdin="old")
    run("cryptsetup", "open", "--key-file=-", crypt, "crypt", stdin="old")
    run("vgcreate", "vg0", active)
    run("lvcreate", "-y", "-n", "root", "-L", "64m", "vg0")
    run("vgcreate", "vg1", inactive)
    run("udevadm", "settle")
    stay = (md.path, "/dev/mapper/crypt", "/dev/vg0/root", inactive)
    before = [run("sha256sum", node) for node in stay]

    parts = [row(OTHER, 1, 1, 300), row(OTHER, 2, 301, 300)]
    begin: tuple[Step, ...] = (wiped(OTHER), gpt(OTHER, *parts))
    for step in begin:
        assert isinstance(step, WipeDisk | WriteTable)
        _alone(step)
    here = [part.ref for part in parts]
    mirror, _md = array("root", 1, here)
    refused: tuple[Step, ...] = (
        mirror,
        luks(here[0], "crypt", passphrase=None, tpm2=True),
        CreateVolumeGroup("vg0", (here[0],)),
        CreateVolumeGroup("vg1", (here[0],)),
        volume("vg0", "root", 64),
    )
    run("mkfs.ext4", "-q", node_of(here[0]))
    for step in refused:
        said = _refusal(partial(perform, *begin, step))
        assert "storage.name-taken" in said, said
        assert signatures(node_of(here[0])) == ["ext4"]
    assert before == [run("sha256sum", node) for node in stay]

    # what goes with its disk takes its name with it
    layer = Layer(str(Path(md.path).resolve()), "md", "root", (one, two))
    run("cryptsetup", "close", "crypt")
    run("vgchange", "-an", "vg0")
    perform(
        TearDown(layer.node, (), False, layer),
        *(wiped(node) for node in MIRROR),
        *begin,
        mirror,
        LeaveTarget("/var/log/netinstall"),
    )
    _nothing_is_open()


def an_erase(_: str) -> None:
    """An NVMe disk that can be formatted, but not sanitized."""
    (name,) = (path.name for path in Path("/sys/class/block").glob("nvme*n1"))
    node = Path("/dev") / name
    run("mkfs.ext4", "-q", "-E", "nodiscard", node)
    size = device_size(node)
    refused = _refusal(
        lambda: perform(EraseDisk(str(node), str(node), size, None, None, "nvme-sanitize", 1))
    )
    assert "cannot be erased by nvme-sanitize: it offers neither" in refused, refused
    assert signatures(node) == ["ext4"]
    perform(EraseDisk(str(node), str(node), size, None, None, "nvme-format", 1))
    assert signatures(node) == []
    run("mkfs.ext4", "-q", "-E", "nodiscard", node)
    perform(EraseDisk(str(node), str(node), size, None, None, "discard", 1))
    assert signatures(node) == []


def _refusal(doing: Callable[[], object]) -> str:
    try:
        doing()
    except InstallError as error:
        return str(error)
    raise AssertionError("it was not refused")


def _alone(step: WipeDisk | WriteTable) -> None:
    if isinstance(step, WipeDisk):
        disk.wipe(step, Runner())
    else:
        disk.write_table(step, Runner())


def _assemble(name: str, refs: Iterable[PartitionRef]) -> Path:
    run("mdadm", "--assemble", f"/dev/md/{name}", *(node_of(ref) for ref in refs))
    run("udevadm", "settle")
    return Path(f"/dev/md/{name}").resolve()


def _holders_of(node: Path) -> list[Path]:
    top = Path("/sys/class/block") / node.name
    found = [*top.glob("holders/*"), *top.glob(f"{node.name}*/holders/*")]
    return sorted({Path("/dev") / path.name for path in found})


def _volumes_on(crypt: Path) -> list[tuple[Path, str, tuple[str, ...], bool]]:
    """What device-mapper has on a device, the highest first."""
    found: list[tuple[Path, str, tuple[str, ...], bool]] = []
    waiting = _holders_of(crypt)
    order: list[Path] = []
    while waiting:
        node = waiting.pop(0)
        order = [one for one in order if one != node] + [node]
        waiting += _holders_of(node)
    for node in reversed(order):
        name = (Path("/sys/class/block") / node.name / "dm/name").read_text().strip()
        mounts = (str(TARGET),) if name == "vg0-home" else ()
        found.append((node, name, mounts, name == "vg0-swap"))
    return found


def _nothing_is_open() -> None:
    assert run("dmsetup", "ls").strip() in ("", "No devices found"), run("dmsetup", "ls")
    mdstat = Path("/proc/mdstat")
    assert not mdstat.exists() or "md1" not in mdstat.read_text(), mdstat.read_text()
    assert Path("/proc/swaps").read_text().count("\n") == 1, Path("/proc/swaps").read_text()
    assert not is_mount_point(str(TARGET))
    assert not list(Path(tempfile.gettempdir()).glob("netinstall-*"))


def _let_go() -> None:
    """Take apart what a scenario that failed left behind, so that the next one tells its own."""
    any_end = range(256)
    run("umount", "--recursive", TARGET, ok=any_end)
    run("swapoff", "--all", ok=any_end)
    run("dmsetup", "remove_all", "--force", ok=any_end)
    run("mdadm", "--stop", "--scan", ok=any_end)


if __name__ == "__main__":
    if sys.argv[1] != "without_a_passphrase":
        _let_go()
    globals()[sys.argv[1]](sys.argv[2])
    print(f"{sys.argv[1]}: all is well")
