"""initrd-hooks/lib/netinstall.sh, run by each shell that an initrd may have."""

import contextlib
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from initrds import HOOKS, SHELLS, Initrd


@pytest.fixture(params=SHELLS)
def initrd(tmp_path: Path, request: pytest.FixtureRequest) -> Initrd:
    return Initrd(tmp_path, SHELLS[request.param])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("netinstall.root=nfs:10.0.0.1:/x", "nfs:10.0.0.1:/x"),
        ("netinstall.root=a netinstall.root=b", "b"),
        ("netinstall.root=", ""),
        ("netinstall.root=a=b=c", "a=b=c"),
        ("netinstall.root=*", "*"),
        ("netinstall.root=$(touch${IFS}pwned)", "$(touch${IFS}pwned)"),
        ("netinstall.root=`id`;\\'\"", "`id`;\\'\""),
        ("netinstall.root=-n", "-n"),
        ("netinstall.root=%s%n", "%s%n"),
    ],
)
def test_an_argument_is_text(initrd: Initrd, line: str, value: str) -> None:
    (initrd.folder / "glob-bait").touch()
    initrd.arguments(line)
    result = initrd.run("netinstall_argument netinstall.root")
    assert (result.returncode, result.stdout) == (0, f"{value}\n")
    assert not (initrd.folder / "pwned").exists()


@pytest.mark.parametrize("line", ["", "netinstall_root=x", "xnetinstall.root=x", "netinstall.root"])
def test_an_argument_that_is_not_there(initrd: Initrd, line: str) -> None:
    initrd.arguments(line)
    result = initrd.run("netinstall_argument netinstall.root")
    assert (result.returncode, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("5", "5"), ("0", "0"), ("000", "0"), ("010", "10"), ("86400", "86400")),
        *(("86401", "60"), ("", "60"), ("-1", "60"), ("5s", "60"), ("9999999999999999999", "60")),
        ("1;reboot", "60"),
    ],
)
def test_numbers(initrd: Initrd, value: str, number: str) -> None:
    initrd.arguments(f"netinstall.failure-delay={value}")
    assert initrd.run("netinstall_number netinstall.failure-delay 60").stdout == f"{number}\n"


@pytest.mark.parametrize(
    ("value", "mac"),
    [
        ("01-52-54-00-AB-cd-01", "52:54:00:ab:cd:01"),
        ("01:52:54:00:ab:cd:01", "52:54:00:ab:cd:01"),
        ("52:54:00:ab:cd:01", "52:54:00:ab:cd:01"),
        *(("", None), ("eth0", None), ("01-52-54-00-ab", None), ("zz:54:00:ab:cd:01", None)),
        ("52:54:00:ab:cd:01:02:03", None),
    ],
)
def test_bootif(initrd: Initrd, value: str, mac: str | None) -> None:
    result = initrd.run('netinstall_mac "$1"', value)
    assert result.stdout == (f"{mac}\n" if mac else "")
    assert (result.returncode == 0) is (mac is not None)


HTTP = "http NETINSTALL_URL"
NFS = "nfs NETINSTALL_SERVER NETINSTALL_PATH NETINSTALL_OPTIONS"


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("http://10.0.2.2:8080/root.squashfs", "http|http://10.0.2.2:8080/root.squashfs"),
        ("http://h/r?a=b&c=%20", "http|http://h/r?a=b&c=%20"),
        ("http://[fd00::1]/r", "http|http://[fd00::1]/r"),
        ("nfs:10.0.0.1:/srv/root", "nfs|10.0.0.1|/srv/root|"),
        ("nfs:10.0.0.1:/srv/root,vers=4.1,port=2050", "nfs|10.0.0.1|/srv/root|vers=4.1,port=2050"),
        ("nfs:nas.example.net:/", "nfs|nas.example.net|/|"),
        ("nfs:[fd00::1]:/srv", "nfs|fd00::1|/srv|"),
        ("nfs://10.0.0.1/srv/root", "nfs|10.0.0.1|/srv/root|"),
        ("10.0.0.1:/srv", "nfs|10.0.0.1|/srv|"),
        ("/srv", "nfs|192.0.2.1|/srv|"),
        ("nfs:/srv,ro", "nfs|192.0.2.1|/srv|ro"),
    ],
)
def test_places_for_a_root(initrd: Initrd, value: str, parsed: str) -> None:
    initrd.lease("ROOTSERVER='192.0.2.1'\n")
    result = initrd.run(
        'netinstall_parse_root "$1" || exit 1\n'
        "case $NETINSTALL_KIND in\n"
        'http) echo "http|$NETINSTALL_URL" ;;\n'
        'nfs) echo "nfs|$NETINSTALL_SERVER|$NETINSTALL_PATH|$NETINSTALL_OPTIONS" ;;\n'
        "esac",
        value,
    )
    assert result.stdout == f"{parsed}\n", result.stderr


