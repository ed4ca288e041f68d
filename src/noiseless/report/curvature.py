"""Sharpness with the edge of stability, further Hessian eigenvalues, and the spectral density."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from noiseless.errors import UnknownNameError
from noiseless.files.directory import Row
from noiseless.optim import optimizer_entry
from noiseless.report.curves import Quantity, panel
from noiseless.report.figures import (
    OVER,
    Axis,
    Curves,
    Section,
    Series,
    Table,
    View,
    number,
    numbers,
    scale,
    slug,
)
from noiseless.report.layer_curvature import layer_figures
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, distinct, looks, series_over
from noiseless.report.seeds import column, curve, joined
from noiseless.report.summary import Summary
from noiseless.trust import is_code

SHOWN = 1e-7
"""smallest density that is shown, as a share of the largest"""
TEXT = (
    "Sharpness is the largest eigenvalue of the Hessian of the training loss. The dashed line is the sharpness at which"
    " the optimizer is at the edge of stability: 2 / lr for plain gradient descent, otherwise with momentum and weight"
    " decay. Above it, steps grow along that direction if nothing clips them. Points are answers of"
    " noiseless sharpness at single states."
)
HEADINGS = ("state", "of", "batch norm", "loss", "largest", "smallest", "edge", "trace", "passes", "seconds", "")


def section(summaries: Sequence[Summary]) -> Section:
    """The section about the curvature of the loss."""
    answers = answers_of(summaries, "sharpness")
    plain = [answer for answer in answers if _hessian(answer) == "loss"]
    scaled = [answer for answer in answers if _hessian(answer) in ("preconditioned loss", "preconditioned objective")]
    preconditioned = {
        look
        for look, summary in enumerate(summaries)
        if _preconditions(summary.runs[0].recipe.optimizer.name)
        or any("preconditioned_sharpness" in row for run in summary.runs for row in run.rows)
    }
    figures = [
        *_sharpness("sharpness", "Sharpness", "sharpness", summaries, plain, preconditioned),
        *_sharpness(
            "preconditioned-sharpness", "Sharpness of the preconditioned Hessian", "preconditioned_sharpness",
            summaries, scaled, set(range(len(summaries))) - preconditioned,
        ),
        *_at_equal_loss(summaries),
        *(figure for look, summary in enumerate(summaries) for figure in _eigenvalues(look, summary)),
        *layer_figures(answers),
        *_density([answer for answer in answers if answer.values.get("density")]),
    ]  # fmt: skip
    return Section("sharpness", "Sharpness", TEXT, figures, _table(answers))


def _hessian(answer: RunAnswer) -> str:
    """The matrix of an answer: `loss`, `objective`, or a block, after `preconditioned` and what is not a Hessian."""
    with checked_values(answer) as content:
        curvature = content.get("curvature", "hessian")
        other = "" if curvature == "hessian" else f"{curvature} "
        return f"{'preconditioned ' if content['preconditioned'] else ''}{other}{content['of']}"


def _preconditions(optimizer: str) -> bool:
    """Whether an optimizer's edge of stability is a bound on the preconditioned Hessian."""
    if is_code(optimizer):
        return False  # its edge is not known, and a report imports nobody's code
    try:
        return optimizer_entry(optimizer).preconditions
    except UnknownNameError:
        return False  # registered by the program that trained the run, but not here


def _sharpness(
    name: str, title: str, key: str, summaries: Sequence[Summary], answers: Sequence[RunAnswer], elsewhere: set[int]
) -> list[Curves]:
    """Sharpness with the edge of stability; without it for recipes whose edge is one of the other Hessian."""

    def more(summary: Summary, look: int, over: str) -> list[Series]:
        of_recipe = [answer for answer in answers if answer.look == look and answer.values.get("largest")]
        x, y = series_over(of_recipe, over, lambda content: content["largest"][0])
        has_values = of_recipe or any(key in row for run in summary.runs for row in run.rows)
        return [
            *([Series(f"{summary.name}, single states", x, y, look, "points")] if x else []),
            *(_threshold(summary, look, over, of_recipe) if has_values and look not in elsewhere else []),
        ]

    return panel(name, Quantity(key, title, "largest eigenvalue", True), summaries, more)


def _threshold(summary: Summary, look: int, over: str, answers: Sequence[RunAnswer]) -> list[Series]:
    """The edge of stability, from the rows or else from the answers. There is none at a learning rate of 0."""
    seeds = [column(run, over, "stability") for run in summary.counted]
    seeds = [{x: y for x, y in points.items() if y is not None} for points in seeds]
    of_rows = joined(summary.name, look, seeds, "threshold")[:1]
    x, y = (of_rows[0].x, of_rows[0].y) if of_rows else series_over(answers, over, lambda content: content["stability"])
    pairs = sorted({(float(a), b) for a, b in zip(x, y, strict=True) if b is not None})  # equal for all seeds
    if not pairs:
        return []
    name = f"{summary.name}, edge of stability"
    return [Series(name, [a for a, _ in pairs], [b for _, b in pairs], look, "threshold")]


