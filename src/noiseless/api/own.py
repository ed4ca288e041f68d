"""Builds what the training loop needs from a user's own model, loss, data and optimizer. For `fit`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from noiseless.analysis import check_blocks
from noiseless.api.rates import Scheduler, schedule_of
from noiseless.api.validation import Validation, measured
from noiseless.errors import UnknownNameError
from noiseless.examples.blocks import Examples, TensorExamples
from noiseless.examples.selection import Selection
from noiseless.examples.trees import named_tensors
from noiseless.files.checkpoint import digest
from noiseless.files.snapshot import Snapshots
from noiseless.losses.terms import PerExample
from noiseless.objective import EmpiricalRisk, Execution, Measurement, parameter_space
from noiseless.objective.workers import Alone
from noiseless.optim import entry_of, optimizer_entry, refuse_line_search
from noiseless.optim.groups import LR_FACTOR, refuse_several_rates
from noiseless.recipes import parts
from noiseless.recipes.config import Config, FromPython, Settings
from noiseless.recipes.flags import FLAGS, with_flags
from noiseless.recipes.implied import implied
from noiseless.recipes.ladder import row
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Training
from noiseless.run.portability import refuse_unportable, try_block
from noiseless.run.sequence import regime_of
from noiseless.run.updates import make_optimizer, make_schedule, make_transform

HERE = {
    "steps", "optimizer", "loss", "loss_options", "label_smoothing", "max_up", "test_flips", "compat", "transform",
    "transform_options",
}  # fmt: skip
"""flags of a recipe that `fit` has in another form or not at all, or that are about images"""
RECIPE_FLAGS = [name for name, flag in FLAGS.items() if flag.part not in ("data", "model") and name not in HERE]
"""flags of a recipe that `fit` takes"""
SETTINGS = [
    "evaluate_every", "checkpoint_seconds", "keep", "keep_every", "snapshot_seconds", "sharpness_every",
    "sharpness_count", "noise_every", "layers_every",
]  # fmt: skip
"""settings that `fit` takes"""
OF_OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "decay_biases", "lr_factors", "optimizer_options")
"""flags that an optimizer of the user's has itself"""
SAMPLE = 64
"""number of examples of a data set whose digest stands for all; of tensors, all are read"""

OptimizerLike = str | Optimizer | Callable[..., Optimizer]


@dataclass(frozen=True)
class Own:
    """What a user gives to `fit`."""

    model: nn.Module
    loss: PerExample
    data: Any
    validation: Any
    optimizer: OptimizerLike | None
    scheduler: Scheduler | None
    steps: int | None
    recipe: str | Recipe | None
    metrics: Mapping[str, PerExample]
    run_dir: Path | None
    execution: Execution
    freeze: tuple[str, ...] = ()
    portable: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict)
    """further values of the recipe and the settings, by name"""


@dataclass(frozen=True)
class Built:
    """What the training loop needs, and the two measurements at the end."""

    training: Training
    train: Callable[[], Measurement]
    validation: Callable[[], Measurement] | None


