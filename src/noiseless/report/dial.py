"""Results of a dial: accuracy beside measured noise, as a table, as a figure and as files."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from noiseless.files.atomic import write_bytes
from noiseless.files.drawn import DrawnNoise
from noiseless.report.figures import Axis, Curves, Level, Series, View, numbers, scale
from noiseless.report.price import lines
from noiseless.report.summary import spread
from noiseless.study.dial import Arm

COLUMNS = (
    "arm", "seed", "updates", "passes", "test_accuracy", "step", "share", "variance", "signal", "noise_to_signal",
    "covariance_trace", "like_batch",
)  # fmt: skip
NOTE = (
    "noise: variance of an update's gradient over the squared norm of its mean, after 1/4, 1/2 and 3/4 of the updates"
    " (geometric mean of the seeds; - where the mean is not distinguished from zero). like batches of: size of"
    " mini-batches whose gradient has the same variance, half way."
)
ROUNDING = "rounding: its squared distance from the gradient in float64, in place of the variance."


@dataclass(frozen=True)
class Ended:
    """A finished run of an arm."""

    seed: int
    accuracy: float
    """test accuracy, 0 ... 1"""
    passes: float
    noise: list[DrawnNoise]
    """at 1/4, 1/2 and 3/4 of its updates"""


@dataclass(frozen=True)
class Result:
    """An arm with its finished runs."""

    arm: Arm
    runs: list[Ended]

    def noise(self, quarter: int) -> float | None:
        """Noise to signal after a number of quarters of the updates, geometric mean over the seeds; None if unknown."""
        values = [run.noise[quarter - 1].noise_to_signal for run in self.runs if len(run.noise) >= quarter]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return 0.0 if 0.0 in known else math.exp(statistics.mean(map(math.log, known)))

    @property
    def like_batch(self) -> tuple[float, float] | None:
        """Smallest and largest size of mini-batches of the same variance, half way, over the seeds."""
        sizes = [run.noise[1].like_batch for run in self.runs if len(run.noise) > 1]
        return (min(sizes), max(sizes)) if sizes else None


def table(results: Sequence[Result], title: str) -> Table:
    """Accuracy and noise of each arm, for a terminal of 80 columns."""
    shown = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    headings, rows = _cells(results)
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=heading != "arm")
    for row in rows:
        shown.add_row(*row)
    return shown


def _cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for result in results:
        accuracy = spread([100 * run.accuracy for run in result.runs], 2) if result.runs else "-"
        rows.append([result.arm.name, accuracy, *(_number(result.noise(k)) for k in (1, 2, 3)), _sizes(result)])
    return ["arm", "accuracy %", "noise 1/4", "1/2", "3/4", "like batches of"], rows


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.2g}"


def _sizes(result: Result) -> str:
    sizes = result.like_batch
    if result.noise(2) == 0:
        return "no noise"
    if sizes is None or any(math.isnan(size) for size in sizes):
        return "-"
    low, high = (f"{size:.3g}" for size in sizes)
    return low if low == high else f"{low} to {high}"


def figure(results: Sequence[Result], title: str) -> Curves:
    """Accuracy against noise half way: a line through the sizes of mini-batches, a point for each other source.

    Args:
        results: of the arms.
        title: of the dial.

    Returns:
        The figure. Arms without noise are horizontal lines; error bars and bands reach from the worst seed to the best.
    """
    ended = [result for result in results if result.runs]
    series, levels = [], []
    for look, source in enumerate(dict.fromkeys(result.arm.source for result in ended)):
        members = [result for result in ended if result.arm.source == source]
        if source in ("none", "fixed copies"):
            levels += [Level(_mean(member), f"{member.arm.name}: no noise", look) for member in members]
            continue
        placed = sorted((noise, k) for k, member in enumerate(members) if (noise := member.noise(2)))
        if placed:
            runs = [[100 * run.accuracy for run in members[k].runs] for _, k in placed]
            series.append(Series(
                source, [noise for noise, _ in placed], numbers(map(statistics.mean, runs)), look,
                "line" if len(placed) > 1 else "points", numbers(map(min, runs)), numbers(map(max, runs)),
            ))  # fmt: skip
    places = [x for one in series for x in one.x if not isinstance(x, str)]
    view = View(Axis("gradient noise / signal, half way", scale(places)), series)
    return Curves(
        "test-accuracy-over-noise", f"test accuracy over gradient noise, {title}", Axis("test accuracy %"),
        {"noise": view}, levels, legend=True,
    )  # fmt: skip


def _mean(result: Result) -> float:
    return statistics.mean(100 * run.accuracy for run in result.runs)


def write(directory: Path, results: Sequence[Result], title: str, command: str, updates: int) -> list[Path]:
    """Writes `table.md`, and `noise.csv` with a row for each state of each run.

    Args:
        directory: of the dial.
        results: of the arms.
        title: heading of the Markdown file.
        command: the command of the dial.
        updates: of each arm.

    Returns:
        Paths of both files.
    """
    seeds = max((len(result.runs) for result in results), default=0)
    what = f"{updates} updates, {seeds} seeds; accuracy on the test images, mean ± sample standard deviation."
    text = [
        f"# {title}",
        "",
        f"Made by `{command}`",
        "",
        what,
        "",
        *lines(*_cells(results)),
        "",
        NOTE,
        "",
        ROUNDING,
        "",
    ]
    paths = directory / "table.md", directory / "noise.csv"
    for path, content in zip(paths, ("\n".join(text), _csv(results, updates)), strict=True):
        write_bytes(path, content.encode())
    return list(paths)


def _csv(results: Sequence[Result], updates: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        for run in result.runs:
            for noise in run.noise:
                measured = (noise.step, noise.share, noise.variance, noise.signal, noise.noise_to_signal,
                            noise.covariance_trace, noise.like_batch)  # fmt: skip
                writer.writerow((result.arm.name, run.seed, updates, run.passes, run.accuracy, *measured))
    return text.getvalue()
