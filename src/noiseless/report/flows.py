"""Flows beside a run: losses, distances of the weights, and the central flow's eigenvalues at the edge of stability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from noiseless.report.curvature import format_number
from noiseless.report.figures import Axis, Curves, Level, Section, Series, Table, View, numbers, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values
from noiseless.report.summary import Summary

TEXT = (
    "The steps of a run are repeated from a state, and flows start with them. The central flow (arXiv 2410.24206) has"
    " the mean effect of oscillations at the edge of stability; the stable flow has none; gradient flow keeps the"
    " preconditioner of the start. Distances are from the run's mean over three steps, in which an oscillation cancels."
)
HEADINGS = ("state", "steps", "flow", "mean loss", "of the run", "distance", "share", "parted", "passes", "")
EDGE = 2.0


def section(summaries: Sequence[Summary]) -> Section:
    """The section with the flows of all runs."""
    answers = answers_of(summaries, "flow")
    figures = [figure for order, answer in enumerate(answers, 1) for figure in _figures(order, answer)]
    return Section("flows", "Flows", TEXT, figures, _table(answers))


def _figures(order: int, answer: RunAnswer) -> list[Curves]:
    """Losses, distances and eigenvalues over the steps of one answer."""
    with checked_values(answer) as content:
        first = int(content["step"])
        observed, flows = content["observed"], dict(content["by_flow"])
        names = {name: look for look, name in zip(count(1), flows, strict=False)}
        losses = [
            Series("run", _steps(first, observed["loss"]), numbers(observed["loss"]), 0, "thin"),
            Series("run, mean of three steps", _steps(first, observed["loss"]), numbers(observed["mean_loss"]), 0),
        ]
        distances = [Series("run, from the start", _steps(first, observed["moved"]), numbers(observed["moved"]), 0)]
        for name, flow in flows.items():
            x, look = _steps(first, flow["loss"]), names[name]
            if name == "central":
                losses.append(Series("central flow, predicted mean", x, numbers(flow["mean_loss"]), look))
                losses.append(Series("central flow, loss on its path", x, numbers(flow["loss"]), look, "threshold"))
            else:
                losses.append(Series(f"{name} flow", x, numbers(flow["loss"]), look))
            distances.append(Series(f"{name} flow, from the run", x, numbers(flow["distance"]), look))
        figures = [
            _curves(f"flow-{order}-loss", f"Loss of run and flows: {answer.name}", "training loss", losses),
            _curves(f"flow-{order}-distance", f"Weights of run and flows: {answer.name}", "distance, L2", distances),
        ]
        eigenvalues = flows.get("central", {}).get("eigenvalues", [])
        lines = max((len(values) for values in eigenvalues), default=0)
        series = []
        for k in range(lines):  # an eigenvalue is not followed from the start on
            points = [(float(first + time), values[k]) for time, values in enumerate(eigenvalues) if k < len(values)]
            series.append(Series(f"{k + 1}", [x for x, _ in points], numbers(y for _, y in points), k + 1))
    if series:
        title = f"Eigenvalues of P^-1 H along the central flow: {answer.name}"
        view = {"steps": View(Axis("steps"), series)}
        edge = [Level(EDGE, "edge of stability", None)]
        figures.append(Curves(f"flow-{order}-eigenvalues", title, Axis("eigenvalue"), view, edge, legend=True))
    return [figure for figure in figures if any(y is not None for s in figure.view("steps").series for y in s.y)]


def _steps(first: int, values: Sequence[object]) -> list[float]:
    return [float(first + k) for k in range(len(values))]


def _curves(name: str, title: str, label: str, series: Sequence[Series]) -> Curves:
    axis = Axis(label, scale(y for line in series for y in line.y))
    return Curves(name, title, axis, {"steps": View(Axis("steps"), list(series))}, legend=True)


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as content:
            for name, flow in content["by_flow"].items():
                share = _last(flow["share"])
                rows.append((
                    answer.name,
                    str(content["steps"]),
                    str(name),
                    format_number(_last(flow["mean_loss"])),
                    format_number(_last(content["observed"]["mean_loss"])),
                    format_number(_last(flow["distance"])),
                    "-" if share is None else f"{100 * share:.3g} %",
                    "no" if flow["parted"] is None else f"at step {content['step'] + flow['parted']}",
                    format_number(flow["passes"]),
                    f"stopped {flow['stopped']}" if flow["stopped"] else "",
                ))  # fmt: skip
    return Table(HEADINGS, rows) if rows else None


def _last(values: Sequence[float | None]) -> float | None:
    return values[-1] if values else None
