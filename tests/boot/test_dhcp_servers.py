"""What real DHCP servers send when they run with what was rendered."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import programs
import pytest
from sites import HOSTILE, MINIMAL, site_of

from installer.boot.dialects import DIALECTS

_SERVER, _RELAY = "192.0.2.1", "192.0.2.250"
_ODD = 'un"di\\on,ly;#.kpxe'
_SITE = MINIMAL | {
    "dhcp": {
        "interface": "lan0",
        "subnet": "192.0.2.0/24",
        "range": {"first": "192.0.2.100", "last": "192.0.2.199"},
        "router": "192.0.2.254",
        "dns": ["192.0.2.2", "192.0.2.3"],
        "ntp": ["192.0.2.4"],
        "domain": "example.net",
    },
    "nfs": {"server": _SERVER, "path": "/srv/nfs/root", "mount-options": ["vers=4.1", "tcp"]},
    "hosts": [{"mac": "52:54:00:00:00:10", "ip": "192.0.2.10", "hostname": "db7"}],
}
_WANTED = bytes([1, 3, 6, 12, 15, 17, 42, 60, 66, 67]).hex()
_DISCOVER = ("53=01", f"55={_WANTED}")


@pytest.fixture
def network() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: the server's and the client's."""
    names = (f"netinstall-s{os.getpid()}", f"netinstall-c{os.getpid()}")
    try:
        for name in names:
            _ip("netns", "add", name)
        for name, device, peer, address in (
            (names[0], "lan0", "lan1", _SERVER),
            (names[1], "lan1", "lan0", _RELAY),
        ):
            if device == "lan0":
                ends = (device, "type", "veth", "peer", "name", peer, "netns", names[1])
                _ip("-n", name, "link", "add", *ends)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _dnsmasq(folder: Path) -> list[str | Path]:
    return [
        *("dnsmasq", "--keep-in-foreground", "--pid-file=", f"--conf-file={folder}/dnsmasq.conf"),
        f"--dhcp-leasefile={folder}/leases",
    ]


def _dhcpd(folder: Path) -> list[str | Path]:
    (folder / "leases").touch()
    return [
        programs.unpacked() / "usr/sbin/dhcpd",
        *("-4", "-f", "-cf", folder / "dhcpd.conf", "-lf", folder / "leases"),
        *("-pf", folder / "pid", "lan0"),
    ]


def _kea(folder: Path) -> list[str | Path]:
    # where Kea keeps its leases is made by its package's installation, which is not done here
    path = folder / "kea-dhcp4.conf"
    config = json.loads(path.read_text())
    config["Dhcp4"]["lease-database"]["persist"] = False
    path.write_text(json.dumps(config))
    libraries = programs.unpacked() / "usr/lib/x86_64-linux-gnu"
    return [
        *("env", f"LD_LIBRARY_PATH={libraries}", f"KEA_PIDFILE_DIR={folder}"),
        *("KEA_LOCKFILE_DIR=none", programs.unpacked() / "usr/sbin/kea-dhcp4", "-c", path),
    ]


def _rendered(dialect: str, bios: str, root: str = "/srv/tftp") -> Mapping[str, str]:
    tftp = {"address": _SERVER, "root": root, "user": "root", "bios": bios}
    return DIALECTS[dialect].render(site_of(json.dumps(_SITE | {"tftp": tftp}), "site.json"))


_SERVERS = {"dnsmasq": _dnsmasq, "dhcpd": _dhcpd, "kea": _kea}


