"""Reads the state of a run at one of its steps from its files, without building a model. No file is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from noiseless.files import checkpoint, heads
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.files.state import refuse_other_parts
from noiseless.optim.transforms import State


@dataclass(frozen=True)
class StateFile:
    """The content of the files that hold one state of a run."""

    step: int
    """steps done"""
    model: dict[str, Tensor] | None
    """parameters and buffers; None: the initial ones, which follow from the run's config"""
    optimizer: dict[str, object] | None
    """the optimizer's state; None where no checkpoint holds it"""
    file: Path
    """the file that holds the model"""
    transforms: State | None = None
    """the transforms' state; None where no checkpoint holds it"""


def read_state(address: StateAddress) -> StateFile:
    """Reads a state from a run's files, without building a model.

    Args:
        address: which run, and which of its states.

    Returns:
        The state.

    Raises:
        ValueError: if the run has no such state, or the state is damaged.
    """
    directory, step = address.directory, address.step
    ended = directory.end()
    end = ended.step if ended else None
    if step is None:
        step = end if end is not None else _newest(directory)
    file = directory.checkpoints / f"step-{step:08d}.safetensors"
    try:
        state = checkpoint.at(directory.checkpoints, step, refuse_other_parts)
    except ValueError:
        if step != end:
            raise
        state = None  # the final parameters are also in `directory.model`
    if state is not None:
        return StateFile(step, state["model"], state["optimizer"], file, state["transforms"])
    if step == end:
        return StateFile(step, directory.state(), None, directory.model)
    if not (wanted := StateAddress(directory, step)).follows:
        raise wanted.missing()
    return StateFile(0, None, None, file)


def checkpoint_steps(directory: RunDirectory) -> list[int]:
    """The steps of a run's checkpoints, in ascending order."""
    return heads.steps(directory.checkpoints)


def _newest(directory: RunDirectory) -> int:
    newest = directory.newest()
    if newest is None:
        raise ValueError(f"{directory.path} has no checkpoint yet, so it has no state")
    directory.tell(newest)
    return newest.step
