"""The console on a terminal that can draw a line again: rich's progress bar below the lines."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from installer.model.events import StepFinished, StepProgress, StepStarted
from installer.model.units import format_bytes, format_seconds
from installer.report.lines import RICH_STYLES, Line, neutral
from installer.report.progress import amount_text, left_text


class LiveManner:
    """Steps that are done scroll away above; the last line shows the one at work."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(spinner_name="line"),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=20),
            TaskProgressColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[amount]}", markup=False, style="dim"),
            console=self._console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=5,
        )
        self._task: TaskID | None = None
        self._title = ""

    def lines(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._console.print(Text(line.text, style=RICH_STYLES[line.style]))

    def begin(self, label: str, event: StepStarted) -> None:
        self._title = neutral(event.title)
        self._progress.start()
        self._forget_task()
        self._task = self._progress.add_task(label + self._title, total=None, amount="")

    def progress(self, event: StepProgress) -> None:
        if self._task is None:
            return
        words = [f"{format_bytes(event.rate)}/s"]
        if event.total:
            words.insert(0, amount_text(event.done, event.total))
        if event.seconds_left is not None:
            words.append(f"{left_text(event.seconds_left)} left")
        self._progress.update(
            self._task, completed=event.done, total=event.total, amount="  ".join(words)
        )

    def end(self, label: str, event: StepFinished) -> None:
        self._forget_task()
        done = Text(label + self._title)
        done.append(f"  {format_seconds(event.seconds)}", style=RICH_STYLES["good"])
        self._console.print(done)

    def stop(self) -> None:
        self._forget_task()
        self._progress.stop()

    def _forget_task(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            # otherwise the bar of a step that is done is drawn once more, below its last line
            self._progress.refresh()
