"""The report: one HTML file that opens without a network, with the ladder's table and curves."""

from __future__ import annotations

import html
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noiseless.report.summary import HEADINGS, Run, Summary, by_recipe
from noiseless.run.atomic import write_bytes
from noiseless.run.directory import Row

PANELS = (
    ("test_error", "test error", "log, with 0"),
    ("train_loss", "training loss (without penalty)", "log"),
    ("gradient_norm", "gradient norm before clipping", "log"),
    ("penalty", "penalty", "log"),
    ("lr", "learning rate", "linear"),
    ("parameter_norm", "parameter norm", "linear"),
)
# Okabe and Ito's palette, which colour-blind readers can tell apart; line styles repeat the distinction
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff } h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } svg { width: 100%; height: auto }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: 13px } summary { cursor: pointer }
"""


def write(path: Path, runs: Sequence[Run], title: str) -> None:
    """Writes the report of runs.

    Args:
        path: of the HTML file.
        runs: at least one, each with at least one row. Runs of one recipe become a mean with a band of their range.
        title: heading of the page.
    """
    summaries = by_recipe(runs)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>Mean ± sample standard deviation over seeds. A pass is one gradient evaluation over the whole training set;"
        " seconds are the mean time of a run's steps.</p>",
        _table(summaries),
        "<h2>Curves</h2><p>Lines are means over seeds, bands reach from the smallest to the largest seed.</p>",
        _curves(summaries),
        "<h2>Runs</h2>",
        *(_details(run) for run in runs),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write_bytes(path, page.encode())


def _table(summaries: Sequence[Summary]) -> str:
    head = "".join(f"<th>{h}</th>" for h in HEADINGS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in s.cells()) + "</tr>" for s in summaries)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _curves(summaries: Sequence[Summary]) -> str:
    figure = Figure(figsize=(13, 13), layout="constrained")
    lines: dict[str, Line2D] = {}
    for ax, (key, label, scale) in zip(figure.subplots(3, 2).flat, PANELS, strict=True):
        drawn_values = []
        for number, summary in enumerate(summaries):
            look = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
            curve = _curve(summary, key)
            if curve.values.size:
                drawn_values.append(curve.values)
                lines.setdefault(summary.name, _draw(ax, curve, scale, *look))
        _scale(ax, scale, drawn_values)
        ax.set_title(label)
        ax.set_xlabel("passes")
        ax.grid(alpha=0.3)
    if lines:
        legend = figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=4)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may hold a dollar
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "noiseless"}), warnings.catch_warnings():
        # the salt: the same runs give the same page; what the font lacks is a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("?>")[2].partition(">")[2]  # without XML declaration and doctype


@dataclass(frozen=True)
class _Curve:
    """What one panel shows of one recipe."""

    passes: list[float]
    """where each seed has a value, `[X]`"""
    values: np.ndarray
    """`[seeds, X]`"""


def _curve(summary: Summary, key: str) -> _Curve:
    seeds = []
    for run in summary.runs:
        points = [(row["passes"], _value(row, key)) for row in run.rows]
        seeds.append({x: y for x, y in points if y is not None})
    shared = sorted(set.intersection(*(set(seed) for seed in seeds)))
    return _Curve(shared, np.array([[seed[x] for x in shared] for seed in seeds]))


def _draw(ax: Axes, curve: _Curve, scale: str, colour: str, style: str) -> Line2D:
    marker = "." if len(curve.passes) < 15 else ""
    mean = curve.values.mean(0)
    if scale == "log":
        mean[mean <= 0] = np.nan  # a gap, not a fall through the floor
    (line,) = ax.plot(curve.passes, mean, style, color=colour, marker=marker)
    if len(curve.values) > 1:
        low, high = curve.values.min(0), curve.values.max(0)
        ax.fill_between(curve.passes, low, high, color=colour, alpha=0.2, linewidth=0)
    return line


def _scale(ax: Axes, scale: str, values: Sequence[np.ndarray]) -> None:
    """Sets a panel's scale; a logarithm of nothing but zeros stays linear."""
    positive = [part[part > 0].min() for part in values if (part > 0).any()]
    if scale == "linear" or not positive:
        return
    if scale == "log, with 0" and any((part <= 0).any() for part in values):
        # linear below the smallest value there is, so that 0 has a place on the axis
        ax.set_yscale("symlog", linthresh=min(positive))
        ax.set_ylim(bottom=-min(positive) / 10)
    else:
        ax.set_yscale("log")


def _value(row: Row, key: str) -> float | None:
    if key == "test_error":
        return 1 - row["test_accuracy"] if row.get("test_accuracy") is not None else None
    return row[key]


def _details(run: Run) -> str:
    config = run.directory.config()
    environment = (run.directory.path / "environment.json").read_text()
    text = json.dumps(asdict(config.recipe), indent=2) + "\n" + environment
    name = html.escape(str(run.directory.path))
    return f"<details><summary>{name}</summary><pre>{html.escape(text)}</pre></details>"
