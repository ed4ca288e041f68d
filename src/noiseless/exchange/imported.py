"""Makes a run from a published checkpoint: model and optimizer of a recipe get its state and are written as a run.

The checkpoint of that run is like any other, so `train` can go on from it, and `evaluate` and all analyses can read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.files.parameters import fill
from noiseless.files.published import Published
from noiseless.files.untrusted import sha256_of
from noiseless.plain import real
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, build
from noiseless.run.train import begin_at

SETTINGS = ("momentum", "weight_decay", "nesterov", "dampening")
"""settings of SGD in which checkpoint and recipe should agree"""


@dataclass(frozen=True)
class Imported:
    """A run made from a published checkpoint."""

    experiment: Experiment
    directory: RunDirectory
    ended: bool
    """whether the recipe has no steps left"""
    notes: list[str]
    """differences between checkpoint and recipe, a sentence each"""


def import_run(published: Published, config: Config, path: Path, command: list[str]) -> Imported:
    """Makes a run whose newest checkpoint is a published one.

    Args:
        published: the checkpoint.
        config: as the user gave it; the run goes on with its recipe.
        path: of the run's directory.
        command: command line, for the record.

    Returns:
        The run, which has ended if the recipe has no more steps than the checkpoint.

    Raises:
        ValueError: if data or model do not fit, or if the directory is not empty; then nothing is written.
    """
    if config.recipe.model.init is not None:
        raise ValueError("--init cannot be used here: the parameters come from the checkpoint")
    experiment = build(replace(config, settings=replace(config.settings, run_dir=str(real(path)))))
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
    """Sets the optimizer's momentum buffers; the file numbers parameters in the order of its model state."""
    if not published.momentum:
        return
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"{published.path} holds the momentum of SGD, which {type(optimizer).__name__} cannot use: give"
            " --optimizer SGD, or use only its parameters with noiseless train --init"
        )
    learned = dict(model.named_parameters())
    names = [name for name in published.model if name in learned]
    for number, buffer in published.momentum.items():
        name = names[number] if number < len(names) else f"parameter {number}"
        if name in learned and not learned[name].requires_grad:
            continue  # it is frozen
        shape = list(learned[name].shape) if name in learned else "none"
        if list(buffer.shape) != shape:
            raise ValueError(f"{published.path}: the momentum of {name} has shape {list(buffer.shape)}, not {shape}")
        p = learned[name]
        optimizer.state[p]["momentum_buffer"] = buffer.to(device=p.device, dtype=p.dtype, copy=True)


def _notes(published: Published, experiment: Experiment) -> list[str]:
    """The differences between checkpoint and recipe, a sentence each."""
    notes = []
    (group, *_), settings = experiment.optimizer.param_groups, published.settings
    for name in SETTINGS:
        if name in settings and name in group and settings[name] != group[name]:
            notes.append(f"{name} is {settings[name]} in the checkpoint, {group[name]} in the recipe")
    step, rate, steps = published.step, settings.get("lr"), experiment.config.recipe.schedule.steps
    if step > steps:
        notes.append(f"the checkpoint has {step} steps, the recipe only {steps}: no step is left")
    if isinstance(rate, float) and step < steps:
        # the published code saves after its scheduler's step, so the file holds the rate of the next step
        next_rate = experiment.schedule(step)
        if not math.isclose(rate, next_rate, rel_tol=1e-6):
            notes.append(f"the learning rate at step {step} is {rate:g} in the checkpoint, {next_rate:g} in the recipe")
    return notes
