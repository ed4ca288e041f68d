"""What a report shows of runs, as plain values: its sections, each with its figures and perhaps a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from noiseless.report import curvature, curves, landscapes, layers, noise
from noiseless.report.figures import Section
from noiseless.report.summary import Summary

SECTIONS: list[Callable[[Sequence[Summary]], Section]] = [
    curves.section, curvature.section, noise.section, landscapes.section, layers.section,
]  # fmt: skip
"""in the order of the page"""


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """The sections of a report; those for which the runs have nothing are left out.

    Args:
        summaries: of the recipes.

    Returns:
        Them, in the order of the page. The ids of all figures differ.
    """
    sections = [section(summaries) for section in SECTIONS]
    return [section for section in sections if section.figures or section.table]
