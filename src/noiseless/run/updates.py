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
    schedule = recipe.schedule
    lr, warmup, published = recipe.optimizer.lr, schedule.warmup, recipe.compat == "published"
    assert schedule.horizon is not None
    match schedule.name:
        case "cosine":
            return schedules.cosine(lr, warmup, schedule.horizon)
        case "cosine-floor":
            return schedules.cosine(lr, warmup, schedule.horizon, floor=lr / 25)
        case "multi-step":
            return schedules.multi_step(lr, warmup, schedule.steps, published)
        case "exponential":
            return schedules.exponential(lr, warmup, schedule.decay, published)
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
    chosen, optimizer, parts = recipe.transforms, recipe.optimizer, recipe.objective.parts
    links: list[Transform] = []
    if parts > 1:
        links.append(aggregate(part_sizes(images * max(1, recipe.data.copies), parts)))
    if chosen.norm_bias:
        links.append(norm_bias(chosen.norm_bias, chosen.norm_target, chosen.norm_bias_type))
    if chosen.agc is not None:
        links.append(adaptive_clip(chosen.agc, space))
    if chosen.clip is not None:
        links.append(clip_norm(chosen.clip, chosen.clip_type))
    if chosen.additive_noise:
        links.append(additive_noise(chosen.additive_noise, recipe.seed))
    if chosen.multiplicative_noise:
        links.append(multiplicative_noise(chosen.multiplicative_noise, recipe.seed))
    if chosen.layer_rate != "none":
        takes = "weight_decay" in optimizer_arguments(optimizer.name)
        decay = optimizer.weight_decay or 0.0 if takes else 0.0
        if chosen.layer_rate == "lars":
            links.append(lars(chosen.trust, space, decay, optimizer.decay_biases))
        else:
            links.append(larc(chosen.trust, space, schedule, decay, optimizer.decay_biases))
    return chain(*links) if links else None


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
    chosen, layer_rate = recipe.optimizer, recipe.transforms.layer_rate
    options = _options("--optimizer-options", chosen.options)
    if "lr" in options:
        raise ValueError("--optimizer-options cannot set lr, which follows the schedule: give --lr")
    takes = optimizer_arguments(chosen.name)
    usual = {"momentum": chosen.momentum, "nesterov": chosen.nesterov, "weight_decay": chosen.weight_decay}
    if layer_rate != "none":
        if "weight_decay" in options:
            raise ValueError(f"--layer-rate {layer_rate} holds the weight decay itself: give --weight-decay")
        usual["weight_decay"] = 0.0
    usual = {name: value for name, value in usual.items() if value is not None and name in takes}
    if not usual.get("momentum"):
        usual.pop("nesterov", None)
    parameters = [p for p in model.parameters() if p.requires_grad]
    members = parameters if chosen.decay_biases or "weight_decay" not in takes else _undecayed(parameters)
    optimizer = optim.make_optimizer(chosen.name, members, **({"lr": chosen.lr} | usual | options))
    search = _options("--line-search-options", chosen.line_search_options)
    if chosen.line_search == "none":
        if search:
            raise ValueError("--line-search-options belong to a --line-search: armijo, wolfe, ...")
        return optimizer
    return Searched(optimizer, make_line_search(chosen.line_search, **search))


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