def test_a_root_path_with_the_name_of_the_machine(initrd: Initrd) -> None:
    parse = 'netinstall_parse_root "$1" && echo "$NETINSTALL_PATH,$NETINSTALL_OPTIONS"'
    value = "192.0.2.1:/srv/%s/root,vers=3"
    assert initrd.run(parse, value).returncode != 0
    initrd.lease("IPV4ADDR='192.0.2.7'\nHOSTNAME=''\n")
    assert initrd.run(parse, value).stdout == "/srv/192.0.2.7/root,vers=3\n"
    initrd.lease("IPV4ADDR='192.0.2.7'\nHOSTNAME='rack7'\n")
    assert initrd.run(parse, value).stdout == "/srv/rack7/root,vers=3\n"
    # the server chooses the name, but not another folder
    for name in ("..", ".", "../etc", "a b", "$(id)"):
        initrd.lease(f"HOSTNAME='{name}'\n")
        assert initrd.run(parse, value).returncode != 0


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "x",
            "http://",
            "https://h/r",
            "ftp://h/r",
            "nfs:",
            "nfs:host",
            "nfs:host:relative",
            "file:///x",
        ),
        *("http://h/`id`", "http://h/$(id)'", 'http://h/"', "http://h/a b", "http://h/\\"),
        *("nfs:-o:/x", "nfs:h;id:/x", "nfs:h:/x;id", "nfs:h:/$x", "nfs:h:/x,exec;id"),
        *("nfs:h:/x,a b", "nfs:[zz]:/x", "nfs:.:/x"),
    ],
)
def test_what_is_no_place_for_a_root(initrd: Initrd, value: str) -> None:
    assert initrd.run('netinstall_parse_root "$1"', value).returncode != 0


def test_where_the_root_is_said_to_be(initrd: Initrd) -> None:
    find = "netinstall_find_root || echo nowhere"
    assert initrd.run(find).stdout == "nowhere\n"
    initrd.lease("ROOTPATH='192.0.2.1:/dhcp'\nROOTSERVER='192.0.2.1'\n")
    assert initrd.run(find).stdout == "192.0.2.1:/dhcp\n"
    initrd.arguments("root=/dev/nfs nfsroot=auto")
    assert initrd.run(find).stdout == "192.0.2.1:/dhcp\n"
    initrd.arguments("root=/dev/nfs nfsroot=/kernel,vers=3")
    assert initrd.run(find).stdout == "nfs:/kernel,vers=3\n"
    initrd.arguments("root=/dev/nfs nfsroot=/kernel netinstall.root=http://h/r")
    assert initrd.run(find).stdout == "http://h/r\n"


def test_a_lease_is_read_and_never_executed(initrd: Initrd) -> None:
    initrd.lease(
        "HOSTNAME='$(touch pwned)'\nROOTPATH=''; touch pwned; ''\nIPV4DNS0='192.0.2.53'\n"
        "IPV4DNS1='0.0.0.0'\n"
    )
    result = initrd.run(
        "netinstall_from_lease HOSTNAME; netinstall_from_lease ROOTPATH || echo none\n"
        "netinstall_resolv_conf"
    )
    assert result.stdout == "$(touch pwned)\nnone\n"
    assert (initrd.folder / "resolv.conf").read_text() == "nameserver 192.0.2.53\n"
    assert not (initrd.folder / "pwned").exists()


def test_the_interface_that_booted(initrd: Initrd) -> None:
    initrd.interface("lo", "00:00:00:00:00:00", kind=772)
    initrd.interface("ens1", "52:54:00:00:00:01")
    initrd.interface("ens2", "52:54:00:00:00:02")
    assert initrd.run("netinstall_interfaces").stdout == "ens1\nens2\n"
    wait = 'netinstall_wait_for_link "$1" 1 && echo "device=$NETINSTALL_DEVICE"'
    # No real interface has these names: bringing them up fails, which must not matter.
    assert initrd.run(wait, "52:54:00:00:00:02").stdout == "device=ens2\n"
    assert initrd.run(wait, "").stdout == "device=\n"


