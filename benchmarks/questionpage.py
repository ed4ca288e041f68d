"""Makes tables and figures of docs/questions.md from benchmarks/results/questions.json alone.

.venv/bin/python benchmarks/questionpage.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from pages import DOCS, put
from questionplan import NETWORKS, SUBJECTS
from questions import RESULTS
from questionsays import SAYS

PAGE = DOCS / "questions.md"
FIGURES = DOCS / "questions"
INK = ("#1b6ca8", "#c8553d", "#4f7942")
"""colours of the series"""
RANGES = {"gd": (0.95, 1.15), "adam": (0.9, 1.15)}
"""of the median over the last half of a run, in units of the edge; as the page planned"""
Results = Mapping[str, Mapping[str, Any]]


def main() -> None:
    """Writes the tables into the page, and the figures."""
    results: Results = json.loads(RESULTS.read_text())
    for name, text in tables(results).items():
        put(PAGE, name, text)
    FIGURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        figure = draw(results)
        if figure is not None:
            figure.savefig(FIGURES / f"{name}.png", dpi=80, metadata={"Software": None})


def tables(results: Results) -> dict[str, str]:
    """All tables of the page, by their marks."""
    return {
        "descent": descent(results, "gd"),
        "adam": descent(results, "adam"),
        "forks": forks(results),
        **{subject: questions(results, subject) for subject in SUBJECTS},
    }


def questions(results: Results, subject: str) -> str:
    """A section for each question of a subject: command, two sentences, cost."""
    lines = []
    for name, says in SAYS.items():
        entry = results.get(f"{subject}/{name}")
        if entry is not None:
            passes = f"{entry['passes']:,.0f} passes, " if entry["passes"] is not None else ""
            lines += [f"- **{name}**, `{entry['command']}` ({passes}{entry['seconds']:,.0f} s): {says(entry)}"]
    return "\n".join(lines)


def descent(results: Results, optimizer: str) -> str:
    """Sharpness at the edge, for the runs of an optimizer."""
    lines = [
        "| run | edge | start | crosses at step | median / edge, last half | range, last half | loss rises "
        "| as planned | mean loss by quarter | passes | seconds |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- | --- | ---: | ---: |",
    ]
    for name, entry in results.items():
        subject, _, run = name.partition("/edge-")
        if run.startswith(optimizer):
            numbers = at_edge(entry)
            cells = (
                f"{subject}, {run.replace('-', ' ')}",
                f"{numbers['edge']:,.1f}",
                f"{numbers['start']:,.1f}",
                "-" if numbers["crossed"] is None else f"{numbers['crossed']:.0f}",
                f"{numbers['median']:.3f}",
                f"{numbers['low']:.2f} to {numbers['high']:.2f}",
                f"{entry['rises']} of {entry['followed']}",
                "yes" if as_planned(optimizer, entry) else "no",
                ", ".join(f"{loss:.3g}" for loss in entry["quarters"]),
                f"{entry['passes']:,.0f}",
                f"{entry['seconds']:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def at_edge(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """Sharpness of a run in units of its edge, over the last half of the measured steps.

    Args:
        entry: of `noiseless edge`, at a constant edge.

    Returns:
        `edge`, `start` (sharpness at the first step), `crossed` (first measured step above the edge after one below
        it), `median`, `low` and `high` in units of the edge.
    """
    sharpness, edge, steps = entry["sharpness"], entry["edge"][-1], entry["steps"]
    last = [value / edge for value in sharpness[len(sharpness) // 2 :]]
    crossed = [
        step for step, before, after in zip(steps[1:], sharpness, sharpness[1:], strict=False) if before <= edge < after
    ]
    return {
        "edge": edge, "start": sharpness[0], "crossed": crossed[0] if crossed else None, "median": median(last),
        "low": min(last), "high": max(last),
    }  # fmt: skip


def as_planned(optimizer: str, entry: Mapping[str, Any]) -> bool:
    """Whether a run agrees with the published statement by the rule of the page's plan."""
    low, high = RANGES[optimizer]
    middle, losses = at_edge(entry)["median"], entry["quarters"]
    falls = all(before > after for before, after in pairwise(losses))
    assert middle is not None
    return low <= middle <= high and (optimizer == "adam" or (falls and entry["rises"] > 0))


