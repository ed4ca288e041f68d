"""Runs in progress, for the terminal: a head, sparklines and the last rows of each, fitted to the terminal's size."""

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
from noiseless.printable import printable
from noiseless.report.text import ASCII_BLOCKS, BLOCKS, duration, logarithmic, number, sparkline

HEAD = 3
"""lines of a run's head"""
WIDE = 80
"""smallest width, in columns, at which ranges of values are shown"""
ROWS = 8
"""rows of a run's table if the height is not limited"""
RECENT = 20
"""number of last steps whose mean time gives the estimate of the remaining time"""


def block(run: Followed, width: int, height: int | None = None, ascii_only: bool = False) -> RenderableType:
    """The lines of one run.

    Args:
        run: the run, as it was last read.
        width: of the terminal, in columns.
        height: largest number of lines; None: no limit.
        ascii_only: whether the terminal has only ASCII characters.

    Returns:
        Lines for rich's console, none longer than the width.
    """
    head = _head(run, width, ascii_only)
    curves = _curves(run, width, ascii_only)
    room = max(0, (height or HEAD + len(curves) + ROWS + 2) - HEAD)
    table_rows = min(len(run.rows), room - len(curves) - 2)
    if table_rows < 3:  # make room for the table, but keep the most important curves
        curves = curves[: max(min(3, room), room - 5)]
        table_rows = min(len(run.rows), room - len(curves) - 2)
    parts: list[RenderableType] = [*head, *curves]
    if table_rows > 0:
        parts += [Text(), _table(run.rows[-table_rows:], width)]
    return Group(*parts[: height or None])


def screen(runs: Sequence[Followed], width: int, height: int, ascii_only: bool = False) -> RenderableType:
    """All runs, one below the other, fitted to the size of a terminal."""
    run_height = max(HEAD, height // len(runs) - 1)
    parts: list[RenderableType] = []
    for run in runs:
        parts += [block(run, width, run_height, ascii_only), Text()]
    parts[-1] = _line("Ctrl-C stops watching; the run continues", width, ascii_only, "dim")
    return Group(*parts)


def state(run: Followed) -> str:
    """The state of a run as text: ended, running or stopped, and the age of its last row."""
    if run.ended:
        return "ended"
    since = "no row yet"
    if run.rows and run.written is not None:
        since = f"last row {duration(max(0.0, time.time() - run.written))} ago"
    if run.holder is not None:
        return f"running, process {run.holder}; {since}"
    return f"stopped, no process on this machine holds it; {since}"


def _head(run: Followed, width: int, ascii_only: bool) -> list[RenderableType]:
    """Three lines about a run: its recipe and path, its progress, its state."""
    recipe = run.recipe
    title = f"{recipe.name}: {recipe.model.name} on {recipe.data.name}, seed {recipe.seed}  {run.path}"
    done = run.rows[-1]["step"] + 1 if run.rows else 0
    parts = [f"step {done} of {recipe.schedule.steps}"]
    if run.rows:
        parts.append(f"{number(run.rows[-1].get('passes'))} passes")
        times = [row["seconds"] for row in run.rows[-RECENT:] if row.get("seconds") is not None]
        if times:
            mean = statistics.mean(times)
            parts.append(f"{duration(mean)} a step")
            if not run.ended:
                parts.append(f"about {duration(mean * (recipe.schedule.steps - done))} left")
    progress = ", ".join(parts)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        Text(progress, no_wrap=True, overflow="crop"),
        ProgressBar(
            total=max(1, recipe.schedule.steps), completed=done, width=max(1, min(40, width - len(progress) - 2))
        ),
    )
    status = state(run)
    if run.damaged:
        status += f"; {run.damaged} damaged line{'s' if run.damaged > 1 else ''} of metrics.jsonl left out"
    style = "green" if run.ended or run.holder is not None else "yellow"
    return [
        _line(title, width, ascii_only, "bold"),
        bar if width > len(progress) + 6 else _line(progress, width, ascii_only),
        _line(status, width, ascii_only, style),
    ]


def _curves(run: Followed, width: int, ascii_only: bool) -> list[RenderableType]:
    """A line for each curve with values: name, last value, range if there is room, sparkline."""
    drawn: list[tuple[str, str, Sequence[float | None]]] = []
    for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].label_rank):
        values = [row[key] for row in run.rows if key in row]
        # not if all values are gaps or, for a run without a penalty, 0
        if column.label is not None and any(values):
            drawn.append((f"{column.label:<14}{number(values[-1]):>9}  ", _range(run, key, values), values))
    range_width = max((len(value_range) for _, value_range, _ in drawn), default=0) + 2 if width >= WIDE else 0
    levels = ASCII_BLOCKS if ascii_only else BLOCKS
    lines: list[RenderableType] = []
    for head, value_range, curve in drawn:
        line = Text(head + (value_range.ljust(range_width) if range_width else ""))
        line.append(sparkline(curve, max(4, width - len(line)), levels), "cyan")
        lines.append(_line(line, width, ascii_only))
    return lines


def _range(run: Followed, key: str, values: Sequence[float | None]) -> str:
    """Smallest and largest value of a curve, and for the sharpness the edge of stability."""
    known = [value for value in values if value is not None]
    text = f"{number(min(known))} to {number(max(known))}{', log' if logarithmic(values) else ''}"
    edge = run.rows[-1].get("stability")
    return f"{text}, edge {number(edge)}" if key == "sharpness" and edge is not None else text


def _table(rows: Sequence[Row], width: int) -> Table:
    """A table of rows, with as many columns as there is room for."""
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
    """A line cut to the width, with characters escaped that the terminal lacks."""
    if isinstance(text, str):
        text = printable(text)
        text = Text(text.encode("ascii", "backslashreplace").decode() if ascii_only else text, style)
    text.no_wrap, text.end = True, "\n"
    text.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return text
