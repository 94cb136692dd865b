"""The verbs as people and scripts use them: real processes, their texts and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from processes import COMMAND, ENVIRONMENT, ROOT, netinstall, without_root
from pydantic import ValidationError

from installer import __version__
from installer.model.answers import AnswerFile, json_schema

CASES = ROOT / "tests/cases"
GOOD = ROOT / "examples/static-address-rebuild.toml"
VERBS = ("probe", "plan", "install", "check", "schema", "init", "image")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the process without root can read, as pytest's own cannot be."""
    with TemporaryDirectory(prefix="netinstall-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_help_names_the_verbs_and_the_exit_codes() -> None:
    done = netinstall("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for verb in VERBS:
        assert re.search(rf"^    {verb} ", done.stdout, re.MULTILINE), verb
    assert "2 answer file, 3 hardware, 4 payload, 5 a command failed,\n6 the" in (done.stdout)


@pytest.mark.parametrize("verb", [*VERBS, "image build"])
def test_every_verb_has_help(verb: str) -> None:
    done = netinstall(*verb.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: netinstall {verb}")


def test_version() -> None:
    assert netinstall("--version").stdout == f"netinstall {__version__}\n"


def test_a_wrong_verb_is_a_wrong_argument() -> None:
    done = netinstall("instal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'instal'" in done.stderr


def test_check_of_a_good_file() -> None:
    done = netinstall("check", GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{GOOD}: no mistakes found\n", "")


def test_check_tells_all_mistakes_with_their_places(folder: Path) -> None:
    (folder / "bad.toml").write_text(
        "version = 1\n"
        "[payload]\n"
        'url = "http://192.0.2.1/x.tar"\n'
        'sha256 = "abc"\n'
        "[[disks]]\n"
        'match = { seriel = "1" }\n'
        "[[disks.partitions]]\n"
        'size = "lots"\n'
        'mount = "/"\n'
    )
    done = netinstall("check", "bad.toml", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error[answers.field]: `sha256` has not the right form: 'abc'\n"
        "  where: bad.toml:4:1: payload.sha256\n"
        "  try:   a SHA-256 is 64 hexadecimal digits in lower case; sha256sum FILE prints it\n"
        "error[answers.field]: unknown field `seriel`; did you mean `serial`?\n"
        "  where: bad.toml:6:11: disks[0].match.seriel\n"
        "error[answers.field]: 'lots' is not a size; write for example 512 MiB, 25 % or rest\n"
        "  where: bad.toml:8:1: disks[0].partitions[0].size\n"
    )


def test_check_reads_what_an_installation_would_read(folder: Path) -> None:
    (folder / "latin.toml").write_bytes(b"version = 1\n# Gr\xfc\xdfe\n")
    done = netinstall("check", "latin.toml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "error[answers.syntax]: byte 16 is not UTF-8\n"
        "  where: latin.toml\n"
        "  try:   save the file as UTF-8\n"
    )


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_a_missing_file(verb: str, folder: Path) -> None:
    more = ("--facts", CASES / "virtio-vm/facts.json") if verb == "plan" else ()
    done = netinstall(verb, "nowhere.toml", *more, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == {
            "check": (
                "error[answers.not-found]: nowhere.toml cannot be read: No such file or directory\n"
                "  where: nowhere.toml\n"
                "  try:   is the path right?\n"
            ),
            "plan": (
                "error[answers.not-found]: there is no nowhere.toml\n"
                "  try:   is the file there under exactly this name?\n"
            ),
        }[verb]
    )


def test_facts_that_are_none(folder: Path) -> None:
    facts = json.loads((CASES / "virtio-vm/facts.json").read_text())
    facts["disks"][0]["size"] = "large"
    (folder / "facts.json").write_text(json.dumps(facts))
    done = netinstall("plan", GOOD, "--facts", "facts.json", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error[facts.invalid]: disks.0.size: Input should be a valid integer, "
        "unable to parse string as an integer\n"
        "  where: facts.json\n"
        "  try:   make the file with `netinstall probe --json` of the same version\n"
    )
    (folder / "facts.json").write_text("{")
    done = netinstall("plan", GOOD, "--facts", "facts.json", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error[facts.invalid]: the document: Invalid JSON: EOF while")


def test_problems_are_a_document_too(folder: Path) -> None:
    done = netinstall("plan", "nowhere.toml", "--facts", CASES / "virtio-vm/facts.json", "--json",
                      cwd=folder)  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "problems": [
            {
                "code": "answers.not-found",
                "what": "there is no nowhere.toml",
                "where": "",
                "hint": "is the file there under exactly this name?",
            }
        ]
    }
    assert done.stderr.startswith("error[answers.not-found]: there is no nowhere.toml\n")


def test_a_directory_is_searched_for_the_machine(folder: Path) -> None:
    (folder / "default.toml").write_text("not for this machine")
    (folder / "52-54-00-12-34-56.toml").write_text((ROOT / "examples/uefi-simple.toml").read_text())
    facts = CASES / "virtio-vm/facts.json"
    assert netinstall("plan", folder, "--facts", facts).returncode == 0
    done = netinstall("plan", folder, "--facts", CASES / "nvme-server/facts.json")
    assert done.returncode == 2
    assert f"where: {folder}/default.toml:1:5\n" in done.stderr


def test_what_is_probed_can_be_planned_for(folder: Path) -> None:
    probed = netinstall("probe", "--json")
    assert probed.returncode == 0
    facts = json.loads(probed.stdout)
    assert facts["version"] == 1
    (folder / "facts.json").write_text(probed.stdout)
    done = netinstall("plan", ROOT / "examples/uefi-simple.toml", "--facts", "facts.json",
                      "--json", cwd=folder)  # fmt: skip
    # whatever this machine is: a plan for it, or reasons why there is none
    assert (done.returncode == 0) == ("steps" in json.loads(done.stdout))
    assert done.returncode in (0, 3)
    assert "Traceback" not in done.stderr


def test_probe_for_people() -> None:
    done = netinstall("probe")
    assert done.returncode == 0
    for title in ("MACHINE", "DISKS (", "NETWORK INTERFACES (", "MISSING PROGRAMS"):
        assert f"\n{title}" in f"\n{done.stdout}"
    assert all(len(line) <= 79 for line in done.stdout.splitlines())


class TestSchema:
    """The schema that editors complete from, against the program's own reading."""

    def test_it_is_one(self) -> None:
        done = netinstall("schema")
        assert done.returncode == 0
        schema = json.loads(done.stdout)
        assert schema == json_schema()
        Draft202012Validator.check_schema(schema)

    @pytest.mark.parametrize("path", sorted(ROOT.glob("tests/cases/*/*.toml")), ids=str)
    def test_it_takes_what_check_takes(self, path: Path) -> None:
        data = tomllib.loads(path.read_text())
        AnswerFile.model_validate(data)
        Draft202012Validator(json_schema()).validate(data)

    @pytest.mark.parametrize(
        ("where", "value"),
        [
            (("version",), 2),
            (("version",), None),
            (("unknown",), 1),
            (("payload",), None),
            (("payload", "sha256"), "ABC"),
            (("payload", "verify"), "never"),
            (("payload", "retry-seconds"), -1),
            (("payload", "retry_seconds"), 1),
            (("disks",), []),
            (("disks", 0, "choose"), "first"),
            (("disks", 0, "match", "transport"), "ide"),
            (("disks", 0, "match", "serial"), 7),
            (("disks", 0, "partitions"), []),
            (("disks", 0, "partitions", 0, "size"), "lots"),
            (("disks", 0, "partitions", 0, "size"), 512),
            (("disks", 0, "partitions", 0, "size"), None),
            (("disks", 0, "partitions", 0, "filesystem"), "zfs"),
            (("disks", 0, "partitions", 0, "label"), "two words"),
            (("system", "toplevel"), "/usr"),
            (("network", "mode"), "static"),
            (("boot", "firmware"), "UEFI"),
            (("finish", "failure-delay-seconds"), "60"),
        ],
        ids=str,
    )
    def test_it_refuses_what_check_refuses(
        self, where: tuple[str | int, ...], value: object
    ) -> None:
        data: Any = deepcopy(tomllib.loads(GOOD.read_text()))
        inner = data
        for part in where[:-1]:
            inner = inner.setdefault(part, {}) if isinstance(part, str) else inner[part]
        if value is None:
            del inner[where[-1]]
        else:
            inner[where[-1]] = value
        with pytest.raises(ValidationError):
            AnswerFile.model_validate(data)
        assert not Draft202012Validator(json_schema()).is_valid(data)


def test_installing_needs_root() -> None:
    done = netinstall("install", GOOD, "--yes")
    if "--reuid=65534" not in without_root() and os.geteuid() == 0:
        pytest.skip("nobody cannot read this checkout")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error[arguments]: installing needs root\n  try:   sudo netinstall install …\n"
    )


@pytest.mark.root
def test_installing_needs_consent() -> None:
    # without capabilities: if the refusal were gone, this could still do no harm
    done = netinstall("install", GOOD, before=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error[arguments]: this is not netinstall's boot environment, and disks would be erased\n"
        "  where: netinstall install\n"
        "  try:   see what would happen with `netinstall plan`, then add --yes\n"
    )


@pytest.mark.root
def test_an_installation_that_cannot_begin_tells_everybody(folder: Path) -> None:
    (folder / "system.tar").write_bytes(bytes(512))
    (folder / "answers.toml").write_text(
        "version = 1\n"
        f'payload = {{ path = "{folder}/system.tar", unverified = true }}\n'
        'finish = { on-failure = "poweroff", failure-delay-seconds = 7 }\n'
        "[[disks]]\n"
        'match = { serial = "no disk has this serial number" }\n'
        'partitions = [ { size = "rest", mount = "/" } ]\n'
    )
    done = subprocess.run(
        [
            # what it writes to /run is seen here only
            *("unshare", "--mount", "sh", "-ec"),
            (
                'mount -t tmpfs tmpfs /run; code=0; "$@" || code=$?; '
                'cp -r /run/netinstall "$0"; exit $code'
            ),
            str(folder),
            *(*COMMAND, "install", "answers.toml", "--yes"),
        ],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "INSTALLATION FAILED" in done.stdout
    assert "no disk was changed" in done.stdout
    assert json.loads((folder / "netinstall/outcome.json").read_text()) == {
        "on_failure": "poweroff",
        "on_success": "reboot",
        "failure_delay_seconds": 7,
        "exit_code": 3,
    }
    last = (folder / "netinstall/log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["kind"] == "failed"
    assert json.loads(last)["problems"][0]["code"] == "disk.none"
    assert "no disk matches" in (folder / "netinstall/log.txt").read_text()


@pytest.mark.parametrize("arguments", [(), (GOOD, "--from-kernel")], ids=["neither", "both"])
def test_installing_needs_one_source_of_answers(arguments: tuple[Path | str, ...]) -> None:
    done = netinstall("install", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error[arguments]: name an answer file, or say --from-kernel\n"
        "  where: netinstall install\n"
        "  try:   netinstall install answers.toml\n"
    )


@pytest.mark.parametrize("arguments", [
    ("schema",),
    ("plan", CASES / "nvme-server/answers.toml", "--facts", CASES / "nvme-server/facts.json"),
    ("plan", CASES / "no-disk/answers.toml", "--facts", CASES / "no-disk/facts.json", "--json"),
], ids=["schema", "plan", "problems"])  # fmt: skip
def test_a_reader_that_has_seen_enough(arguments: tuple[str | Path, ...]) -> None:
    whole = netinstall(*arguments)
    process = subprocess.Popen(
        [*without_root(), *COMMAND, *map(str, arguments)],
        cwd="/",
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (whole.returncode, whole.stderr)


@pytest.fixture
def silent_server() -> Iterator[tuple[str, Event]]:
    """A server that takes a request and never answers: (its URL, set when it was asked)."""
    asked, over = Event(), Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            over.wait(60)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/answers.toml", asked
        over.set()
        server.shutdown()
        thread.join(60)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name
)
def test_an_interruption(number: signal.Signals, silent_server: tuple[str, Event]) -> None:
    url, asked = silent_server
    # whoever started the tests in the background, or with nohup, lets them be ignored, and that is
    # inherited (execve(2))
    asking = ("env", "--default-signal=INT,TERM,HUP")
    process = subprocess.Popen(
        [*asking, *COMMAND, "plan", url, "--facts", str(CASES / "virtio-vm/facts.json")],
        cwd="/",
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.wait(60), "it never asked the server"
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "interrupted\n")


def test_an_unreachable_server_is_the_network_s_fault() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    # nobody listens there now, and "no URL" is final while a refused connection is tried again
    done = netinstall("plan", f"http://user:hunter2@127.0.0.1:{port}:1/x", "--facts",
                      CASES / "virtio-vm/facts.json")  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.startswith("error[network.unreachable]: http://***@127.0.0.1:")
    assert "this is no http(s) URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_the_command_of_the_distribution_is_the_module() -> None:
    command = Path(sys.executable).with_name("netinstall")
    if not command.exists():
        pytest.skip("the distribution is not installed beside this Python")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"netinstall {__version__}\n"
