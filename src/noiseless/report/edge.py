"""The edge of stability along runs: followed eigenvalues, the edge, batch sharpness, loss; crossings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noiseless.report.curvature import format_number
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, number, numbers, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values
from noiseless.report.summary import Summary

TEXT = (
    "noiseless edge makes the steps of a run again and measures where they begin. The dashed line is the edge of"
    " stability of the run's optimizer. Above it the steps on a quadratic grow. Each followed eigenvalue has"
    " its line, which ends where its eigenvector has less than half of its square in any later one. A catapult is a"
    " stretch above the edge in which the loss rises and which ends below it. noiseless sharpen splits the change of"
    " the largest eigenvalue in a step into its causes."
)
HEADINGS = (
    "state", "optimizer", "of", "steps", "measured", "largest ratio", "crossings", "catapults", "bits of the record",
    "passes", "seconds",
)  # fmt: skip


def section(summaries: Sequence[Summary]) -> Section:
    """The section about the edge of stability."""
    answers = answers_of(summaries, "edge")
    figures = [figure for place, answer in enumerate(answers, 1) for figure in _figures(place, answer)]
    figures += [_causes(place, answer) for place, answer in enumerate(answers_of(summaries, "sharpen"), 1)]
    return Section("edge", "Edge of stability", TEXT, figures, _table(answers))


def _figures(place: int, answer: RunAnswer) -> list[Curves]:
    """Sharpness beside the edge, and the loss."""
    with checked_values(answer) as content:
        steps = [int(step) for step in content["steps"]]
        spectral = content["measure"] == "spectral"
        edge, batch = numbers(content["edge"]), numbers(content["batch_sharpness"])
        lines = [Series("sharpness", steps, numbers(content["sharpness"]), 0)] if spectral else _branches(content)
        if any(y is not None for y in edge):
            lines.append(Series("edge", steps, edge, 0, "threshold"))
        if not spectral and any(y is not None for y in batch):
            lines.append(Series("batch sharpness", steps, batch, len(lines), "thin"))
        losses = numbers(content["losses"])
        every = list(range(int(content["step"]), int(content["step"]) + len(losses)))
        loss = [Series("training loss", every, losses, 0)]
        peaks = [(int(catapult["peak"]), number(catapult["peak_loss"])) for catapult in content["catapults"]]
        if peaks:
            loss.append(Series("catapults", [x for x, _ in peaks], [y for _, y in peaks], 1, "points"))
    if not steps:
        return []
    name = f" in spectral norms: {answer.name}" if spectral else f": {answer.name}"
    y = Axis("sharpness" if spectral else "eigenvalue", "linear")
    view = {"step": View(Axis("steps"), lines)}
    of_loss = {"step": View(Axis("steps"), loss)}
    return [
        Curves(f"edge-{place}", f"Edge of stability{name}", y, view, legend=True),
        Curves(
            f"edge-{place}-loss", f"Training loss at the edge: {answer.name}", Axis("training loss", scale(losses)),
            of_loss, legend=True,
        ),
    ]  # fmt: skip


def _causes(place: int, answer: RunAnswer) -> Curves:
    """The causes of the change of the sharpness in each step, and the change."""
    with checked_values(answer) as content:
        steps = [int(step) for step in content["steps"]]
        names = list(dict.fromkeys(name for causes in content["causes"] for name in causes))
        lines = [
            Series(name, steps, [number(causes.get(name)) for causes in content["causes"]], look)
            for look, name in enumerate(names)
        ]
        lines.append(Series("actual change", steps, numbers(content["change"]), len(names), "threshold"))
    view = {"step": View(Axis("steps"), lines)}
    title = f"Change of the sharpness in a step: {answer.name}"
    return Curves(f"sharpen-{place}", title, Axis("change of the largest eigenvalue"), view, legend=True)


def _branches(content: dict[str, Any]) -> list[Series]:
    """A line for each followed eigenvalue, with None where it is not among those that were computed."""
    count = 1 + max((branch for branches in content["branches"] for branch in branches), default=-1)
    rows = list(zip(content["steps"], content["branches"], content["eigenvalues"], strict=True))
    series = []
    for branch in range(count):
        at = [(step, dict(zip(branches, values, strict=True)).get(branch)) for step, branches, values in rows]
        known = [k for k, (_, value) in enumerate(at) if value is not None]
        part = at[known[0] : known[-1] + 1]
        series.append(Series(f"eigenvalue {branch + 1}", [x for x, _ in part], [number(y) for _, y in part], branch))
    return series


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as content:
            pairs = zip(numbers(content["sharpness"]), numbers(content["edge"]), strict=True)
            ratios = [value / edge for value, edge in pairs if value is not None and edge]
            reproduced = content["reproduced"]
            rows.append((
                answer.name,
                str(content["optimizer"]),
                str(content["of"]),
                f"{content['step']} to {int(content['until']) - 1}",
                str(len(content["steps"])),
                format_number(max(ratios, default=None)),
                str(len(content["crossings"])),
                str(len(content["catapults"])),
                f"{reproduced['equal']} of {reproduced['compared']}",
                format_number(content["passes"]),
                format_number(content["seconds"]),
            ))  # fmt: skip
    return Table(HEADINGS, rows) if rows else None
