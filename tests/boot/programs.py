"""The real programs that read what is rendered.

Those whose packages would start a daemon are run from where `lab.daemons` unpacks them.
"""

import os
import subprocess
from pathlib import Path

import pytest
from lab import daemons

_SECONDS = 60


def unpacked() -> Path:
    """The folder into which the packages are unpacked."""
    try:
        return daemons.unpacked()
    except OSError as error:
        reason = f"dhcpd, Kea and exportfs cannot be downloaded: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def dnsmasq(config: Path) -> str:
    """Check dnsmasq.conf; return what is wrong with it, nothing if it is accepted."""
    return _complaint(["dnsmasq", "--test", f"--conf-file={config}"])


def dhcpd(config: Path) -> str:
    """Check dhcpd.conf."""
    leases = config.with_name("dhcpd.leases")
    leases.touch()
    program = unpacked() / "usr/sbin/dhcpd"
    return _complaint([program, "-t", "-cf", config, "-lf", leases])


def kea(config: Path) -> str:
    """Check kea-dhcp4.conf; the interface in it must exist."""
    libraries = unpacked() / "usr/lib/x86_64-linux-gnu"
    program = unpacked() / "usr/sbin/kea-dhcp4"
    return _complaint([program, "-t", config], LD_LIBRARY_PATH=str(libraries))


def exportfs(exports: Path, state: Path) -> str:
    """Return what exportfs -s says that it made of a file; needs root, and no NFS in the kernel.

    In a mount namespace, `state` stands for /var/lib/nfs and the file for those of /etc.
    """
    (state / "etab").touch()
    (state / "exports.d").mkdir()
    (state / "exports.d/one.exports").write_bytes(exports.read_bytes())
    # exportfs knows its files by their names in /etc and /var only
    script = (
        "mount -t tmpfs none /etc && mount -t tmpfs none /var && mkdir -p /etc/exports.d "
        '/var/lib && cp "$1/exports.d/one.exports" /etc/exports.d && ln -s "$1" /var/lib/nfs && '
        '"$2" -a; exec "$2" -s'
    )
    program = unpacked() / "usr/sbin/exportfs"
    libraries = unpacked() / "usr/lib/x86_64-linux-gnu"
    argv: list[str | Path] = ["unshare", "--mount", "sh", "-c", script, "sh", state, program]
    return _run(argv, None, LD_LIBRARY_PATH=str(libraries)).stdout


def grub(config: Path) -> str:
    """Check a script of GRUB."""
    return _complaint(["grub-script-check", config])


def shellcheck(script: Path) -> str:
    """Check a POSIX shell script."""
    return _complaint(["shellcheck", "--shell=sh", script])


def words(script: Path, commands: tuple[str, ...], **variables: str) -> list[list[str]]:
    """Let a shell read the script with these commands replaced; return how each was called.

    GRUB's language quotes as the shell does, so this also reads what grub-script-check accepted.
    """
    functions = "".join(
        f'{name}() {{ printf "%s\\\\0" {name} "$@"; printf "\\\\n\\\\0"; }}\n' for name in commands
    )
    text = f'set -u\n{functions}\n. "$0"\n'
    done = subprocess.run(
        ["/bin/dash", "-c", text.replace("\\\\", "\\"), script],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/nowhere", **variables},
        timeout=_SECONDS,
    )
    calls: list[list[str]] = [[]]
    for word in done.stdout.split("\0")[:-1]:
        if word == "\n":
            calls.append([])
        else:
            calls[-1].append(word)
    return calls[:-1]


def _complaint(argv: list[str | Path], **variables: str) -> str:
    done = _run(argv, None, **variables)
    return done.stdout if done.returncode else ""


def _run(
    argv: list[str] | list[str | Path], cwd: Path | None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, **variables},
        timeout=_SECONDS,
    )
