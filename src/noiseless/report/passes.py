"""One pass of mini-batches beside the full batch: the difference and its parts, over the batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from noiseless.report.curvature import format_number
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, number, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values
from noiseless.report.summary import Summary

TEXT = (
    "One pass of mini-batches less as many full-batch steps of the same rate, from one state: the mean over keyed"
    " orders. Predicted to second order in the rate are the implicit regularisation of mini-batches (arXiv 2101.12176)"
    " and the drift by curvature, which full-batch steps have themselves. Lengths are estimated without the bias of"
    " their noise; a missing point is not told from 0."
)
HEADINGS = (
    "state", "rate", "batch", "updates", "difference", "implicit", "curvature", "residual", "cosine", "share along",
    "with replacement", "passes",
)  # fmt: skip
PARTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "difference": lambda part: part["without"]["displacement"]["value"],
    "implicit regularisation": lambda part: part["implicit_norm"]["value"],
    "curvature drift": lambda part: part["curvature_norm"],
    "residual": lambda part: part["without"]["residual"]["value"],
}
"""name of a series -> its value in the numbers of one batch size"""


def section(summaries: Sequence[Summary]) -> Section:
    """The section about one pass of mini-batches."""
    answers = answers_of(summaries, "decompose")
    figures = [figure for order, answer in enumerate(answers, 1) for figure in _figure(order, answer)]
    return Section("passes", "One pass of mini-batches", TEXT, figures, _table(answers))


def _figure(order: int, answer: RunAnswer) -> list[Curves]:
    """The parts of one answer over the batch size."""
    with checked_values(answer) as values:
        rising = sorted(values["batches"], key=lambda part: part["batch"])
        sizes = [float(part["batch"]) for part in rising]
        series = [
            Series(name, sizes, [number(value(part)) for part in rising], look)
            for look, (name, value) in enumerate(PARTS.items())
        ]
        title = f"Mini-batches less full batch: {answer.name}, rate {values['lr']:.3g}"
    drawn = [y for line in series for y in line.y]
    if all(y is None for y in drawn):
        return []
    view = {"batch": View(Axis("examples per batch", scale(sizes)), series)}
    return [Curves(f"one-pass-{order}", title, Axis("L2 norm", scale(drawn)), view, legend=True)]


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as values:
            for part in values["batches"]:
                without, drawn = part["without"], part["with"]
                rows.append((
                    answer.name, format_number(values["lr"]), str(part["batch"]), str(part["updates"]),
                    _estimate(without["displacement"]), _estimate(part["implicit_norm"]),
                    format_number(part["curvature_norm"]), _estimate(without["residual"]),
                    _estimate(without["cosine"]), _estimate(without["explained"]),
                    _estimate(drawn["displacement"]) if drawn else "-", format_number(values["passes"]),
                ))  # fmt: skip
    return Table(HEADINGS, rows) if rows else None


def _estimate(estimate: dict[str, Any]) -> str:
    error = number(estimate["error"])
    return format_number(estimate["value"]) + ("" if error is None else f" ± {error:.2g}")