def test_an_interface_that_never_comes_is_named(initrd: Initrd) -> None:
    initrd.interface("ens1", "52:54:00:00:00:01")
    assert initrd.run("netinstall_wait_for_link 52:54:00:00:00:09 0").returncode == 1
    assert initrd.said() == (
        "\nerror[network.no-interface]: no network interface with the address 52:54:00:00:00:09 "
        "appeared in 0 s\n"
        "  where: waited for a driver to find the card "
        f"(ls {initrd.folder}/sys/class/net)\n"
        "  try:   a kernel with its driver (linux-image-amd64 has more than the cloud kernel; "
        "some cards need firmware), or another BOOTIF=\n"
    )


def test_a_missing_link_is_told(initrd: Initrd) -> None:
    initrd.interface("ens1", "52:54:00:00:00:01", carrier="0")
    initrd.interface("ens2", "52:54:00:00:00:02", carrier="0")
    assert initrd.run('netinstall_wait_for_link "" 0').returncode == 1
    assert initrd.said() == (
        "\nerror[network.no-lease]: no link on ens1 ens2 in 0 s\n"
        "  where: waited for a carrier\n"
        "  try:   the cable, the switch port, or a longer netinstall.network-timeout=\n"
    )


def test_without_an_answer_from_dhcp(initrd: Initrd) -> None:
    initrd.interface("ens1", "52:54:00:00:00:01")
    initrd.arguments("BOOTIF=01-52-54-00-00-00-01")
    # what initramfs-tools' function does when it gets no lease: it ends the shell
    result = initrd.run("netinstall_lease() { exit 3; }\nnetinstall_network || echo failed")
    assert result.stdout == "failed\n"
    assert initrd.said() == (
        "\nerror[network.no-lease]: no DHCP server answered\n"
        "  where: asked on ens1\n"
        "  try:   the DHCP server's log and VLAN; BOOTIF= where the wrong interface was asked; "
        "ip= for a fixed address\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "",
            (
                "\nerror[arguments]: nothing says where the root file system is\n"
                "  where: kernel command line, and root path (option 17) of the lease\n"
                "  try:   netinstall.root=http://… with netinstall.root-sha256=…, "
                "or netinstall.root=nfs:SERVER:/PATH\n"
            ),
        ),
        (
            "netinstall.root=ftp://x",
            (
                "\nerror[arguments]: this is no place for a root file system: ftp://x\n"
                "  where: netinstall.root=, nfsroot=, or the root path of the lease\n"
                "  try:   http://SERVER/root.squashfs (its hash is checked, TLS is not needed) "
                "or nfs:SERVER:/PATH[,OPTIONS]\n"
            ),
        ),
        (
            "netinstall.root=http://h/r netinstall.root-sha256=abc",
            (
                "\nerror[arguments]: netinstall.root-sha256= is missing or no SHA-256 "
                "(64 lower-case hex digits)\n"
                "  where: kernel command line\n"
                "  try:   the sha256 of root.squashfs in image.json: without it anybody on the "
                "network could replace the root\n"
            ),
        ),
    ],
)
def test_mistakes_in_the_arguments_are_told(initrd: Initrd, arguments: str, said: str) -> None:
    initrd.lease("IPV4ADDR='192.0.2.10'\n")
    initrd.arguments(arguments)
    assert initrd.run("netinstall_try_root /nowhere").returncode == 1
    assert initrd.said() == said


class Cutting(http.server.BaseHTTPRequestHandler):
    """Sends at most 40,000 bytes of its 100,000 in one answer; understands Range."""

    body = bytes(range(250)) * 400
    ranges: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        rest = self.body[first:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(rest)))
        if asked:
            total = len(self.body)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.end_headers()
        self.wfile.write(rest[:40_000])

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_download_that_breaks_goes_on_where_it_stopped(initrd: Initrd) -> None:
    ranges: list[str | None] = []
    handler = type("Handler", (Cutting,), {"ranges": ranges})
    with _serving(handler) as port:
        # the pauses between the attempts are not what is tested
        result = initrd.run(
            'sleep() { :; }\nnetinstall_fetch "$1" "$2"',
            f"http://127.0.0.1:{port}/root.squashfs",
            str(initrd.folder / "run/root"),
        )
    assert result.returncode == 0, result.stderr
    assert (initrd.folder / "run/root").read_bytes() == Cutting.body
    assert ranges == [None, "bytes=40000-", "bytes=80000-"]


