"""Trains a user's own model by the loop of the command `train`: with its record, checkpoints, resume and report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from noiseless.api.fitted import Fit
from noiseless.api.own import Built, OptimizerLike, Own, built
from noiseless.api.progress import Bar
from noiseless.api.rates import Scheduler
from noiseless.api.stopping import Stop, stoppable
from noiseless.exits import UNEXPECTED
from noiseless.files import reading
from noiseless.files.checkpoint import digest
from noiseless.files.directory import Row, RunDirectory
from noiseless.files.environment import environment
from noiseless.files.parameters import fill
from noiseless.files.runcopy import RunCopy
from noiseless.files.storage import IN_PYTHON
from noiseless.losses.terms import PerExample
from noiseless.models.freezing import frozen
from noiseless.objective import Execution
from noiseless.objective.workers import Workers
from noiseless.patterns import written_factors
from noiseless.plain import real
from noiseless.recipes.config import Config
from noiseless.recipes.flags import differing
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Training
from noiseless.run.session import changed, checked_storage, in_first
from noiseless.run.team import join, refuse_disagreement
from noiseless.run.train import Progress, train
from noiseless.screen import print_note

REPORT = "report.html"
"""file of a run's report, in its directory"""


def fit(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    *,
    optimizer: OptimizerLike | None = None,
    scheduler: Scheduler | None = None,
    steps: int | None = None,
    validation: Any = None,
    metrics: Mapping[str, PerExample] | None = None,
    callbacks: Sequence[Callable[[Row], object]] = (),
    run_dir: str | Path | None = None,
    copy_to: str | Path | None = None,
    recipe: str | Recipe | None = None,
    freeze: str | Sequence[str] = (),
    lr_factors: str | Mapping[str, float] = "",
    portable: bool = False,
    execution: Execution | None = None,
    progress: bool | None = None,
    **flags: Any,
) -> Fit:
    """Trains a model in place, by full-batch steps unless the recipe says otherwise.

    It is the loop of the command `noiseless train`. With `run_dir` it writes what the command writes. If it is
    interrupted, call it again with the same arguments: it goes on from the newest checkpoint, with the same bits as
    without the interruption. After the end, the same call returns the result, and restores the parameters. Ctrl-C and
    SIGTERM leave a checkpoint of that moment in `run_dir`, and then have their usual effect; handlers of signals that
    your program has set are left as they are.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do in training.
        loss: any loss of torch, or `(output, target)` -> one value for each example.
        data: tensors `(input, ..., target)`, a data set or a `DataLoader`, of which the data set is used.
        optimizer: a name, whose learning rate is the usual one unless `lr` is given; a class or function of the
            parameters; or an optimizer of torch. None: the recipe's.
        scheduler: a function of the optimizer that returns a scheduler of torch, or a function of the step that returns
            the learning rate. None: the recipe's schedule, or without a recipe a constant rate.
        steps: number of steps. None: the recipe's. Other numbers scale the recipe's warm-up and horizon.
        validation: data that are evaluated every tenth of the steps and at the end, in `eval()` mode.
        metrics: functions like the loss, by name, whose means over the validation data are recorded.
        callbacks: functions that are called after each step with its row of numbers.
        run_dir: directory of the run, new or with the same run; None: nothing is written.
        copy_to: directory to which finished checkpoints, the record and the final parameters are copied, such as a
            mount of an object store, where a run itself cannot be kept.
        recipe: name of a recipe (`noiseless recipes`), or a `Recipe`: transforms, penalty, schedule, block, optimizer.
            What it says of images and models is left out.
        freeze: patterns of parameter names, `"conv1*"` or `["stem", "layer1"]`, of which a module's name stands for all
            in it: these parameters do not move. Which parameters are trainable is put back at the end.
        lr_factors: learning rates by layer in units of `lr`, by pattern, of which the first that matches decides:
            `{"fc": 1, "*": 0.1}`. An optimizer of yours has the learning rates of its groups, which are kept in
            proportion.
        portable: whether the run has the same bits on every CPU, for any threads and chunk, from the same initial
            parameters and data; slower, see `docs/portable.md`.
        execution: workers, chunk and compiler; None: the processes of the process group that exists or of the torchrun
            job, or this process alone.
        progress: True: a progress bar; False: none; None: one for long work in a terminal or a notebook.
        **flags: flags of `noiseless train` about objective, transforms, optimizer, schedule and record, with
            underscores: `block=100, clip=0.25, penalty=0.5, seed=1, sharpness_every=10, checkpoint_seconds=0`.

    Returns:
        Losses at the end, and the history.
    """
    if execution is None:
        with _joined() as workers:
            return fit(
                model, loss, data, optimizer=optimizer, scheduler=scheduler, steps=steps, validation=validation,
                metrics=metrics, callbacks=callbacks, run_dir=run_dir, copy_to=copy_to, recipe=recipe,
                freeze=freeze, lr_factors=lr_factors, portable=portable, execution=Execution(workers=workers),
                progress=progress, **flags,
            )  # fmt: skip
    path = None if run_dir is None else real(Path(run_dir))
    patterns = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    factors = lr_factors if isinstance(lr_factors, str) else written_factors(lr_factors)
    flags |= {"lr_factors": factors} if factors else {}
    own = Own(
        model, loss, data, validation, optimizer, scheduler, steps, recipe, dict(metrics or {}), path, execution,
        patterns, portable, flags,
    )  # fmt: skip
    with stoppable(execution.workers) as stop, frozen(model, patterns):
        return _fit(own, callbacks, progress, stop, None if copy_to is None else Path(copy_to))


