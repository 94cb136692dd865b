"""The private folder of boot serve."""

import os
import pwd
from pathlib import Path

import programs
import pytest
from sites import changed

from installer.boot.serve import private
from installer.boot.site import Site


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    for name in ("http/image/vmlinuz", "http/image/initrd", "tftp/grub/bootx64.efi"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o640)
    return tmp_path


def _site(originals: Path, **tables: object) -> Site:
    tftp = {
        "address": "192.0.2.1",
        "root": f"{originals}/tftp",
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "uefi": "grub/bootx64.efi",
    }
    http = {"url": "http://192.0.2.1", "root": f"{originals}/http"}
    return changed(tftp=tftp, http=http, **tables)


_IPXE = {"undionly.kpxe"}
_SCRIPTS = {"grub.cfg", "load-kernel.cfg"}


@pytest.mark.parametrize(
    ("grub", "names"),
    [
        (None, _IPXE),
        ({"fetch": "tftp"}, _IPXE | _SCRIPTS | {"image/vmlinuz", "image/initrd"}),
        ({"fetch": "http"}, _IPXE | _SCRIPTS),
    ],
)
def test_what_is_in_it(originals: Path, grub: object, names: set[str]) -> None:
    site = _site(originals, **({"grub": grub} if grub else {}))
    loaders, problems = private.find_loaders(site)
    assert problems == []
    assert loaders == {
        "undionly.kpxe": private.DEBIAN / "undionly.kpxe",
        "grub/bootx64.efi": originals / "tftp/grub/bootx64.efi",
    }
    with private.folder(site, loaders) as made:
        files = {
            str(path.relative_to(made.tftp)) for path in made.tftp.rglob("*") if path.is_file()
        }
        assert files == names | {"grub/bootx64.efi"}
        copy = made.tftp / "grub/bootx64.efi"
        assert copy.read_text() == "tftp/grub/bootx64.efi"
        # a link would have changed whose the original is
        assert not copy.samefile(originals / "tftp/grub/bootx64.efi")
        assert made.path.stat().st_mode & 0o777 == 0o700
        assert f'tftp-root="{made.tftp}"' in made.config.read_text()
        assert programs.dnsmasq(made.config) == ""
    assert not made.path.exists()


def test_it_goes_after_a_failure_too(originals: Path) -> None:
    site = _site(originals)
    loaders, _ = private.find_loaders(site)
    with pytest.raises(ZeroDivisionError), private.folder(site, loaders) as made:
        raise ZeroDivisionError
    assert not made.path.exists()
    (originals / "tftp/grub/bootx64.efi").unlink()
    before = set(made.path.parent.iterdir())
    with pytest.raises(FileNotFoundError), private.folder(site, loaders):
        pass
    assert {
        path for path in made.path.parent.iterdir() if "netinstall-serve-" in path.name
    } <= before


def test_a_loader_that_is_nowhere(originals: Path) -> None:
    (originals / "tftp/grub/bootx64.efi").unlink()
    _, (problem,) = private.find_loaders(_site(originals))
    assert problem.what == (
        f"{originals}/tftp/grub/bootx64.efi and /usr/lib/ipxe/bootx64.efi are missing"
    )
    assert problem.where.endswith(": tftp.uefi")
