"""The command `edge`: the edge of stability along the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.options import EdgeOptions
from noiseless.commands.asking import CostlyFlags, answer_question, bar
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import interruptible
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.ask.following import StepsJob
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers

SHOWN = 12
"""rows of the table"""
STOPPED = "what is measured is saved; continue with"
"""message of a question about steps that was stopped"""


@dataclass(frozen=True)
class EdgeFlags(CostlyFlags):
    """Follow a run's steps, and compare the sharpness at each with the edge of stability of its optimizer.

    The steps are made again in memory, from the newest checkpoint before @STEP or from the beginning. An interrupted
    computation goes on with the same command.
    """

    edge: EdgeOptions = field(default_factory=EdgeOptions)


def edge(arguments: list[str]) -> int:
    """Follows the edge of stability along a run."""
    return answer_question("edge", arguments, EdgeFlags, _edge, _print, STOPPED, replays=True)


def _edge(args: EdgeFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.edge import prepare

    return follow(lambda: prepare(address, args.edge, workers), lambda job: _print_cost(job, args.edge), args.estimate)


def follow(prepare: Callable[[], StepsJob], print_cost: Callable[[StepsJob], None], estimate: bool) -> Iterator[Answer]:
    """Prepares a question about the steps of a run, prints its cost, and unless that is all, answers it."""
    from noiseless.ask.following import carry_out_steps

    with interruptible():
        job = prepare()
        print_cost(job)
    if estimate:
        return
    with bar("steps") as progress:
        yield carry_out_steps(job, lambda done: progress.begin(done, job.measured), progress.advance)


def _print_cost(job: StepsJob, options: EdgeOptions) -> None:
    product = job.product(options.pairs)
    made, most = job.end - job.state.step, options.most * job.measured
    start = f"made again from step {job.state.step}" if job.state.step < job.begin else "made again"
    batch = "" if options.batch == 0 else " and 3 for the batch sharpness"
    console.print(
        f"steps {job.begin} to {job.end - 1}, {start}: {made} of {job.step_passes:.4g} passes each; {job.measured} are"
        f" measured, with at most {options.most} Hessian products{batch}. A product is {product.passes:g} passes,"
        f" about {duration(product.seconds)}: at most {duration(most * product.seconds)}, and as a rule a tenth, as"
        " each search starts from the step before"
    )


def _print(args: EdgeFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    console.print(_table(values, str(address.directory.path)))
    for reason in values["reasons"]:
        console.print(f"no edge: {reason}", style="yellow")
    for crossing in values["crossings"][:SHOWN]:
        console.print(
            f"eigenvalue {crossing['branch'] + 1} crosses the edge {'up' if crossing['up'] else 'down'} between steps"
            f" {crossing['before']} and {crossing['after']}"
        )
    if len(values["crossings"]) > SHOWN:
        console.print(f"and {len(values['crossings']) - SHOWN} more crossings, in the saved answer")
    for catapult in values["catapults"][:SHOWN]:
        console.print(
            f"catapult: steps {catapult['begin']} to {catapult['end']}, loss {catapult['loss']:.4g} to"
            f" {catapult['peak_loss']:.4g} at step {catapult['peak']}, sharpness {catapult['sharpness']:.4g} to"
            f" {catapult['end_sharpness']:.4g}"
        )
    if len(values["catapults"]) > SHOWN:
        console.print(f"and {len(values['catapults']) - SHOWN} more catapults, in the saved answer")
    print_end(values)


def _table(values: dict[str, Any], path: str) -> Table:
    what = "sharpness in spectral norms" if values["measure"] == "spectral" else "largest eigenvalue"
    seen = " as its steps see it" if values["preconditioned"] else ""
    table = Table(title=f"{path}: {what} of the {values['of']}'s Hessian{seen}; edge of {values['optimizer']}")
    for heading in ("step", "loss", "sharpness", "edge", "ratio", "overlap", "step ratio", "batch"):
        table.add_column(heading, justify="right")
    steps = values["steps"]
    for k in shown_rows(len(steps)):
        sharpness, limit = values["sharpness"][k], values["edge"][k]
        loss = values["losses"][steps[k] - values["step"]]
        table.add_row(
            str(steps[k]), number(loss), number(sharpness), number(limit),
            number(sharpness / limit if limit else None), number(values["overlaps"][k][0]),
            number(values["step_ratio"][k]), number(values["batch_sharpness"][k]),
        )  # fmt: skip
    return table


def shown_rows(count: int, most: int = SHOWN) -> list[int]:
    """At most `most + 1` of a number of rows, evenly spread, the last among them."""
    return sorted({*range(0, count, -(-count // most) if count else 1), count - 1} - {-1})


def print_end(values: dict[str, Any]) -> None:
    """Prints how many steps have the bits of the record, the cost, and how many searches did not converge."""
    reproduced = values["reproduced"]
    console.print(
        f"{reproduced['equal']} of {reproduced['compared']} recorded steps have the bits of the record;"
        f" {values['passes']:.4g} passes, {values['seconds']:g} s",
        style=None if reproduced["equal"] == reproduced["compared"] else "yellow",
    )
    lost = values["converged"].count(False)
    if lost:
        console.print(f"not converged at {lost} steps: allow more products with --most", style="yellow")
