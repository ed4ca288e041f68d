"""The commands `landscape` and `flatness`, which evaluate the loss around a state of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from noiseless.ask.options import BatchNorm, FlatnessOptions
from noiseless.commands.arguments import whole
from noiseless.commands.asking import StateFlags, answer_question, bar, load
from noiseless.commands.console import console
from noiseless.commands.interrupt import interruptible
from noiseless.errors import shown
from noiseless.recipes.checks import MOST_SEED, at_least

if TYPE_CHECKING:
    from noiseless.ask.axes import AxesOptions
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers

MOST_POINTS = 10_000
"""largest number of points along an axis"""


@dataclass(frozen=True)
class LandscapeFlags(StateFlags):
    """Compute loss, accuracy and penalised loss on a line or in a plane around a state of a run.

    Each point is saved as soon as it is computed, so the same command continues after an interruption.
    """

    others: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[OTHER[@STEP] ...]")] = ()
    """states that lie at 1 on the axes, as RUN[@STEP]: one for a line, two for a plane"""
    axes: Literal["auto", "random", "between", "pca", "eigen"] = "auto"
    """random; between: to OTHER; pca: of the checkpoints; eigen: Hessian eigenvectors; auto: random, or to OTHER"""
    dimensions: Literal[1, 2] | None = None
    """1: a line, 2: a plane; none: as many as OTHER states or numbers in --points"""
    normalised: Literal["auto", "filter", "layer", "weight", "none"] = "auto"
    """norms of the parameters that scale a direction; auto: filter for random directions, none for eigenvectors"""
    points: str = "21"
    """number of points along each axis, such as 21, or 21x11 for a plane"""
    range: float | None = None
    """R: from -R to R (none: 1); between: from -R to 1 + R (none: 0.5); pca: R extents beyond states (none: 0.25)"""
    seed: int = 0
    """seed of the random directions"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    penalised: bool = True
    """also compute the penalised loss if the run has a penalty: costs a gradient for each point instead of a forward"""
    name: str | None = None
    """name of the result; none: made from the flags"""

    def check(self) -> None:
        """Refuses values that are wrong for any run."""
        super().check()
        self.counts()
        at_least("seed", self.seed, 0, MOST_SEED)
        if self.range is not None and not 0 < self.range < math.inf:
            raise ValueError(f"--range must be a positive, finite number, not {self.range}")

    def counts(self) -> tuple[int, ...]:
        """Parses `--points`, the number of points along each axis.

        Returns:
            One or two numbers.

        Raises:
            ValueError: if the flag is anything else.
        """
        parts = self.points.split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdecimal() for part in parts):
            raise ValueError(f"--points must be a number such as 21, or two such as 21x11, not {shown(self.points)!r}")
        counts = tuple(whole("--points", part, MOST_POINTS) for part in parts)
        if min(counts) < 2:
            raise ValueError(f"--points must be at least 2 along each axis, not {self.points}")
        return counts


def landscape(arguments: list[str]) -> int:
    """Computes a landscape of a run."""
    stopped = "the computed points are saved; continue with"
    return answer_question("landscape", arguments, LandscapeFlags, _landscape, _print_landscape, stopped)


def _landscape(args: LandscapeFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.landscape import carry_out, prepare

    options = _axes(args)
    state = load(address, workers)
    with interruptible():
        job = prepare(state, options, args.batch_norm, args.penalised, args.name)
    along = ", ".join(axis.label for axis in job.axes)
    console.print(f"landscape of {address.directory.path}@{state.step} along {along}; {_norm(args.batch_norm)}")
    with bar("points") as progress:

        def start(done: int, total: int) -> None:
            progress.begin(done, total)
            kind = "gradients" if job.file.header["penalty"] else "forwards"
            known = f", {done} of them computed before" if done else ""
            console.print(f"{total} points{known}; {(total - done) * job.cost:.4g} passes ({kind}) to go")

        answer = carry_out(job, start, lambda _, seconds: progress.advance(seconds))
    yield answer


def _axes(args: LandscapeFlags) -> AxesOptions:
    from noiseless.ask.axes import AxesOptions
    from noiseless.files.address import StateAddress

    others, counts = tuple(map(StateAddress.read, args.others)), args.counts()
    return AxesOptions(
        kind=("between" if others else "random") if args.axes == "auto" else args.axes,
        others=others,
        dimensions=args.dimensions or max(len(others), len(counts)),
        counts=counts,
        reach=args.range,
        normalised=None if args.normalised == "auto" else args.normalised,
        seed=args.seed,
    )


def _print_landscape(args: LandscapeFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    rows = values["loss"] if len(values["axes"]) == 2 else [values["loss"]]
    losses = [loss for row in rows for loss in row if loss is not None]
    if losses:
        console.print(f"loss from {min(losses):.6g} to {max(losses):.6g} over {len(losses)} points")
    if values["gaps"]:
        console.print(
            f"{values['gaps']} of {values['total']} points are not finite, and are left blank; a smaller --range may"
            " avoid them",
            style="yellow",
        )


@dataclass(frozen=True)
class FlatnessFlags(StateFlags):
    """Compute the mean increase of the training loss along random directions, with its standard error."""

    flatness: FlatnessOptions = field(default_factory=FlatnessOptions)


def flatness(arguments: list[str]) -> int:
    """Measures the flatness of a run."""
    return answer_question("flatness", arguments, FlatnessFlags, _flatness, _print_flatness)


def _flatness(args: FlatnessFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.flatness import flatness
    from noiseless.objective.base import FORWARD

    state, options = load(address, workers), args.flatness
    console.print(
        f"flatness of {address.directory.path}@{state.step}: at most {options.most} directions"
        f" ({options.normalised}-normalised), {(options.most + 1) * FORWARD:.4g} passes (forwards);"
        f" {_norm(options.batch_norm)}"
    )
    with bar("directions") as progress:
        progress.begin(0, options.most)
        began = time.perf_counter()

        def advance(increase: float | None) -> None:
            nonlocal began
            progress.advance(time.perf_counter() - began)
            began = time.perf_counter()

        answer = flatness(state, options, advance)
    yield answer


def _print_flatness(args: FlatnessFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    if values["mean_increase"] is None:
        console.print(
            f"the loss is not finite along direction {values['directions'] - 1} at radius {values['radius']:g}:"
            " there is no mean, give a smaller --radius",
            style="yellow",
        )
        return
    why = "the error is small enough" if values["stopped"] == "converged" else "--most directions are reached"
    console.print(
        f"mean increase {values['mean_increase']:.6g}, standard error {values['standard_error']:.2g}, over"
        f" {values['directions']} directions: {why}"
    )


def _norm(batch_norm: BatchNorm) -> str:
    mode = "statistics of each block" if batch_norm == "block" else "the state's running statistics"
    return f"batch norm, if any: {mode}"
