"""Live progress in the terminal: a bar for each run in progress, a line for each that has ended."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from noiseless.files.directory import Row


class _Rate(ProgressColumn):
    """Steps (or passes) per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


class Live:
    """Progress bars of runs by name, as a context manager."""

    def __init__(self, console: Console):
        self.console = console
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False), console=console,
            # drawing takes time from the runs; in a file only the end is shown
            auto_refresh=console.is_terminal, refresh_per_second=2,
        )  # fmt: skip

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def plan(self, passes: float) -> None:
        """Adds a bar for the passes of all runs together."""
        self._all = self._progress.add_task("all runs, in passes", total=passes, note="")

    def spend(self, passes: float) -> None:
        """Advances the bar of all runs."""
        if self._all is not None:
            self._progress.advance(self._all, passes)

    def advance(self, name: str, steps: int, row: Row) -> None:
        """Advances the bar of a run to the step of a row."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=steps, completed=row["step"], note="")
        note = f"loss {row['train_loss']:.4f}"
        if row["train_accuracy"] is not None:
            note += f"  train {row['train_accuracy']:.1%}"
        if "test_accuracy" in row:
            note += f"  test {row['test_accuracy']:.2%}"
        self._progress.update(self._tasks[name], completed=row["step"] + 1, note=note)

    def count(self, name: str, done: int, total: int) -> None:
        """Advances the bar of something that is counted, such as points."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note="")
        self._progress.update(self._tasks[name], completed=done)

    def finish(self, name: str) -> None:
        """Completes the bar of a run, even if it ended before its last step."""
        for task in self._progress.tasks:
            if task.id == self._tasks.get(name):
                self._progress.update(task.id, total=task.completed)

    def end(self, name: str, line: str | None, style: str | None = None) -> None:
        """Removes the bar of a run, and prints a line instead if one is given."""
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        if line is not None:
            self.console.print(line, style=style)
