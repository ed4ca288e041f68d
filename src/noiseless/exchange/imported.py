"""A published checkpoint becomes a run: the objects of a recipe, moved to where it stands, and written down.

What `train` finds afterwards is a checkpoint like one of its own, so that it goes on, and `evaluate` and all analyses
read it, without knowing where it is from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from noiseless.files.directory import RunDirectory, environment
from noiseless.files.parameters import fill
from noiseless.files.published import Published
from noiseless.files.untrusted import sha256_of
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, build
from noiseless.run.train import begin_at

SETTINGS = ("momentum", "weight_decay", "nesterov", "dampening")
"""of SGD, in which checkpoint and recipe should agree"""


@dataclass(frozen=True)
class Imported:
    """A run made of a published checkpoint."""

    experiment: Experiment
    directory: RunDirectory
    ended: bool
    """whether the recipe has no step left"""
    notes: list[str]
    """where checkpoint and recipe do not agree"""


def import_run(published: Published, config: Config, path: Path, command: list[str]) -> Imported:
    """Makes a run whose newest checkpoint is a published one.

    Args:
        published: the checkpoint.
        config: as the user gave it; its recipe says what the run would go on with.
        path: of the run's directory.
        command: for the record.

    Returns:
        The run. Where the recipe has no more steps than the checkpoint, it has ended.

    Raises:
        ValueError: if data or model do not fit, or the directory is taken; then nothing is written.
    """
    if config.recipe.model.init is not None:
        raise ValueError("--init has no place here: the parameters are the checkpoint's")
    experiment = build(replace(config, settings=replace(config.settings, run_dir=str(path.resolve()))))
    fill(experiment.model, published.model, published.path)
    _give_momentum(published, experiment.model, experiment.optimizer)
    directory, step = RunDirectory(path), published.step
    ended = step >= experiment.config.recipe.schedule.steps

    def first() -> None:
        begin_at(experiment, directory, step)
        if ended:
            directory.finish(experiment.model.state_dict())

    record = environment(experiment.config, experiment.data_sha256, command)
    source = {"file": published.path.name, "sha256": sha256_of(published.path), "step": step}
    with directory.created(experiment.config, record | {"imported": source}, first):
        return Imported(experiment, directory, ended, _notes(published, experiment))


def _give_momentum(published: Published, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gives the optimizer each parameter's momentum: the file numbers parameters in the order of its model state."""
    if not published.momentum:
        return
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"{published.path} holds the momentum of SGD, with which {type(optimizer).__name__} cannot go on: use"
            " --optimizer SGD, or take its parameters alone with noiseless train --init"
        )
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = [name for name in published.model if name in learned]
    for number, buffer in published.momentum.items():
        name = names[number] if number < len(names) else f"parameter {number}"
        shape = list(learned[name].shape) if name in learned else "none"
        if list(buffer.shape) != shape:
            raise ValueError(f"{published.path}: the momentum of {name} has shape {list(buffer.shape)}, not {shape}")
        p = learned[name]
        optimizer.state[p]["momentum_buffer"] = buffer.to(device=p.device, dtype=p.dtype, copy=True)


def _notes(published: Published, experiment: Experiment) -> list[str]:
    notes = []
    (group, *_), there = experiment.optimizer.param_groups, published.settings
    for name in SETTINGS:
        if name in there and name in group and there[name] != group[name]:
            notes.append(f"{name} is {there[name]} in the checkpoint, {group[name]} in the recipe")
    step, rate, steps = published.step, there.get("lr"), experiment.config.recipe.schedule.steps
    if step > steps:
        notes.append(f"the checkpoint has {step} steps, the recipe only {steps}: there is nothing to go on with")
    if isinstance(rate, float) and step < steps:
        # the published code saves behind its scheduler's step: the file holds the rate of the step to come
        coming = experiment.schedule(step)
        if not math.isclose(rate, coming, rel_tol=1e-6):
            notes.append(f"the learning rate at step {step} is {rate:g} in the checkpoint, {coming:g} in the recipe")
    return notes
