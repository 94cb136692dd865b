"""The fanout and the backlog: a sink may fail, block or lose, and the installation goes on."""

import threading
from collections.abc import Callable

from report_samples import failed, message, progress

from installer.model.errors import Problem
from installer.model.events import AnyEvent, Message, StepStarted
from installer.report.backlog import Backlog
from installer.report.sinks import Fanout, LossError, Threaded

DEADLINE = 10.0


class Memory:
    """A real sink that keeps what it is given, and does something else first if told to."""

    def __init__(
        self, name: str = "memory", first: Callable[[AnyEvent], None] = lambda _: None
    ) -> None:
        self.name = name
        self.events: list[AnyEvent] = []
        self.closed = threading.Event()
        self.arrived = threading.Condition()
        self._first = first

    def emit(self, event: AnyEvent) -> None:
        self._first(event)
        with self.arrived:
            self.events.append(event)
            self.arrived.notify_all()

    def close(self, deadline_s: float) -> None:  # noqa: ARG002 - nothing to wait for
        self.closed.set()

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message)]

    def await_count(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.events) >= count, DEADLINE), (
                f"{len(self.events)} of {count} events arrived"
            )


def _break(_event: AnyEvent) -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


def test_a_sink_that_fails_is_dropped_with_one_warning_to_the_others() -> None:
    good, bad = Memory(), Memory("the printer", _break)
    fanout = Fanout([good, bad])
    for text in ("one", "two", "three"):
        fanout.emit(message(text))
    assert good.texts == [
        "one",
        "the printer is not used any more: Connection reset by peer",
        "two",
        "three",
    ]
    assert bad.events == []


def test_sinks_that_fail_all_together_stop_nothing() -> None:
    fanout = Fanout([Memory("a", _break), Memory("b", _break)])
    fanout.emit(message("one"))
    fanout.emit(message("two"))
    fanout.close(1)


def test_a_sink_that_loses_something_stays_and_the_others_know() -> None:
    def lose(event: AnyEvent) -> None:
        if isinstance(event, Message) and event.text == "two":
            raise LossError("the disk is full")

    good, lossy = Memory(), Memory("lossy", lose)
    fanout = Fanout([lossy, good])
    for text in ("one", "two", "three"):
        fanout.emit(message(text))
    assert good.texts == ["one", "two", "the disk is full", "three"]
    assert lossy.texts == ["one", "three"]


def test_two_sinks_that_complain_about_each_warning_do_not_go_on_for_ever() -> None:
    def lose(_event: AnyEvent) -> None:
        raise LossError("lost")

    good = Memory()
    fanout = Fanout([Memory("a", lose), Memory("b", lose), good])
    fanout.emit(message("one"))
    assert good.texts == ["one", "lost", "lost"]


def test_a_sink_that_comes_later_hears_the_beginning_and_all_are_closed() -> None:
    early, late = Memory(), Memory()
    fanout = Fanout([early])
    fanout.emit(message("one"))
    fanout.add(late)
    fanout.add(Memory("the printer", _break))
    fanout.emit(message("two"))
    fanout.close(1)
    fanout.emit(message("three"))
    told = ["one", "the printer is not used any more: Connection reset by peer", "two"]
    assert early.texts == told
    assert late.texts == told
    assert early.closed.is_set()
    assert late.closed.is_set()


def test_closing_waits_for_no_sink_longer_than_said() -> None:
    class Endless(Memory):
        def close(self, deadline_s: float) -> None:  # noqa: ARG002 - that is its mistake
            threading.Event().wait()

    good = Memory()
    fanout = Fanout([Endless(), good])
    fanout.close(0.1)
    assert good.closed.wait(DEADLINE)


def test_a_blocked_sink_blocks_nobody_and_hears_what_it_missed() -> None:
    inside, gate = threading.Event(), threading.Event()

    def block(_event: AnyEvent) -> None:
        inside.set()
        assert gate.wait(DEADLINE)

    slow = Memory("slow", block)
    threaded = Threaded(slow, limit=4)
    threaded.emit(message("first"))
    assert inside.wait(DEADLINE)
    for number in range(10):
        threaded.emit(message(str(number)))
    gate.set()
    threaded.close(DEADLINE)
    assert slow.texts == ["first", "6 lines were dropped here", "6", "7", "8", "9"]
    assert slow.closed.is_set()


def test_a_sink_that_fails_in_its_thread_is_dropped_with_the_next_event() -> None:
    good = Memory()
    threaded = Threaded(Memory("the modem", _break))
    fanout = Fanout([threaded, good])
    fanout.emit(message("one"))
    threaded.close(DEADLINE)
    fanout.emit(message("two"))
    assert good.texts == ["one", "two", "the modem is not used any more: Connection reset by peer"]


def test_a_full_backlog_drops_progress_first_then_messages_then_the_oldest() -> None:
    backlog = Backlog(4)
    start = StepStarted(time=0, uptime=0, step="a", title="wipe", number=1, count=1)
    end = failed(Problem("disk.none", "no disk matches"))
    for event in (
        start,
        message("one"),
        progress("a", 1, 10, at=5),
        message("two"),
        message("three"),
        message("four"),
        end,
    ):
        backlog.put(event)
    assert backlog.take(10) == ([start, message("three"), message("four"), end], 3)
    for event in (start, end, start, end, start):
        backlog.put(event)
    assert backlog.take(10) == ([end, start, end, start], 1)


def test_events_from_several_threads_all_arrive() -> None:
    memory = Memory()
    fanout = Fanout([Threaded(memory, limit=10_000)])

    def emit_many() -> None:
        for _ in range(200):
            fanout.emit(message("x"))

    threads = [threading.Thread(target=emit_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    memory.await_count(800)
    fanout.close(DEADLINE)
    assert len(memory.events) == 800
