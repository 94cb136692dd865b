"""Asks a DHCP server as a relay agent (RFC 2131, 4.1; RFC 951), and prints its answer as JSON.

A relay has an address of its own and gets its answers by unicast, so no raw socket is needed.
Arguments: SERVER RELAY MAC[,MAC…] SECONDS [CODE=HEX …]. One line for each MAC, each of which has so
many seconds. Without an option 53 it is a BOOTP request.
"""

import json
import os
import socket
import sys
import time

_MAGIC = bytes([99, 130, 83, 99])


def request(mac: str, relay: str, options: dict[int, bytes]) -> bytes:
    """Write a request with these options."""
    xid = os.urandom(4)
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = bytes([1, 1, 6, 1]) + xid + bytes(4)
    addresses = bytes(12) + socket.inet_aton(relay)
    tail = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    # a server that answers BOOTP gives as much room for options as the request has
    end = b"\xff" + bytes(300)
    return head + addresses + hardware.ljust(16, b"\0") + bytes(192) + _MAGIC + tail + end


def answer(packet: bytes) -> dict[str, object]:
    """Read an answer; options that were split are joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    at = 240
    while at < len(packet) and packet[at] != 255:
        if packet[at] == 0:
            at += 1
            continue
        code, length = packet[at], packet[at + 1]
        options[code] = options.get(code, b"") + packet[at + 2 : at + 2 + length]
        at += 2 + length
    return {
        "address": socket.inet_ntoa(packet[16:20]),
        "server": socket.inet_ntoa(packet[20:24]),
        "file": packet[108:236].rstrip(b"\0").decode("latin-1"),
        "options": {str(code): value.hex() for code, value in options.items()},
    }


def main() -> None:
    """Ask again every half second until there is an answer or the time is over."""
    server, relay, mac, seconds = sys.argv[1:5]
    options = {
        int(code): bytes.fromhex(value)
        for code, _, value in (text.partition("=") for text in sys.argv[5:])
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((relay, 67))
        asking.settimeout(0.5)
        for one in mac.split(","):
            found = ask(asking, server, request(one, relay, options), float(seconds))
            sys.stdout.write(f"{json.dumps(found)}\n")


def ask(asking: socket.socket, server: str, question: bytes, seconds: float) -> dict[str, object]:
    """Return the answer to a request."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            asking.sendto(question, (server, 67))
            packet = asking.recv(2048)
        except OSError:
            # refused or silent: the server may still be starting
            time.sleep(0.05)
            continue
        if packet[4:8] == question[4:8]:
            return answer(packet)
    raise SystemExit(f"no answer from {server} in {seconds} s")


if __name__ == "__main__":
    main()
