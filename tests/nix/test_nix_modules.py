"""Everything that default.nix offers is a derivation, evaluated with a whole nixpkgs.

Needs NETINSTALL_NIXPKGS, a nixpkgs tree, and NETINSTALL_NIX_INSTANTIATE, a nix-instantiate that is
new enough for it. Continuous integration on Debian 12 can have neither.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from nix_files import NIXPKGS, ROOT, instantiate

# no skip: most machines have no nixpkgs, and a green run there says all that it can
if NIXPKGS:
    BASE = """{
      documentation.enable = false;
      fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
      boot.loader.systemd-boot.enable = true;
      system.stateVersion = "26.05";
    }"""
    ANSWERS = """{
      payload.url = "http://192.0.2.1/system.tar.zst";
      payload.unverified = true;
      disks = [ { match.serial = "A"; partitions = [ { size = "rest"; mount = "/"; } ]; } ];
    }"""
    _PACKAGES = (
        *("bootLoader", "image", "initrd", "kernel", "kexec"),
        *("netboot", "netinstall", "tarball", "tftp"),
    )
    # the third machine, of which the payload knows nothing
    HARDWARE = """({ lib, modulesPath, ... }: {
      imports = [ (modulesPath + "/profiles/qemu-guest.nix") ];
      fileSystems."/" = lib.mkForce { device = "/dev/disk/by-uuid/1111-2222"; fsType = "ext4"; };
      fileSystems."/boot" = { device = "/dev/disk/by-uuid/1111-0000"; fsType = "vfat"; };
      swapDevices = [ { device = "/dev/disk/by-uuid/3333"; } ];
      boot.initrd.availableKernelModules = [ "xhci_pci" "megaraid_sas" "sr_mod" ];
      boot.kernelModules = [ "kvm-amd" ];
      networking.hostName = "db7";
      networking.useNetworkd = true;
      networking.useDHCP = false;
      systemd.network.networks."10-lan0" = {
        matchConfig.PermanentMACAddress = "52:54:00:12:34:56";
        address = [ "192.0.2.10/24" ];
      };
    })"""

    def _evaluate(folder: Path, expression: str, *modules: str) -> Any:
        """Evaluate with `netinstall`, our default.nix, and `config`, of a system of the modules."""
        done = instantiate(
            *("--eval", "--strict", "--json", "--read-write-mode"),
            # what cannot be fetched here must not be waited for
            *("--option", "substitute", "false"),
            *("--option", "allow-import-from-derivation", "false"),
            *("--option", "fsync-metadata", "false"),
            "--expr",
            f"""
            let
              pkgs = import {NIXPKGS} {{ system = "x86_64-linux"; }};
              netinstall = import {ROOT} {{ inherit pkgs; }};
              system = modules: import {NIXPKGS}/nixos/lib/eval-config.nix {{
                system = null;
                modules = modules ++ [ {{ nixpkgs.pkgs = pkgs; }} ];
              }};
              config = (system [ {" ".join(modules)} ]).config;
            in {expression}
            """,
            store=str(folder / "store"),
        )
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    def _are_derivations(found: Any, names: Iterable[str]) -> None:
        assert isinstance(found, dict), found
        assert set(found) == set(names)
        assert all(path.endswith(".drv") for path in found.values())

    def test_every_package_is_a_derivation(tmp_path: Path) -> None:
        found = _evaluate(tmp_path, "builtins.mapAttrs (_: each: each.drvPath) netinstall.packages")
        _are_derivations(found, _PACKAGES)

    def test_every_attribute_of_the_flake_is_a_derivation(tmp_path: Path) -> None:
        """Its outputs, called as Nix calls them, with this nixpkgs as the input."""
        found = _evaluate(
            tmp_path,
            f"""
            let
              outputs = (import {ROOT}/flake.nix).outputs {{
                self = {{ }};
                nixpkgs.legacyPackages.x86_64-linux = pkgs;
              }};
              paths = builtins.mapAttrs (_: each: each.drvPath);
              of = kind: paths outputs.${{kind}}.x86_64-linux;
            in
            {{
              kinds = builtins.attrNames outputs;
              packages = of "packages";
              checks = of "checks";
              devShells = of "devShells";
              formatter = paths outputs.formatter;
              overlays.netinstall = (pkgs.extend outputs.overlays.default).netinstall.drvPath;
              nixosModules = builtins.mapAttrs (
                _: module: (system [ module {BASE} ]).config.system.build.toplevel.drvPath
              ) outputs.nixosModules;
              lib = {{
                netboot = (outputs.lib.netboot {{ }}).drvPath;
                nfsroot = (outputs.lib.nfsroot {{ }}).image.drvPath;
                payload = (outputs.lib.payload (system [ {BASE} ]) {{ }}).drvPath;
              }};
              answers = outputs.lib.answers {ANSWERS};
            }}
            """,
        )
        assert isinstance(found, dict), found
        kinds = set(found.pop("kinds"))
        assert found.pop("answers")["disks"][0]["match"] == {"serial": "A"}
        # an output that nobody looks at here would be one that nobody ever evaluated
        assert kinds == set(found)
        wanted = {
            "packages": {*_PACKAGES, "default"},
            "checks": {"netboot", "netinstall"},
            "devShells": {"default"},
            "formatter": {"x86_64-linux"},
            "overlays": {"netinstall"},
            "nixosModules": {"image", "installer", "nfsroot", "server"},
            "lib": {"netboot", "nfsroot", "payload"},
        }
        for kind, names in wanted.items():
            _are_derivations(found[kind], names)

    def test_default_nix_offers_what_the_flake_does(tmp_path: Path) -> None:
        found = _evaluate(
            tmp_path,
            """{
              attributes = builtins.attrNames netinstall;
              shell = netinstall.shell.drvPath;
              checks = builtins.mapAttrs (_: each: each.drvPath) netinstall.checks;
            }""",
        )
        assert isinstance(found, dict), found
        assert found["attributes"] == ["checks", "lib", "nixosModules", "packages", "shell"]
        _are_derivations(found["checks"], ["netboot"])

    def _blocks() -> list[str]:
        text = (ROOT / "docs/nixos.md").read_text()
        return re.findall(r"^```nix\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    def test_the_file_of_the_documents_evaluates_without_flakes(tmp_path: Path) -> None:
        (tmp_path / "machine.nix").write_text(
            _blocks()[1]
            .replace("/home/me/netinstall", str(ROOT))
            # all of nixpkgs would be copied to the store
            .replace("channel = <nixpkgs>", "channel = <nixpkgs/lib>")
        )
        (tmp_path / "db7.nix").write_text(BASE)
        done = instantiate(
            *("-I", f"nixpkgs={NIXPKGS}", "--option", "substitute", "false"),
            *("--option", "fsync-metadata", "false", str(tmp_path / "machine.nix")),
            store=str(tmp_path / "store"),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("-netinstall-payload.drv")

    def test_the_flake_of_the_documents_evaluates(tmp_path: Path) -> None:
        """Its outputs, called as Nix calls them: all three configurations, and what is built."""
        (tmp_path / "flake.nix").write_text(_blocks()[0])
        (tmp_path / "server-hardware.nix").write_text(
            """{
              fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
              fileSystems."/boot" = { device = "/dev/disk/by-label/ESP"; fsType = "vfat"; };
            }"""
        )
        found = _evaluate(
            tmp_path,
            f"""
            let
              flake = (import {NIXPKGS}/flake.nix).outputs {{ self = nixpkgs; }};
              nixpkgs = flake // {{
                outPath = "{NIXPKGS}";
                lastModifiedDate = "20260701000000";
                # the manual names more packages than a shortened tree has
                lib = flake.lib // {{
                  nixosSystem = given: flake.lib.nixosSystem (given // {{
                    modules = given.modules ++ [ {{ documentation.enable = false; }} ];
                  }});
                }};
              }};
              self = (import {tmp_path}/flake.nix).outputs {{
                inherit self nixpkgs;
                netinstall = (import {ROOT}/flake.nix).outputs {{ inherit nixpkgs; }};
              }};
              build = name: self.nixosConfigurations.${{name}}.config.system.build;
            in
            {{
              payload = (build "db7").netinstallPayload.drvPath;
              image = (build "environment").nfsroot.image.drvPath;
              server = (build "server").toplevel.drvPath;
            }}
            """,
        )
        _are_derivations(found, ["payload", "image", "server"])

    @pytest.mark.parametrize("systemd", ["true", "false"])
    def test_options_reach_the_kernel_command_line(tmp_path: Path, systemd: str) -> None:
        found = _evaluate(
            tmp_path,
            """{
              parameters = config.boot.kernelParams;
              top = config.system.build.toplevel.drvPath;
              script = config.system.build.netbootIpxeScript.drvPath;
            }""",
            "netinstall.nixosModules.installer",
            f"""{{
              boot.initrd.systemd.enable = {systemd};
              netinstall.answersFrom = "http://192.0.2.1/answers/";
              netinstall.report = "http://192.0.2.1/report";
              netinstall.onFailure = "reboot";
              netinstall.failureDelay = 5;
              netinstall.dryRun = true;
              netinstall.serial = {{ unit = 1; parity = "even"; }};
            }}""",
        )
        assert isinstance(found, dict), found
        wanted = [
            *("console=tty0", "console=ttyS1,115200e8"),
            "netinstall.answers=http://192.0.2.1/answers/",
            "netinstall.report=http://192.0.2.1/report",
            *("netinstall.on-failure=reboot", "netinstall.failure-delay=5"),
            "netinstall.dry-run=1",
        ]
        assert found["parameters"][: len(wanted)] == wanted

    def test_the_original_options_become_an_answer_file(tmp_path: Path) -> None:
        found = _evaluate(
            tmp_path,
            "netinstall.lib.schema.given config.netinstall.answers",
            "netinstall.nixosModules.installer",
            """{
              customInstaller.rootDevice = "/dev/disk/by-id/ata-A";
              customInstaller.networking.useDHCP = false;
              customInstaller.networking.staticInterfaceFromDHCP = "enp12s0";
              netinstall.answers.payload.url = "http://192.0.2.1/system.tar.zst";
              netinstall.answers.payload.unverified = true;
            }""",
        )
        assert found["disks"][0]["match"] == {"by-id": "ata-A"}
        assert found["network"] == {"mode": "static-from-lease", "interface": "enp12s0"}

    def test_a_disk_that_may_be_another_tomorrow_is_refused(tmp_path: Path) -> None:
        said = _evaluate(
            tmp_path,
            "config.boot.kernelParams",
            "netinstall.nixosModules.installer",
            '{ customInstaller.rootDevice = "/dev/sda"; }',
        )
        assert "customInstaller.rootDevice' is not of type" in said
        assert "below /dev/disk/by-id or /dev/disk/by-path" in said

    def test_grub_is_told_the_cards(tmp_path: Path) -> None:
        found = _evaluate(
            tmp_path,
            """{
              grub = config.system.build.nfsroot.bootLoader.config;
              kernel = map (each: each.name) config.boot.kernelPatches;
              files = builtins.mapAttrs (_: each: each.drvPath) {
                inherit (config.system.build.nfsroot) bootLoader image kernel tarball;
              };
            }""",
            "netinstall.nixosModules.nfsroot",
            """{
              nfsroot.bootLoader.efinetDHCPInterface = "efinet6";
              nfsroot.bootLoader.linuxPnPInterface = "eth6";
              nfsroot.extraKernelOptions = "IXGB y IXGBE y";
              nfsroot.contents = [ { source = "/etc/motd"; target = "/motd"; } ];
              nfsroot.storeContents = [ { object = pkgs.hello; symlink = "/hello"; } ];
            }""",
        )
        assert isinstance(found, dict), found
        assert "net_bootp efinet6" in found["grub"]
        assert '"ip=:::::eth6:dhcp::"' in found["grub"]
        assert "netinstall-nfs-root" in found["kernel"]
        _are_derivations(found["files"], ["bootLoader", "image", "kernel", "tarball"])

    @pytest.mark.parametrize("backend", ["dnsmasq", "pixiecore", "none"])
    def test_a_boot_server_is_a_system(tmp_path: Path, backend: str) -> None:
        found = _evaluate(
            tmp_path,
            """builtins.mapAttrs (_: each: each.drvPath) {
              inherit (config.system.build) netinstallServer toplevel;
            }""",
            BASE,
            "netinstall.nixosModules.server",
            f"""{{
              services.netinstall = {{
                enable = true;
                openFirewall = true;
                backend = "{backend}";
                images.image = netinstall.packages.image;
                nfsRoot = netinstall.packages.tarball;
                answers.default = {ANSWERS};
                site = {{
                  http.url = "http://192.0.2.1:8080";
                  tftp.address = "192.0.2.1";
                  nfs = {{ server = "192.0.2.1"; path = "/srv/nfs/netinstall"; }};
                  dhcp.interface = "lan0";
                  dhcp.subnet = "192.0.2.0/24";
                  dhcp.range = {{ first = "192.0.2.100"; last = "192.0.2.199"; }};
                  images = [ {{ name = "netinstall"; folder = "image"; }} ];
                }};
              }};
            }}""",
        )
        _are_derivations(found, ["netinstallServer", "toplevel"])

    def test_a_payload_holds_what_a_rebuild_elsewhere_needs(tmp_path: Path) -> None:
        """Every input of what the third machine builds anew is there, or is part of the system."""
        graph = _graph(tmp_path)
        roots = graph["payload"]
        at_hand = {*roots, *(each for root in roots for each in graph["inputs"][root])}
        known = _closure(graph["inputs"], roots)
        new = _closure(graph["inputs"], [graph["target"]]) - known
        missing = {each for path in new for each in graph["inputs"][path]} & known - at_hand
        assert 20 < len(new) < 100
        # the activation script names these, so they come with the system itself
        names = {path[44:] for path in missing}
        assert {name for name in names if not name.startswith(("perl-", "mounts.sh"))} == set()

    def _closure(inputs: dict[str, list[str]], roots: Iterable[str]) -> set[str]:
        found: set[str] = set()
        stack = list(roots)
        while stack:
            path = stack.pop()
            if path not in found:
                found.add(path)
                stack += inputs[path]
        return found

    def _graph(folder: Path) -> dict[str, Any]:
        payload = "netinstall.nixosModules.image { netinstall.image.rebuild.enable = true; }"
        found = _evaluate(
            folder,
            f"""{{
              payload = map (each: each.drvPath) config.system.build.netinstallPayload.contents;
              target =
                (system [ {BASE} {payload} {HARDWARE} ]).config.system.build.toplevel.drvPath;
            }}""",
            BASE,
            payload,
        )
        assert isinstance(found, dict), found
        inputs: dict[str, list[str]] = {}
        stack = [*found["payload"], found["target"]]
        while stack:
            path = stack.pop()
            if path not in inputs:
                inputs[path] = _inputs(folder / "store" / path[1:])
                stack += inputs[path]
        return {**found, "inputs": inputs}

    def _inputs(drv: Path) -> list[str]:
        """Return the derivations among the inputs: the second list of a .drv file (ATerm)."""
        text = drv.read_text(errors="replace")
        # Derive([("out","/nix/store/…","","")],[("/nix/store/….drv",["out"]),…],["…"],…
        _, _, rest = text.partition(")],[")
        listed = "" if rest.startswith("]") else rest.partition(")],[")[0]
        return [word for word in listed.split('"') if word.endswith(".drv")]
