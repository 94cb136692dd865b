"""The namespace with real dnsmasq, a real DHCP client and real sockets in it."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from lab import process
from lab.console import ConsoleError
from lab.http import HttpServer
from lab.network import Dhcp, Host, Namespace
from lab.nfs import NfsServer

pytestmark = pytest.mark.root

MAC = "52:54:00:00:00:77"


def names() -> list[str]:
    said = process.run(["ip", "netns", "list"]).decode()
    return [line.split()[0] for line in said.splitlines()]


def test_a_client_gets_what_the_server_was_told(tmp_path: Path) -> None:
    script = tmp_path / "lease"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && env\nexit 0\n')
    script.chmod(0o755)
    with Namespace(tmp_path) as network:
        server = network.dhcp(
            Dhcp(
                hosts=(Host(MAC, "192.0.2.77", "box"),),
                options=((17, "192.0.2.1:/root"), (42, "192.0.2.1")),
            )
        )
        # A machine's port needs a machine; a veth pair brings a client without one.
        within = ("ip", "-netns", network.name, "link")
        veth = ("type", "veth", "peer", "c1")
        process.run([*within, "add", "c0", "address", MAC, *veth])
        process.run([*within, "set", "c1", "master", "br0", "up"])
        process.run([*within, "set", "c0", "up"])
        client = ["busybox", "udhcpc", "-i", "c0", "-q", "-n", "-f", "-s", str(script)]
        said = process.run([*network.prefix, *client, "-O", "rootpath", "-O", "ntpsrv"], 20)
        lease = dict(line.split("=", 1) for line in said.decode().splitlines() if "=" in line)
        server.said.expect(r"DHCPACK\(br0\) 192\.0\.2\.77", 5)
    assert lease["ip"] == "192.0.2.77"
    assert lease["hostname"] == "box"
    assert lease["domain"] == "lab.test"
    assert lease["rootpath"] == "192.0.2.1:/root"
    assert lease["ntpsrv"] == "192.0.2.1"
    assert lease["router"] == "192.0.2.1"
    assert network.name not in names()


def test_servers_are_reachable_inside_only(tmp_path: Path) -> None:
    with Namespace(tmp_path) as network, HttpServer(network) as web:
        url = web.publish("/hello", "from inside")
        assert url == f"http://192.0.2.1:{web.port}/hello"
        fetch = ["busybox", "wget", "-q", "-O", "-", url]
        assert process.run([*network.prefix, *fetch]) == b"from inside"
        with NfsServer(network, tmp_path, tmp_path) as nfs:
            connect = ["busybox", "nc", "-w", "2", "192.0.2.1", str(nfs.port)]
            process.run([*network.prefix, *connect])
            with pytest.raises(process.ProcessError):
                process.run(connect)


def test_a_bad_configuration_is_reported(tmp_path: Path) -> None:
    with (
        Namespace(tmp_path) as network,
        pytest.raises(ConsoleError, match=r"(?s)it ended.*bad option at line 1 of"),
    ):
        network.dnsmasq("no-such-option\n")
    assert network.name not in names()


def test_what_a_crashed_run_left_goes_when_the_next_starts(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale = f"lab-{ended.pid}-1"
    process.run(["ip", "netns", "add", stale])
    try:
        with Namespace(tmp_path):
            assert stale not in names()
    finally:
        with contextlib.suppress(process.ProcessError):
            process.run(["ip", "netns", "delete", stale])
