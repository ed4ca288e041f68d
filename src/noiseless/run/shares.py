"""The shares of an update: of the loss' gradient, of the penalty's, of weight decay. Step 7 of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.stability import inverse_root
from noiseless.optim import Searched, entry_of
from noiseless.run.build import Training
from noiseless.run.replay import FirstUpdate


@dataclass(frozen=True)
class Shares:
    """An update as a sum: `-B g` of the loss' gradient g, further parts, and the rest: the optimizer's memory."""

    applied: Tensor
    """diagonal of B, `[P]`"""
    parts: dict[str, Tensor]
    """penalty and decay, `[P]` each, where the run has them"""


def shares_of(experiment: Training, update: FirstUpdate, gradient: Tensor) -> Shares | None:
    """The shares of an update.

    With the newest gradient's weight w in the optimizer's mean (1 for gradient descent, `1 + m` for Nesterov, `1 - d`
    with dampening, `1 - b1` for Adam), its diagonal D, the factors F of the transforms and their decay W_t, the
    optimizer's coupled decay w_c and decoupled decay w_d:

        B = lr w F / D,    penalty = -B (g_objective - g),
        decay = -B W_t theta - (lr w / D) w_c theta - lr w_d theta.

    Adam's correction of its first steps, the momentum of earlier gradients and added noise are the rest.

    Args:
        experiment: of the run, its optimizer with the rate of the update, and its state after it.
        update: the update.
        gradient: g, of the loss where it began.

    Returns:
        The shares; None for an optimizer whose steps are no such sum, and for an update that does not follow the
        gradient of the objective over all examples.
    """
    recipe, optimizer, space = experiment.config.recipe, experiment.optimizer, experiment.space
    entry = entry_of(optimizer)
    unlike = recipe.objective.sam or recipe.transforms.block_clip is not None or isinstance(optimizer, Searched)
    if entry.recursion is None or unlike or update.updates > 1:
        return None
    if experiment.transform is not None and update.linear is None:
        return None
    newest, coupled, decoupled = torch.zeros(3, len(space), dtype=gradient.dtype, device=gradient.device).unbind()
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    at = 0
    for p, size in zip(space.parameters, space.sizes, strict=True):
        part, group = slice(at, at + size), groups.get(p)
        at += size
        if group is None:
            continue
        recursion = entry.recursion(group)
        newest[part] = recursion.lr * (1 + recursion.momentum if recursion.nesterov else recursion.gain)
        coupled[part] = float(group["weight_decay"]) if entry.couples_decay(group) else 0.0
        decoupled[part] = recursion.lr * recursion.decoupled
    if entry.diagonal is not None:
        newest = newest * inverse_root(entry, optimizer, space).square()
    linear = update.linear
    applied = newest if linear is None else newest * linear.factor
    decay = newest * coupled + decoupled + (0.0 if linear is None else applied * linear.decay)
    parts = {}
    if recipe.objective.penalised:
        parts["penalty"] = -applied * (update.step.evaluation.gradient - gradient)
    if decay.any():
        parts["decay"] = -decay * update.before
    return Shares(applied, parts)
