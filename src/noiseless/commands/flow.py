"""The command `flow`: central, stable and gradient flow beside the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.options import FlowOptions
from noiseless.commands.asking import CostlyFlags, answer_question, bar, load
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import interruptible
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.ask.flowjob import FlowJob
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


BEYOND = 2.1
"""eigenvalue of a central flow, whose edge is at 2, above which a message says that it does not hold the edge"""


@dataclass(frozen=True)
class FlowFlags(CostlyFlags):
    """Follow a run from a state by its central flow, stable flow and gradient flow, and compare losses and weights.

    Steps that are done are kept, so the same command continues after an interruption.
    """

    flow: FlowOptions = field(default_factory=FlowOptions)


def flow(arguments: list[str]) -> int:
    """Follows a run by its flows."""
    stopped = "the steps that are done are kept; continue with"
    return answer_question("flow", arguments, FlowFlags, _flow, _print, stopped)


def _flow(args: FlowFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.flow import carry_out
    from noiseless.ask.flowjob import prepare

    state = load(address, workers)
    with interruptible():
        job = prepare(state, args.flow)
        _print_cost(job)
    if args.estimate:
        return
    with bar("steps") as progress:

        def start(done: int, total: int) -> None:
            progress.begin(done, total)
            if done:
                console.print(f"{done} of {total} times were computed before")

        answer = carry_out(job, start, progress.advance)
    yield answer


def _print_cost(job: FlowJob) -> None:
    from noiseless.ask.flow import cost

    estimate, experiment = cost(job), job.state.experiment
    console.print(
        f"{len(experiment.space):,} parameters, {len(experiment.train):,} examples, {job.rule.kind}:"
        f" {job.options.steps} steps with {', '.join(job.flows)} flow; a pass takes about {duration(estimate.seconds)}"
    )
    cases = (("far below the edge", estimate.calm), ("with one direction at the edge", estimate.edge),
             ("with two", estimate.two))  # fmt: skip
    shown = "; ".join(f"{passes:,.0f} passes, {duration(passes * estimate.seconds)}, {name}" for name, passes in cases)
    console.print(f"about {shown}")


def _print(args: FlowFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    console.print(_table(values, f"{address.directory.path}@{values['step']}, after {values['steps']} more steps"))
    if values["same_flow"]:
        console.print("gradient flow and stable flow are one for gradient descent")
    for name, flow in values["by_flow"].items():
        if flow["stopped"]:
            console.print(f"the {name} flow stopped: {flow['stopped']}", style="yellow")
    central = values["by_flow"].get("central")
    if central and central["eigenvalues"]:
        top = [f"{value:.4g}" for value in central["eigenvalues"][-1]]
        console.print(
            f"central flow at the end: eigenvalues {', '.join(top)} of P^-1 H, edge at 2;"
            f" a new search gives {number(values['search'])}"
        )
    if values["beyond"] is not None and values["beyond"] > BEYOND:
        console.print(
            f"the central flow was led beyond the edge, to an eigenvalue of {values['beyond']:.3g}: third derivatives"
            " do not describe how the curvature grows here, as with ReLU, whose kinks they leave out",
            style="yellow",
        )
    if values["crowded"]:
        console.print("all directions that are followed were at the edge: give more --directions", style="yellow")
    repeated = values["repeated"]
    if repeated["rows"] and not repeated["equal"]:
        console.print(
            "the repeated steps differ from the run's record: another machine, version or number of threads rounds"
            " differently",
            style="yellow",
        )
    console.print(f"{values['passes']:,.0f} passes, {duration(values['seconds'])}")


def _table(values: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    for heading in ("", "loss", "mean loss", "distance", "share", "parted", "passes"):
        table.add_column(heading, justify="right" if heading else "left")
    observed = values["observed"]
    table.add_row(
        "run", number(observed["loss"][-1]), number(observed["mean_loss"][-1]), number(observed["moved"][-1]),
        "", "", "",
    )  # fmt: skip
    for name, flow in values["by_flow"].items():
        last = {key: flow[key][-1] if flow[key] else None for key in ("loss", "mean_loss", "distance", "share")}
        parted = "no" if flow["parted"] is None else f"at {values['step'] + flow['parted']}"
        share = "-" if last["share"] is None else f"{100 * last['share']:.3g} %"
        table.add_row(
            name, number(last["loss"]), number(last["mean_loss"]), number(last["distance"]), share, parted,
            f"{flow['passes']:,.0f}",
        )  # fmt: skip
    return table
