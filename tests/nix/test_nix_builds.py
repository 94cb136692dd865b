"""What the Nix expressions build, built with Debian's programs in place of nixpkgs' packages.

The fake is nixpkgs itself, which cannot be had here: `runCommand` hands out its script, which is
run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nix_files import ROOT, SAMPLE_LIB, instantiate

PRELUDE = f"""
let
  lib = import {SAMPLE_LIB};
  runCommand = name: environment: script: {{ inherit name environment script; }};
in
"""


def _evaluated(expression: str) -> str:
    done = instantiate("--eval", "--strict", "--json", "--expr", PRELUDE + expression)
    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout)
    assert isinstance(text, str)
    return text


def _run(script: str, folder: Path, **environment: str) -> Path:
    """Run a builder's script as stdenv does; return its $out."""
    (folder / "bin").mkdir()
    agent = folder / "bin/netinstall"
    agent.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m installer "$@"\n')
    agent.chmod(0o755)
    work = folder / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=work,
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "out": str(folder / "out"),
            **environment,
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


@pytest.mark.parametrize("serial", ["null", '{ unit = 1; speed = 9600; parity = "odd"; }'])
def test_grub_makes_the_loader_and_takes_its_configuration(tmp_path: Path, serial: str) -> None:
    call = f"""(import {ROOT}/nix/boot-loader.nix {{
      inherit lib runCommand;
      grub2_efi = null;
      serial = {serial};
      card = "efinet6";
      arguments = [ "init=/init" "BOOTIF=$net_default_mac" "a=\\"b\\\\c\\"" ];
    }})"""
    config = tmp_path / "grub.cfg"
    config.write_text(_evaluated(f"{call}.environment.config"))
    out = _run(_evaluated(f"{call}.script"), tmp_path, configPath=str(config))
    text = (out / "grub.cfg").read_text()
    assert "net_bootp efinet6" in text
    assert '"init=/init" "BOOTIF=$net_default_mac" "a=\\"b\\\\c\\""' in text
    assert ("serial --unit=1 --speed=9600 --word=8 --parity=odd" in text) == (serial != "null")
    # the memory disk lies in the loader as it is, behind an MZ header (PE/COFF)
    loader = (out / "bootx64.efi").read_bytes()
    assert loader.startswith(b"MZ")
    assert text.encode() in loader


@pytest.mark.parametrize("backend", ["dnsmasq", "pixiecore", "none"])
def test_a_boot_server_writes_all_that_it_hands_out(tmp_path: Path, backend: str) -> None:
    image = tmp_path / "image"
    image.mkdir()
    about = {"files": {"root.squashfs": {"bytes": 1, "sha256": "0" * 64}}}
    (image / "image.json").write_text(json.dumps(about))
    published = tmp_path / "published"
    published.mkdir()
    (published / "image").symlink_to(image)
    ipxe = tmp_path / "ipxe"
    ipxe.mkdir()
    for name in ("undionly.kpxe", "ipxe.efi"):
        (ipxe / name).write_text(name)
    call = f"""
    (lib.evalModules {{
      modules = [
        {ROOT}/nix/modules/server.nix
        {{
          options = lib.genAttrs [ "assertions" "environment" "networking" "system" "systemd" ] (
            _: lib.mkOption {{ type = lib.types.anything; }}
          );
        }}
        {{
          options.services = lib.genAttrs [ "dnsmasq" "nfs" "nginx" "pixiecore" ] (
            _: lib.mkOption {{ type = lib.types.anything; default = {{ }}; }}
          );
          config.services.netinstall = {{
            enable = true;
            grub = true;
            backend = "{backend}";
            site = {{
              http.url = "http://192.0.2.1:8080";
              answers = "http://192.0.2.1:8080/answers/";
              tftp.address = "192.0.2.1";
              nfs = {{ server = "192.0.2.1"; path = "/srv/nfs/netinstall"; }};
              dhcp.interface = "lan0";
              dhcp.subnet = "192.0.2.0/24";
              dhcp.range = {{ first = "192.0.2.100"; last = "192.0.2.199"; }};
              images = [ {{ name = "netinstall"; folder = "image"; }} ];
              hosts = [ {{ mac = "52:54:00:12:34:56"; ip = "192.0.2.10"; }} ];
            }};
          }};
        }}
      ];
      specialArgs.pkgs = {{
        inherit runCommand;
        formats.toml = _: {{ type = lib.types.anything; }};
        callPackage = _: _: "/netinstall";
        linkFarm = _: _: "{published}";
        ipxe = "{ipxe}";
      }};
    }}).config.system.build.netinstallServer"""
    placeholder = _evaluated('builtins.placeholder "out"')
    # Nix puts the result's path in its place when it builds
    site = _evaluated(f"{call}.environment.site").replace(placeholder, str(tmp_path / "out"))
    (tmp_path / "site").write_text(site)
    out = _run(_evaluated(f"{call}.script"), tmp_path, sitePath=str(tmp_path / "site"))
    assert "root.squashfs" in (out / "http/ipxe/default.ipxe").read_text()
    assert (out / "http/image/image.json").exists()
    assert (out / "tftp/load-kernel.cfg").exists()
    assert "/srv/nfs/netinstall 192.0.2.0/24" in (out / "exports").read_text()
    assert (out / "dnsmasq.conf").exists() == (backend == "dnsmasq")
    documents = out / "http/pixiecore/v1/boot/52:54:00:12:34:56"
    assert documents.exists() == (backend == "pixiecore")


