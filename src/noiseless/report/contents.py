"""The sections of a report, as plain values: each has figures, and some have a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from noiseless.report import curvature, curves, edge, flows, forks, landscapes, layers, noise, passes
from noiseless.report.figures import Section
from noiseless.report.summary import Summary

SECTIONS: list[Callable[[Sequence[Summary]], Section]] = [
    curves.section, curvature.section, edge.section, flows.section, noise.section, passes.section,
    landscapes.section, forks.section, layers.section,
]  # fmt: skip
"""functions that make the sections, in the order of the page"""


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """The sections of a report. Sections without a figure and a table are left out.

    Args:
        summaries: the runs by recipe.

    Returns:
        The sections, in the order of the page. All figures have different ids.
    """
    sections = [section(summaries) for section in SECTIONS]
    return [section for section in sections if section.figures or section.table]
