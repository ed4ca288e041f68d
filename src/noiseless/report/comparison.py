"""Compared recipes as tables for the terminal: differences with their errors, and who is right where."""

from __future__ import annotations

from rich import box
from rich.table import Table

from noiseless.study.compared import IMAGES_ONLY, ComparisonTable, Group, Row

SMALLEST_P = 1e-4
"""below which a p value is shown as such"""


def differences(found: ComparisonTable) -> Table:
    """One row a recipe: accuracy, difference, standard error, p value and verdict.

    Args:
        found: the comparisons.

    Returns:
        A table that fits into 80 columns; the first row is the recipe that the others are compared with.
    """
    reference = found.against
    made = _table(f"accuracy on {found.images:,} test images, compared with {reference.name}")
    made.add_column("recipe", overflow="fold")
    for heading in (
        "accuracy\n%",
        f"difference\n{100 * found.confidence:g} % interval",
        "error\nseeds, images",
        "p\n(Holm)",
    ):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("verdict", min_width=10)
    made.add_row(_name(reference), _accuracy(reference), "", "", "", "reference")
    for row in found.rows:
        made.add_row(*_cells(row, found.confidence))
    return made


def rights(found: ComparisonTable) -> Table:
    """One row a recipe: on how many images both are right, only one of the two, and neither.

    Args:
        found: the comparisons.

    Returns:
        A table that fits into 80 columns.
    """
    made = _table(f"who is right: images of {found.images:,}, mean over pairs of runs")
    made.add_column("recipe", overflow="fold")
    for heading in ("pairs", "both right", "only this", "only\nreference", "neither"):
        made.add_column(heading, justify="right")
    for row in found.rows:
        counts = row.agreement
        numbers = (counts.both, counts.only_first, counts.only_second, counts.neither)
        cells = [f"{number:,.1f}\n{100 * number / found.images:.2f} %" for number in numbers]
        made.add_row(row.group.name, str(counts.pairs), *cells)
    return made


def legend(found: ComparisonTable) -> list[str]:
    """What the tables' figures are, a sentence each.

    Args:
        found: the comparisons.

    Returns:
        Lines to print below the tables.
    """
    level, margin = 1 - found.confidence, found.margin
    lines = [
        "difference: recipe minus reference, in points. error: its standard error; below it, its parts over seeds and"
        " over images",
        f"different: p < {level:.4g} after Holm's adjustment for {len(found.rows)} comparison"
        f"{'s' if len(found.rows) > 1 else ''} (intervals are not adjusted). equivalent: the 90 % interval lies within"
        f" -{margin:g} ... {margin:g} points",
    ]
    if any(row.comparison.images_only for row in found.rows):
        lines.append(
            f"{IMAGES_ONLY} in a group, so the interval is over other test images, and tells nothing of other seeds"
        )
    return lines


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _cells(row: Row, confidence: float) -> tuple[str, ...]:
    found = row.comparison
    low, high = found.interval(confidence)
    if found.variance_seeds is None:
        parts = IMAGES_ONLY.replace(": ", ":\n")
    else:
        parts = f"{found.variance_seeds**0.5:.2f}, {found.variance_images**0.5:.2f}"
    return (
        f"{_name(row.group)}, {'paired' if found.paired else 'unpaired'}",
        _accuracy(row.group),
        f"{found.difference:+.2f}\n{low:+.2f} to {high:+.2f}",
        f"{found.standard_error:.2f}\n{parts}",
        f"{row.adjusted_p:.4f}" if row.adjusted_p >= SMALLEST_P else f"<{SMALLEST_P:.4f}",
        row.verdict,
    )


def _name(group: Group) -> str:
    """The recipe, and below it how many seeds it has."""
    return f"{group.name}\n{len(group.runs)} seed{'s' if len(group.runs) > 1 else ''}"


def _accuracy(group: Group) -> str:
    """Mean over the seeds, and below it the sample standard deviation."""
    spread = "" if group.deviation is None else f"\n± {group.deviation:.2f}"
    return f"{group.mean:.2f}{spread}"
