"""Builds what moves the parameters, from a recipe: schedule, transforms, optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from noiseless import optim
from noiseless.analysis import stability_threshold
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
    optimizer_entry,
    schedules,
)
from noiseless.optim.function import transform_from
from noiseless.optim.groups import parameter_groups, refuse_several_rates
from noiseless.patterns import first_factors, read_factors
from noiseless.portable import constants
from noiseless.recipes.parts import Optimizer
from noiseless.recipes.recipe import Recipe
from noiseless.run.regimes import part_sizes
from noiseless.run.sequence import options_of


def make_schedule(recipe: Recipe) -> schedules.Schedule:
    """The learning rate of a recipe, step by step."""
    schedule = recipe.schedule
    lr, warmup, published = recipe.optimizer.lr, schedule.warmup, recipe.compat == "published"
    assert schedule.horizon is not None
    cos, power = (constants.cosine, constants.power) if recipe.model.portable else (math.cos, pow)
    match schedule.name:
        case "cosine":
            return schedules.cosine(lr, warmup, schedule.horizon, cos=cos)
        case "cosine-floor":
            return schedules.cosine(lr, warmup, schedule.horizon, lr / 25, cos)
        case "multi-step":
            return schedules.multi_step(lr, warmup, schedule.steps, published, power)
        case "exponential":
            return schedules.exponential(lr, warmup, schedule.decay, published, power)
        case "constant":
            return schedules.constant(lr, warmup)


def make_transform(
    recipe: Recipe, space: ParameterSpace, schedule: schedules.Schedule, images: int
) -> Transform | None:
    """The chain of a recipe's transforms.

    Args:
        recipe: resolved.
        space: of the parameters; transforms that treat each layer by itself need it.
        schedule: gives LARC the learning rate.
        images: number of training images.

    Returns:
        Aggregate -> norm bias -> the user's own -> agc -> clip -> noise -> layer rate, as far as the recipe has them;
        None if it has none.
    """
    transforms, optimizer, parts = recipe.transforms, recipe.optimizer, recipe.objective.parts
    links: list[Transform] = []
    if parts > 1:
        links.append(aggregate(part_sizes(images * max(1, recipe.data.copies), parts)))
    if transforms.norm_bias:
        links.append(norm_bias(transforms.norm_bias, transforms.norm_target, transforms.norm_bias_type))
    all_options = transforms.transform_options or ("",) * len(transforms.transform)
    for name, text in zip(transforms.transform, all_options, strict=True):
        links.append(transform_from(name, space, recipe.seed, options_of("--transform-options", text)))
    if transforms.agc is not None:
        links.append(adaptive_clip(transforms.agc, space))
    if transforms.clip is not None:
        links.append(clip_norm(transforms.clip, transforms.clip_type))
    if transforms.additive_noise:
        links.append(additive_noise(transforms.additive_noise, recipe.seed))
    if transforms.multiplicative_noise:
        links.append(multiplicative_noise(transforms.multiplicative_noise, recipe.seed))
    if transforms.layer_rate != "none":
        has_decay = "weight_decay" in optimizer_arguments(optimizer.name)
        decay = optimizer.weight_decay or 0.0 if has_decay else 0.0
        if transforms.layer_rate == "lars":
            links.append(lars(transforms.trust, space, decay, optimizer.decay_biases))
        else:
            links.append(larc(transforms.trust, space, schedule, decay, optimizer.decay_biases))
    return chain(*links) if links else None


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a recipe, with the line search around it where it has one.

    Args:
        recipe: resolved.
        model: whose parameters the optimizer moves.

    Returns:
        The optimizer.

    Raises:
        ValueError: for options that the optimizer or the line search does not accept.
    """
    part, layer_rate = recipe.optimizer, recipe.transforms.layer_rate
    options = options_of("--optimizer-options", part.options)
    if "lr" in options:
        raise ValueError("--optimizer-options cannot set lr, which follows the schedule: give --lr")
    accepted = optimizer_arguments(part.name)
    arguments = {"momentum": part.momentum, "nesterov": part.nesterov, "weight_decay": part.weight_decay}
    if layer_rate != "none":
        if "weight_decay" in options:
            raise ValueError(
                f"--optimizer-options cannot set weight_decay, which --layer-rate {layer_rate} applies: give"
                " --weight-decay"
            )
        arguments["weight_decay"] = 0.0
    arguments = {name: value for name, value in arguments.items() if value is not None and name in accepted}
    if not arguments.get("momentum"):
        arguments.pop("nesterov", None)
    groups = _groups(part, model, options)
    optimizer = optim.make_optimizer(part.name, groups, **({"lr": part.lr} | arguments | options))
    search_options = options_of("--line-search-options", part.line_search_options)
    if part.line_search == "none":
        if search_options:
            raise ValueError("--line-search-options do nothing without a --line-search: armijo, wolfe, ...")
        return optimizer
    return Searched(optimizer, make_line_search(part.line_search, **search_options))


def _groups(part: Optimizer, model: nn.Module, options: Mapping[str, Any]) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The trainable parameters of a model, in groups where the recipe has rates by layer or decay of some only."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    factors = read_factors("--lr-factors", part.lr_factors)
    decay_biases = part.decay_biases or "weight_decay" not in optimizer_arguments(part.name)
    if not factors and decay_biases:
        return list(named.values())
    if factors and "last_lr_ratio" in options:
        raise ValueError(
            "--optimizer-options last_lr_ratio and --lr-factors both set rates by layer: give the last layer's in"
            " --lr-factors, too"
        )
    frozen = [name for name, _ in model.named_parameters() if name not in named]
    by_name = first_factors("--lr-factors", factors, list(named), frozen)
    refuse_several_rates(optimizer_entry(part.name), by_name.values())
    return parameter_groups(named.items(), by_name, decay_biases)


def unknown_edge(recipe: Recipe) -> str | None:
    """Why the parameter groups of a recipe have no common edge of stability; None if they may have one.

    Each group's steps are the recursion of its own rate and decay, and a quadratic couples the groups, so that the
    eigenvalues of another matrix decide: that of `analysis.step_stability`.

    Args:
        recipe: of the run.

    Returns:
        The sentence.
    """
    part = recipe.optimizer
    if part.lr_factors:
        differ = "--lr-factors gives layers different learning rates"
    elif not part.decay_biases and part.weight_decay:
        differ = "--no-decay-biases gives parameters different weight decays"
    else:
        return None
    return f"no eigenvalue of the Hessian alone decides whether steps grow, as {differ}: see noiseless edge"


def edge_of_stability(
    recipe: Recipe, optimizer: torch.optim.Optimizer, of: Literal["loss", "objective"] = "loss"
) -> float | None:
    """The largest eigenvalue of a Hessian at which the steps of a run do not grow, as `stability_threshold` has it.

    Args:
        recipe: of the run.
        optimizer: at the step's learning rate.
        of: the function whose Hessian it is.

    Returns:
        The edge; None if it is not known, or if the run's steps do not follow that Hessian: the loss' with a penalty,
        and either with sharpness-aware steps.
    """
    objective = recipe.objective
    if objective.sam or (of == "loss" and objective.penalised):
        return None
    return stability_threshold(optimizer, objective.parts)