@pytest.mark.root
def test_a_payload_is_packed_from_a_closure(tmp_path: Path) -> None:
    """Real store paths of a real Nix; /nix is theirs in a mount namespace of the script's own."""
    top = _toplevel(tmp_path)
    closure = tmp_path / "closure"
    closure.mkdir()
    store = ["nix-store", "--store", str(tmp_path / "root")]
    paths = subprocess.run([*store, "-qR", top], check=True, capture_output=True, text=True).stdout
    (closure / "store-paths").write_text(paths)
    with (closure / "registration").open("wb") as registration:
        subprocess.run([*store, "--dump-db", *paths.split()], check=True, stdout=registration)
    (tmp_path / "configuration.nix").write_text("{ }\n")
    script = _evaluated(f"""
    (lib.evalModules {{
      modules = [
        {ROOT}/nix/modules/image.nix
        {{
          options.system = lib.mkOption {{ type = lib.types.anything; }};
          config.netinstall.image = {{ name = "machine"; built = 1700000000; }};
          config.system = {{
            name = "machine";
            stateVersion = "26.05";
            nixos.label = "test";
            build.toplevel = "{top}";
          }};
        }}
      ];
      specialArgs.extendModules = null;
      specialArgs.pkgs = {{
        inherit runCommand;
        closureInfo = _: "{closure}";
        writeTextDir = _: _: "{tmp_path}";
        callPackage = _: _: "/netinstall";
      }};
    }}).config.system.build.netinstallPayload.script
    """)
    # /nix need not be there on a machine that never built anything
    Path("/nix").mkdir(exist_ok=True)
    (tmp_path / "script").write_text(script)
    out = _run(
        f"unshare --mount sh -c 'mount --bind {tmp_path}/root/nix /nix && "
        f"exec bash -euo pipefail {tmp_path}/script'",
        tmp_path,
    )
    manifest = json.loads((out / "machine.json").read_text())
    assert manifest["built"] == "2023-11-14T22:13:20Z"
    assert manifest["system"]["toplevel"] == top
    members = subprocess.run(
        ["tar", "--zstd", "-tvf", str(out / "machine.tar.zst")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "./nix-path-registration" in members
    assert f"{top[1:]}/init" in members
    assert f"{top[1:]}/etc -> {_ELSEWHERE}" in members
    assert {line.split()[1] for line in members.splitlines()} == {"0/0"}


_ELSEWHERE = f"/nix/store/{'a' * 32}-{'etc' * 40}/etc"
"""NixOS is full of links that do not fit into a header of tar."""


def _toplevel(folder: Path) -> str:
    """Add what looks like a toplevel to a store below `folder`."""
    top = folder / "nixos-system-machine-26.05"
    (top / "bin").mkdir(parents=True)
    (top / "nixos-version").write_text("26.05")
    (top / "etc").symlink_to(_ELSEWHERE)
    for name in ("init", "bin/switch-to-configuration"):
        (top / name).write_text("#!/bin/sh\n")
        (top / name).chmod(0o755)
    return subprocess.run(
        ["nix-store", "--store", str(folder / "root"), "--add", str(top)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
