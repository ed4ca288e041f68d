"""The command `sharpen`: why the sharpness changes in the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.options import SharpenOptions
from noiseless.commands.asking import CostlyFlags, answer_question
from noiseless.commands.console import console, duration
from noiseless.commands.edge import STOPPED, follow, print_end, shown_rows
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.ask.following import StepsJob
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


SHOWN_STEPS = 4
"""steps in the table"""


@dataclass(frozen=True)
class SharpenFlags(CostlyFlags):
    """Split the change of the sharpness in a step into its causes, and compare their sum with the change.

    The steps are made again in memory, from the newest checkpoint before @STEP or from the beginning. An interrupted
    computation goes on with the same command.
    """

    sharpen: SharpenOptions = field(default_factory=SharpenOptions)


def sharpen(arguments: list[str]) -> int:
    """Explains the change of the sharpness along a run."""
    return answer_question("sharpen", arguments, SharpenFlags, _sharpen, _print, STOPPED, replays=True)


def _sharpen(args: SharpenFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.sharpen import prepare

    return follow(
        lambda: prepare(address, args.sharpen, workers), lambda job: _print_cost(job, args.sharpen), args.estimate
    )


def _print_cost(job: StepsJob, options: SharpenOptions) -> None:
    from noiseless.ask.sharpen import step_passes

    product, other = job.product(options.pairs), step_passes(job, options)
    most = 2 * options.most * product.seconds + other * product.seconds / product.passes
    made = job.end - job.state.step
    console.print(
        f"steps {job.begin} to {job.end - 1}: {made} of {job.step_passes:.4g} passes made again, {job.measured} of them"
        f" measured, each with {other:.4g} passes and at most {2 * options.most} Hessian products of"
        f" {product.passes:g} passes, about {duration(product.seconds)}: at most {duration(most * job.measured)}"
        ", and as a rule a tenth"
    )


def _print(args: SharpenFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    console.print(_table(values, str(address.directory.path)))
    print_end(values)


def _table(values: dict[str, Any], path: str) -> Table:
    """A column for each of some steps, and one for the sum over all steps that were measured."""
    table = Table(title=f"{path}: change of the largest eigenvalue of the loss' Hessian in a step")
    names = list(dict.fromkeys(name for causes in values["causes"] for name in causes))
    chosen = shown_rows(len(values["steps"]), SHOWN_STEPS)
    table.add_column("")
    for k in chosen:
        table.add_column(f"step {values['steps'][k]}", justify="right")
    several = len(values["steps"]) > 1
    if several:
        table.add_column("all", justify="right")
    rows = {name: [causes.get(name) for causes in values["causes"]] for name in names}
    rows |= {"sum, first order": values["predicted"]}
    rows |= {"second order": values["second_order"]} if values["both_ends"] else {}
    rows |= {"actual change": values["change"]}
    table.add_row("sharpness", *(number(values["sharpness"][k]) for k in chosen))
    for name, numbers in rows.items():
        total = [number(sum(x for x in numbers if x is not None))] if several else []
        table.add_row(name, *(number(numbers[k]) for k in chosen), *total)
    return table
