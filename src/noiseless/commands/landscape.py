"""The commands that look around a state of a run: landscape and flatness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from noiseless.ask.options import BatchNorm, FlatnessOptions
from noiseless.commands.asking import StateFlags, answer_question, bar, load
from noiseless.commands.console import console
from noiseless.commands.interrupt import at_once

if TYPE_CHECKING:
    from noiseless.ask.axes import AxesOptions
    from noiseless.ask.state import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


@dataclass(frozen=True)
class LandscapeFlags(StateFlags):
    """Loss, accuracy and penalised loss of a run on a line or in a plane around one of its states.

    A point is written down as soon as it is computed: the same command goes on where it was stopped or killed.
    """

    others: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[OTHER[@STEP] ...]")] = ()
    """states at 1 on the axes: one for a line, two for a plane"""
    axes: Literal["auto", "random", "between", "pca", "eigen"] = "auto"
    """random; to OTHER; principal directions of kept checkpoints; Hessian eigenvectors; auto: to OTHER if given"""
    dimensions: Literal[1, 2] | None = None
    """a line or a plane; none: as many as OTHER or as --points has numbers"""
    normalised: Literal["auto", "filter", "layer", "weight", "none"] = "auto"
    """norms of the parameters that scale a direction; auto: filter for random, none for eigenvectors"""
    points: str = "21"
    """along each axis; 21x11 for a plane with two numbers"""
    range: float | None = None
    """R: random and eigen from -R to R (1), between from -R to 1 + R (0.5), pca R extents beyond the states (0.25)"""
    seed: int = 0
    """of random directions"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    penalised: bool = True
    """compute the penalised loss, too, where the run has a penalty: a gradient a point instead of a forward"""
    name: str | None = None
    """of the answer; none: one that follows from the flags"""

    def check(self) -> None:
        """Refuses values that no run can make right."""
        super().check()
        self.counts()

    def counts(self) -> tuple[int, ...]:
        """Numbers of points along each axis, from `--points`.

        Returns:
            One or two numbers.

        Raises:
            ValueError: if the flag holds something else.
        """
        parts = self.points.split("x")
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            raise ValueError(f"--points must be a number such as 21, or two such as 21x11, not {self.points!r}")
        counts = tuple(map(int, parts))
        if min(counts) < 2:
            raise ValueError(
                f"--points {self.points}: a grid needs at least 2 points along each axis; one point has no shape"
            )
        return counts


def landscape(arguments: list[str]) -> int:
    """Computes a landscape of a run."""
    stopped = "what is known is kept; go on with"
    return answer_question("landscape", arguments, LandscapeFlags, _landscape, _print_landscape, stopped)


def _landscape(flags: LandscapeFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.landscape import carry_out, prepare

    options = _axes(flags)
    state = load(address, workers)
    with at_once():
        job = prepare(state, options, flags.batch_norm, flags.penalised, flags.name)
    along = ", ".join(axis.label for axis in job.axes)
    console.print(f"landscape of {address.directory.path}@{state.step} along {along}; {_norm(flags.batch_norm)}")
    with bar("points") as progress:

        def start(done: int, total: int) -> None:
            progress.begin(done, total)
            kind = "gradients" if job.file.header["penalty"] else "forwards"
            known = f", {done} of them known" if done else ""
            console.print(f"{total} points{known}; {(total - done) * job.cost:.4g} passes ({kind}) to go")

        answer = carry_out(job, start, lambda _, seconds: progress.advance(seconds))
    yield answer


def _axes(flags: LandscapeFlags) -> AxesOptions:
    from noiseless.ask.axes import AxesOptions
    from noiseless.ask.state import StateAddress

    others, counts = tuple(map(StateAddress.read, flags.others)), flags.counts()
    return AxesOptions(
        kind=("between" if others else "random") if flags.axes == "auto" else flags.axes,
        others=others,
        dimensions=flags.dimensions or max(len(others), len(counts)),
        counts=counts,
        reach=flags.range,
        normalised=None if flags.normalised == "auto" else flags.normalised,
        seed=flags.seed,
    )


def _print_landscape(flags: LandscapeFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    rows = values["loss"] if len(values["axes"]) == 2 else [values["loss"]]
    losses = [loss for row in rows for loss in row if loss is not None]
    if losses:
        console.print(f"loss from {min(losses):.6g} to {max(losses):.6g} over {len(losses)} points")
    if values["gaps"]:
        console.print(
            f"{values['gaps']} of {values['total']} points are not finite: they are gaps, not numbers; a smaller"
            " --range may leave them out",
            style="yellow",
        )


@dataclass(frozen=True)
class FlatnessFlags(StateFlags):
    """Mean rise of the training loss along random directions, with its standard error."""

    flatness: FlatnessOptions = field(default_factory=FlatnessOptions)


def flatness(arguments: list[str]) -> int:
    """Measures the flatness of a run."""
    return answer_question("flatness", arguments, FlatnessFlags, _flatness, _print_flatness)


def _flatness(flags: FlatnessFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.flatness import flatness
    from noiseless.objective.base import FORWARD

    state, options = load(address, workers), flags.flatness
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


def _print_flatness(flags: FlatnessFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    if values["mean_increase"] is None:
        console.print(
            f"not finite along direction {values['directions'] - 1} at radius {values['radius']:g}: there is no mean;"
            " give a smaller --radius",
            style="yellow",
        )
        return
    why = "the error is small enough" if values["stopped"] == "converged" else "the bound on directions is reached"
    console.print(
        f"mean increase {values['mean_increase']:.6g}, standard error {values['standard_error']:.2g}, over"
        f" {values['directions']} directions: {why}"
    )


def _norm(batch_norm: BatchNorm) -> str:
    mode = "statistics of each block" if batch_norm == "block" else "the state's running statistics"
    return f"batch norm, if any: {mode}"
