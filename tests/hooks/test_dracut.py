"""When dracut's module takes over, and what it then does."""

from pathlib import Path

import pytest
from initrds import HOOKS, SHELLS, Initrd

MODULE = HOOKS / "dracut/90netinstall"
# dracut-lib.sh's getarg, which reads the same command line in the same way
GETARG = 'getarg() { netinstall_argument "${1%=}"; }\n'


@pytest.fixture(params=SHELLS)
def initrd(tmp_path: Path, request: pytest.FixtureRequest) -> Initrd:
    return Initrd(tmp_path, SHELLS[request.param])


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ("", True),
        ("root=/dev/nfs nfsroot=192.0.2.1:/root", True),
        ("root=netinstall", True),
        ("root=/dev/sda1", False),
        ("root=UUID=1234 ro", False),
        ("root=/dev/sda1 boot=netinstall", True),
        ("root=/dev/ram0 netinstall.root=nfs:192.0.2.1:/root", True),
    ],
)
def test_the_module_takes_over_where_the_root_is_a_network(
    initrd: Initrd, arguments: str, taken: bool
) -> None:
    initrd.arguments(arguments)
    result = initrd.run(
        f'root= rootok=\n{GETARG}. "{MODULE}/netinstall-cmdline.sh"\necho "$root $rootok"'
    )
    assert result.stdout == ("netinstall 1\n" if taken else " \n")


def test_another_root_is_left_to_dracut(initrd: Initrd) -> None:
    result = initrd.run(
        f'root=block:/dev/sda1 NEWROOT=/sysroot\n. "{MODULE}/netinstall-mount.sh"\n'
        "command -v netinstall_lease || echo untouched"
    )
    assert (result.returncode, result.stdout) == (0, "untouched\n")
