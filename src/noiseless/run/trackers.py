"""Trackers that get the rows of a run in addition to its record: TensorBoard, Weights & Biases. Each is an extra.

Their packages are passed as arguments; none is imported here.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from noiseless.files.atomic import write_json
from noiseless.files.directory import Row, RunDirectory
from noiseless.plain import parse, read_file
from noiseless.recipes.config import Config

Numbers = dict[str, float]
"""a row without nested values: `step` and other finite numbers, by name"""


class Tracker(Protocol):
    """A tool that shows the rows of runs.

    A resumed run calls `begin` again, and the tracker continues the same series. Rows that are computed again after a
    resume do not appear twice.
    """

    name: str
    """name of its flag and of its extra"""

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Begins or continues the series of a run; returns the first step that the series lacks."""

    def log(self, row: Numbers) -> None:
        """Writes one row."""

    def end(self) -> None:
        """Writes what is still pending, and closes the series."""

    def where(self) -> str:
        """Tells a user where to look at the series."""


def flat(row: Row) -> Numbers:
    """The finite numbers of a row, nested ones by their path: `layers/conv.weight/norm`, `eigenvalues/0`."""
    numbers: Numbers = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{name}/{key}", part)
        elif isinstance(value, (list, tuple)):
            for index, part in enumerate(value):
                add(f"{name}/{index}", part)
        elif isinstance(value, (int, float)) and math.isfinite(value):
            numbers[name] = value

    for key, value in row.items():
        add(key, value)
    return numbers


class TensorBoard:
    """Event files in the run's directory, in `tensorboard/`.

    Rows that are computed again after a resume replace the old ones: events are purged from the first such step on.

    Args:
        module: `torch.utils.tensorboard`.
    """

    name = "tensorboard"

    def __init__(self, module: ModuleType):
        self._module = module
        self._writer: Any = None

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Makes the directory; the writer is made with the first row, because it needs the row's step."""
        self._config, self._run = config, directory.path
        self._directory = directory.path / "tensorboard"
        self._directory.mkdir(exist_ok=True)
        self._has_events = any(self._directory.glob("events.out.tfevents.*"))
        # all rows of the record have events, because a row's events are written before the next checkpoint
        rows = directory.rows() if self._has_events else []
        return rows[-1]["step"] + 1 if rows else 0

    def log(self, row: Numbers) -> None:
        """Writes a scalar for each number and flushes, so that a killed run loses none."""
        step = int(row["step"])
        if self._writer is None:
            purge_step = step if self._has_events else None
            self._writer = self._module.SummaryWriter(str(self._directory), purge_step=purge_step)
            text = json.dumps(self._config.as_json(), indent=4)
            self._writer.add_text("config", "    " + text.replace("\n", "\n    "), step)
        for name, value in _values(row).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()

    def where(self) -> str:
        """The command that shows the series."""
        return f"tensorboard --logdir {self._run}"


class WandB:
    """A run of Weights & Biases, online or (WANDB_MODE=offline) in the run's directory, in `wandb/`.

    Its id is kept in `wandb.json`, so that a resumed run continues the same one. Rows that the server has are not sent
    again: they would have the same bits. What an offline part holds is not known (a killed one loses its end), so it is
    removed, and a new one gets all rows.

    Args:
        module: `wandb`.
        project: to which the run belongs.
    """

    name = "wandb"

    def __init__(self, module: ModuleType, project: str):
        self._module, self._project = module, project
        self._run: Any = None

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Begins the run, or continues the one of this directory."""
        if (settings := directory.path / "wandb" / "settings").exists():  # it could name another server
            raise ValueError(f"{settings} would change where Weights & Biases sends the run: remove it")
        run_id = _run_id(directory.path / "wandb.json", self._project, secrets.token_hex(4))
        for part in (directory.path / "wandb").glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(part)
        self._run = self._module.init(
            project=self._project,
            id=run_id,
            name=directory.path.name,
            dir=str(directory.path),
            config=config.as_json(),
            resume="allow",
            settings=self._module.Settings(console="off", silent=True),
        )
        self._first_step: int = self._run.step
        return self._first_step

    def log(self, row: Numbers) -> None:
        """Sends a row, unless the server has it."""
        if row["step"] >= self._first_step:
            self._run.log(_values(row), step=int(row["step"]))

    def end(self) -> None:
        """Waits until everything is sent or written."""
        self._run.finish()

    def where(self) -> str:
        """The run's page; offline, the command that sends the run to the server."""
        return f"wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)


def _values(row: Numbers) -> Numbers:
    """A row without its step, which trackers get as a separate argument."""
    return {name: value for name, value in row.items() if name != "step"}


def _run_id(path: Path, project: str, new: str) -> str:
    """The id of a run in a tracker, from the file at `path`; without one for this project, writes `new` to it."""
    try:
        record = parse(read_file(path))
        # a name with a path in it would choose directories to remove
        if record["project"] == project and re.fullmatch(r"[\w-]{1,128}", record["name"]):
            return str(record["name"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    write_json(path, {"project": project, "name": new})
    return new