def test_a_download_that_does_not_exist_is_told_at_once(initrd: Initrd) -> None:
    with _serving(partial(http.server.SimpleHTTPRequestHandler, directory="/nowhere")) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}/root.squashfs"
        result = initrd.run('netinstall_fetch "$1" "$2"', url, str(initrd.folder / "run/root"))
    assert result.returncode == 1
    assert initrd.said() == (
        "\nerror[network.unreachable]: the root file system could not be downloaded: "
        "wget: server returned error: HTTP/1.0 404 File not found\n"
        f"  where: {url}\n"
        "  try:   the same URL from another machine; the server's log; netinstall.root=\n"
    )


def test_a_server_that_is_not_there_is_tried_for_two_minutes(initrd: Initrd) -> None:
    # port 1 (tcpmux) is closed everywhere; only the clock is not real
    result = initrd.run(
        'sleep() { echo "$1"; }\nnetinstall_fetch http://127.0.0.1:1/root.squashfs "$1"',
        str(initrd.folder / "run/root"),
    )
    assert result.returncode == 1
    assert sum(map(int, result.stdout.split())) == 1 + 2 + 4 + 8 + 16 + 32 + 32 + 32
    lines = initrd.said().splitlines()
    assert lines[0] == (
        "netinstall: wget: can't connect to remote host (127.0.0.1): Connection refused; "
        "again in 1 s"
    )
    assert len(lines) == 8 + 4


# Mounting needs a kernel that does it, and a machine of its own: mount is a stand-in that notes its
# arguments; every other program is real.
MOUNTLESS = """
netinstall_modules() { :; }
sleep() { :; }
netinstall_applet() {
    case $1 in
    mount | umount) printf '%s\\n' "$*" >>"$NETINSTALL_RUN/mounts"; "${MOUNT:-true}" ;;
    df) printf 'a\\nb 1 1 %s 1%% /\\n' "${FREE:-1000}" ;;
    *) busybox "$@" ;;
    esac
}
"""


def test_a_root_over_http_is_checked_and_mounted(initrd: Initrd) -> None:
    (initrd.folder / "served").mkdir()
    (initrd.folder / "served/root.squashfs").write_bytes(b"a root")
    digest = hashlib.sha256(b"a root").hexdigest()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=initrd.folder / "served")
    initrd.lease("IPV4ADDR='192.0.2.10'\n")
    with _serving(handler) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}/root.squashfs"
        initrd.arguments(f"netinstall.root={url} netinstall.root-sha256={digest}")
        result = initrd.run(f"{MOUNTLESS}\nnetinstall_try_root /root")
    assert result.returncode == 0, initrd.said() + result.stderr
    store = initrd.folder / "run/netinstall/image"
    assert (initrd.folder / "run/mounts").read_text() == (
        f"mount -t tmpfs -o mode=0700,size=80% netinstall {store}\n"
        f"mount -t squashfs -o ro,loop {store}/root.squashfs /root\n"
    )
    assert initrd.said() == f"netinstall: fetching {url}\n"


def test_a_root_that_is_not_the_announced_one_is_never_mounted(initrd: Initrd) -> None:
    (initrd.folder / "served").mkdir()
    (initrd.folder / "served/root.squashfs").write_bytes(b"another root")
    announced = hashlib.sha256(b"a root").hexdigest()
    is_ = hashlib.sha256(b"another root").hexdigest()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=initrd.folder / "served")
    initrd.lease("IPV4ADDR='192.0.2.10'\n")
    with _serving(handler) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}/root.squashfs"
        initrd.arguments(f"netinstall.root={url} netinstall.root-sha256={announced}")
        result = initrd.run(f"{MOUNTLESS}\nnetinstall_try_root /root")
    assert result.returncode == 1
    store = initrd.folder / "run/netinstall/image"
    assert (initrd.folder / "run/mounts").read_text() == (
        f"mount -t tmpfs -o mode=0700,size=80% netinstall {store}\numount {store}\n"
    )
    assert not (store / "root.squashfs").exists()
    assert initrd.said() == (
        f"netinstall: fetching {url}\n"
        "\nerror[payload.hash]: the root file system is not the one that was announced\n"
        f"  where: {url} has the SHA-256 {is_}\n"
        f"  try:   netinstall.root-sha256= of the same image ({announced} was expected)\n"
    )


