"""Trackers that a run can feed beside its own record: TensorBoard, Weights & Biases, Trackio. Each is an extra.

Their packages are handed in as modules: nothing of them is imported here.
"""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from noiseless.run.atomic import write_json
from noiseless.run.config import Config
from noiseless.run.directory import Row, RunDirectory

Numbers = dict[str, float]
"""a flat row: `step`, and finite numbers by name"""


class Tracker(Protocol):
    """Something that shows the rows of runs elsewhere.

    A run that was resumed begins it once more. It then has the rows before already; those that it gets again, as they
    were computed again, must not be in it twice.
    """

    name: str
    """as its flag and its extra are called"""

    def begin(self, config: Config, directory: RunDirectory) -> bool:
        """Begins or goes on with the series of a run; says whether it holds earlier rows of it."""

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

    def begin(self, config: Config, directory: RunDirectory) -> bool:
        """Makes the place; the writer waits for the first row, whose step it must know."""
        self._config, self._run = config, directory.path
        self._place = directory.path / "tensorboard"
        self._place.mkdir(exist_ok=True)
        self._begun = any(self._place.glob("events.out.tfevents.*"))
        return self._begun

    def log(self, row: Numbers) -> None:
        """Writes a scalar for each number, to the disk at once: a run that is killed has lost none."""
        step = int(row["step"])
        if self._writer is None:
            self._writer = self._module.SummaryWriter(str(self._place), purge_step=step if self._begun else None)
            text = json.dumps(self._config.as_json(), indent=4)
            self._writer.add_text("config", "    " + text.replace("\n", "\n    "), step)
        for name, value in row.items():
            if name != "step":
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

    Its id is kept in `wandb.json`, by which a resumed run goes on with the same one. Rows that it has are not sent
    again: they would have the same bits.

    Args:
        module: `wandb`.
        project: to which the run belongs.
    """

    name = "wandb"

    def __init__(self, module: ModuleType, project: str):
        self._module, self._project = module, project
        self._run: Any = None

    def begin(self, config: Config, directory: RunDirectory) -> bool:
        """Begins the run, or goes on with the one of this directory."""
        kept = directory.path / "wandb.json"
        known = _known(kept)
        if known.get("project") != self._project or not isinstance(known.get("id"), str):
            known = {"project": self._project, "id": secrets.token_hex(4)}
            write_json(kept, known)
        offline = any((directory.path / "wandb").glob(f"offline-run-*-{known['id']}/*.wandb"))
        self._run = self._module.init(
            project=self._project,
            id=known["id"],
            name=directory.path.name,
            dir=str(directory.path),
            config=config.as_json(),
            resume="allow",
            settings=self._module.Settings(console="off", silent=True),
        )
        # what an offline run holds it cannot say itself: all rows of the record, which is written before it
        held = directory.rows() if offline and self._run.offline else []
        self._next = held[-1]["step"] + 1 if held else self._run.step
        return bool(self._next)

    def log(self, row: Numbers) -> None:
        """Sends a row that it does not have."""
        step = int(row["step"])
        if step >= self._next:
            self._run.log(row, step=step)

    def end(self) -> None:
        """Waits until everything is sent, or written."""
        self._run.finish()

    def where(self) -> str:
        """Its page, or the command that sends it there."""
        return self._run.url or f"wandb sync {Path(self._run.dir).parent}"


class Trackio:
    """A run of Trackio, kept where Trackio keeps its projects (TRACKIO_DIR).

    Args:
        module: `trackio`.
        project: to which the run belongs.
    """

    name = "trackio"


def _known(path: Path) -> dict[str, Any]:
    """What a small JSON file holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
