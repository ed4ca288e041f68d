"""The report: one HTML file that opens without a network, with the ladder's table and curves."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noiseless.report.summary import HEADINGS, Run, Summary, by_recipe
from noiseless.run.atomic import write_bytes
from noiseless.run.directory import Row

PANELS = (
    ("test_error", "test error", "log"),
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
    axes = figure.subplots(3, 2)
    for ax, (key, label, scale) in zip(axes.flat, PANELS, strict=True):
        for number, summary in enumerate(summaries):
            _draw(ax, summary, key, scale, COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)])
        ax.set_title(label)
        ax.set_xlabel("passes")
        if scale == "log" and ax.lines:
            ax.set_yscale("log")
        ax.grid(alpha=0.3)
    axes.flat[0].legend(loc="upper right", fontsize="small")
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "noiseless"}):  # the same runs give the same page
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("?>")[2].partition(">")[2]  # without XML declaration and doctype


def _draw(ax: Axes, summary: Summary, key: str, scale: str, colour: str, style: str) -> None:
    curves = []
    for run in summary.runs:
        points = [(row["passes"], _value(row, key)) for row in run.rows]
        curves.append({x: y for x, y in points if y is not None and (scale == "linear" or y > 0)})
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not shared:
        return
    values = np.array([[curve[x] for x in shared] for curve in curves])
    ax.plot(shared, values.mean(0), style, color=colour, label=summary.name, marker="." if len(shared) < 15 else "")
    if len(curves) > 1:
        ax.fill_between(shared, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)


def _value(row: Row, key: str) -> float | None:
    if key == "test_error":
        return 1 - row["test_accuracy"] if "test_accuracy" in row else None
    return row[key]


def _details(run: Run) -> str:
    config = run.directory.config()
    environment = (run.directory.path / "environment.json").read_text()
    text = json.dumps(asdict(config.recipe), indent=2) + "\n" + environment
    name = html.escape(str(run.directory.path))
    return f"<details><summary>{name}</summary><pre>{html.escape(text)}</pre></details>"