def forks(results: Results) -> str:
    """Barriers of the test error against the step of the fork."""
    lines = [
        "| network | fork after passes | barrier of the test error, points | barrier of the training loss "
        "| test error of the ends, % |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for network in NETWORKS:
        for step, entries in sorted(_forks(results, network).items()):
            error = ", ".join(f"{100 * entry['barriers']['test_error']['over_mean']:.1f}" for entry in entries)
            loss = ", ".join(f"{entry['barriers']['loss']['height']:.3f}" for entry in entries)
            ends = ", ".join(
                f"{100 * entry['line']['test_error'][place]:.1f}" for entry in entries for place in (0, -1)
            )
            lines.append(f"| {network} | {step} | {error} | {loss} | {ends} |")
    return "\n".join(lines)


def _forks(results: Results, network: str) -> dict[int, list[Mapping[str, Any]]]:
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for name, entry in results.items():
        if name.startswith(f"digits/fork-{network}-"):
            by_step.setdefault(entry["step"], []).append(entry)
    return by_step


def _edges(optimizer: str, of: str) -> Callable[[Results], Figure | None]:
    """A figure of sharpness and loss over the steps: a column for each subject."""

    def draw(results: Results) -> Figure | None:
        runs = {name: entry for name, entry in results.items() if f"/edge-{optimizer}" in name}
        subjects = sorted({name.split("/")[0] for name in runs}, reverse=True)
        if not subjects:
            return None
        figure = Figure(figsize=(5.2 * len(subjects), 5), layout="constrained")
        axes = figure.subplots(2, len(subjects), sharex="col", squeeze=False, height_ratios=(3, 2))
        for (top, bottom), subject in zip(axes.T, subjects, strict=True):
            for (name, entry), ink in zip(
                [run for run in runs.items() if run[0].startswith(subject)], INK, strict=False
            ):
                label = name.split("-", 1)[1].replace("-", ", lr ")
                top.plot(entry["steps"], entry["sharpness"], color=ink, label=label, linewidth=1.2)
                top.plot(entry["steps"], entry["edge"], color=ink, linestyle="--", linewidth=1)
                bottom.plot(entry["steps"], entry["losses"][: len(entry["steps"])], color=ink, linewidth=1.2)
            top.set(title=subject, ylabel=of)
            bottom.set(xlabel="step", ylabel="training loss", yscale="log")
            if optimizer == "adam":
                top.set_yscale("log")
            bottom.legend(*top.get_legend_handles_labels(), frameon=False, title="dashed: the edge")
        return figure

    return draw


def _connectivity(results: Results) -> Figure | None:
    """Barriers of the test error over the step of the fork."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axis = figure.subplots()
    any_fork = False
    for network, ink in zip(NETWORKS, INK, strict=False):
        by_step = sorted(_forks(results, network).items())
        heights = [[100 * entry["barriers"]["test_error"]["over_mean"] for entry in entries] for _, entries in by_step]
        steps = [step for step, _ in by_step]
        any_fork |= bool(steps)
        axis.plot(steps, [sum(values) / len(values) for values in heights], color=ink, label=network)
        axis.plot(
            [step for step, values in zip(steps, heights, strict=True) for _ in values],
            [value for values in heights for value in values], "o", color=ink, markersize=4,
        )  # fmt: skip
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.set(xlabel="passes before the fork, of 20", ylabel="barrier of the test error, points")
    axis.legend(frameon=False)
    return figure if any_fork else None


DRAWN: dict[str, Callable[[Results], Figure | None]] = {
    "gradient-descent": _edges("gd", "sharpness"),
    "adam": _edges("adam", "preconditioned sharpness"),
    "connectivity": _connectivity,
}


if __name__ == "__main__":
    main()