def built(own: Own) -> Built:
    """The objects of a run from a user's own.

    Returns:
        The objects.

    Raises:
        UnknownNameError: for an argument that is none.
        ValueError: if something does not fit, with the remedy.
    """
    if unknown := [name for name in own.flags if name not in (*RECIPE_FLAGS, *SETTINGS)]:
        raise UnknownNameError("argument of fit", unknown[0], [*RECIPE_FLAGS, *SETTINGS])
    if own.portable and own.scheduler is not None:
        raise ValueError(
            "a scheduler computes by functions of the C library, which have other bits on other machines: leave out"
            ' scheduler and give schedule="cosine", ..., or leave out portable'
        )
    if own.optimizer is None and own.recipe is None:
        raise ValueError('fit needs an optimizer, such as optimizer="AdamW", or a recipe, such as recipe="fb-clipped"')
    selection = _all_of(own.data, "data")
    recipe, optimizer = _recipe(own, len(selection)), None
    if own.optimizer is not None and not isinstance(own.optimizer, str):
        recipe, optimizer = _with_own_optimizer(own, recipe)
    recipe.check()
    optimizer = optimizer or make_optimizer(recipe, own.model)
    steps, lr, execution = recipe.schedule.steps, recipe.optimizer.lr, own.execution
    rates = [lr] if isinstance(own.optimizer, str | None) else [group["initial_lr"] for group in optimizer.param_groups]
    schedule = schedule_of(own.scheduler, rates, steps) if own.scheduler else make_schedule(recipe)
    space = parameter_space(own.model)
    given = {name: value for name, value in own.flags.items() if name in SETTINGS}
    settings = Settings(
        run_dir=None if own.run_dir is None else str(own.run_dir), device=str(space.device),
        threads=torch.get_num_threads(), chunk=execution.chunk, compile="on" if execution.compiler else "off",
        **({"evaluate_every": max(1, steps // 10)} | given),
    )  # fmt: skip
    settings.check()
    python = FromPython(
        _name(own.model), _name(own.loss), f"{_name(own.data)}, {len(selection)} examples", _described(optimizer),
        "the recipe's" if own.scheduler is None else _name(own.scheduler),
    )  # fmt: skip
    config = Config(recipe, settings, python)
    if own.portable:
        refuse_unportable(config, optimizer)
    workers = execution.workers
    if own.run_dir is not None:
        place = own.run_dir / "snapshots"
        workers = Snapshots(workers, place, settings.snapshot_seconds, lambda: digest({"theta": space.theta}))
    risk = EmpiricalRisk(
        own.model, own.loss, replace(selection, examples_per_pass=len(selection), seed=recipe.seed),
        block=recipe.objective.block, norm_block=recipe.objective.norm_block,
        portable=own.portable, statistics=recipe.objective.statistics, metrics=own.metrics,
        execution=replace(execution, workers=workers),
    )  # fmt: skip
    if settings.noise_every is not None:
        check_blocks(risk)
    if own.portable:
        try_block(risk)
    transform = make_transform(recipe, space, schedule, len(selection))
    regime = regime_of(recipe, risk, schedule, lambda step: selection.examples, lambda step: selection.examples)
    refuse_line_search(optimizer, next(iter(regime.objectives(0))), transform)
    validation = None if own.validation is None else _validation(own, recipe.objective.block)
    training = Training(
        config, own.model, space, regime, schedule, optimizer, transform,
        data_digest(selection.examples), workers, execution.compiler,
        None if validation is None else Validation(validation, own.run_dir is not None),
    )  # fmt: skip
    return Built(training, lambda: measured(risk), None if validation is None else lambda: measured(validation))


def _all_of(data: Any, what: str) -> Selection:
    """All examples of a data set, in its order."""
    selection = Selection.of(data)
    if selection.order is not None:
        raise ValueError(f"the {what} of fit must be the examples themselves, not a part of them in some order")
    return selection


def _recipe(own: Own, examples: int) -> Recipe:
    """The recipe with the user's values; what it says of images and models is left out."""
    flags = {name: value for name, value in own.flags.items() if name in RECIPE_FLAGS}
    base = row(own.recipe, "paper") if isinstance(own.recipe, str) else own.recipe
    if base is None:
        if own.steps is None:
            raise ValueError("fit needs the number of steps, steps=..., or a recipe that has it")
        plain = parts.Optimizer(momentum=None, nesterov=None, weight_decay=None)
        base = Recipe(name="fit", optimizer=plain, schedule=parts.Schedule(name="constant"))
    values: dict[str, Any] = {"block": min(base.objective.block, examples)}
    values |= {"steps": own.steps} if own.steps is not None else {}
    if own.scheduler is not None:
        if wrong := [name for name in ("schedule", "warmup", "horizon", "decay") if name in flags]:
            raise ValueError(f"{wrong[0]} is the scheduler's matter: leave out {wrong[0]}, or the scheduler")
        values |= {"schedule": "constant", "warmup": 0, "horizon": None, "decay": parts.Schedule.decay}
    if isinstance(own.optimizer, str):
        values["optimizer"] = optimizer_entry(own.optimizer).kind.__name__
    recipe = with_flags(base, **(values | flags))
    recipe = with_flags(recipe, **implied(base, recipe, (values.keys() - {"steps", "optimizer"}) | flags.keys()))
    recipe = with_flags(recipe, horizon=recipe.schedule.horizon or recipe.schedule.steps)
    objective = replace(recipe.objective, loss="cross-entropy", loss_options="", label_smoothing=0.0, max_up=1)
    stochastic = objective.regime == "stochastic"
    objective = replace(
        objective,
        norm_block=objective.norm_block or objective.block,
        shuffle=stochastic if objective.shuffle is None and objective.regime != "switch" else objective.shuffle,
    )
    dtype = str(next(own.model.parameters(), torch.zeros(0)).dtype).removeprefix("torch.")
    return replace(
        recipe,
        objective=objective,
        data=parts.Data(name=f"python:{_name(own.data)}", augment="none"),
        model=parts.Model(
            name=f"python:{_name(own.model)}",
            freeze=own.freeze,
            portable=own.portable,
            dtype="float64" if dtype == "float64" else "float32",
        ),
        evaluation=replace(recipe.evaluation, test_flips=False),
        compat="none",
    )


def _with_own_optimizer(own: Own, recipe: Recipe) -> tuple[Recipe, Optimizer]:
    """The user's optimizer, and the recipe with its numbers."""
    if wrong := [name for name in OF_OPTIMIZER if name in own.flags]:
        raise ValueError(f"{wrong[0]} is the optimizer's own: give it where the optimizer is made")
    parameters = [p for p in own.model.parameters() if p.requires_grad]
    optimizer: Any = own.optimizer
    if not isinstance(optimizer, Optimizer):
        optimizer = optimizer(parameters)
        if not isinstance(optimizer, Optimizer):
            raise ValueError(
                f"optimizer must be a name, an optimizer of torch, or a function of the parameters that returns one,"
                f" not of {type(optimizer).__name__}"
            )
    groups = optimizer.param_groups
    if {id(p) for group in groups for p in group["params"]} - {id(p) for p in parameters}:
        raise ValueError("the optimizer has parameters that are not trainable parameters of this model: make it anew")
    for group in groups:  # as torch's schedulers do, so that an optimizer that has made steps begins anew with its rate
        group.setdefault("initial_lr", float(group["lr"]))
    lr = max(float(group["initial_lr"]) for group in groups)
    factors = [float(group["initial_lr"]) / lr if lr else 1.0 for group in groups]
    refuse_several_rates(entry_of(optimizer), factors)
    for group, factor in zip(groups, factors, strict=True):
        if factor != 1:
            group[LR_FACTOR] = factor
    first, numbers = groups[0], {}
    for name in ("momentum", "weight_decay"):
        value = first.get(name)
        numbers[name] = float(value) if isinstance(value, (int, float)) else None
    nesterov = first.get("nesterov") if isinstance(first.get("nesterov"), bool) else None
    part = parts.Optimizer(type(optimizer).__name__, lr, numbers["momentum"], nesterov, numbers["weight_decay"])
    return replace(recipe, optimizer=part), optimizer


def _validation(own: Own, block: int) -> EmpiricalRisk:
    """The risk on the validation data, which the first process computes alone."""
    selection = _all_of(own.validation, "validation")
    execution = replace(own.execution, workers=Alone(), compiler=None)
    size = min(block, len(selection))
    return EmpiricalRisk(
        own.model, own.loss, selection, block=size, portable=own.portable, metrics=own.metrics, execution=execution
    )


def data_digest(examples: Examples) -> str:
    """A digest of a data set, to tell another one: of all tensors, or of `SAMPLE` examples and their number."""
    if isinstance(examples, TensorExamples):
        return digest({str(name): tensor for name, tensor in named_tensors(examples.tensors)})
    numbers = torch.arange(0, len(examples), max(1, len(examples) // SAMPLE))[:SAMPLE]
    tensors = {"count": torch.tensor(len(examples))}
    for number in numbers.tolist():
        for name, tensor in named_tensors(examples.take(torch.tensor([number]))):
            tensors[f"{number} {name}"] = tensor
    return digest(tensors)


def _described(optimizer: Optimizer) -> str:
    """The class of an optimizer, with the learning rates of its groups in units of the largest where they differ."""
    factors = [float(group.get(LR_FACTOR, 1.0)) for group in optimizer.param_groups]
    rates = f" with learning rates in proportion {', '.join(f'{factor:g}' for factor in factors)}"
    return type(optimizer).__name__ + (rates if len(set(factors)) > 1 else "")


def _name(thing: Any) -> str:
    """What an object is called: a function by its name, other objects by their class."""
    if isinstance(thing, functools.partial):
        return _name(thing.func)
    if isinstance(thing, (tuple, list)):
        return "tensors"
    return str(getattr(thing, "__name__", type(thing).__name__))
