"""Builds the objects of a run from its config: data, model, objective, regime, optimizer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noiseless import models
from noiseless.analysis import check_blocks
from noiseless.data import Images, ImageSet, home, load
from noiseless.data.extents import is_local
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory
from noiseless.files.snapshot import Snapshots
from noiseless.losses.terms import PerExample
from noiseless.models.freezing import freeze
from noiseless.objective import EmpiricalRisk, Execution, ParameterSpace, Selection, parameter_space
from noiseless.objective.compiled import Compiler
from noiseless.objective.workers import Alone, Workers
from noiseless.optim import Transform, parse_options, refuse_line_search, schedules
from noiseless.portable import arithmetic
from noiseless.recipes.config import Config
from noiseless.recipes.flags import code_in, with_flags
from noiseless.recipes.ladder import published
from noiseless.recipes.recipe import Recipe
from noiseless.run import speed
from noiseless.run.devices import device_of, try_deterministic
from noiseless.run.evaluate import Tested, score
from noiseless.run.initial import load_initial, resolved
from noiseless.run.portability import refuse_unportable, try_block
from noiseless.run.regimes import Regime
from noiseless.run.sequence import make_images, make_loss, make_regime, make_test_loss
from noiseless.run.updates import make_optimizer, make_schedule, make_transform
from noiseless.run.work import work
from noiseless.trust import refuse_untrusted, trusting


@dataclass(frozen=True)
class Training:
    """The objects that the training loop moves and asks, of images or of other examples."""

    config: Config
    """resolved: no value in it is left to a default that depends on the data or the machine"""
    model: nn.Module
    space: ParameterSpace
    regime: Regime
    schedule: schedules.Schedule
    optimizer: torch.optim.Optimizer
    transform: Transform | None
    """chain of transforms; None: the gradient is not changed"""
    data_sha256: str
    """SHA-256 of the data set"""
    workers: Workers
    compiler: Compiler | None
    """None: nothing is compiled"""
    evaluate: Callable[[], Tested] | None
    """evaluates the model on the test examples; None: there are none"""


@dataclass(frozen=True)
class Experiment(Training):
    """The objects of a run on images."""

    train: Images
    test: Images
    test_loss: PerExample
    """loss of each test image in evaluations"""
    notes: tuple[str, ...]
    """messages about initial parameters, frozen ones, and the compiler"""


def build(
    config: Config, workers: Workers | None = None, run_dir: Path | None = None, read_only: bool = False
) -> Experiment:
    """Builds the objects of a run.

    Args:
        config: as the user gave it.
        workers: that share its sweeps; None: this process alone.
        run_dir: directory of the run, for snapshots of sweeps; None: no snapshots are written.
        read_only: whether the config comes from a file, so that no data are downloaded or packed for it.

    Returns:
        The experiment, with the config resolved.

    Raises:
        ValueError: if something in the config does not fit the data, the model or the machine.
    """
    config.check()
    refuse_untrusted(code_in(config.recipe))
    if config.recipe.model.portable:
        refuse_unportable(config)
        config = replace(config, settings=replace(config.settings, compile="off"))
    with arithmetic(config.recipe.model.portable):
        return _build(config, workers, run_dir, read_only)


def _build(config: Config, workers: Workers | None, run_dir: Path | None, read_only: bool) -> Experiment:
    """`build`, whose draws and statistics are portable where the recipe wants that."""
    device = device_of(config.settings.device)
    threads = config.settings.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    data_dir = home(config.settings.data_dir)
    dataset = load(config.recipe.data.name, data_dir, config.recipe.data.pixels, read_only=read_only)
    recipe = _resolve(config.recipe, dataset)
    objective = recipe.objective
    model = _model(recipe, dataset).to(device=device, dtype=getattr(torch, recipe.model.dtype))
    train, test = make_images(recipe, dataset, device)
    models.whiten(model, train.batches(), train.std)
    notes = load_initial(model, recipe, choices(recipe)[1], dataset.classes) if recipe.model.init is not None else []
    notes += [note] if (note := freeze(model, recipe.model.freeze)) else []
    workload, pixels = work(recipe, model, train), dataset.x_train[0, 0].numel()
    compiled, note = speed.compiling(config.settings.compile, workload, device.type)
    notes += [note] if note else []
    settings = replace(
        config.settings,
        data_dir=str(data_dir),
        threads=threads,
        chunk=config.settings.chunk or speed.chunk(objective.block, workload.parameters, pixels),
        compile="on" if compiled else "off",
        evaluate_every=config.settings.evaluate_every or max(1, recipe.schedule.steps // 10),
    )
    compiler = Compiler() if compiled else None
    schedule = make_schedule(recipe)
    workers = workers or Alone()
    if run_dir is not None:
        space = parameter_space(model)
        workers = Snapshots(
            workers, run_dir / "snapshots", settings.snapshot_seconds, lambda: digest({"theta": space.theta})
        )
    risk = EmpiricalRisk(
        model,
        make_loss(recipe, dataset.classes, device),
        Selection(
            replace(train, copies=max(1, recipe.data.copies, objective.max_up)),
            examples_per_pass=len(train),
            seed=recipe.seed,
        ),
        block=objective.block,
        norm_block=objective.norm_block,
        autocast=torch.bfloat16 if recipe.model.autocast == "bfloat16" else None,
        portable=recipe.model.portable,
        statistics=objective.statistics,
        execution=Execution(workers, settings.chunk or 1, compiler, compile_products=False),
    )
    if settings.noise_every is not None:
        check_blocks(risk)
    if recipe.model.portable:
        try_block(risk)
    if device.type != "cpu":
        try_deterministic(risk)
    optimizer, test_loss = make_optimizer(recipe, model), make_test_loss(recipe, dataset.classes, device)
    transform = make_transform(recipe, risk.space, schedule, len(train))
    regime = make_regime(recipe, risk, train, schedule)
    refuse_line_search(optimizer, next(iter(regime.objectives(0))), transform)
    return Experiment(
        Config(recipe, settings), model.train(), risk.space, regime, schedule, optimizer, transform,
        dataset.sha256(), workers, compiler, lambda: score(model, test, recipe.evaluation.test_flips, test_loss).tested,
        train, test, test_loss, tuple(notes),
    )  # fmt: skip


def rebuild(
    directory: RunDirectory,
    workers: Workers | None = None,
    snapshots: bool = True,
    change: Callable[[Config], Config] = lambda config: config,
    trust: str | Iterable[str] | None = None,
) -> Experiment:
    """The objects of an existing run with their initial values; no checkpoint is read.

    Args:
        directory: of the run.
        workers: that share its sweeps; None: this process alone.
        snapshots: whether sweeps write snapshots to the directory.
        change: run's config -> config that is built; for comparisons of the two.
        trust: your own functions that may be used, `package.module:function` or `package.module`; None: those of the
            command's flags and of your settings, see `noiseless trust`.

    Returns:
        The experiment, with the run's config.

    Raises:
        ValueError: if the run's config cannot be read, names code that is not trusted, or its data have changed.
    """
    config = directory.config()
    if config.python is not None:
        raise ValueError(
            f"{directory.path} was made by noiseless.fit, from a model, loss and data that only the program has that"
            " called it: call fit again with the same arguments to go on with it, or to get its model"
        )
    # a checkpoint holds the initial parameters; the file that they came from may be gone
    recipe = config.recipe if directory.begins_anew() else with_flags(config.recipe, init=None)
    settings = replace(config.settings, data_dir=data_directory(config))
    with trusting(trust):
        changed = change(Config(recipe, settings))
        experiment = build(changed, workers, directory.path if snapshots else None, read_only=True)
    directory.refuse_other_data(experiment.data_sha256)
    return replace(experiment, config=config)


def data_directory(config: Config) -> str:
    """The directory that a run's config names if the data are there, else the default one; both are only read."""
    recorded, data = config.settings.data_dir, config.recipe.data
    # another user's directory may be unreadable; `Path.is_dir` would raise for one within such a directory
    usable = recorded is not None and os.path.isdir(recorded) and os.access(recorded, os.R_OK | os.X_OK)  # noqa: PTH112
    places = [home(recorded), home()] if usable else [home()]
    return str(next((place for place in places if is_local(data.name, place, data.pixels)), places[-1]))


