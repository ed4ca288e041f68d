"""The commands that look around a state of a run: landscape and flatness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from noiseless.commands.arguments import take, take_count
from noiseless.commands.asking import bar, in_job
from noiseless.commands.console import console
from noiseless.commands.interrupt import at_once

if TYPE_CHECKING:
    from noiseless.objective.workers import Workers

RUN = tyro.conf.arg(metavar="RUN[@STEP]")
Normalised = Literal["filter", "layer", "weight", "none"]
BatchNorm = Literal["block", "running"]


@dataclass(frozen=True)
class Landscape:
    """Loss, accuracy and penalised loss of a run on a line or in a plane around one of its states.

    Each point is written down when it is found: the same command goes on where it was stopped or killed. --workers W
    shares each sweep among W processes, with the same bits.
    """

    run: Annotated[tyro.conf.Positional[str], RUN]
    """the run, and the steps done at the state that is meant; none: its end"""
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
    """block: statistics of each norm block, as in training; running: evaluation mode, with the state's own buffers"""
    penalised: bool = True
    """whether the penalised loss is asked too, where the run has a penalty: a gradient a point instead of a forward"""
    name: str | None = None
    """of the answer; none: one that follows from what is asked"""


@dataclass(frozen=True)
class Flatness:
    """Mean rise of the training loss along random directions, with its standard error.

    --workers W shares each sweep among W processes, with the same bits.
    """

    run: Annotated[tyro.conf.Positional[str], RUN]
    """the run, and the steps done at the state that is meant; none: its end"""
    radius: float = 0.5
    """length of the step, in normalised directions"""
    normalised: Normalised = "filter"
    """by which norms of the parameters a direction is scaled"""
    tolerance: float = 0.1
    """stops where the standard error is at most this share of the mean; 0: at the bound"""
    most: int = 100
    """bound on the directions"""
    seed: int = 0
    """of the directions"""
    batch_norm: BatchNorm = "block"
    """block: statistics of each norm block, as in training; running: evaluation mode, with the state's own buffers"""


def landscape(arguments: list[str]) -> int:
    """A landscape of a run."""
    given = ["landscape", *arguments]
    workers, arguments = take_count(arguments, "--workers")
    asked = tyro.cli(Landscape, args=arguments, prog="noiseless landscape")
    counts = _counts(asked.points)

    from noiseless.ask.asking import Place
    from noiseless.ask.axes import Wanted
    from noiseless.run import team

    place, others = Place.read(asked.run), tuple(map(Place.read, asked.others))
    wanted = Wanted(
        kind=("between" if others else "random") if asked.axes == "auto" else asked.axes,
        others=others,
        dimensions=asked.dimensions or max(len(others), len(counts)),
        counts=counts,
        reach=asked.range,
        normalised=None if asked.normalised == "auto" else asked.normalised,
        seed=asked.seed,
    )
    if workers > 1 and not team.in_job():
        return team.launch(workers, take(given, "--workers")[1])

    def work(joined: Workers) -> int:
        from noiseless.ask import landscape

        with at_once():
            survey = landscape.prepare(place, wanted, joined, asked.batch_norm, asked.penalised, asked.name)
        along = ", ".join(axis.label for axis in survey.axes)
        console.print(
            f"landscape of {place.directory.path}@{survey.asked.step} along {along}; {_norm(asked.batch_norm)}"
        )
        with bar("points") as shown:

            def start(done: int, total: int) -> None:
                shown.begin(done, total)
                kind = "gradients" if survey.file.header["penalty"] else "forwards"
                known = f", {done} of them known" if done else ""
                console.print(f"{total} points{known}; {(total - done) * survey.cost:.4g} passes ({kind}) to go")

            found, path = landscape.carry_out(survey, joined, start, lambda _, seconds: shown.advance(seconds))
        _tell(found.found)
        console.print(f"landscape: {path}")
        return 0

    return in_job(work, given, "what is known is kept; go on with")


def flatness(arguments: list[str]) -> int:
    """The flatness of a run."""
    given = ["flatness", *arguments]
    workers, arguments = take_count(arguments, "--workers")
    asked = tyro.cli(Flatness, args=arguments, prog="noiseless flatness")

    from noiseless.ask.asking import Place
    from noiseless.run import team

    place = Place.read(asked.run)
    if workers > 1 and not team.in_job():
        return team.launch(workers, take(given, "--workers")[1])

    def work(joined: Workers) -> int:
        import time

        from noiseless.ask import flatness
        from noiseless.objective.base import FORWARD

        with bar("directions") as shown:
            began = 0.0

            def start(step: int) -> None:
                nonlocal began
                console.print(
                    f"flatness of {place.directory.path}@{step}: at most {asked.most} directions"
                    f" ({asked.normalised}-normalised), {(asked.most + 1) * FORWARD:.4g} passes (forwards);"
                    f" {_norm(asked.batch_norm)}"
                )
                shown.begin(0, asked.most)
                began = time.perf_counter()

            def tell(increase: float | None) -> None:
                nonlocal began
                shown.advance(time.perf_counter() - began)
                began = time.perf_counter()

            found, path = flatness.measure(
                place, joined, asked.radius, asked.normalised, seed=asked.seed, batch_norm=asked.batch_norm,
                tolerance=asked.tolerance, most=asked.most, on_start=start, on_direction=tell,
            )  # fmt: skip
        if found.mean is None:
            console.print(
                f"not finite along direction {len(found.increases) - 1} at radius {asked.radius:g}: there is no mean;"
                " give a smaller --radius",
                style="yellow",
            )
        else:
            why = "the error is small enough" if found.stopped == "converged" else "the bound on directions is reached"
            console.print(
                f"mean increase {found.mean:.6g}, standard error {found.standard_error:.2g}, over"
                f" {len(found.increases)} directions: {why}"
            )
        console.print(f"flatness: {path}")
        return 0

    return in_job(work, given, "nothing is kept; start again with")


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--points must be a number such as 21, or two such as 21x11, not {text!r}")
    counts = tuple(map(int, parts))
    if min(counts) < 2:
        raise ValueError(f"--points {text}: a grid needs at least 2 points along each axis; one point has no shape")
    return counts


def _norm(batch_norm: BatchNorm) -> str:
    how = "statistics of each block" if batch_norm == "block" else "the state's running statistics"
    return f"batch norm, if any: {how}"


def _tell(found: dict[str, Any]) -> None:
    """A few numbers of a landscape."""
    rows = found["loss"] if len(found["axes"]) == 2 else [found["loss"]]
    known = [value for row in rows for value in row if value is not None]
    if known:
        console.print(f"loss from {min(known):.6g} to {max(known):.6g} over {len(known)} points")
    if found["gaps"]:
        console.print(
            f"{found['gaps']} of {found['total']} points are not finite: they are gaps, not numbers; a smaller --range"
            " may leave them out",
            style="yellow",
        )
