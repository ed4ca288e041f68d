"""The command that compares recipes: differences in accuracy, with errors over seeds and test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from noiseless.commands.console import console


@dataclass(frozen=True)
class Compare:
    """Compare the accuracy of recipes, image by image, with errors over seeds and test images.

    Runs that are equal but for their seed are one group. Each group is compared with the runs of --against.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs that have ended"""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN [RUN ...]")] = ()
    """runs of the one recipe with which each group is compared"""
    margin: float = 0.5
    """points of accuracy within which two recipes count as equivalent"""
    confidence: float = 0.95
    """of the intervals; differences are tested at 1 - confidence"""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """file for all figures, unrounded; none: no file"""


def compare(arguments: list[str]) -> int:
    """Compares groups of runs."""
    asked = tyro.cli(Compare, args=arguments, prog="noiseless compare")
    from noiseless.files.atomic import write_json
    from noiseless.report import comparison
    from noiseless.study.compared import as_json, compare_runs

    runs, against = ([Path(run) for run in group] for group in (asked.runs, asked.against))
    found = compare_runs(runs, against, asked.margin, asked.confidence)
    for part in (comparison.differences(found), "", comparison.rights(found), "", *comparison.legend(found)):
        console.print(part, soft_wrap=False)
    if asked.json is not None:
        write_json(Path(asked.json), as_json(found))
        console.print(f"figures: {asked.json}")
    return 0