def choices(recipe: Recipe) -> tuple[models.Form, dict[str, Any]]:
    """The form and the further arguments of a recipe's model.

    Args:
        recipe: resolved or not.

    Returns:
        Both.

    Raises:
        ValueError: if the options cannot be parsed.
    """
    model = recipe.model
    form = models.Form(model.norm, model.stem, model.shortcut, model.padding_mode, model.convolution, model.zero_init)
    try:
        return form, parse_options(model.options)
    except ValueError as error:
        raise ValueError(f"--model-options: {error}") from None


def _model(recipe: Recipe, dataset: ImageSet) -> nn.Module:
    """The recipe's model for the images of a data set, with initial parameters."""
    form, options = choices(recipe)
    _, channels, height, width = dataset.x_train.shape
    return models.build(recipe.model.name, channels, dataset.classes, form, recipe.seed, options, (height, width))


def _resolve(recipe: Recipe, dataset: ImageSet) -> Recipe:
    """A copy in which each default that depends on the data or on other fields has its value."""
    mean, std = dataset.statistics()
    channels = len(mean)
    if recipe.compat == "published":
        recipe = published(recipe)
    for name in ("mean", "std"):
        values = getattr(recipe.data, name)
        if values is not None and len(values) != channels:
            raise ValueError(f"--{name} has {len(values)} values, but the images have {channels} channels")
    pixel_std = recipe.data.std or tuple(std)
    if not all(0 < s < float("inf") for s in pixel_std):
        raise ValueError(
            f"the pixels' standard deviation must be positive in each channel, not {pixel_std}; give --std"
        )
    objective, shuffle = recipe.objective, recipe.objective.shuffle
    return with_flags(
        recipe,
        data=dataset.name,
        init=recipe.model.init and resolved(recipe.model.init),
        mean=recipe.data.mean or tuple(mean),
        std=pixel_std,
        norm_block=objective.norm_block or objective.block,
        horizon=recipe.schedule.horizon or recipe.schedule.steps,
        shuffle=objective.regime == "stochastic" if shuffle is None and objective.regime != "switch" else shuffle,
    )