def _fit(
    own: Own, callbacks: Sequence[Callable[[Row], object]], progress: bool | None, stop: Stop, copy: Path | None
) -> Fit:
    """Trains, or goes on, or reads the result of a run that has ended."""
    model, path = own.model, own.run_dir
    if copy is not None and path is None:
        raise ValueError("copy_to copies a run's directory: give run_dir, too")
    objects = built(own)
    training = objects.training
    refuse_disagreement(training.workers, training)
    history: list[Row] = []
    show = progress if training.workers.rank == 0 else False
    with _opened(training, path, copy) as directory, Bar("fit", show, "steps") as bar:
        bar.total = training.config.recipe.schedule.steps
        if directory is not None and directory.model.exists():
            fill(model, directory.state(), directory.model)
        else:

            def on_row(row: Row) -> None:
                history.append(row)
                for callback in callbacks:
                    callback(row)
                bar.advance()

            copied = _copied(directory, copy)
            with nullcontext() if directory is None else stop.listening():
                train(training, directory, Progress(on_row, print_note, copied))
        result = _result(objects, directory, history)
        if training.workers.rank == 0:
            _copied(directory, copy)()  # with the report
        return result


def _copied(directory: RunDirectory | None, copy: Path | None) -> Callable[[], None]:
    """A function that brings the copy of a run up to date, if there is to be one."""
    return (lambda: None) if directory is None or copy is None else RunCopy(directory, copy, print_note).update


@contextmanager
def _joined() -> Iterator[Workers]:
    """The workers of the job to which this process belongs; an error of one of them ends all."""
    with closing(join(lambda: False)) as workers:
        try:
            yield workers
        except Exception:
            workers.fail(UNEXPECTED)
            raise


@contextmanager
def _opened(training: Training, path: Path | None, copy: Path | None) -> Iterator[RunDirectory | None]:
    """A context in which the directory of a new run, or of the same run as before, is locked; None without a path."""
    if path is None:
        yield None
        return
    directory, workers = RunDirectory(path), training.workers
    with in_first(workers, lambda: checked_storage(path, IN_PYTHON, copy)):
        exists = (path / reading.CONFIG).exists()
    if bool(int(workers.exchange(str(int(exists)))[0])):
        directory = RunDirectory.open(path)
        _refuse_other(directory.config(), training.config, path)
        directory.refuse_other_data(training.data_sha256)
        with in_first(workers, directory.locked):
            if (message := changed(training, directory)) and workers.rank == 0:
                print_note(message)
            yield directory
    else:
        record = environment(training.config, training.data_sha256, ["noiseless.fit"])
        with in_first(workers, lambda: directory.created(training.config, record)):
            yield directory


def _refuse_other(stored: Config, config: Config, path: Path) -> None:
    """Raises unless the run at a path is of this call's arguments."""
    pairs: dict[str, tuple[Any, Any]] = differing(stored.recipe, config.recipe)
    there, here = ({} if part.python is None else vars(part.python) for part in (stored, config))
    pairs |= {name: (there.get(name), here.get(name)) for name in here if there.get(name) != here.get(name)}
    if pairs:
        listed = ", ".join(f"{name} {old!r} there and {new!r} here" for name, (old, new) in pairs.items())
        raise ValueError(f"{path} holds a run of other arguments ({listed}): give those, or choose another run_dir")


def _result(objects: Built, directory: RunDirectory | None, history: list[Row]) -> Fit:
    """The result at the end of a run, whose report is written."""
    training = objects.training
    if directory is not None:
        if training.workers.rank == 0:
            _report(directory, training.config.recipe)
        history = directory.rows()
    return Fit(
        train=objects.train(),
        validation=objects.validation() if objects.validation else None,
        history=history,
        digest=digest(dict(training.model.state_dict())),
        run_dir=None if directory is None else directory.path,
    )


def _report(directory: RunDirectory, recipe: Recipe) -> None:
    """Writes the report of a run that has ended, if there is none yet."""
    from noiseless.report import page, summary  # they take long to import

    if not (directory.path / REPORT).exists():
        title = f"Noiseless: {recipe.name} on {recipe.data.name}"
        page.write(directory.path / REPORT, summary.read([directory]), title)
