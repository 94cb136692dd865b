"""An HTTP server that fails as it is told; a process of its own, asked by real clients.

    python faulty.py FOLDER FAULTS

FOLDER is served, with ranges. FAULTS is a JSON list: each request for an archive takes the first
fault and removes it; `null` is none. `{"always": FAULT}` stays for all that follow. It prints its
port, then one JSON object for each request when it is over.

A fault holds one of: `cut` (close after so many bytes), `stall` (nothing more after so many),
`flip` (change the byte at this place), `status`, `redirect` (to this URL), `whole` (ignore ranges),
`shift` (answer another range), `short` (answer less of the range), `drip` (seconds between single
bytes), `header-drip` (the same for the header), `die` (the process ends).
"""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
FAULTS: list[Any] = json.loads(sys.argv[2])
STEP = 256 * 1024
"""Bytes sent at once: whoever asks at the same time must not wait for a whole file."""
connections = 0


def next_fault() -> dict[str, Any]:
    if not FAULTS:
        return {}
    if FAULTS[0] and "always" in FAULTS[0]:
        return dict(FAULTS[0]["always"])
    return FAULTS.pop(0) or {}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    global connections  # noqa: PLW0603 - a program of one page
    connections += 1
    number = connections
    try:
        while await answer(reader, writer, number):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def answer(  # noqa: PLR0912 - a row of faults
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, path, _ = head.split("\r\n", 1)[0].split(" ")
    asked = re.search(r"^range: bytes=(\d+)-(\d*)\r$", head, re.MULTILINE | re.IGNORECASE)
    file = FOLDER / path.lstrip("/")
    fault = next_fault() if path.endswith(".tar.zst") else {}
    said = {"connection": number, "path": path, "range": asked and asked[0][7:-1], "fault": fault}
    if "die" in fault:
        os._exit(0)
    if not file.is_file() or "status" in fault or "redirect" in fault:
        status = fault.get("status", 302 if "redirect" in fault else 404)
        more = f"Location: {fault['redirect']}\r\n" if "redirect" in fault else ""
        writer.write(f"HTTP/1.1 {status} x\r\n{more}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()
        tell({**said, "sent": 0})
        return True
    total = file.stat().st_size
    start, end = 0, total
    status = "200 OK"
    if asked and "whole" not in fault:
        start = int(asked[1])
        end = min(end, int(asked[2]) + 1 if asked[2] else end)
        start += fault.get("shift", 0)
        end -= min(fault.get("short", 0), end - start - 1)
        status = "206 Partial Content"
    size = end - start
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Accept-Ranges: bytes"]
    if status.startswith("206"):
        lines.append(f"Content-Range: bytes {start}-{end - 1}/{total}")
    header = ("\r\n".join(lines) + "\r\n\r\n").encode()
    if "header-drip" in fault:
        for byte in header:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(fault["header-drip"])
    else:
        writer.write(header)
    sent = 0
    try:
        if method == "HEAD":
            return True
        limit = fault.get("cut", fault.get("stall"))
        wanted = size if limit is None else limit % size
        step = 1 if "drip" in fault else STEP
        flip = fault["flip"] % size if "flip" in fault else -1
        with file.open("rb", buffering=0) as stream:
            stream.seek(start)
            while sent < wanted:
                part = bytearray(stream.read(min(step, wanted - sent)))
                if sent <= flip < sent + len(part):
                    part[flip - sent] ^= 1
                writer.write(part)
                await writer.drain()
                sent += len(part)
                if "drip" in fault:
                    await asyncio.sleep(fault["drip"])
        if "stall" in fault:
            await reader.read(1)  # until the client has gone
        return limit is None
    finally:
        tell({**said, "sent": sent})


def tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tell(server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
