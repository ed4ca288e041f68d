"""What a report shows of runs, as plain values: its sections, each with its figures and perhaps a table."""

from __future__ import annotations

from collections.abc import Sequence

from noiseless.report import curvature, curves, landscapes, layers, noise
from noiseless.report.figures import Section
from noiseless.report.summary import Summary

ROOMS = (curves, curvature, noise, landscapes, layers)


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """The sections of a report; those for which the runs have nothing are left out.

    Args:
        summaries: of the recipes.

    Returns:
        Them, in the order of the page. The ids of all figures differ.
    """
    made = [room.section(summaries) for room in ROOMS]
    return [section for section in made if section.figures or section.table]
