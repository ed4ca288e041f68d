"""Runs in the terminal while they go: a head, sparklines and the last rows of each, as large as there is room for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from noiseless.files.columns import COLUMNS
from noiseless.files.reading import Followed, Row
from noiseless.report.text import ASCII_BLOCKS, BLOCKS, duration, logarithmic, number, sparkline

HEAD = 3
WIDE = 80
"""columns from which on there is room for ranges"""
ROWS = 8
"""of a run's table, where nothing bounds the height"""
RECENT = 20
"""steps whose mean time tells what is left"""


def block(run: Followed, width: int, height: int | None = None, ascii_only: bool = False) -> RenderableType:
    """One run.

    Args:
        run: as it was read last.
        width: columns.
        height: lines at most; None: as many as everything takes.
        ascii_only: whether the terminal lacks other characters.

    Returns:
        Lines for rich's console, none longer than the width.
    """
    head = _head(run, width, ascii_only)
    curves = _curves(run, width, ascii_only)
    room = max(0, (height or HEAD + len(curves) + ROWS + 2) - HEAD)
    table_rows = min(len(run.rows), room - len(curves) - 2)
    if table_rows < 3:  # rather fewer curves than no table, as long as the most telling ones are there
        curves = curves[: max(min(3, room), room - 5)]
        table_rows = min(len(run.rows), room - len(curves) - 2)
    parts: list[RenderableType] = [*head, *curves]
    if table_rows > 0:
        parts += [Text(), _table(run.rows[-table_rows:], width)]
    return Group(*parts[: height or None])


def screen(runs: Sequence[Followed], width: int, height: int, ascii_only: bool = False) -> RenderableType:
    """All runs, one below the other, in a terminal of a size."""
    each = max(HEAD, height // len(runs) - 1)
    parts: list[RenderableType] = []
    for run in runs:
        parts += [block(run, width, each, ascii_only), Text()]
    parts[-1] = _line("Ctrl-C ends the watch; the run goes on", width, ascii_only, "dim")
    return Group(*parts)


def state(run: Followed) -> str:
    """How a run stands."""
    if run.ended:
        return "ended"
    since = "no row yet"
    if run.rows and run.written is not None:
        since = f"last row {duration(max(0.0, time.time() - run.written))} ago"
    if run.holder is not None:
        return f"under way, process {run.holder}; {since}"
    return f"stopped, no process here holds it; {since}"


def _head(run: Followed, width: int, ascii_only: bool) -> list[RenderableType]:
    """Three lines: what it is and where, how far it is, how it stands."""
    recipe = run.recipe
    what = f"{recipe.name}: {recipe.model.name} on {recipe.data.name}, seed {recipe.seed}  {run.path}"
    done = run.rows[-1]["step"] + 1 if run.rows else 0
    told = [f"step {done} of {recipe.schedule.steps}"]
    if run.rows:
        told.append(f"{number(run.rows[-1].get('passes'))} passes")
        times = [row["seconds"] for row in run.rows[-RECENT:] if row.get("seconds") is not None]
        if times:
            mean = statistics.mean(times)
            told.append(f"{duration(mean)} a step")
            if not run.ended:
                told.append(f"about {duration(mean * (recipe.schedule.steps - done))} left")
    progress = ", ".join(told)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        Text(progress, no_wrap=True, overflow="crop"),
        ProgressBar(
            total=max(1, recipe.schedule.steps), completed=done, width=max(1, min(40, width - len(progress) - 2))
        ),
    )
    stands = state(run)
    if run.damaged:
        stands += f"; {run.damaged} damaged line{'s' if run.damaged > 1 else ''} of metrics.jsonl left out"
    style = "green" if run.ended or run.holder is not None else "yellow"
    return [
        _line(what, width, ascii_only, "bold"),
        bar if width > len(progress) + 6 else _line(progress, width, ascii_only),
        _line(stands, width, ascii_only, style),
    ]


def _curves(run: Followed, width: int, ascii_only: bool) -> list[RenderableType]:
    """A line for each curve of which there is something: name, last value, range where there is room, sparkline."""
    drawn: list[tuple[str, str, Sequence[float | None]]] = []
    for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].label_rank):
        values = [row[key] for row in run.rows if key in row]
        # not where there are nothing but gaps, or a penalty that the run does not have
        if column.label is not None and any(values):
            drawn.append((f"{column.label:<14}{number(values[-1]):>9}  ", _range(run, key, values), values))
    wide = max((len(beside) for _, beside, _ in drawn), default=0) + 2 if width >= WIDE else 0
    levels = ASCII_BLOCKS if ascii_only else BLOCKS
    lines: list[RenderableType] = []
    for head, beside, curve in drawn:
        line = Text(head + (beside.ljust(wide) if wide else ""))
        line.append(sparkline(curve, max(4, width - len(line)), levels), "cyan")
        lines.append(_line(line, width, ascii_only))
    return lines


def _range(run: Followed, key: str, values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    text = f"{number(min(there))} to {number(max(there))}{', log' if logarithmic(values) else ''}"
    edge = run.rows[-1].get("stability")
    return f"{text}, edge {number(edge)}" if key == "sharpness" and edge is not None else text


def _table(rows: Sequence[Row], width: int) -> Table:
    """The rows with as many columns as there is room for."""
    chosen, left = set(), width
    for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].rank):
        if left < column.width + 1:
            break
        values = [row[key] for row in rows if row.get(key) is not None]
        if column.heading is not None and values and (key != "penalty" or any(values)):
            chosen.add(key)
            left -= column.width + 1
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    keys = [key for key in COLUMNS if key in chosen]
    for key in keys:
        heading, wide = COLUMNS[key].heading, COLUMNS[key].width
        table.add_column(heading or "", justify="right", width=wide, no_wrap=True, overflow="crop")
    for row in rows:
        table.add_row(*(_cell(key, row) for key in keys))
    return table


def _cell(key: str, row: Row) -> str:
    if key not in row:
        return ""
    value = row[key]
    if key == "step":
        return str(value)
    if value is not None and key.endswith("accuracy"):
        return f"{100 * value:.2f}"
    return number(value)


def _line(text: str | Text, width: int, ascii_only: bool, style: str = "") -> Text:
    """One line, cut to the width, of characters that the terminal has."""
    if isinstance(text, str):
        text = Text(text.encode("ascii", "backslashreplace").decode() if ascii_only else text, style)
    text.no_wrap, text.end = True, "\n"
    text.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return text
