"""A port in a VLAN of a Namespace's bridge, for hosts whose kernel has no 802.1Q.

A stand-in for `ip link add … type vlan` and nothing more: frames go between a packet socket, with
the tag, and a tap, without it (IEEE 802.1Q, 9.3; packet(7): PACKET_AUXDATA; the kernel's
networking/tuntap.rst). Run as a program: vlan.py PORT TAP ID.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import sys
from pathlib import Path

from lab import process
from lab.network import Namespace

_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID = 1 << 4
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_ETH_P_ALL, _TPID = 0x0003, 0x8100
_LONGEST = 65536


def port(network: Namespace, number: int, address: str) -> None:
    """Give the lab's servers an address (with its prefix length) in a VLAN."""
    ends = ["veth", "peer", "name", "trunk"]
    inside = ["ip", "-netns", network.name]
    process.run([*inside, "link", "add", "trunk0", "type", *ends])
    process.run([*inside, "link", "set", "trunk0", "master", "br0", "up"])
    process.run([*inside, "link", "set", "trunk", "promisc", "on", "up"])
    name = f"lan{number}"
    process.run([*inside, "tuntap", "add", "dev", name, "mode", "tap"])
    process.run([*inside, "address", "add", address, "dev", name])
    argv = ["env", f"PYTHONPATH={Path(__file__).parents[1]}", sys.executable, __file__]
    network.server(f"vlan{number}", [*argv, "trunk", name, str(number)], ready="ready")
    process.run([*inside, "link", "set", name, "up"])


def main() -> None:
    """Carry frames until somebody ends this."""
    trunk, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tagged:
        tagged.bind((trunk, _ETH_P_ALL))
        tagged.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        print("ready", flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(tagged, selectors.EVENT_READ)
            selector.register(tap, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is tagged:
                        _inwards(tagged, tap, number)
                    else:
                        frame = os.read(tap, _LONGEST)
                        tag = struct.pack("!HH", _TPID, number)
                        tagged.send(frame[:12] + tag + frame[12:])


def _inwards(tagged: socket.socket, tap: int, number: int) -> None:
    frame, extra, _, sender = tagged.recvmsg(_LONGEST, socket.CMSG_SPACE(_AUXDATA.size))
    if sender[2] == socket.PACKET_OUTGOING:
        return
    for level, kind, data in extra:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            # the kernel has taken the tag out of the frame
            status, _, _, _, _, tci, _ = _AUXDATA.unpack(data[: _AUXDATA.size])
            if status & _VLAN_VALID and tci & 0x0FFF == number:
                os.write(tap, frame)


if __name__ == "__main__":
    main()
