"""The command `report`, which writes the page of one or several runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from noiseless.commands.console import console
from noiseless.commands.parsing import parse


@dataclass(frozen=True)
class Report:
    """Write one HTML page with a table and all figures of runs; runs of one recipe are shown as mean and band.

    The page works without a network. --figures also writes each figure as PNG and SVG, and its data as CSV. A directory
    of a race, or of reproduce, stands for all runs in it.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs, or of races"""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """path of the page; none: report.html in the directory of the first run, or of the race"""
    figures: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """directory for NAME.png, NAME.svg and NAME.csv of each figure; none: no such files"""
    over: Literal["passes", "steps", "seconds"] = "passes"
    """horizontal axis of the curves in the files of --figures; the page has all three"""
    label: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL [LABEL ...]")] = ()
    """names of the recipes on the page, one for each in the order of first appearance; none: what differs"""


def report(arguments: list[str]) -> int:
    """Writes the report of runs."""
    args = parse(Report, arguments, "report")
    if not args.runs:
        raise ValueError("give at least one run: noiseless report RUN [RUN ...]")
    from noiseless.files.address import refuse_state
    from noiseless.files.directory import RunDirectory
    from noiseless.files.finding import runs_below

    for run in args.runs:
        refuse_state(run, "report", "its page shows all steps")
    directories = [RunDirectory.open(path) for run in args.runs for path in runs_below(Path(run))]
    console.print(f"reading {len(directories)} run{'s' * (len(directories) > 1)}")
    from noiseless.report import page, summary

    runs = summary.read(directories)
    summaries = summary.by_recipe(runs, args.label)
    console.print(summary.table(summaries, "runs"))
    path = Path(args.output) if args.output else Path(args.runs[0]) / "report.html"
    page.write(path, runs, "Noiseless: report", args.label)
    console.print(f"report: {path}")
    if args.figures is not None:
        from noiseless.report import contents, drawing  # import matplotlib, which the page does not need

        figures = [figure for section in contents.sections(summaries) for figure in section.figures]
        drawing.write(Path(args.figures), figures, args.over)
        console.print(f"figures: {len(figures)} in {args.figures}, each as {', '.join(drawing.FORMATS)}")
    return 0
