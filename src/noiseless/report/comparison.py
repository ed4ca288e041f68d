"""Tables of a comparison for the terminal: differences with their errors, and counts of which recipe is right."""

from __future__ import annotations

from rich import box
from rich.table import Table

from noiseless.study.compared import IMAGES_ONLY, ComparisonTable, Group, Row

SMALLEST_P = 1e-4
"""smaller p values are shown as below this one"""


def differences(compared: ComparisonTable) -> Table:
    """One row per recipe: accuracy, difference, standard error, p value and verdict.

    Args:
        compared: the comparisons.

    Returns:
        A table that fits into 80 columns. The first row is the reference, with which the others are compared.
    """
    reference = compared.against
    table = _table(f"accuracy on {compared.images:,} test images, compared with {reference.name}")
    table.add_column("recipe", overflow="fold")
    for heading in (
        "accuracy\n%",
        f"difference\n{100 * compared.confidence:g} % interval",
        "error\nseeds, images",
        "p\n(Holm)",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=10)
    table.add_row(_name(reference), _accuracy(reference), "", "", "", "reference")
    for row in compared.rows:
        table.add_row(*_cells(row, compared.confidence))
    return table


def rights(compared: ComparisonTable) -> Table:
    """One row per recipe: the numbers of images on which both are right, only one of the two, or neither.

    Args:
        compared: the comparisons.

    Returns:
        A table that fits into 80 columns.
    """
    table = _table(f"who is right: images of {compared.images:,}, mean over pairs of runs")
    table.add_column("recipe", overflow="fold")
    for heading in ("pairs", "both right", "only this", "only\nreference", "neither"):
        table.add_column(heading, justify="right")
    for row in compared.rows:
        counts = row.agreement
        numbers = (counts.both, counts.only_first, counts.only_second, counts.neither)
        cells = [f"{number:,.1f}\n{100 * number / compared.images:.2f} %" for number in numbers]
        table.add_row(row.group.name, str(counts.pairs), *cells)
    return table


def legend(compared: ComparisonTable) -> list[str]:
    """Sentences that explain the columns of the tables.

    Args:
        compared: the comparisons.

    Returns:
        Lines to print below the tables.
    """
    level, margin = 1 - compared.confidence, compared.margin
    lines = [
        "difference: recipe minus reference, in points. error: standard error of the difference, and below it its parts"
        " from seeds and from images",
        f"different: p < {level:.4g} after Holm's adjustment for {len(compared.rows)} comparison"
        f"{'s' if len(compared.rows) > 1 else ''} (intervals are not adjusted). equivalent: the 90 % interval lies"
        f" within -{margin:g} ... {margin:g} points",
    ]
    if any(row.comparison.images_only for row in compared.rows):
        lines.append(
            f"{IMAGES_ONLY} in a group, so the interval is over other test images and says nothing about other seeds"
        )
    return lines


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _cells(row: Row, confidence: float) -> tuple[str, ...]:
    comparison = row.comparison
    low, high = comparison.interval(confidence)
    if comparison.variance_seeds is None:
        parts = IMAGES_ONLY.replace(": ", ":\n")
    else:
        parts = f"{comparison.variance_seeds**0.5:.2f}, {comparison.variance_images**0.5:.2f}"
    return (
        f"{_name(row.group)}, {'paired' if comparison.paired else 'unpaired'}",
        _accuracy(row.group),
        f"{comparison.difference:+.2f}\n{low:+.2f} to {high:+.2f}",
        f"{comparison.standard_error:.2f}\n{parts}",
        f"{row.adjusted_p:.4f}" if row.adjusted_p >= SMALLEST_P else f"<{SMALLEST_P:.4f}",
        row.verdict,
    )


def _name(group: Group) -> str:
    """Name of the recipe, and below it its number of seeds."""
    return f"{group.name}\n{len(group.runs)} seed{'s' if len(group.runs) > 1 else ''}"


def _accuracy(group: Group) -> str:
    """Mean accuracy over the seeds, and below it the sample standard deviation."""
    spread = "" if group.deviation is None else f"\n± {group.deviation:.2f}"
    return f"{group.mean:.2f}{spread}"
