"""The command `compare`: differences in accuracy between recipes, with errors over seeds and test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from noiseless.commands.console import console
from noiseless.commands.parsing import parse


@dataclass(frozen=True)
class Compare:
    """Compare the test accuracy of recipes, with errors over seeds and test images.

    Runs that differ only in their seed form a group. Each group is compared with the runs of --against. RUN@STEP is the
    state after that many steps, whose predictions noiseless evaluate RUN@STEP writes.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN[@STEP] [...]")]
    """directories of finished runs, or states of runs"""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN[@STEP] [...]")] = ()
    """directories of finished runs of one recipe, the reference, or states of runs"""
    margin: float = 0.5
    """difference in accuracy, in percentage points, within which two recipes count as equivalent"""
    confidence: float = 0.95
    """confidence of the intervals; differences are tested at the level 1 - confidence"""
    label: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL [LABEL ...]")] = ()
    """names of the recipes, one for each in their order, that of --against last; none: what differs"""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for all numbers, unrounded; none: no file"""


def compare(arguments: list[str]) -> int:
    """Compares groups of runs."""
    args = parse(Compare, arguments, "compare")
    from noiseless.files.address import StateAddress

    for run in (*args.runs, *args.against):
        StateAddress.read(run)  # refused before the statistics are imported
    console.print(f"reading {len(args.runs) + len(args.against)} runs")
    from noiseless.files.atomic import write_json
    from noiseless.report import comparison
    from noiseless.study.compared import as_json, compare_runs

    runs, against = ([Path(run) for run in group] for group in (args.runs, args.against))
    table = compare_runs(runs, against, args.margin, args.confidence, args.label)
    for part in (comparison.differences(table), "", comparison.rights(table), "", *comparison.legend(table)):
        console.print(part, soft_wrap=False)
    if args.json is not None:
        write_json(Path(args.json), as_json(table))
        console.print(f"numbers: {args.json}")
    return 0
