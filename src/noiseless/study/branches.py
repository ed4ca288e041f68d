"""Runs that begin at a state of another run: the same state to the bit, or with one thing changed.

A branch is a run like any other, in a directory below the one that it begins in, so it is resumed, compared and
analysed by the same commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from noiseless.analysis.connectivity import flip_bit
from noiseless.files import checkpoint, heads
from noiseless.files.checkpoint import State
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.files.parameters import fill
from noiseless.files.parting import compare_records
from noiseless.files.state import refuse_other_parts
from noiseless.objective.workers import Workers
from noiseless.optim import Searched
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags
from noiseless.run import session
from noiseless.run.build import Experiment, build, data_directory
from noiseless.run.session import in_first
from noiseless.run.team import refuse_disagreement
from noiseless.run.train import Diverged, Progress, train

FOLDER = "forks"
"""folder of a run that holds the runs that begin at its states"""
QUIET: dict[str, Any] = {
    "keep_every": None, "sharpness_every": None, "noise_every": None, "layers_every": None, "tensorboard": False,
    "wandb": None,
}  # fmt: skip
"""settings of a branch: what a run records besides its steps is not recorded again"""


@dataclass(frozen=True)
class Flip:
    """One bit of one parameter that is the other one in the changed run."""

    name: str
    """of the parameter"""
    index: tuple[int, ...]
    bit: int
    """from 0, the lowest of the mantissa"""


@dataclass(frozen=True)
class Start:
    """The state of a run at which branches begin."""

    step: int
    """number of steps done"""
    state: State
    """as a checkpoint holds it"""
    source: str
    """name of the file that holds it, or that it is the initial state"""


def start_of(directory: RunDirectory, step: int, base: Experiment) -> Start | None:
    """A run's state after a number of steps, if a checkpoint holds it or it is the initial one.

    Args:
        directory: of the run.
        step: number of steps done.
        base: the run's experiment with its initial state.

    Returns:
        The state; None if the run has no checkpoint of that step.
    """
    state = checkpoint.at(directory.checkpoints, step, refuse_other_parts)
    if state is not None:
        return Start(step, state, f"step-{step:08d}.safetensors")
    if step > 0 or directory.began() > 0 or directory.config().recipe.model.init is not None:
        return None
    initial: State = {
        "model": dict(base.model.state_dict()), "average": None, "optimizer": base.optimizer.state_dict(),
        "transforms": None, "passes": 0.0, "perfect": 0, "questions": {"vectors": {}, "start": None},
    }  # fmt: skip
    return Start(0, initial, "the initial state")


def before(directory: RunDirectory, step: int) -> int:
    """The newest state at or before a step from which a run can be made again.

    Args:
        directory: of the run.
        step: number of steps done.

    Returns:
        Its number of steps.

    Raises:
        ValueError: if there is none.
    """
    config = directory.config()
    steps = [0] if directory.began() == 0 and config.recipe.model.init is None else []
    steps += [other for other in heads.steps(directory.checkpoints) if other <= step]
    if not steps:
        raise ValueError(
            f"{directory.path} has no checkpoint at or before step {step}, and began with parameters of a file: train"
            " with --keep-every N to keep a checkpoint every N steps"
        )
    return max(steps)


def branch_config(config: Config, path: Path) -> Config:
    """The config of a branch: that of its run, with the branch's directory and without further records."""
    settings = replace(config.settings, run_dir=str(path), data_dir=data_directory(config), **QUIET)
    return Config(with_flags(config.recipe, init=None), settings)


def begin(path: Path, experiment: Experiment, start: Start) -> None:
    """Writes a new run whose newest checkpoint is a state, unless the directory holds a run already.

    Args:
        path: of its directory; every worker must call this.
        experiment: its config is that of the branch.
        start: the state.
    """
    workers = experiment.workers
    if workers.exchange(str(int((path / "config.json").exists())))[0] == "1":
        return
    refuse_disagreement(workers, experiment)
    directory = RunDirectory(path)
    source = {"file": start.source, "sha256": checkpoint.digest(start.state["model"]), "step": start.step}
    record = environment(experiment.config, experiment.data_sha256, ["noiseless", "fork"]) | {"imported": source}

    def first() -> None:
        checkpoint.save(directory.checkpoints, start.step, start.state, keep=1)

    with in_first(workers, lambda: directory.created(experiment.config, record, first)):
        pass


