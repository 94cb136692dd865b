"""One line of progress: never longer than a console takes."""

from installer.model.events import Stage, StepProgress
from installer.model.units import GIB
from installer.report.progress import progress_text


def _text(bottleneck: Stage | None) -> str:
    event = StepProgress(
        time=0.0,
        uptime=0.0,
        step="unpack-frames",
        done=500 * GIB,
        total=999 * GIB,
        rate=98.6 * 2**20,
        seconds_left=98.0,
        bottleneck=bottleneck,
    )
    return progress_text(event)


def test_the_slowest_stage_stands_at_the_end() -> None:
    assert _text("decompress") == (
        "[####----]  50 %  500 of 999 GiB  98.6 MiB/s  98 s left  decompress"
    )
    assert _text(None) == ("[##########----------]  50 %  500 of 999 GiB  98.6 MiB/s  98 s left")
    assert len(_text("decompress")) <= 71
