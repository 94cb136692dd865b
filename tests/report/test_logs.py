"""The two logs on disk, also when the disk is full."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_samples import LOST, failed, installation, message, progress
from test_sinks import Memory

from installer.model.codec import from_json
from installer.model.events import AnyEvent, Message, StepStarted
from installer.report.jsonlines import JsonLinesSink
from installer.report.logfile import LogFileSink
from installer.report.sinks import Fanout


def test_every_event_is_one_line_of_json_that_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sink = JsonLinesSink(path)
    events = [*installation(), failed(LOST), message("two\nlines \x1b \udc80")]
    for event in events:
        sink.emit(event)
        # flushed with each event: nothing is lost when the machine stops here
        assert path.read_bytes().endswith(b"}\n")
    lines = path.read_text().splitlines()
    assert len(lines) == len(events)
    for line, event in zip(lines[:-1], events, strict=False):
        assert from_json(type(event), line, where=str(path)) == event
    assert "\\udc80" in lines[-1]
    sink.close(1)


def test_the_log_for_people_has_times_and_what_programs_printed(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    sink = LogFileSink(path)
    events: list[AnyEvent] = [
        message("probing", at=1.25),
        StepStarted(time=0, uptime=2, step="a", title="make ext4", number=1, count=2),
        message("mke2fs 1.47.0\n\x1b[31mred\x1b[0m", "output", at=2.5, step="a"),
        message("its label is EFI", "debug", at=2.5, step="a"),
        *(progress("a", n, 100, at=2 + n) for n in range(101)),
        message("slow disk", "warning", at=110, step="a"),
        failed(LOST, step="a", at=123.4567),
    ]
    for event in events:
        sink.emit(event)
    sink.close(1)
    text = path.read_text()
    assert text.startswith("""\
[     1.250] this log begins at 2025-11-21T07:26:41+00:00
[     1.250] probing
[     2.000] step 1 of 2: make ext4
[     2.500]   | mke2fs 1.47.0
[     2.500]   | \\x1b[31mred\\x1b[0m
[     2.500]   debug: its label is EFI
[    12.000]   [##------------------]  10 %  10 of 100 B  12.1 MiB/s  1 s left
""")
    assert text.count(" % ") == 10
    assert text.endswith("""\
[   110.000]   warning: slow disk
[   123.457] FAILED with exit code 6
[   123.457]   error[network.lost]: no byte came for 2 min 00 s, after 188 of 314 MiB
[   123.457]     where: http://10.0.2.2:8000/system.tar.zst
[   123.457]     try:   see whether the server 10.0.2.2 still runs and is reachable, then start \
the machine again
""")


def test_the_log_for_people_holds_the_whole_plan(tmp_path: Path) -> None:
    sink = LogFileSink(tmp_path / "log.txt")
    for event in installation():
        sink.emit(event)
    sink.close(1)
    text = (tmp_path / "log.txt").read_text()
    assert '|   networking.hostName = "node7";' in text
    assert "MISSING PROGRAMS" in text
    assert "INSTALLED in 38 s" in text


@pytest.mark.parametrize("kind", [LogFileSink, JsonLinesSink])
def test_a_log_that_cannot_be_opened_is_told_to_the_others(
    kind: type[LogFileSink] | type[JsonLinesSink], tmp_path: Path
) -> None:
    others = Memory()
    sink = kind(tmp_path / "missing" / "log")
    fanout = Fanout([sink, others])
    fanout.emit(message("one"))
    fanout.emit(message("two"))
    assert others.texts == [
        "one",
        f"{sink.name} is not used any more: No such file or directory",
        "two",
    ]


@pytest.fixture
def small_files() -> Iterator[int]:
    """A limit on the size of files (setrlimit(2)) fails in the middle of a write, as a full disk
    does, and can be lifted again."""
    size = 1000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", [LogFileSink, JsonLinesSink])
def test_a_full_disk_is_told_once_and_leaves_whole_lines(
    kind: type[LogFileSink] | type[JsonLinesSink], tmp_path: Path, small_files: int
) -> None:
    path = tmp_path / "log"
    others = Memory()
    fanout = Fanout([kind(path), others])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    fanout.emit(message("the beginning"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (small_files, hard))
    for _ in range(30):
        fanout.emit(message("x" * 90))
    full = path.read_text()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    fanout.emit(message("there is room again"))
    fanout.close(1)

    assert path.stat().st_size > small_files - 300
    assert full.endswith("\n"), "half a line would spoil the next one"
    warnings = [event for event in others.events if _is_warning(event)]
    assert len(warnings) == 1
    assert sum(f"{path} loses lines: File too large" in text for text in others.texts) == 1
    assert "there is room again" in path.read_text().splitlines()[-1]
    if kind is LogFileSink:
        assert "entries were lost here)" in path.read_text()


def _is_warning(event: AnyEvent) -> bool:
    return isinstance(event, Message) and event.level == "warning"


def test_a_device_that_is_always_full_is_told_once() -> None:
    others = Memory()
    fanout = Fanout([LogFileSink(Path("/dev/full")), others])
    fanout.emit(message("one"))
    fanout.emit(message("two"))
    fanout.close(1)
    assert others.texts == [
        "one",
        "the log /dev/full loses lines: No space left on device",
        "two",
    ]
