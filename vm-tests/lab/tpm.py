"""A TPM 2.0 in software (swtpm(8)), for one machine at a time; its state outlives the machine."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Self

from lab import process


class Tpm:
    """`extra` goes to `Vm.extra`. Each boot of a machine needs a fresh `Tpm` on the same folder:
    swtpm ends when QEMU does."""

    def __init__(self, folder: Path) -> None:
        """Start it; keys are kept in `folder`. Raises ProcessError."""
        folder.mkdir(parents=True, exist_ok=True)
        # a socket's path has at most 107 bytes (unix(7)), and a test's folder has a long name
        self._socket = Path("/run") / f"netinstall-tpm-{os.getpid()}-{abs(hash(folder))}"
        self._pid = folder / "pid"
        # --daemon: it returns when the socket is there
        process.run(
            [
                *("swtpm", "socket", "--tpm2", "--daemon", "--terminate"),
                *("--tpmstate", f"dir={folder}", "--pid", f"file={self._pid}"),
                *("--ctrl", f"type=unixio,path={self._socket}"),
                *("--log", f"file={folder}/swtpm.log"),
            ]
        )

    @property
    def extra(self) -> tuple[str, ...]:
        """QEMU's arguments for it."""
        return (
            *("-chardev", f"socket,id=tpm,path={self._socket}"),
            *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"),
        )

    def stop(self) -> None:
        """End it, if it still runs. May be called again."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int(self._pid.read_text()), signal.SIGTERM)
        self._pid.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()
