"""From a recipe to what moves the parameters: schedule, transforms, optimizer."""

from __future__ import annotations

import torch
from torch import nn

from noiseless import optim
from noiseless.optim import (
    Transform,
    additive_noise,
    chain,
    clip_norm,
    multiplicative_noise,
    norm_bias,
    optimizer_arguments,
    parse_options,
    schedules,
)
from noiseless.run.recipe import Recipe


def make_schedule(recipe: Recipe) -> schedules.Schedule:
    """The learning rate of a recipe, step by step."""
    lr, warmup, published = recipe.lr, recipe.warmup, recipe.compat == "published"
    assert recipe.horizon is not None
    match recipe.schedule:
        case "cosine":
            return schedules.cosine(lr, warmup, recipe.horizon)
        case "cosine-floor":
            return schedules.cosine(lr, warmup, recipe.horizon, floor=lr / 25)
        case "multi-step":
            return schedules.multi_step(lr, warmup, recipe.steps, published)
        case "exponential":
            return schedules.exponential(lr, warmup, recipe.decay, published)
        case "constant":
            return schedules.constant(lr, warmup)


def make_transform(recipe: Recipe) -> Transform | None:
    """The chain of a recipe's transforms; None where nothing is changed."""
    parts = []
    if recipe.norm_bias:
        parts.append(norm_bias(recipe.norm_bias, recipe.norm_target, recipe.norm_bias_type))
    if recipe.clip is not None:
        parts.append(clip_norm(recipe.clip, recipe.clip_type))
    if recipe.additive_noise:
        parts.append(additive_noise(recipe.additive_noise, recipe.seed))
    if recipe.multiplicative_noise:
        parts.append(multiplicative_noise(recipe.multiplicative_noise, recipe.seed))
    return chain(*parts) if parts else None


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a recipe.

    Args:
        recipe: resolved.
        model: whose parameters it moves.

    Returns:
        The optimizer.

    Raises:
        ValueError: for options that it does not take.
    """
    try:
        options = parse_options(recipe.optimizer_options)
    except ValueError as error:
        raise ValueError(f"--optimizer-options: {error}") from None
    if "lr" in options:
        raise ValueError("--optimizer-options cannot set lr, which follows the schedule: give --lr")
    takes = optimizer_arguments(recipe.optimizer)
    usual = {"momentum": recipe.momentum, "nesterov": recipe.nesterov, "weight_decay": recipe.weight_decay}
    usual = {name: value for name, value in usual.items() if value is not None and name in takes}
    if not usual.get("momentum"):
        usual.pop("nesterov", None)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return optim.make_optimizer(recipe.optimizer, parameters, **({"lr": recipe.lr} | usual | options))
