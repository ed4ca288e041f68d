"""Gradient noise: noise scale and signal to noise, over the run, by block size and by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from noiseless.report.curvature import format_number
from noiseless.report.curves import Quantity, panel
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, number, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, distinct, looks, series_over
from noiseless.report.seeds import Points, joined
from noiseless.report.summary import Summary

TEXT = (
    "The noise scale tr(S) / |g|^2, in examples, is the batch size at which the noise of a stochastic gradient would be"
    " as large as the gradient (arXiv 1812.06162). It is missing where the gradient is not distinguished from zero."
    " Points are answers of noiseless noise at single states."
)
HEADINGS = (
    "state", "block", "blocks", "gradient norm", "noise scale", "signal to noise", "alignment", "momentum cosine",
    "passes",
)  # fmt: skip
PANELS = (
    ("noise-scale", Quantity("noise_scale", "Noise scale", "noise scale, examples", True)),
    ("signal-to-noise", Quantity("signal_to_noise", "Signal to noise of a block's gradient", "signal to noise", True)),
)


def section(summaries: Sequence[Summary]) -> Section:
    """The section about gradient noise."""
    answers = answers_of(summaries, "noise")
    figures = []
    for name, quantity in PANELS:

        def more(summary: Summary, look: int, over: str, key: str = quantity.key) -> list[Series]:
            of_recipe = [answer for answer in answers if answer.look == look]
            x, y = series_over(of_recipe, over, lambda content: content[key])
            return [Series(f"{summary.name}, single states", x, y, look, "points")] if x else []

        figures += panel(name, quantity, summaries, more)
    return Section(
        "noise", "Gradient noise", TEXT, [*figures, *_by_block(answers), *_by_layer(answers)], _table(answers)
    )


def _by_block(answers: Sequence[RunAnswer]) -> list[Curves]:
    """Signal to noise over the block size."""

    def points(answer: RunAnswer) -> Points:
        with checked_values(answer) as content:
            by_block = {number(row["block"]): number(row["signal_to_noise"]) for row in content["by_block"]}
        return dict(sorted((size, ratio) for size, ratio in by_block.items() if size is not None))

    series, legend = _grouped_series([answer for answer in answers if answer.values.get("by_block")], points, "line")
    return by_block_figure(series, legend)


def by_block_figure(series: Sequence[Series], legend: bool) -> list[Curves]:
    """The figure of signal to noise over the block size.

    Args:
        series: signal to noise over the number of examples in a block.
        legend: whether the figure needs its own legend.

    Returns:
        A list with the figure; empty if there is no value to draw.
    """
    values = [y for line in series for y in line.y]
    if all(value is None for value in values):
        return []
    x = Axis("examples per block", scale(float(x) for line in series for x in line.x))
    y = Axis("signal to noise", scale(values))
    view = {"block": View(x, list(series))}
    return [Curves("signal-to-noise-by-block", "Signal to noise by block size", y, view, legend=legend)]


def _by_layer(answers: Sequence[RunAnswer]) -> list[Curves]:
    """Signal to noise of each parameter tensor, at the last state of each run that has an answer."""

    def points(answer: RunAnswer) -> Points:
        with checked_values(answer) as content:
            return {name: number(values["signal_to_noise"]) for name, values in content["layers"].items()}

    # answers are in the order of their steps, so the last of each run remains
    last = {id(answer.run): answer for answer in answers if answer.values.get("layers")}
    series, legend = _grouped_series(list(last.values()), points, "points")
    values = [y for line in series for y in line.y]
    if all(value is None for value in values):
        return []
    view = {"layer": View(Axis("parameter"), series)}
    axis = Axis("signal to noise", scale(values))
    return [Curves("signal-to-noise-by-layer", "Signal to noise by layer", axis, view, legend=legend, wide=True)]


def _grouped_series(
    answers: Sequence[RunAnswer], points: Callable[[RunAnswer], Points], kind: Literal["line", "points"]
) -> tuple[list[Series], bool]:
    """The mean and range over the seeds of each recipe, for answers of the same name at the same step.

    Args:
        answers: of all runs.
        points: answer -> its points.
        kind: of the series.

    Returns:
        The series, and whether they need their own legend.
    """
    groups: dict[tuple[int, int, str], list[RunAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.look, answer.step, answer.answer.name), []).append(answer)
    chosen, legend = looks([group[0] for group in groups.values()])
    names = [f"{group[0].summary.name} @{step}" for (_, step, _), group in groups.items()]
    names = distinct(names, [name for _, _, name in groups])
    series: list[Series] = []
    for name, look, group in zip(names, chosen, groups.values(), strict=True):
        series += joined(name, look, [points(answer) for answer in group], kind)
    return series, legend


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        keys = ("gradient_norm", "noise_scale", "signal_to_noise", "alignment", "momentum_cosine", "passes")
        with checked_values(answer) as content:
            numbers = (_with_interval(content, key) for key in keys)
            rows.append((answer.name, str(content["block"]), str(content["blocks"]), *numbers))
    return Table(HEADINGS, rows) if rows else None


def _with_interval(content: Mapping[str, Any], key: str) -> str:
    """A number of an answer, and its interval if it has one."""
    interval = content.get(f"{key}_interval")
    bounds = f" ({format_number(interval[0])} to {format_number(interval[1])})" if interval else ""
    return format_number(content.get(key)) + bounds