def _at_equal_loss(summaries: Sequence[Summary]) -> list[Curves]:
    """The sharpness of each row over the loss of the same function, the one that the next step is going to lower."""
    series = []
    for look, summary in enumerate(summaries):
        pairs = []
        for run in summary.runs:
            losses = {row["step"]: number(row.get("train_loss")) for row in run.rows}
            after = [(losses.get(row["step"] + 1), number(row.get("sharpness"))) for row in run.rows]
            pairs += [(loss, value) for loss, value in after if loss is not None and value is not None]
        if pairs:
            pairs.sort()
            series.append(Series(summary.name, [x for x, _ in pairs], [y for _, y in pairs], look, "points"))
    if not series:
        return []
    x = Axis("training loss after the step", scale(float(value) for line in series for value in line.x))
    y = Axis("largest eigenvalue", scale(value for line in series for value in line.y))
    note = (
        "A run with a smaller loss is elsewhere on its path, and often sharper or flatter for that alone. Compare"
        " recipes at the same loss."
    )
    return [Curves("sharpness-at-equal-loss", "Sharpness at equal loss", y, {"loss": View(x, series)}, note=note)]


def _eigenvalues(look: int, summary: Summary) -> list[Curves]:
    """The largest eigenvalues of one recipe, if its rows have more than one."""
    rows = [row for run in summary.runs for row in run.rows]
    count = max((len(row["eigenvalues"]) for row in rows if isinstance(row.get("eigenvalues"), list)), default=0)
    views = {}
    for over in OVER:
        series = []
        for k in range(count):
            curves = curve(summary, k, over, "eigenvalues", partial(_eigenvalue, k))
            series += [Series(f"{k + 1}", s.x, s.y, s.look, s.kind, s.low, s.high) for s in curves]
        views[over] = View(Axis(over), series)
    values = [y for view in views.values() for line in view.series for y in line.y]
    if count < 2 or not any(value is not None for value in values):
        return []
    least_positive = all(value is None or value > 0 for value in values)
    axis = Axis("eigenvalue", scale(values) if least_positive else "linear")
    name = f"eigenvalues-{look + 1}-{slug(summary.name)}"
    return [Curves(name, f"Largest eigenvalues: {summary.name}", axis, views, legend=True)]


def _eigenvalue(k: int, row: Row) -> Any:
    return _item(row["eigenvalues"], k)


def _density(answers: Sequence[RunAnswer]) -> list[Curves]:
    """Spectral densities by stochastic Lanczos quadrature."""
    series = []
    names = distinct([answer.name for answer in answers], [answer.answer.name for answer in answers])
    chosen, legend = looks(answers)
    plain = all(_hessian(answer) in ("loss", "objective") for answer in answers)
    for answer, name, look in zip(answers, names, chosen, strict=True):
        with checked_values(answer) as content:
            grid, density = numbers(content["density"]["grid"]), numbers(content["density"]["density"])
        pairs = [(x, y) for x, y in zip(grid, density, strict=True) if x is not None]
        series.append(Series(name, [x for x, _ in pairs], [y for _, y in pairs], look, "line"))
    return density_figure(series, legend, "the Hessian" if plain else "curvature matrices")


def density_figure(series: Sequence[Series], legend: bool, matrix: str = "the Hessian") -> list[Curves]:
    """The figure of spectral densities.

    Args:
        series: the densities over the eigenvalue.
        legend: whether the figure needs its own legend.
        matrix: of which the densities are.

    Returns:
        A list with the figure; empty if there is no density above 0.
    """
    largest = max((y for line in series for y in line.y if y is not None), default=0.0)
    if largest <= 0:
        return []
    axis = Axis("density", "log", largest * SHOWN)
    note = f"Values below {SHOWN:g} times the largest are not shown."
    view = {"eigenvalue": View(Axis("eigenvalue"), list(series))}
    return [Curves("spectral-density", f"Spectral density of {matrix}", axis, view, legend=legend, note=note)]


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as content:
            trace = content["trace"]
            rows.append((
                answer.name,
                _hessian(answer),
                str(content["batch_norm"]),
                format_number(content.get("loss")),
                format_number(_item(content["largest"], 0)),
                format_number(_item(content["smallest"], 0)),
                format_number(content["stability"]),
                f"{format_number(trace['value'])} ± {format_number(trace['error'])}" if trace else "-",
                format_number(content["passes"]),
                format_number(content["seconds"]),
                "" if content["converged"] else "not converged",
            ))  # fmt: skip
    return Table(HEADINGS, rows) if rows else None


def format_number(value: Any) -> str:
    """A number of an answer as text; a dash if it is missing or not finite."""
    known = number(value)
    return "-" if known is None else f"{known:.4g}"


def _item(values: Sequence[Any], k: int) -> Any:
    return values[k] if isinstance(values, list) and k < len(values) else None
