"""A machine, a plan and the events of its installation, as the tests of the reports use them."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

from installer.model.errors import Problem
from installer.model.events import (
    AnyEvent,
    Failed,
    Finished,
    Message,
    Observed,
    Planned,
    StepFinished,
    StepProgress,
    StepStarted,
)
from installer.model.facts import Disk, Dmi, Facts, FoundPartition, Lease, Nic, PayloadFacts
from installer.model.payload_steps import CheckPayload, UnpackPayload
from installer.model.plan import (
    Flush,
    InstallBootLoader,
    LeaveTarget,
    Plan,
    RejectedDisk,
    WriteFile,
)
from installer.model.steps import PartitionRef
from installer.model.storage_steps import (
    MakeFilesystem,
    MountFilesystem,
    PlannedPartition,
    WipeDisk,
    WriteTable,
)
from installer.model.units import GIB, MIB

DISK_PATH = "/dev/disk/by-id/nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A"
URL = "http://10.0.2.2:8000/system.tar.zst"

SSD = Disk(
    node="/dev/nvme0n1",
    size=500107862016,
    by_id=("nvme-Samsung_SSD_980_PRO_500GB_S5GXNX0T123456A", "nvme-eui.002538b111b2c3d4"),
    by_path=("pci-0000:01:00.0-nvme-1",),
    serial="S5GXNX0T123456A",
    wwn="eui.002538b111b2c3d4",
    model="Samsung SSD 980 PRO 500GB",
    transport="nvme",
    table="gpt",
    partitions=(
        FoundPartition("/dev/nvme0n1p1", 1, 512 * MIB, filesystem="vfat", label="EFI"),
        FoundPartition("/dev/nvme0n1p2", 2, 465 * GIB, filesystem="ext4"),
    ),
)
STICK = Disk(
    node="/dev/sda",
    size=31_004_295_168,
    by_id=("usb-SanDisk_Ultra_4C530001230621117364-0:0",),
    serial="4C530001230621117364",
    model="SanDisk Ultra",
    transport="usb",
    rotational=False,
    removable=True,
    filesystem="iso9660",
    mounts=("/media",),
)

FACTS = Facts(
    version=1,
    firmware="uefi",
    architecture="x86_64",
    kernel="6.1.0-18-amd64",
    memory=2079 * MIB,
    entropy="0" * 32,
    dmi=Dmi("LENOVO", "ThinkSystem SR250", "J100ABCD", "4c4c4544-0031-3010-8030-b7c04f333258"),
    disks=(SSD, STICK),
    nics=(
        Nic("eth0", "52:54:00:12:34:56", None, "igb", None, True, 1000, ("eno1", "enp2s0")),
        Nic("eth1", "52:54:00:12:34:57", "52:54:00:aa:bb:cc", "igb"),
    ),
    leases=(
        Lease(
            "eth0",
            IPv4Interface("192.0.2.10/24"),
            gateway=IPv4Address("192.0.2.1"),
            nameservers=(IPv4Address("192.0.2.53"), IPv4Address("192.0.2.54")),
            domain="example.org",
            hostname="node7",
            seconds=3600,
            source="/run/net-eth0.conf",
        ),
    ),
    boot_mac="52:54:00:12:34:56",
    tools={
        "mkfs.ext4": "/sbin/mkfs.ext4",
        "mkfs.vfat": "/sbin/mkfs.vfat",
        "mkswap": "/sbin/mkswap",
    },
    kernel_arguments={
        "netinstall.report": "https://agent:hunter2@reports.example.org/in?token=s3cret",
        "ip": "dhcp",
    },
    payload=PayloadFacts(URL, 48 * MIB, ranges=True),
)

ESP = PartitionRef(DISK_PATH, 1, "b1a2c3d4-0001-4000-8000-000000000001", MIB, GIB)
ROOT = PartitionRef(DISK_PATH, 2, "b1a2c3d4-0002-4000-8000-000000000002", 1025 * MIB, 475_911 * MIB)
_CAPACITY = {"/": 460 * GIB, "/boot": GIB}

PLAN = Plan(
    version=1,
    firmware="uefi",
    chosen=(SSD,),
    rejected=(
        RejectedDisk(
            STICK,
            (
                "transport is usb, not nvme",
                'it is removable (say transport = "usb" to take it)',
                "it is in use: /dev/sda is mounted at /media",
            ),
        ),
    ),
    steps=(
        CheckPayload(URL, "0123456789abcdef" * 4, _CAPACITY, None, 120),
        WipeDisk(
            DISK_PATH,
            SSD.node,
            SSD.size,
            SSD.serial,
            SSD.wwn,
            'gpt: /dev/nvme0n1p1 512 MiB vfat "EFI", /dev/nvme0n1p2 465 GiB ext4',
        ),
        WriteTable(
            DISK_PATH,
            "gpt",
            "d15c0000-0000-4000-8000-000000000000",
            512,
            (
                PlannedPartition(ESP, "ESP", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
                PlannedPartition(ROOT, "root", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            ),
        ),
        MakeFilesystem((ESP,), "vfat", "ABCD-1234", ("mkfs.vfat", "-F", "32", "-i", "ABCD1234")),
        MakeFilesystem(
            (ROOT,),
            "ext4",
            "f5000000-0000-4000-8000-000000000002",
            ("mkfs.ext4", "-q", "-U", "f5000000-0000-4000-8000-000000000002"),
        ),
        MountFilesystem(ROOT, "ext4", "/", ()),
        MountFilesystem(ESP, "vfat", "/boot", ("umask=0077",)),
        UnpackPayload(URL, "0123456789abcdef" * 4, _CAPACITY, None, 120),
        WriteFile("/etc/nixos/networking.nix", '{\n  networking.hostName = "node7";\n}\n'),
        Flush(whole_store=False),
        InstallBootLoader("uefi"),
        LeaveTarget("/var/log/netinstall"),
    ),
    warnings=("the lease names no search domain; example.org is used",),
)

_EPOCH = 1_763_710_000.0


def message(text: str, level: str = "info", *, at: float = 4.0, step: str | None = None) -> Message:
    """A message, `at` seconds after boot."""
    assert level in ("debug", "info", "output", "warning")
    return Message(time=_EPOCH + at, uptime=at, level=level, text=text, step=step)  # type: ignore[arg-type]


def progress(step: str, done: int, total: int | None, *, at: float) -> StepProgress:
    """Progress at 12.1 MiB/s."""
    rate = 12.1 * MIB
    left = (total - done) / rate if total is not None else None
    return StepProgress(
        time=_EPOCH + at,
        uptime=at,
        step=step,
        done=done,
        total=total,
        rate=rate,
        seconds_left=left,
    )


def installation(*, until: int | None = None) -> Iterator[AnyEvent]:
    """The events of an installation that goes well; `until` ends it inside that step (from 1)."""
    now = 4.5
    yield Observed(time=_EPOCH + 4, uptime=4, version="0.1.0", facts=FACTS)
    yield Planned(time=_EPOCH + now, uptime=now, plan=PLAN)
    phases: dict[str, float] = {}
    for number, step in enumerate(PLAN.steps, start=1):
        yield StepStarted(
            time=_EPOCH + now,
            uptime=now,
            step=step.id,
            title=step.title,
            number=number,
            count=len(PLAN.steps),
        )
        begun = now
        match step:
            case CheckPayload() | UnpackPayload():
                total = 48 * MIB if isinstance(step, CheckPayload) else 314 * MIB
                last = 0.6 if number == until else 1.0
                while (now - begun) * 12.1 * MIB < total * last:
                    now += 0.5
                    done = min(int((now - begun) * 12.1 * MIB), int(total * last))
                    yield progress(step.id, done, total, at=now)
            case MakeFilesystem(filesystem="ext4"):
                yield message("mke2fs 1.47.0 (5-Feb-2023)", "output", at=now, step=step.id)
                now += 1.3
            case InstallBootLoader():
                now += 6.2
            case _:
                now += 0.04
        if number == until:
            return
        phases[step.id] = now - begun
        yield StepFinished(time=_EPOCH + now, uptime=now, step=step.id, seconds=now - begun)
    yield Finished(time=_EPOCH + now, uptime=now, seconds=now - 4.5, phases=phases)


def failed(*problems: Problem, step: str | None = None, at: float = 30.0) -> Failed:
    """The end of an installation that went wrong."""
    return Failed(time=_EPOCH + at, uptime=at, step=step, exit_code=6, problems=problems)


LOST = Problem(
    "network.lost",
    "no byte came for 2 min 00 s, after 188 of 314 MiB",
    URL,
    "see whether the server 10.0.2.2 still runs and is reachable, then start the machine again",
)
