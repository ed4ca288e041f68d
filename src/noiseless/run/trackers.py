"""Trackers that a run can feed beside its own record: TensorBoard, Weights & Biases. Each is an extra.

Their packages are handed in as modules: nothing of them is imported here.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from noiseless.files.atomic import write_json
from noiseless.files.directory import Row, RunDirectory
from noiseless.recipes.config import Config

Numbers = dict[str, float]
"""a flat row: `step`, and finite numbers by name"""


class Tracker(Protocol):
    """Something that shows the rows of runs elsewhere.

    A run that was resumed begins it once more, and it goes on with the same series: rows that it gets again, as they
    were computed again, are not in it twice.
    """

    name: str
    """as its flag and its extra are called"""

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Begins or goes on with the series of a run; gives the first step that it does not hold."""

    def log(self, row: Numbers) -> None:
        """Takes one row."""

    def end(self) -> None:
        """Writes what is not yet written, and lets go."""

    def where(self) -> str:
        """How a user gets to see it."""


def flat(row: Row) -> Numbers:
    """The finite numbers of a row, nested ones by their path: `layers/conv.weight/norm`, `eigenvalues/0`."""
    found: Numbers = {}

    def take(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                take(f"{name}/{key}", part)
        elif isinstance(value, (list, tuple)):
            for place, part in enumerate(value):
                take(f"{name}/{place}", part)
        elif isinstance(value, (int, float)) and math.isfinite(value):
            found[name] = value

    for key, value in row.items():
        take(key, value)
    return found


class TensorBoard:
    """Event files in the run's directory, in `tensorboard/`.

    Rows that are computed again after a resume take the place of those that were there (a purge from their step on).

    Args:
        module: `torch.utils.tensorboard`.
    """

    name = "tensorboard"

    def __init__(self, module: ModuleType):
        self._module = module
        self._writer: Any = None

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Makes the place; the writer waits for the first row, whose step it must know."""
        self._config, self._run = config, directory.path
        self._place = directory.path / "tensorboard"
        self._place.mkdir(exist_ok=True)
        self._begun = any(self._place.glob("events.out.tfevents.*"))
        rows = directory.rows() if self._begun else []  # each is here before its checkpoint is written
        return rows[-1]["step"] + 1 if rows else 0

    def log(self, row: Numbers) -> None:
        """Writes a scalar for each number, to the disk at once: a run that is killed has lost none."""
        step = int(row["step"])
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._place), purge_step=step if self._begun else None)
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
        """The command that shows it."""
        return f"tensorboard --logdir {self._run}"


class WandB:
    """A run of Weights & Biases, online or (WANDB_MODE=offline) in the run's directory, in `wandb/`.

    Its id is kept in `wandb.json`, by which a resumed run goes on with the same one. The server is not sent again what
    it has: it would have the same bits. What an offline part has is not known (one that is killed loses its end), so a
    new one takes its place, with all rows.

    Args:
        module: `wandb`.
        project: to which the run belongs.
    """

    name = "wandb"

    def __init__(self, module: ModuleType, project: str):
        self._module, self._project = module, project
        self._run: Any = None

    def begin(self, config: Config, directory: RunDirectory) -> int:
        """Begins the run, or goes on with the one of this directory."""
        name = _name(directory.path / "wandb.json", self._project, secrets.token_hex(4))
        for part in (directory.path / "wandb").glob(f"offline-run-*-{name}"):
            shutil.rmtree(part)
        self._run = self._module.init(
            project=self._project,
            id=name,
            name=directory.path.name,
            dir=str(directory.path),
            config=config.as_json(),
            resume="allow",
            settings=self._module.Settings(console="off", silent=True),
        )
        self._lacks: int = self._run.step
        return self._lacks

    def log(self, row: Numbers) -> None:
        """Sends a row that it does not have."""
        if row["step"] >= self._lacks:
            self._run.log(_values(row), step=int(row["step"]))

    def end(self) -> None:
        """Waits until everything is sent, or written."""
        self._run.finish()

    def where(self) -> str:
        """Its page, or the command that sends it there."""
        return f"wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)


def _values(row: Numbers) -> Numbers:
    """A row without its step, which trackers have beside the values."""
    return {name: value for name, value in row.items() if name != "step"}


def _name(path: Path, project: str, fresh: str) -> str:
    """The name by which a tracker knows a run, kept in its directory: the old one, or a new one in another project."""
    try:
        found = json.loads(path.read_text())
        if found["project"] == project and isinstance(found["name"], str):
            return found["name"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    write_json(path, {"project": project, "name": fresh})
    return fresh
