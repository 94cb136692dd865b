"""A root is made writable by the library, with real mounts; this project's init leaves it so."""

import subprocess
import sys
from pathlib import Path

import pytest
from initrds import LIBRARY, SHELLS, Initrd

REPOSITORY = Path(__file__).parents[2]

# In a mount and PID namespace, where nothing has to be cleaned up; the kernel has what is needed.
READ_ONLY_ROOT = """
netinstall_modules() { :; }
mkdir root
echo as-served >root/file
mount --bind root root
mount -o remount,bind,ro root
"""
WRITE_AND_SHOW = """
echo changed >root/file && cat root/file
sed -n "s,.* $PWD/root \\([^ ]*\\) .*,\\1,p" /proc/self/mounts | tail -n 1
cat run/netinstall/layers/lower/file
"""


@pytest.fixture(params=SHELLS)
def initrd(tmp_path: Path, request: pytest.FixtureRequest) -> Initrd:
    namespace = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
    return Initrd(tmp_path, (*namespace, *SHELLS[request.param]))


@pytest.mark.root
@pytest.mark.parametrize(
    ("argument", "kind"),
    [("", "overlay"), ("netinstall.overlay=unionfs", "fuse.@unionfs")],
)
def test_a_read_only_root_is_made_writable(initrd: Initrd, argument: str, kind: str) -> None:
    initrd.arguments(argument)
    script = f'{READ_ONLY_ROOT}\nnetinstall_stack "$PWD/root" || exit\n{WRITE_AND_SHOW}'
    result = initrd.run(script)
    assert result.stdout == f"changed\n{kind}\nas-served\n", result.stderr + initrd.said()
    assert (initrd.folder / "root/file").read_text() == "as-served\n"


@pytest.mark.root
def test_unionfs_is_what_is_left_where_overlayfs_does_not_stack(initrd: Initrd) -> None:
    # no file system here refuses to be a lower layer, so the mount is refused in its place
    refuse = (
        "netinstall_applet() {\n"
        '  case "$*" in "mount -t overlay"*) echo "wrong fs type"; return 1 ;; esac\n'
        '  busybox "$@"\n}\n'
    )
    script = f'{READ_ONLY_ROOT}{refuse}\nnetinstall_stack "$PWD/root" || exit\n{WRITE_AND_SHOW}'
    assert initrd.run(script).stdout == "changed\nfuse.@unionfs\nas-served\n", initrd.said()

    initrd.forget()
    without = f'{READ_ONLY_ROOT}{refuse}\ncommand() {{ return 1; }}\nnetinstall_stack "$PWD/root"'
    result = initrd.run(f"{without} || cat /proc/self/mounts")
    assert "netinstall/layers" not in result.stdout
    assert initrd.said() == (
        "\nerror[root.not-writable]: the root file system could not be made writable: "
        "overlayfs: wrong fs type; unionfs: it is not in the initrd\n"
        f"  where: {initrd.folder}/root\n"
        "  try:   a kernel and an initrd that have overlay or fuse, and more memory\n"
    )


@pytest.mark.root
def test_a_root_that_can_be_written_is_left_as_it_is(initrd: Initrd) -> None:
    script = 'mkdir root\nnetinstall_stack "$PWD/root" && grep -c " $PWD/" /proc/self/mounts'
    assert initrd.run(script).stdout == "0\n"


@pytest.mark.root
def test_our_init_leaves_a_stacked_root_as_it_is(initrd: Initrd) -> None:
    # The host's own files are the root that is stacked; init then looks at it from inside.
    program = (
        "from installer.init import root\n"
        "from installer.init.children import Children\n"
        "print(root.make_writable(Children(), union=False))\n"
        "print(sum(1 for line in open('/proc/self/mounts') if line.split()[1] == '/'))\n"
    )
    script = (
        "netinstall_modules() { :; }\n"
        "mkdir new\nmount --bind / new\nmount -o remount,bind,ro new\nnetinstall_stack $PWD/new\n"
        "mount -t proc proc new/proc\n"
        f'PYTHONPATH="{REPOSITORY}" chroot new "{sys.executable}" -c "$1"'
    )
    result = initrd.run(script, program)
    assert result.stdout == "the root is writable\n1\n", result.stderr + initrd.said()


@pytest.mark.parametrize(
    ("link", "arguments", "ours"),
    [
        ("../lib/netinstall/init", "", True),
        ("../lib/systemd/systemd", "", False),
        (None, "", False),
        ("../lib/netinstall/init", "init=/nix/store/x/init", False),
        ("../lib/systemd/systemd", "init=/usr/lib/netinstall/init", True),
    ],
)
def test_whose_init_it_is(tmp_path: Path, link: str | None, arguments: str, ours: bool) -> None:
    initrd = Initrd(tmp_path, SHELLS["dash"])
    initrd.arguments(arguments)
    (tmp_path / "root/sbin").mkdir(parents=True)
    if link:
        (tmp_path / "root/sbin/init").symlink_to(link)
    result = initrd.run("netinstall_has_our_init root")
    assert (result.returncode == 0) is ours


@pytest.mark.parametrize("ours", [True, False])
def test_a_root_is_stacked_if_its_init_does_not_do_it(tmp_path: Path, ours: bool) -> None:
    initrd = Initrd(tmp_path, SHELLS["dash"])
    result = initrd.run(
        'netinstall_try_root() { echo "try $1"; }\nnetinstall_failed() { echo failed; }\n'
        'netinstall_stack() { echo "stack $1"; n=$((${n:-0} + 1)); [ "$n" = 2 ]; }\n'
        f"netinstall_has_our_init() {{ {str(ours).lower()}; }}\n"
        "netinstall_writable_root /root"
    )
    stacked = "" if ours else "stack /root\nfailed\nstack /root\n"
    assert result.stdout == f"try /root\n{stacked}"


def test_the_layers_need_a_program_of_this_name() -> None:
    # Debian's name; elsewhere it is unionfs
    assert "command -v unionfs-fuse || command -v unionfs" in LIBRARY.read_text()
    assert subprocess.run(["unionfs-fuse", "--version"], check=False).returncode == 0
