"""From a config to the objects of a run: data, model, objective, regime, optimizer."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from noiseless import models
from noiseless.data import Images, ImageSet, load
from noiseless.objective import (
    EmpiricalRisk,
    GradientPenalty,
    Objective,
    ParameterSpace,
    cross_entropy,
    parameter_space,
)
from noiseless.objective.workers import Alone, Workers
from noiseless.optim import (
    Transform,
    additive_noise,
    chain,
    clip_norm,
    make_optimizer,
    multiplicative_noise,
    norm_bias,
    optimizer_arguments,
    parse_options,
    refuse_line_search,
    schedules,
)
from noiseless.run.checkpoint import digest
from noiseless.run.config import Config, Recipe, check
from noiseless.run.directory import RunDirectory
from noiseless.run.parameters import load_parameters
from noiseless.run.regimes import FullBatch, Regime, Stochastic, Switch
from noiseless.run.snapshot import Snapshots


@dataclass(frozen=True)
class Experiment:
    """The objects of a run."""

    config: Config
    """resolved: nothing in it is left to a default that depends on data or machine"""
    model: nn.Module
    space: ParameterSpace
    train: Images
    test: Images
    regime: Regime
    schedule: schedules.Schedule
    optimizer: torch.optim.Optimizer
    transform: Transform | None
    """the chain; None where nothing is changed"""
    data_sha256: str
    workers: Workers


def build(config: Config, workers: Workers | None = None, place: Path | None = None) -> Experiment:
    """Makes the objects of a run.

    Args:
        config: as the user gave it.
        workers: who share its sweeps; None: this process alone.
        place: directory of the run, where sweeps leave snapshots; None: they leave none.

    Returns:
        The experiment, with the config resolved.

    Raises:
        ValueError: for whatever in the config does not fit the data, the model or the machine.
    """
    check(config.recipe, config.settings)
    device = _device(config.settings.device)
    threads = config.settings.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    dataset = load(config.recipe.data)
    recipe = _resolve(config.recipe, dataset)
    model = models.build(recipe.model, dataset.x_train.shape[1], dataset.classes, recipe.norm, recipe.seed)
    model = model.to(device=device, dtype=getattr(torch, recipe.dtype))
    if recipe.init is not None:
        load_parameters(model, Path(recipe.init))
    train, test = _images(recipe, dataset, device)
    settings = replace(
        config.settings,
        threads=threads,
        chunk=config.settings.chunk or _chunk(recipe.block, sum(p.numel() for p in model.parameters())),
        evaluate_every=config.settings.evaluate_every or max(1, recipe.steps // 10),
    )
    schedule = _schedule(recipe)
    workers = workers or Alone()
    if place is not None:
        space = parameter_space(model)
        workers = Snapshots(
            workers, place / "snapshots", settings.snapshot_seconds, lambda: digest({"theta": space.theta})
        )
    risk = EmpiricalRisk(
        model,
        cross_entropy,
        replace(train, copies=max(1, recipe.copies)),
        block=recipe.block,
        norm_block=recipe.norm_block,
        chunk=settings.chunk or 1,
        statistics=recipe.statistics,
        block_clip=recipe.block_clip,
        whole=len(train),
        seed=recipe.seed,
        workers=workers,
    )
    optimizer = _optimizer(recipe, model)
    transform = _transform(recipe)
    regime = _regime(recipe, risk, train, schedule)
    refuse_line_search(optimizer, next(iter(regime.objectives(0))), transform)
    return Experiment(
        Config(recipe, settings), model, risk.space, train, test, regime, schedule, optimizer, transform,
        dataset.sha256(), workers,
    )  # fmt: skip


def rebuild(directory: RunDirectory, workers: Workers | None = None, snapshots: bool = True) -> Experiment:
    """The objects of an existing run, at their initial values; its record says where to go on.

    Args:
        directory: of the run.
        workers: who share its sweeps; None: this process alone.
        snapshots: whether sweeps leave snapshots in the directory.

    Returns:
        The experiment.

    Raises:
        ValueError: if its config cannot be read, or its data have changed.
    """
    config = directory.config()
    begun = any(directory.checkpoints.glob("step-*"))
    # a checkpoint holds what the initial file gave, which may be gone by now
    recipe = replace(config.recipe, init=None) if begun else config.recipe
    made = build(replace(config, recipe=recipe), workers, directory.path if snapshots else None)
    directory.refuse_other_data(made.data_sha256)
    return replace(made, config=config)


def _chunk(block: int, parameters: int) -> int:
    """Blocks worth 512 examples, as long as their gradients stay small: a large model fills the machine with one."""
    return max(1, min(512 // block, 2**24 // parameters))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda":
        # of torchrun's workers on a node, each has its own
        number = int(name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            seen = torch.cuda.device_count()
            raise ValueError(f"there is no device cuda:{number}: torch sees {seen} CUDA devices; use --device cpu")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


def _resolve(recipe: Recipe, dataset: ImageSet) -> Recipe:
    mean, std = dataset.statistics()
    channels = len(mean)
    for name in ("mean", "std"):
        given = getattr(recipe, name)
        if given is not None and len(given) != channels:
            raise ValueError(f"--{name} has {len(given)} values, but the images have {channels} channels")
    resolved = recipe.std or tuple(std)
    if not all(0 < s < float("inf") for s in resolved):
        raise ValueError(f"the pixels' standard deviation must be positive in each channel, not {resolved}; give --std")
    return replace(
        recipe,
        data=dataset.name,
        init=recipe.init and str(Path(recipe.init).resolve()),
        mean=recipe.mean or tuple(mean),
        std=resolved,
        norm_block=recipe.norm_block or recipe.block,
        horizon=recipe.horizon or recipe.steps,
    )


def _images(recipe: Recipe, dataset: ImageSet, device: torch.device) -> tuple[Images, Images]:
    if recipe.augment == "crop-flip" and recipe.padding > 0 and min(dataset.x_train.shape[2:]) < 2:
        raise ValueError("images of one pixel cannot be cropped; use --augment none")
    assert recipe.mean is not None and recipe.std is not None
    dtype = getattr(torch, recipe.dtype)
    train = Images(
        dataset.x_train.to(device), dataset.y_train.to(device), recipe.mean, recipe.std, dtype,
        recipe.augment, recipe.padding, recipe.flip, recipe.seed,
    )  # fmt: skip
    return train, Images(dataset.x_test.to(device), dataset.y_test.to(device), recipe.mean, recipe.std, dtype)


def _regime(recipe: Recipe, risk: EmpiricalRisk, train: Images, schedule: schedules.Schedule) -> Regime:
    def wrap(risk: EmpiricalRisk, step: int) -> Objective:
        if not recipe.penalty and not recipe.full_penalty:
            return risk
        return GradientPenalty(
            risk, recipe.penalty, lr=schedule(step), full_strength=recipe.full_penalty,
            method=recipe.penalty_method, eps=recipe.penalty_eps,
        )  # fmt: skip

    def whole(step: int) -> Images:
        return replace(train, copies=recipe.copies) if recipe.copies else replace(train, epoch=step)

    def one_copy(step: int) -> Images:
        return replace(train, epoch=step % recipe.copies if recipe.copies else step)

    full = FullBatch(risk, whole, wrap, recipe.seed, recipe.shuffle)
    stochastic = Stochastic(risk, one_copy, wrap, recipe.seed, recipe.replacement)
    if recipe.regime == "switch":
        return Switch(stochastic, full, recipe.switch)
    return full if recipe.regime == "full-batch" else stochastic


def _schedule(recipe: Recipe) -> schedules.Schedule:
    lr, warmup = recipe.lr, recipe.warmup
    assert recipe.horizon is not None
    match recipe.schedule:
        case "cosine":
            return schedules.cosine(lr, warmup, recipe.horizon)
        case "cosine-floor":
            return schedules.cosine(lr, warmup, recipe.horizon, floor=lr / 25)
        case "multi-step":
            return schedules.multi_step(lr, warmup, recipe.steps)
        case "exponential":
            return schedules.exponential(lr, warmup, recipe.decay)
        case "constant":
            return schedules.constant(lr, warmup)


def _transform(recipe: Recipe) -> Transform | None:
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


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
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
    return make_optimizer(recipe.optimizer, parameters, **({"lr": recipe.lr} | usual | options))
