"""Forks: how two runs from one state part over the steps, and the loss on the line between their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from noiseless.errors import shown
from noiseless.report.curvature import format_number
from noiseless.report.figures import Axis, Curves, Section, Series, Table, View, number, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, looks
from noiseless.report.seeds import Points, joined
from noiseless.report.summary import Summary

TEXT = (
    "Two runs from the same state, to the bit, of which one has one thing changed. On the line between their ends, 0 is"
    " the end of the unchanged run and 1 that of the changed one. The barrier is the largest value on the line minus"
    " the linear interpolation of the ends, max L(a) - ((1 - a) L(0) + a L(1)): below 0 where the line lies lower"
    " (arXiv 2110.06296)."
)
HEADINGS = (
    "state", "changed", "until", "distance", "cosine", "barrier, train loss", "barrier, train error",
    "barrier, test error", "only unchanged right", "only changed right", "passes",
)  # fmt: skip
LONGEST = 40
"""characters of a change in the name of a series"""
LINES = (("loss", "Training loss", "training loss"), ("error", "Training error", "training error"),
         ("test_error", "Test error", "test error"))  # fmt: skip


def section(summaries: Sequence[Summary]) -> Section:
    """The section about forks."""
    answers = answers_of(summaries, "fork")
    figures = [
        *_figure("fork-distance", "Distance of the two runs", "distance, L2", "steps", answers, _over("distance")),
        *_figure("fork-cosine", "Cosine of their displacements", "cosine", "steps", answers, _over("cosine")),
    ]
    for key, title, label in LINES:

        def line(values: dict[str, Any], key: str = key) -> Points:
            return dict(zip(values["points"], map(number, values["line"][key]), strict=False))

        figures += _figure(
            f"fork-line-{key.replace('_', '-')}", f"{title} between the ends", label, "place on the line", answers, line
        )
    return Section("forks", "Forks", TEXT, figures, _table(answers))


def changed(values: dict[str, Any]) -> str:
    """What is changed in a fork, as text: `lr 0.2, bit 3 of fc.weight[0, 1]`, or `nothing`.

    Args:
        values: of its answer.

    Returns:
        The text.
    """
    parts = [f"{flag.replace('_', '-')} {pair[1]}" for flag, pair in values["changes"].items()]
    flip = values["flip"]
    parts += [f"bit {flip['bit']} of {flip['name']}{flip['index']}"] if flip else []
    return shown(", ".join(parts) or "nothing", LONGEST)


def _over(key: str) -> Callable[[dict[str, Any]], Points]:
    """A quantity over the number of steps that are done."""

    def points(values: dict[str, Any]) -> Points:
        pairs = zip(values["steps"], map(number, values[key]), strict=True)
        return {step: y for step, y in pairs if step > values["step"] or y is not None}  # no cosine at the start

    return points


def _figure(
    name: str, title: str, label: str, over: str, answers: Sequence[RunAnswer],
    points: Callable[[dict[str, Any]], Points],
) -> list[Curves]:  # fmt: skip
    """One figure with a line for each fork: the mean and range over the seeds of a recipe."""
    groups: dict[tuple[int, str], list[RunAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.look, answer.answer.name), []).append(answer)
    chosen, legend = looks([group[0] for group in groups.values()])
    series: list[Series] = []
    for look, group in zip(chosen, groups.values(), strict=True):
        seeds = []
        for answer in group:
            with checked_values(answer) as values:
                seeds.append(points(values))
                what = f"{answer.summary.name} @{answer.step}: {changed(values)}"
        series += joined(what, look, seeds)
    drawn = [y for line in series for y in line.y]
    if all(y is None for y in drawn):
        return []
    # a cosine may be negative; what is 0 at the start, such as a distance, is marked on a logarithmic axis
    kind: Literal["linear", "log"] = "linear" if min(y for y in drawn if y is not None) < 0 else scale(drawn)
    return [Curves(name, title, Axis(label, kind), {"place": View(Axis(over), series)}, legend=legend)]


def _table(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as values:
            barriers = [values["barriers"][key] for key, _, _ in LINES]
            images = values["images"] or {}
            rows.append((
                answer.name, changed(values), str(values["until"]), format_number(values["distance"][-1]),
                format_number(values["cosine"][-1]),
                *("-" if barrier is None else format_number(barrier["height"]) for barrier in barriers),
                *(str(images.get(key, "-")) for key in ("only_first", "only_second")), format_number(values["passes"]),
            ))  # fmt: skip
    return Table(HEADINGS, rows) if rows else None
