"""Disk images made with the real tools, and looked into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lab import cache, disk, process, report

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return disk.create(tmp_path / "disk.img", "300M")


def test_blank_and_sparse(image: Path) -> None:
    assert image.stat().st_size == 300 * MIB
    assert image.stat().st_blocks == 0
    assert disk.is_blank(image)
    with pytest.raises(FileExistsError):
        disk.create(image, "1M")
    with pytest.raises(ValueError, match="'4x' is no size"):
        disk.create(image, "4x")


def test_fingerprint_sees_bytes_and_not_how_they_are_stored(image: Path, tmp_path: Path) -> None:
    blank = disk.fingerprint(image)
    with image.open("r+b") as file:
        file.seek(200 * MIB)
        file.write(bytes(4 * MIB))
    assert disk.fingerprint(image) == blank
    with image.open("r+b") as file:
        file.seek(201 * MIB + 5)
        file.write(b"x")
    changed = disk.fingerprint(image)
    assert changed != blank
    assert not disk.is_blank(image)
    other = disk.create(tmp_path / "other.img", "301M")
    assert disk.fingerprint(other) != blank


def test_canary_shows_writes_of_zeros(tmp_path: Path) -> None:
    image = disk.create(tmp_path / "canary.img", "200M", canary=True)
    before = disk.fingerprint(image)
    assert image.stat().st_blocks * 512 == 5 * MIB
    with image.open("r+b") as file:
        file.seek(200 * MIB - 512)
        file.write(bytes(512))
    assert disk.fingerprint(image) != before


def test_partition_table_esp_and_ext4(image: Path, tmp_path: Path) -> None:
    script = b"label: gpt\nstart=2048, size=131072, type=uefi, name=ESP\ntype=linux, name=root\n"
    process.run(["sfdisk", str(image)], stdin=script)
    table = disk.table(image)
    assert (table.label, table.sector) == ("gpt", 512)
    esp, root = table.partitions
    assert (esp.number, esp.start, esp.size, esp.name) == (1, MIB, 64 * MIB, "ESP")
    assert (root.number, root.start) == (2, 65 * MIB)

    at = ("-i", f"{image}@@{esp.start}")
    process.run(["mformat", *at, "-F", "-T", str(esp.size // 512), "::"])
    process.run(["mmd", *at, "::/EFI", "::/EFI/BOOT"])
    (tmp_path / "loader").write_bytes(b"MZ loader\r\n")
    process.run(["mcopy", *at, str(tmp_path / "loader"), "::/EFI/BOOT/BOOTX64.EFI"])
    assert disk.list_fat(image, esp) == ["/EFI/BOOT/BOOTX64.EFI"]
    assert disk.read_fat(image, esp, "/EFI/BOOT/BOOTX64.EFI") == b"MZ loader\r\n"
    with pytest.raises(process.ProcessError, match="NOTHERE"):
        disk.read_fat(image, esp, "/NOTHERE")

    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("box\n")
    offset = f"offset={root.start}"
    blocks = f"{root.size // 1024}k"
    process.run(["mkfs.ext4", "-q", "-E", offset, "-d", str(tree), str(image), blocks])
    assert disk.list_ext4(image, root, "/etc") == ["hostname"]
    assert disk.read_ext4(image, root, "/etc/hostname") == b"box\n"
    with pytest.raises(process.ProcessError, match="File not found"):
        disk.read_ext4(image, root, "/etc/passwd")


def test_no_partition_table(image: Path) -> None:
    with pytest.raises(process.ProcessError, match="does not contain a recognized partition"):
        disk.table(image)


@pytest.mark.loop
def test_a_disk_with_4096_byte_sectors(image: Path) -> None:
    with disk.loop_device(image, 4096, writable=True) as device:
        process.run(["sfdisk", "--no-reread", str(device)], stdin=b"label: gpt\nsize=10M\n")
    (partition,) = disk.table(image, 4096).partitions
    assert (partition.start, partition.size) == (MIB, 10 * MIB)


@pytest.mark.loop
@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_a_file_system_is_mounted_as_the_machine_left_it(tmp_path: Path, filesystem: str) -> None:
    bare = disk.create(tmp_path / "fs.img", "310M")
    process.run([f"mkfs.{filesystem}", "-q", str(bare)])
    whole = disk.Partition(1, 0, 310 * MIB, "", "", "")
    before = disk.fingerprint(bare)
    with disk.mounted(bare, whole, filesystem) as folder:
        assert os.path.ismount(folder)
    assert disk.fingerprint(bare) == before


def test_links_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "nix/store/x/etc").mkdir(parents=True)
    (tmp_path / "nix/store/x/etc/passwd").write_text("root")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/system").symlink_to("/nix/store/x")
    (tmp_path / "etc").symlink_to("run/../run/system/etc")
    (tmp_path / "loop").symlink_to("/loop")
    assert disk.inside(tmp_path, "/etc/passwd") == tmp_path / "nix/store/x/etc/passwd"
    assert disk.inside(tmp_path, "/../../etc/passwd").read_text() == "root"
    with pytest.raises(FileNotFoundError):
        disk.inside(tmp_path, "/etc/shadow")
    with pytest.raises(OSError, match="too many symbolic links"):
        disk.inside(tmp_path, "/loop")


def test_cache_builds_once_for_each_state_of_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETINSTALL_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("1")
    built: list[Path] = []

    def make(output: Path) -> None:
        built.append(output)
        output.write_text("product")

    first = cache.build("thing", [source, "x"], make)
    assert cache.build("thing", [source, "x"], make) == first
    assert len(built) == 1
    assert first.read_text() == "product"
    assert "cache: built thing-" in capsys.readouterr().err
    (source / "a").chmod(0o755)
    assert cache.build("thing", [source, "x"], make) != first
    (source / "b").symlink_to("a")
    assert cache.build("thing", [source, "y"], make) not in (first, built[1])
    assert len(built) == 3

    os.utime(first, (1, 1))
    cache.build("thing", ["z"], make)
    assert not first.exists()


def test_cache_keeps_nothing_of_a_failed_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETINSTALL_CACHE", str(tmp_path))

    def fail(output: Path) -> None:
        output.mkdir()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        cache.build("thing", ["x"], fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_report_of_the_sample_system() -> None:
    assert report.parse('{"a":\n[    1.234567] random: noise\n 1}') == {"a": 1}
    with pytest.raises(ValueError, match="is no JSON"):
        report.parse("{")
