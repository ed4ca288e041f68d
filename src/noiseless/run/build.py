"""From a config to the objects of a run: data, model, objective, regime, optimizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noiseless import models
from noiseless.analysis import check_blocks
from noiseless.data import Images, ImageSet, home, load
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import load_parameters
from noiseless.files.snapshot import Snapshots
from noiseless.objective import EmpiricalRisk, Execution, ParameterSpace, Selection, parameter_space
from noiseless.objective.compiled import Compiler
from noiseless.objective.workers import Alone, Workers
from noiseless.optim import Transform, parse_options, refuse_line_search, schedules
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import published
from noiseless.recipes.recipe import Recipe
from noiseless.run import speed
from noiseless.run.regimes import Regime
from noiseless.run.sequence import make_images, make_loss, make_regime
from noiseless.run.updates import make_optimizer, make_schedule, make_transform
from noiseless.run.work import work


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
    compiler: Compiler | None
    """None: nothing is compiled"""
    note: str | None
    """what a user should know of how it is computed"""


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
    config.check()
    device = _device(config.settings.device)
    threads = config.settings.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    data_dir = home(config.settings.data_dir)
    dataset = load(config.recipe.data.name, data_dir, config.recipe.data.pixels)
    recipe = _resolve(config.recipe, dataset)
    objective = recipe.objective
    model = _model(recipe, dataset).to(device=device, dtype=getattr(torch, recipe.model.dtype))
    train, test = make_images(recipe, dataset, device)
    models.whiten(model, train.batches(), train.std)
    if recipe.model.init is not None:
        load_parameters(model, Path(recipe.model.init))
    asked, pixels = work(recipe, model, train), dataset.x_train[0, 0].numel()
    compiled, note = speed.compiling(config.settings.compile, asked, device.type)
    settings = replace(
        config.settings,
        data_dir=str(data_dir),
        threads=threads,
        chunk=config.settings.chunk or speed.chunk(objective.block, asked.parameters, pixels),
        compile="on" if compiled else "off",
        evaluate_every=config.settings.evaluate_every or max(1, recipe.schedule.steps // 10),
    )
    compiler = Compiler() if compiled else None
    schedule = make_schedule(recipe)
    workers = workers or Alone()
    if place is not None:
        space = parameter_space(model)
        workers = Snapshots(
            workers, place / "snapshots", settings.snapshot_seconds, lambda: digest({"theta": space.theta})
        )
    risk = EmpiricalRisk(
        model,
        make_loss(recipe),
        Selection(
            replace(train, copies=max(1, recipe.data.copies, objective.max_up)),
            examples_per_pass=len(train),
            seed=recipe.seed,
        ),
        block=objective.block,
        norm_block=objective.norm_block,
        autocast=torch.bfloat16 if recipe.model.autocast == "bfloat16" else None,
        statistics=objective.statistics,
        execution=Execution(workers, settings.chunk or 1, compiler),
    )
    if settings.noise_every is not None:
        check_blocks(risk)
    optimizer = make_optimizer(recipe, model)
    transform = make_transform(recipe, risk.space, schedule, len(train))
    regime = make_regime(recipe, risk, train, schedule)
    refuse_line_search(optimizer, next(iter(regime.objectives(0))), transform)
    return Experiment(
        Config(recipe, settings), model, risk.space, train, test, regime, schedule, optimizer, transform,
        dataset.sha256(), workers, compiler, note,
    )  # fmt: skip


def rebuild(
    directory: RunDirectory,
    workers: Workers | None = None,
    snapshots: bool = True,
    change: Callable[[Config], Config] = lambda config: config,
) -> Experiment:
    """The objects of an existing run, at their initial values; its record says where to go on.

    Args:
        directory: of the run.
        workers: who share its sweeps; None: this process alone.
        snapshots: whether sweeps leave snapshots in the directory.
        change: makes the config that is built from the run's: for a comparison of the two.

    Returns:
        The experiment, with the run's config.

    Raises:
        ValueError: if its config cannot be read, or its data have changed.
    """
    config = directory.config()
    begun = any(directory.checkpoints.glob("step-*"))
    # a checkpoint holds what the initial file gave, which may be gone by now
    recipe = with_flags(config.recipe, init=None) if begun else config.recipe
    # data that have moved are looked for where they are now; that they are the same is checked below
    moved = config.settings.data_dir is not None and not Path(config.settings.data_dir).is_dir()
    settings = replace(config.settings, data_dir=None) if moved else config.settings
    made = build(change(Config(recipe, settings)), workers, directory.path if snapshots else None)
    directory.refuse_other_data(made.data_sha256)
    return replace(made, config=config)


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


def choices(recipe: Recipe) -> tuple[models.Form, dict[str, Any]]:
    """The form and the further arguments with which a recipe has its model.

    Args:
        recipe: resolved or not.

    Returns:
        Both.

    Raises:
        ValueError: for options that cannot be read.
    """
    model = recipe.model
    form = models.Form(model.norm, model.stem, model.shortcut, model.padding_mode, model.convolution, model.zero_init)
    try:
        return form, parse_options(model.options)
    except ValueError as error:
        raise ValueError(f"--model-options: {error}") from None


def _model(recipe: Recipe, dataset: ImageSet) -> nn.Module:
    form, options = choices(recipe)
    _, channels, height, width = dataset.x_train.shape
    return models.build(recipe.model.name, channels, dataset.classes, form, recipe.seed, options, (height, width))


def _resolve(recipe: Recipe, dataset: ImageSet) -> Recipe:
    mean, std = dataset.statistics()
    channels = len(mean)
    if recipe.compat == "published":
        recipe = published(recipe)
    for name in ("mean", "std"):
        given = getattr(recipe.data, name)
        if given is not None and len(given) != channels:
            raise ValueError(f"--{name} has {len(given)} values, but the images have {channels} channels")
    resolved = recipe.data.std or tuple(std)
    if not all(0 < s < float("inf") for s in resolved):
        raise ValueError(f"the pixels' standard deviation must be positive in each channel, not {resolved}; give --std")
    objective, shuffle = recipe.objective, recipe.objective.shuffle
    return with_flags(
        recipe,
        data=dataset.name,
        init=recipe.model.init and str(Path(recipe.model.init).resolve()),
        mean=recipe.data.mean or tuple(mean),
        std=resolved,
        norm_block=objective.norm_block or objective.block,
        horizon=recipe.schedule.horizon or recipe.schedule.steps,
        shuffle=objective.regime == "stochastic" if shuffle is None and objective.regime != "switch" else shuffle,
    )
