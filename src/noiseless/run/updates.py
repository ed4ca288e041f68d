"""From a recipe to what moves the parameters: schedule, transforms, optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from noiseless import optim
from noiseless.objective import ParameterSpace
from noiseless.optim import (
    Searched,
    Transform,
    adaptive_clip,
    additive_noise,
    aggregate,
    chain,
    clip_norm,
    larc,
    lars,
    make_line_search,
    multiplicative_noise,
    norm_bias,
    optimizer_arguments,
    parse_options,
    schedules,
)
from noiseless.recipes.recipe import Recipe
from noiseless.run.regimes import part_sizes


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


def make_transform(
    recipe: Recipe, space: ParameterSpace, schedule: schedules.Schedule, images: int
) -> Transform | None:
    """The chain of a recipe's transforms.

    Args:
        recipe: resolved.
        space: of the parameters; transforms of single layers need it.
        schedule: gives LARC the learning rate.
        images: in the training set.

    Returns:
        Aggregate -> norm bias -> agc -> clip -> noise -> layer rate, as far as the recipe has them; None where nothing
        is changed.
    """
    parts = []
    if recipe.parts > 1:
        parts.append(aggregate(part_sizes(images * max(1, recipe.copies), recipe.parts)))
    if recipe.norm_bias:
        parts.append(norm_bias(recipe.norm_bias, recipe.norm_target, recipe.norm_bias_type))
    if recipe.agc is not None:
        parts.append(adaptive_clip(recipe.agc, space))
    if recipe.clip is not None:
        parts.append(clip_norm(recipe.clip, recipe.clip_type))
    if recipe.additive_noise:
        parts.append(additive_noise(recipe.additive_noise, recipe.seed))
    if recipe.multiplicative_noise:
        parts.append(multiplicative_noise(recipe.multiplicative_noise, recipe.seed))
    if recipe.layer_rate != "none":
        takes = "weight_decay" in optimizer_arguments(recipe.optimizer)
        decay = recipe.weight_decay or 0.0 if takes else 0.0
        if recipe.layer_rate == "lars":
            parts.append(lars(recipe.trust, space, decay, recipe.decay_biases))
        else:
            parts.append(larc(recipe.trust, space, schedule, decay, recipe.decay_biases))
    return chain(*parts) if parts else None


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a recipe, with the line search around it where it has one.

    Args:
        recipe: resolved.
        model: whose parameters it moves.

    Returns:
        The optimizer.

    Raises:
        ValueError: for options that it does not take.
    """
    options = _options("--optimizer-options", recipe.optimizer_options)
    if "lr" in options:
        raise ValueError("--optimizer-options cannot set lr, which follows the schedule: give --lr")
    takes = optimizer_arguments(recipe.optimizer)
    usual = {"momentum": recipe.momentum, "nesterov": recipe.nesterov, "weight_decay": recipe.weight_decay}
    if recipe.layer_rate != "none":
        if "weight_decay" in options:
            raise ValueError(f"--layer-rate {recipe.layer_rate} holds the weight decay itself: give --weight-decay")
        usual["weight_decay"] = 0.0
    usual = {name: value for name, value in usual.items() if value is not None and name in takes}
    if not usual.get("momentum"):
        usual.pop("nesterov", None)
    parameters = [p for p in model.parameters() if p.requires_grad]
    members = parameters if recipe.decay_biases or "weight_decay" not in takes else _undecayed(parameters)
    made = optim.make_optimizer(recipe.optimizer, members, **({"lr": recipe.lr} | usual | options))
    search = _options("--line-search-options", recipe.line_search_options)
    if recipe.line_search == "none":
        if search:
            raise ValueError("--line-search-options belong to a --line-search: armijo, wolfe, ...")
        return made
    return Searched(made, make_line_search(recipe.line_search, **search))


def _undecayed(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups in which biases and the parameters of normalisations, of fewer than two dimensions, do not decay."""
    small = [p for p in parameters if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if p.ndim >= 2]}]
    groups.append({"params": small, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _options(flag: str, text: str) -> dict[str, Any]:
    try:
        return parse_options(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
