"""Gradient noise: its scale, the signal it is beside, and how both depend on the block's size and the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from noiseless.report.curvature import shown
from noiseless.report.curves import Quantity, panel
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, number, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, distinct, looks, series_over
from noiseless.report.seeds import Points, joined
from noiseless.report.summary import Summary

TEXT = (
    "The noise scale tr(S) / |g|^2, in examples, is the batch size at which the noise of a stochastic gradient would be"
    " as large as the gradient (arXiv 1812.06162). Points were asked at single states."
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
    """All that the runs know of their gradients' noise."""
    answers = answers_of(summaries, "noise")
    figures = []
    for name, quantity in PANELS:

        def more(summary: Summary, look: int, over: str, key: str = quantity.key) -> list[Series]:
            of_recipe = [answer for answer in answers if answer.look == look]
            x, y = series_over(of_recipe, over, lambda content: content[key])
            return [Series(f"{summary.name}, asked", x, y, look, "points")] if x else []

        figures += panel(name, quantity, summaries, more)
    return Section(
        "noise", "Gradient noise", TEXT, [*figures, *_by_block(answers), *_by_layer(answers)], _table(answers)
    )


def _by_block(answers: Sequence[RunAnswer]) -> list[Curves]:
    """Signal to noise over the block's size."""

    def points(answer: RunAnswer) -> Points:
        with checked_values(answer) as content:
            by_block = {number(row["block"]): number(row["signal_to_noise"]) for row in content["by_block"]}
        return dict(sorted((size, ratio) for size, ratio in by_block.items() if size is not None))

    series, legend = _alike([answer for answer in answers if answer.values.get("by_block")], points, "line")
    values = [y for each in series for y in each.y]
    if all(value is None for value in values):
        return []
    x = Axis("examples a block", scale(float(x) for each in series for x in each.x))
    y = Axis("signal to noise", scale(values))
    view = {"block": View(x, series)}
    return [Curves("signal-to-noise-by-block", "Signal to noise by block size", y, view, legend=legend)]


def _by_layer(answers: Sequence[RunAnswer]) -> list[Curves]:
    """Signal to noise of each parameter, at the last state that was asked of each run."""

    def points(answer: RunAnswer) -> Points:
        with checked_values(answer) as content:
            return {name: number(values["signal_to_noise"]) for name, values in content["layers"].items()}

    last = {id(answer.run): answer for answer in answers if answer.values.get("layers")}  # answers come by rising step
    series, legend = _alike(list(last.values()), points, "points")
    values = [y for each in series for y in each.y]
    if all(value is None for value in values):
        return []
    view = {"layer": View(Axis("parameter"), series)}
    axis = Axis("signal to noise", scale(values))
    return [Curves("signal-to-noise-by-layer", "Signal to noise by layer", axis, view, legend=legend, wide=True)]


def _alike(
    answers: Sequence[RunAnswer], points: Callable[[RunAnswer], Points], kind: Literal["line", "points"]
) -> tuple[list[Series], bool]:
    """Answers of a recipe's seeds to one question at one step, as a mean with its range; whether they need a legend."""
    groups: dict[tuple[int, int, str], list[RunAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.look, answer.step, answer.answer.name), []).append(answer)
    chosen, legend = looks([alike[0] for alike in groups.values()])
    names = [f"{alike[0].summary.name} @{step}" for (_, step, _), alike in groups.items()]
    names = distinct(names, [name for _, _, name in groups])
    series: list[Series] = []
    for name, look, alike in zip(names, chosen, groups.values(), strict=True):
        series += joined(name, look, [points(answer) for answer in alike], kind)
    return series, legend


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        keys = ("gradient_norm", "noise_scale", "signal_to_noise", "alignment", "momentum_cosine", "passes")
        with checked_values(answer) as content:
            numbers = (shown(content.get(key)) for key in keys)
            rows.append((answer.name, str(content["block"]), str(content["blocks"]), *numbers))
    return Table(HEADINGS, rows) if rows else None