@dataclass(frozen=True)
class _Client:
    namespace: str

    def ask(self, *options: str, mac: str = "52:54:00:00:00:99") -> dict[str, Any]:
        """Ask once; options are CODE=HEX."""
        (found,) = self.ask_for([mac], *options)
        return found

    def ask_for(self, macs: list[str], *options: str) -> list[dict[str, Any]]:
        """Ask once for each of these machines."""
        script = Path(__file__).with_name("dhcp_client.py")
        done = subprocess.run(
            [
                *("ip", "netns", "exec", self.namespace, sys.executable, script),
                *(_SERVER, _RELAY, ",".join(macs), "30", *options),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for found in answers:
            found["options"] = {
                int(code): bytes.fromhex(value) for code, value in found["options"].items()
            }
        return answers

    def boot_file(self, *options: str) -> str:
        return _boot_file(self.ask(*_DISCOVER, *options))


def _boot_file(found: dict[str, Any]) -> str:
    sent = found["options"].get(67, b"").rstrip(b"\0").decode("latin-1")
    return str(found["file"] or sent)


@contextmanager
def _running(
    dialect: str, network: tuple[str, str], folder: Path, more: Callable[[str], str] = str
) -> Iterator[_Client]:
    """A server that runs with what was rendered, as root: nobody else may have to own its files.

    `more` is given the configuration, and returns what the server reads in its place.
    """
    root = folder / 'tf"t\\p, ;#'
    root.mkdir()
    for name, text in _rendered(dialect, _ODD, str(root)).items():
        (folder / name).write_text(more(text))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["ip", "netns", "exec", network[0], *_SERVERS[dialect](folder)],
            stdout=log,
            stderr=log,
        )
        try:
            yield _Client(network[1])
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.root
@pytest.mark.parametrize("dialect", _SERVERS)
def test_what_a_machine_is_told(dialect: str, network: tuple[str, str], tmp_path: Path) -> None:
    with _running(dialect, network, tmp_path) as client:
        bios = client.ask(*_DISCOVER, "93=0000")
        options = bios["options"]
        assert bios["server"] == _SERVER
        assert 100 <= int(str(bios["address"]).rpartition(".")[2]) <= 199
        assert options[1].hex() == "ffffff00"
        assert options[3].hex() == "c00002fe"
        assert options[6].hex() == "c0000202c0000203"
        assert options[42].hex() == "c0000204"
        for code, text in (
            (15, "example.net"),
            (17, "192.0.2.1:/srv/nfs/root,vers=4.1,tcp"),
            (66, _SERVER),
        ):
            assert options[code].rstrip(b"\0").decode() == text
        assert client.boot_file("93=0000") == _ODD
        assert client.boot_file("93=0007") == "ipxe.efi"
        assert client.boot_file("93=0009") == "ipxe.efi"
        script = "http://192.0.2.1/ipxe/boot.ipxe"
        # iPXE's features, as it announces them (encapsulated options)
        assert client.boot_file("93=0000", "175=b1050180861041") == script
        assert client.boot_file("93=0007", "175=b1050180861041") == script
        vendor = b"HTTPClient:Arch:00016:UNDI:003001".hex()
        by_http = ("93=0010", f"60={vendor}")
        assert client.boot_file(*by_http) == "http://192.0.2.1/ipxe.efi"
        said = client.ask(*_DISCOVER, *by_http)["options"][60]
        assert said.rstrip(b"\0") == b"HTTPClient"
        # GRUB 2.06 asks for these only, and its net_bootp needs option 66 all the same
        grub = client.ask("53=01", f"55={bytes([1, 3, 6, 15, 12, 17, 18]).hex()}")
        assert grub["options"][66].rstrip(b"\0").decode() == _SERVER
        known = client.ask(*_DISCOVER, mac="52:54:00:00:00:10")
        assert known["address"] == "192.0.2.10"
        assert known["options"][12].rstrip(b"\0") == b"db7"


@pytest.mark.root
def test_dhcpd_answers_bootp(network: tuple[str, str], tmp_path: Path) -> None:
    with _running("dhcpd", network, tmp_path) as client:
        # as GRUB before 2.04 does: it asks for nothing
        found = client.ask(mac="52:54:00:00:00:10")
        assert found["address"] == "192.0.2.10"
        assert {1, 3, 6, 12, 15, 17, 66} <= set(found["options"])
        assert found["options"][66] == _SERVER.encode()


def _dnsmasq_with(config: str, machines: Mapping[str, str]) -> str:
    # who asks must not wait until dnsmasq has tried whether an address is free
    lines = ["no-ping"]
    for number, (mac, text) in enumerate(machines.items()):
        (written,) = re.findall(r"^dhcp-boot=tag:!ipxe,tag:bios,(.*)$", text, re.MULTILINE)
        lines += [f"dhcp-mac=set:m{number},{mac}", f"dhcp-boot=tag:m{number},{written}"]
    return config + "".join(f"{line}\n" for line in lines)


def _dhcpd_with(config: str, machines: Mapping[str, str]) -> str:
    lines = []
    for number, (mac, text) in enumerate(machines.items()):
        (written,) = re.findall(r"^  } else \{\n(    filename .*;)\n  }\n}$", text, re.MULTILINE)
        # all have one address, so that there are enough
        one = f"hardware ethernet {mac}; fixed-address 192.0.2.20; {written.strip()}"
        lines.append(f"host m{number} {{ {one} }}\n")
    # what the subnet says would have the last word
    return re.sub(r"^    filename .*$", "", config, flags=re.MULTILINE) + "".join(lines)


def _kea_with(config: str, machines: Mapping[str, str]) -> str:
    settings = json.loads(config)
    (subnet,) = settings["Dhcp4"]["subnet4"]
    for mac, text in machines.items():
        classes = json.loads(text)["Dhcp4"]["client-classes"]
        (written,) = (one for one in classes if one["name"] == "netinstall-bios")
        entry = {"hw-address": mac, "boot-file-name": written["boot-file-name"]}
        subnet["reservations"].append(entry)
    return json.dumps(settings)


_WITH = {"dnsmasq": _dnsmasq_with, "dhcpd": _dhcpd_with, "kea": _kea_with}


@pytest.mark.root
@pytest.mark.parametrize("dialect", _SERVERS)
def test_hostile_names_arrive_as_they_are(
    dialect: str, network: tuple[str, str], tmp_path: Path
) -> None:
    """1,000 sites in one configuration: each machine's line is taken from a site of its own."""
    chance = random.Random(dialect)  # noqa: S311 - the same sites each time
    files: dict[str, str] = {}
    while len(files) < 1000:
        bios = "".join(chance.choices(HOSTILE, k=chance.randint(1, 4)))
        number = len(files)
        # a site file takes no path that begins or ends with a slash or has an empty part
        if all(part not in ("", ".", "..") for part in bios.split("/")):
            files[f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}"] = bios
    texts = {mac: "".join(_rendered(dialect, bios).values()) for mac, bios in files.items()}
    merge = _WITH[dialect]
    with _running(dialect, network, tmp_path, lambda config: merge(config, texts)) as client:
        answers = client.ask_for(list(files), *_DISCOVER)
    assert [_boot_file(found) for found in answers] == list(files.values())
