"""Feeds the rows of a run to its trackers, after they were written to its record.

`metrics.jsonl` is the record and is always written; a tracker changes nothing in what is computed. A tracker that fails
during the run is left out from then on, with a message of one line, and the run goes on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import Self

from noiseless import trust
from noiseless.errors import command
from noiseless.files.directory import Row, RunDirectory
from noiseless.recipes.config import Config, Settings
from noiseless.run.trackers import TensorBoard, Tracker, WandB, flat


def chosen(settings: Settings) -> list[Tracker]:
    """The trackers that settings ask for. Their packages are imported, so that a missing one is an error at once.

    Args:
        settings: of a run.

    Returns:
        The trackers, not begun yet.

    Raises:
        ValueError: if a project has no name, or if a package is not installed or cannot be imported.
    """
    if settings.wandb is not None and not settings.wandb.strip():
        raise ValueError(f"--wandb needs the name of a project, not {settings.wandb!r}")
    trackers: list[Tracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoard(imported("tensorboard", "torch.utils.tensorboard")))
    if settings.wandb is not None:
        trackers.append(WandB(imported("wandb", "wandb"), settings.wandb))
    return trackers


def imported(extra: str, module: str) -> ModuleType:
    """The module that a tracker uses.

    Args:
        extra: of this package, which installs the module.
        module: name of the module.

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
    """Feeds the trackers of one run; use it as a context.

    Args:
        trackers: to feed; may be empty.
        config: of the run.
        directory: of the run.
        tell: gets a message for the user if a tracker fails.
    """

    def __init__(
        self, trackers: Sequence[Tracker], config: Config, directory: RunDirectory, tell: Callable[[str], None]
    ):
        self._waiting, self._config, self._directory, self._tell = list(trackers), config, directory, tell
        self._fed: list[Tracker] = []
        self._lacking: dict[str, int] = {}  # tracker -> first step that it lacks; empty after the first row

    def __enter__(self) -> Self:
        """Begins all of them.

        Returns:
            Itself.

        Raises:
            ValueError: if a tracker cannot begin; no step has been done then.
        """
        for tracker in self._waiting:
            try:
                self._lacking[tracker.name] = tracker.begin(self._config, self._directory)
            except Exception as error:
                self._end()
                again = command("resume", self._directory.path, *trust.flags())
                raise ValueError(
                    f"--{tracker.name} cannot begin ({_line(error)}): mend it and go on with {again}, or without"
                    f" trackers: {again} --untracked"
                ) from None
            self._fed.append(tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def where(self) -> list[str]:
        """A line for each tracker that tells a user where to look."""
        return [f"{tracker.name}: {tracker.where()}" for tracker in self._fed]

    def log(self, row: Row) -> None:
        """Feeds a row to all trackers; at the first call also the earlier rows of the record that a tracker lacks."""
        earlier = [r for r in self._directory.rows() if r["step"] < row["step"]] if self._lacking else []
        lacking, self._lacking = self._lacking, {}
        for tracker in list(self._fed):
            for earlier_row in earlier:
                if earlier_row["step"] >= lacking[tracker.name]:
                    self._feed(tracker, earlier_row)
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
                self._tell(f"{tracker.name} could not end: {_line(error)}. The run's own record is complete")


def _line(error: Exception) -> str:
    """An error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
