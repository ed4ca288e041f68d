"""A step that is under way: its updates that are done, in `within/`, so that a resume goes on after them.

A checkpoint is the state between two steps. A step of many updates (mini-batches, or parts) may take hours, so a run
that is stopped in it, or takes longer than from one checkpoint to the next, writes its state between two updates, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from noiseless.files import checkpoint
from noiseless.files.checkpoint import State
from noiseless.files.directory import RunDirectory
from noiseless.files.state import refuse_other_parts
from noiseless.optim.searched import Outcome
from noiseless.plain import typed
from noiseless.run.record import DoneUpdate

FOLDER = "within"


@dataclass(frozen=True)
class Within:
    """The state of a run within a step."""

    step: int
    """number of the step, and of the steps before it"""
    done: list[DoneUpdate]
    """updates of the step that are done, at least one"""
    state: State
    """as a checkpoint has it, with the further state of the step"""


def save(directory: RunDirectory, step: int, done: Sequence[DoneUpdate], state: State) -> None:
    """Writes the state after some updates of a step, over an older one.

    Args:
        directory: of the run.
        step: number of the step.
        done: its updates that are done.
        state: as of a checkpoint, with the further state of the step.
    """
    place = directory.path / FOLDER
    place.mkdir(exist_ok=True)
    checkpoint.save(place, step, state | {"done": [asdict(update) for update in done]}, keep=1)


def read(directory: RunDirectory) -> Within | None:
    """The newest state within a step.

    Returns:
        The state; None if there is none, or if it is damaged.
    """
    try:
        newest = checkpoint.newest(directory.path / FOLDER, _refuse_other_parts)
    except ValueError:
        return None
    return Within(newest.step, _done(newest.state), newest.state) if newest else None


def _refuse_other_parts(state: State) -> None:
    """Raises unless a state has the parts that `save` writes."""
    refuse_other_parts(state)
    before = state["before"]
    if not (before is None or isinstance(before, Tensor)) or not _done(state):
        raise ValueError("it does not hold updates that are done")


def _done(state: State) -> list[DoneUpdate]:
    """The updates that are done, in a state within a step."""
    done = typed(tuple[DoneUpdate, ...], state["done"], "done")
    for update in done:
        if update.search is not None:
            typed(Outcome, update.search, "search")
    return list(done)


def clear(directory: RunDirectory) -> None:
    """Removes the state, once a checkpoint is newer."""
    shutil.rmtree(directory.path / FOLDER, ignore_errors=True)