def go_on(
    path: Path, workers: Workers, until: int, on_row: Callable[[Experiment, dict[str, Any]], None],
    tell: Callable[[str], None],
) -> RunDirectory:  # fmt: skip
    """Trains a branch from its newest checkpoint until a step, unless it has ended.

    Args:
        path: of its directory; every worker must call this.
        workers: that share the sweeps.
        until: number of steps after which it ends.
        on_row: called with the experiment and each row.
        tell: gets messages for the user.

    Returns:
        The directory of the branch, which has ended.

    Raises:
        ValueError: if the branch diverges.
        Interrupted: if a worker was told to stop.
    """
    directory = RunDirectory.open(path)
    if workers.exchange(str(int(directory.model.exists())))[0] == "0":
        with session.existing(path, workers) as opened:
            if opened.changed:
                tell(opened.changed)
            experiment = opened.experiment
            try:
                train(experiment, directory, Progress(lambda row: on_row(experiment, row), tell), until)
            except Diverged as error:
                raise ValueError(f"{path} cannot be followed to step {until}: {error}; or give fewer --steps") from None
    workers.exchange("")  # the first worker has written the final files
    return directory


def replayed(directory: RunDirectory, step: int, base: Experiment, tell: Callable[[str], None]) -> Start:
    """A state of a run that no checkpoint holds, made again from the one before, and kept.

    Args:
        directory: of the run; every worker must call this.
        step: number of steps done.
        base: the run's experiment with its initial state.
        tell: gets messages for the user.

    Returns:
        The state.

    Raises:
        ValueError: if the steps made again are not those of the run's record, to the bit.
    """
    path = directory.path / FOLDER / f"to-{step}"
    earlier = start_of(directory, before(directory, step), base)
    assert earlier is not None
    begin(path, build(branch_config(base.config, path), base.workers, read_only=True), earlier)
    trunk = go_on(path, base.workers, step, lambda experiment, row: None, tell)
    parted = compare_records(directory, trunk).first
    if parted is not None:
        raise ValueError(
            f"the state after step {step} cannot be made again: step {parted.step} has other numbers here than in"
            f" {directory.metrics} ({', '.join(parted.columns)}). Fork at a step of which the run has a checkpoint"
        )
    state = checkpoint.at(trunk.checkpoints, step, refuse_other_parts)
    if state is None:
        raise ValueError(f"{trunk.path} ended before step {step}: fork at an earlier step")
    return Start(step, state, f"{FOLDER}/to-{step}")


def changed_start(start: Start, base: Experiment, changed: Experiment, flip: Flip | None) -> tuple[Start, list[str]]:
    """The state at which the changed run begins.

    Parameters, buffers and the optimizer's buffers are those of the start. Settings of the optimizer are its own.

    Args:
        start: the state of the other run.
        base: experiment of the other run.
        changed: experiment of the changed run; its model gets the state.
        flip: a bit that is the other one; None: none.

    Returns:
        The state, and a sentence for each part that begins anew.

    Raises:
        ValueError: if the state is not of the changed run's model, or there is no such bit.
    """
    state, notes = dict(start.state), []
    fill(changed.model, state["model"], Path(start.source))
    state["model"] = {name: tensor.clone() for name, tensor in changed.model.state_dict().items()}
    if flip is not None:
        state["model"][flip.name] = flip_bit(_parameter(changed, flip), flip.index, flip.bit)
    optimizer = _optimizer_state(start.state["optimizer"], base.optimizer, changed.optimizer)
    if optimizer is None:
        notes.append("the changed run's optimizer begins anew, as it cannot use the other's state")
        optimizer = changed.optimizer.state_dict()
    state["optimizer"] = optimizer
    names = [experiment.transform.name if experiment.transform else None for experiment in (base, changed)]
    if names[0] != names[1] and state["transforms"]:
        notes.append("the transforms of the changed run begin anew")
        state["transforms"] = None
    return replace(start, state=state), notes


def _parameter(experiment: Experiment, flip: Flip) -> torch.Tensor:
    parameters = dict(experiment.model.named_parameters())
    if flip.name not in parameters:
        raise ValueError(f"--flip-bit: the model has no parameter {flip.name!r}; it has {', '.join(parameters)}")
    return parameters[flip.name]


def _optimizer_state(
    saved: dict[str, Any], base: torch.optim.Optimizer, changed: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """The saved state with those settings in which the two optimizers differ; None if they are of other kinds."""
    kinds = [type(o.base) if isinstance(o, Searched) else type(o) for o in (base, changed)]
    groups = [optimizer.state_dict()["param_groups"] for optimizer in (base, changed)]
    same = kinds[0] is kinds[1] and type(base) is type(changed)
    if not same or [group["params"] for group in groups[0]] != [group["params"] for group in groups[1]]:
        return None
    merged = []
    for then, one, other in zip(saved["param_groups"], *groups, strict=True):
        differ = {key: value for key, value in other.items() if key not in one or one[key] != value}
        merged.append(then | differ)
    return {**saved, "param_groups": merged}
