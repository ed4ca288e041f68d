"""The trackers of a run, fed together, by rows that are in its own record already.

`metrics.jsonl` is the record and is always written; a tracker changes nothing of what is computed. One that fails in
mid-run is left out with one line, and the run goes on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Self

from noiseless.files.directory import Row, RunDirectory
from noiseless.recipes.config import Config, Settings
from noiseless.run.trackers import TensorBoard, Tracker, WandB, flat


def chosen(settings: Settings) -> list[Tracker]:
    """The trackers that settings ask for; their packages are imported, so that what is missing is told at once.

    Args:
        settings: of a run.

    Returns:
        They, not begun.

    Raises:
        ValueError: if a project has no name, or a package is not installed or cannot be imported.
    """
    if settings.wandb is not None and not settings.wandb.strip():
        raise ValueError(f"--wandb needs the name of a project, not {settings.wandb!r}")
    made: list[Tracker] = []
    if settings.tensorboard:
        made.append(TensorBoard(imported("tensorboard", "torch.utils.tensorboard")))
    if settings.wandb is not None:
        made.append(WandB(imported("wandb", "wandb"), settings.wandb))
    return made


def imported(extra: str, module: str) -> ModuleType:
    """The module by which a tracker is fed.

    Args:
        extra: of this package, which brings it.
        module: its name.

    Returns:
        The module.

    Raises:
        ValueError: if it cannot be imported, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package raises what it likes
        raise ValueError(
            f"--{extra} needs a package that cannot be imported here ({_line(error)}):"
            f' pip install "noiseless[{extra}]", or leave it out (noiseless resume has --untracked for that)'
        ) from None


class Tracking:
    """The trackers of one run, fed together; use it as a context.

    Args:
        trackers: what is fed; none: nothing happens.
        config: of the run.
        directory: of the run.
        tell: gets what a user should know of one that has failed.
    """

    def __init__(
        self, trackers: Sequence[Tracker], config: Config, directory: RunDirectory, tell: Callable[[str], None]
    ):
        self._waiting, self._config, self._directory, self._tell = list(trackers), config, directory, tell
        self._fed: list[Tracker] = []
        self._lacking: dict[str, int] = {}  # first step that is not there, until the first row comes

    def __enter__(self) -> Self:
        """Begins all of them.

        Returns:
            This.

        Raises:
            ValueError: if one cannot begin; no step has been done.
        """
        for tracker in self._waiting:
            try:
                self._lacking[tracker.name] = tracker.begin(self._config, self._directory)
            except Exception as error:
                self._end()
                path = self._directory.path
                raise ValueError(
                    f"--{tracker.name} cannot begin ({_line(error)}): mend it and go on with noiseless resume {path},"
                    f" or without trackers: noiseless resume {path} --untracked"
                ) from None
            self._fed.append(tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def where(self) -> list[str]:
        """A line for each tracker that is fed: how a user gets to see it."""
        return [f"{tracker.name}: {tracker.where()}" for tracker in self._fed]

    def log(self, row: Row) -> None:
        """Hands a row to all trackers, after those of the record before it that they lack."""
        before = [each for each in self._directory.rows() if each["step"] < row["step"]] if self._lacking else []
        lacking, self._lacking = self._lacking, {}
        for tracker in list(self._fed):
            for each in before:
                if each["step"] >= lacking[tracker.name]:
                    self._feed(tracker, each)
            self._feed(tracker, row)

    def _feed(self, tracker: Tracker, row: Row) -> None:
        if tracker not in self._fed:
            return
        try:
            tracker.log(flat(row))
        except Exception as error:
            self._fed.remove(tracker)
            self._tell(f"{tracker.name} is left out from step {row['step']} on: {_line(error)}. The run goes on")

    def _end(self) -> None:
        while self._fed:
            tracker = self._fed.pop()
            try:
                tracker.end()
            except Exception as error:
                self._tell(f"{tracker.name} could not end: {_line(error)}. The run's own record is whole")


def _line(error: Exception) -> str:
    """An error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
