"""The command `evaluate`: loss and accuracy of a run's model, on its own data or on others, also by class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.commands.addresses import TrustingState
from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.errors import message
from noiseless.trust import permit, permit_functions

if TYPE_CHECKING:
    from torch import Tensor

    from noiseless.commands.subject import Evaluated
    from noiseless.files.address import StateAddress
    from noiseless.recipes.recipe import Recipe
    from noiseless.run.evaluate import Score


@dataclass(frozen=True)
class Evaluate(TrustingState):
    """Print the loss and accuracy of a run's model on the training and test images, and save its test predictions.

    With --data, the images are those of another data set with the same classes, and no predictions are saved.
    """

    data: str | None = None
    """another data set, see noiseless data list; none: that of the run"""
    data_dir: str | None = None
    """directory of the data set of --data; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""
    per_class: bool = False
    """also print the accuracy on the test images of each class"""
    json: bool = False
    """print one JSON object instead, with accuracies from 0 to 1"""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of one state."""

    title: str | None
    """which of several states it is"""
    parts: dict[str, Score]
    """part of the data set -> score"""


def evaluate(arguments: list[str]) -> int:
    """Prints loss and accuracy of a run's model, and of the average of its parameters if the run keeps one."""
    args = parse(Evaluate, arguments, "evaluate")
    permit(*args.trust)
    if args.data is not None:
        from noiseless.data.catalogue import full_name

        full_name(args.data)
        permit_functions(args.data)
    from noiseless.files.address import StateAddress

    address = StateAddress.read(args.run)
    address.refuse_missing()
    if not args.json:
        console.print(f"evaluating {address}{f' on {args.data}' if args.data else ''}")
    from noiseless.commands import subject

    recipe = address.directory.config().recipe
    evaluated = subject.evaluated(address, args.data, Path(args.data_dir) if args.data_dir else None)
    scored = list(_scored(address, recipe, evaluated))
    ended = address.directory.model.exists()
    if args.json:
        print(json.dumps(_values(args, address, scored)))  # noqa: T201
        return 0
    if recipe.evaluation.test_flips:
        console.print("class probabilities are averaged over the image and its mirror image (--test-flips)")
    for state in scored:
        if state.title:
            console.print(f"{state.title}:")
        for part, score in state.parts.items():
            console.print(
                f"{part:5}  loss {score.loss:.6f}  accuracy {score.accuracy:.4%}  ({len(score.target)} images)"
            )
    if args.per_class:
        console.print(_by_class(scored[0].parts["test"]), soft_wrap=False)
    if args.data is not None:
        return 0
    if ended or address.step is not None:
        _save_predictions(address, scored[0].parts["test"])
    else:
        console.print("the run has not ended: these are the results of its newest checkpoint")
    return 0


def _scored(address: StateAddress, recipe: Recipe, evaluated: Evaluated) -> Iterator[Scored]:
    """Scores a model in each state that is to be evaluated: that of the record first."""
    from noiseless.files.parameters import fill
    from noiseless.portable import arithmetic
    from noiseless.run.evaluate import score

    for title, state, source in _states(address, recipe):
        if state is not None:
            fill(evaluated.model, state, source)
        flips = recipe.evaluation.test_flips
        with arithmetic(recipe.model.portable):
            scores = {
                part: score(evaluated.model, images, flips, evaluated.loss) for part, images in evaluated.images.items()
            }
        yield Scored(title, scores)


def _states(address: StateAddress, recipe: Recipe) -> Iterator[tuple[str | None, dict[str, Tensor] | None, Path]]:
    """Title, parameters and buffers, and file of each state; None stands for the initial state, which the model has."""
    from noiseless.files.stored import read_state

    directory, ema = address.directory, recipe.evaluation.ema
    if address.step is not None:
        stored = read_state(address)
        yield None, stored.model, stored.file
        return
    ended = directory.model.exists()
    for average in (True, False) if ema else (False,):
        title = f"exponential average of the parameters (momentum {ema:g}), as in the test columns of the record"
        file = directory.average if average else directory.model
        state = directory.state(average)
        yield (
            (title if average else "final parameters") if ema else None,
            state,
            file if ended else directory.checkpoints,
        )


def _by_class(score: Score) -> Table:
    """Table of the accuracy on the test images of each class."""
    table = Table(title="test images of each class", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("class", "images", "correct", "accuracy %"):
        table.add_column(heading, justify="right")
    for row in _classes(score):
        share = f"{100 * row['accuracy']:.2f}" if row["images"] else "-"
        table.add_row(str(row["class"]), str(row["images"]), str(row["correct"]), share)
    return table


def _classes(score: Score) -> list[dict[str, Any]]:
    """Number of images, hits and accuracy of each class."""
    rows = []
    for label in range(int(score.target.max()) + 1):
        of_class = score.target == label
        images, correct = int(of_class.sum()), int((score.predicted[of_class] == label).sum())
        accuracy = correct / images if images else None
        rows.append({"class": label, "images": images, "correct": correct, "accuracy": accuracy})
    return rows


def _values(args: Evaluate, address: StateAddress, scored: list[Scored]) -> dict[str, Any]:
    """The scores for JSON."""
    states = []
    for state in scored:
        parts: dict[str, Any] = {}
        for part, score in state.parts.items():
            parts[part] = {"loss": score.loss, "accuracy": score.accuracy, "images": len(score.target)}
            if args.per_class:
                parts[part]["classes"] = _classes(score)
        states.append({"state": state.title, **parts})
    run = str(address.directory.path)
    return {"run": run, "step": address.step, "data": args.data or address.directory.config().recipe.data.name,
            "ended": address.directory.model.exists(), "states": states}  # fmt: skip


def _save_predictions(address: StateAddress, score: Score) -> None:
    """Writes the predictions of a state unless the file exists, and warns if they differ from the file."""
    from noiseless.files import predictions

    path, step = address.directory.path, address.step
    file = predictions.place(path, step)
    try:
        differing = predictions.keep(path, score.predictions, step)
    except OSError as error:
        console.print(f"predictions are not saved: {message(error)}", style="yellow")
        return
    if differing is None:
        console.print(f"predictions: {file}")
    elif differing:
        console.print(
            f"{file} is left unchanged, but {differing} of its predictions differ from those computed now",
            style="yellow",
        )
