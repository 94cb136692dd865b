"""The NixOS module: what it hands to both kinds of stage 1.

Evaluated by the real Nix, with the few functions of nixpkgs' library that it uses stood in for:
nixpkgs itself is too large for this, and needs a newer Nix than Debian 12 has. (Where one is at
hand, tests/nix evaluates the whole boot environment with it.)
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from initrds import HOOKS

CALL = """
{ systemd, leaseOnly }:
let
  lib = {
    mkIf = condition: value: if condition then value else { };
    mkEnableOption = text: text;
    mkOption = option: option;
    types.bool = "bool";
  };
  module = import MODULE {
    inherit lib;
    pkgs.busybox = "/busybox";
    config.boot.initrd.netinstall.enable = true;
    config.boot.initrd.netinstall.leaseOnly = leaseOnly;
    config.boot.initrd.systemd.enable = systemd;
  };
in
module.config
"""


def _evaluated(folder: Path, *, systemd: bool, lease_only: bool = False) -> dict[str, Any]:
    expression = folder / "call.nix"
    expression.write_text(CALL.replace("MODULE", str(HOOKS / "nixos")))
    result = subprocess.run(
        [
            *("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode"),
            *("--store", str(folder / "store"), "--arg", "systemd", str(systemd).lower()),
            *("--arg", "leaseOnly", str(lease_only).lower()),
            str(expression),
        ],
        check=False,
        capture_output=True,
        text=True,
        # a store of one's own needs nothing of /nix, nor of root
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "NIX_CONFIG": "build-users-group ="},
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def _check(script: str) -> None:
    result = subprocess.run(
        ["shellcheck", "-s", "sh", "-x", "-"],
        # which of its variables the library reads is seen in the library
        input=re.sub(r"/nix/store/[^/]+-lib", str(HOOKS / "lib"), script),
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + script


def test_stage_1_with_systemd_mounts_the_root_before_all_below_it(tmp_path: Path) -> None:
    config = _evaluated(tmp_path, systemd=True)
    assert config["fileSystems"] == {}
    assert config["boot"]["initrd"]["postDeviceCommands"] == {}
    systemd = config["boot"]["initrd"]["systemd"]
    (mount,) = systemd["mounts"]
    service = systemd["services"]["netinstall-root"]
    assert (mount["where"], mount["what"]) == ("/sysroot", "/run/netinstall/root")
    assert mount["requires"] == mount["after"] == ["netinstall-root.service"]
    assert mount["requiredBy"] == mount["before"] == ["initrd-root-fs.target"]
    assert service["serviceConfig"]["Type"] == "oneshot"
    assert service["script"].rstrip().endswith('netinstall_writable_root "/run/netinstall/root"')
    library = systemd["storePaths"][0]
    assert f". {library}/netinstall.sh\n" in service["script"]
    _check(service["script"])


def test_the_scripted_stage_1_mounts_the_root_and_then_what_is_there(tmp_path: Path) -> None:
    config = _evaluated(tmp_path, systemd=False)
    script = config["boot"]["initrd"]["postDeviceCommands"]
    assert script.rstrip().endswith('netinstall_writable_root "$targetRoot"')
    _check(f"targetRoot=/mnt-root\n{script}")
    root = config["fileSystems"]["/"]
    assert root == {"device": "/", "fsType": "none", "options": ["bind"]}
    assert config["boot"]["initrd"]["systemd"] == {}


def test_a_root_of_its_own_needs_a_lease_only(tmp_path: Path) -> None:
    config = _evaluated(tmp_path, systemd=True, lease_only=True)
    systemd = config["boot"]["initrd"]["systemd"]
    # what fileSystems says is mounted by whoever always does
    assert systemd["root"] == systemd["mounts"] == systemd["services"]["netinstall-root"] == {}
    service = systemd["services"]["netinstall-lease"]
    assert service["requiredBy"] == ["initrd.target"]
    assert "initrd.target" in service["before"]
    assert "until netinstall_network; do" in service["script"]
    _check(service["script"])
    config = _evaluated(tmp_path, systemd=False, lease_only=True)
    assert config["fileSystems"] == {}
    assert config["boot"]["initrd"]["postDeviceCommands"] in service["script"]


@pytest.mark.parametrize(
    "name",
    ["netinstall_writable_root", "netinstall_udhcpc", "netinstall_network", "netinstall_failed"],
)
def test_what_it_calls_is_in_the_library(name: str) -> None:
    library = (HOOKS / "lib/netinstall.sh").read_text()
    assert name in (HOOKS / "nixos/default.nix").read_text()
    assert f"\n{name}() " in library