def test_a_root_that_does_not_fit_into_memory_is_told(initrd: Initrd) -> None:
    with _serving(type("Handler", (Cutting,), {"ranges": []})) as port:
        url = f"http://127.0.0.1:{port}/root.squashfs"
        result = initrd.run(
            f'{MOUNTLESS}\nFREE=0\nnetinstall_fetch "$1" "$2"',
            url,
            str(initrd.folder / "run/root"),
        )
    assert result.returncode == 1
    assert initrd.said() == (
        "\nerror[payload.too-large]: the root file system does not fit into memory\n"
        f"  where: {url}\n"
        "  try:   a machine with more memory, or the NFS root, which needs less\n"
    )


def test_an_nfs_root_is_mounted_read_only_by_address(initrd: Initrd) -> None:
    initrd.lease("IPV4ADDR='192.0.2.10'\n")
    initrd.arguments("netinstall.root=nfs:192.0.2.1:/srv/root,port=2050")
    assert initrd.run(f"{MOUNTLESS}\nnetinstall_try_root /root").returncode == 0
    assert (initrd.folder / "run/mounts").read_text() == (
        "mount -i -t nfs4 -o ro,nolock,proto=tcp,vers=4.2,port=2050,addr=192.0.2.1 "
        "192.0.2.1:/srv/root /root\n"
    )


def test_an_nfs_root_that_cannot_be_mounted_is_told(initrd: Initrd) -> None:
    initrd.lease("IPV4ADDR='192.0.2.10'\n")
    initrd.arguments("netinstall.root=nfs:192.0.2.1:/srv/root")
    refused = 'refused() { echo "mount: Permission denied" >&2; return 1; }\nMOUNT=refused\n'
    result = initrd.run(f"{MOUNTLESS}\n{refused}\nnetinstall_try_root /root")
    assert result.returncode == 1
    tried = (initrd.folder / "run/mounts").read_text().splitlines()
    assert len(tried) == 8 * 4
    assert [line.split()[5].split(",")[3] for line in tried[:4]] == [
        *("vers=4.2", "vers=4.1", "vers=4.0", "vers=3"),
    ]
    assert [line.split()[3] for line in tried[:4]] == ["nfs4", "nfs4", "nfs4", "nfs"]
    said = initrd.said()
    assert said.startswith(
        "netinstall: 192.0.2.1:/srv/root: mount: Permission denied; again in 1 s\n"
    )
    assert said.endswith(
        "\nerror[network.unreachable]: the NFS root could not be mounted: "
        "mount: Permission denied\n"
        "  where: 192.0.2.1:/srv/root\n"
        "  try:   showmount -e 192.0.2.1; is the export readable for 192.0.2.10, from any port?\n"
    )


def test_a_failure_reboots_after_the_delay_if_told_so(initrd: Initrd) -> None:
    initrd.arguments("netinstall.on-failure=poweroff netinstall.failure-delay=7")
    result = initrd.run(
        # neither this machine nor the clock
        'netinstall_applet() { echo "applet $*"; exit; }\nsleep() { echo "sleep $*"; }\n'
        "netinstall_failed"
    )
    assert result.stdout == "sleep 7\napplet poweroff -f\n"
    assert initrd.said() == "netinstall: poweroff in 7 s\n"


def test_after_the_shell_it_tries_again(initrd: Initrd) -> None:
    result = initrd.run(
        'netinstall_applet() { echo "applet $1 for $6"; }\n'
        'netinstall_try_root() { echo "try $1"; n=$((${n:-0} + 1)); [ "$n" = 2 ]; }\n'
        "netinstall_mount_root /root"
    )
    assert result.stdout == (f"try /root\napplet setsid for {initrd.folder}/dev/ttyS0\ntry /root\n")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_scripts_are_clean(shell: str) -> None:
    # configuration files and Nix have their own readers
    scripts = [
        path
        for path in HOOKS.rglob("*")
        if path.is_file() and path.read_text().startswith(("#!", "# shellcheck shell"))
    ]
    wanted = [path for path in scripts if (path.name == "module-setup.sh") is (shell == "bash")]
    assert wanted
    result = subprocess.run(
        ["shellcheck", "-s", shell, "-x", *map(str, wanted)],
        cwd=HOOKS.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
