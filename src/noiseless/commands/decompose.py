"""The command `decompose`: what one pass of mini-batches does beyond the full batch, at a state of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.onepass import DecomposeOptions
from noiseless.commands.asking import CostlyFlags, answer_question, bar, load
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import interruptible
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.ask.decompose import DecomposeJob
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


ROWS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "displacement of the full batch": lambda part: {"value": part["full_norm"], "error": None},
    "difference": lambda part: part["without"]["displacement"],
    "implicit regularisation": lambda part: part["implicit_norm"],
    "curvature drift": lambda part: {"value": part["curvature_norm"], "error": None},
    "residual": lambda part: part["without"]["residual"],
    "cosine with the prediction": lambda part: part["without"]["cosine"],
    "share along the prediction": lambda part: part["without"]["explained"],
    "length along it (1: as predicted)": lambda part: part["without"]["coefficient"],
    "with replacement: difference": lambda part: part["with"]["displacement"],
    "with replacement: length along it": lambda part: part["with"]["coefficient"],
}
"""rows of the table: label -> the estimate in the numbers of one batch size"""


@dataclass(frozen=True)
class DecomposeFlags(CostlyFlags):
    """Compare one pass of mini-batches with as many full-batch steps of the same rate, from a state of a run.

    The mean difference over keyed orders is split into the implicit regularisation of mini-batches, the drift by
    curvature that full-batch steps have themselves, and what is left. Steps are plain: without momentum, weight decay,
    clip or penalty, and with the model in evaluation mode. An interrupted computation goes on with the same command.
    """

    decompose: DecomposeOptions = field(default_factory=DecomposeOptions)


def decompose(arguments: list[str]) -> int:
    """Decomposes one pass of mini-batches."""
    stopped = "finished orders are saved; continue with"
    return answer_question("decompose", arguments, DecomposeFlags, _decompose, _print, stopped)


def _decompose(args: DecomposeFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.decompose import carry_out, prepare

    state = load(address, workers)
    with interruptible():
        job = prepare(state, args.decompose)
        _print_cost(job)
    if args.estimate:
        return
    with bar("parts") as progress:
        progress.begin(0, 2 + len(job.sizes) * args.decompose.orders * len(job.kinds))
        began = time.perf_counter()

        def tick(passes: float) -> None:
            nonlocal began
            progress.advance(time.perf_counter() - began)
            began = time.perf_counter()

        answer = carry_out(job, tick)
    yield answer


def _print_cost(job: DecomposeJob) -> None:
    rows = job.state.address.directory.rows()
    passes = rows[-1].get("passes") if rows else None
    seconds = sum(row["seconds"] for row in rows) / passes * job.passes if passes else None
    sizes = ", ".join(map(str, job.sizes))
    console.print(
        f"{job.examples:,} examples in batches of {sizes}, rate {job.one_pass.lr:g}, {job.options.orders} orders, each"
        f" also backwards: {job.passes:,.4g} passes" + ("" if seconds is None else f", about {duration(seconds)}")
    )


def _print(args: DecomposeFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    table = Table(title=f"{address.directory.path}@{values['step']}: mini-batches less full batch, L2 norms")
    table.add_column("")
    for part in values["batches"]:
        table.add_column(f"batches of {part['batch']}", justify="right")
    for label, cell in ROWS.items():
        if label.startswith("with replacement") and not all(part["with"] for part in values["batches"]):
            continue
        table.add_row(label, *(_estimate(cell(part)) for part in values["batches"]))
    console.print(table)
    console.print(f"± standard errors over {values['orders']} orders (jackknife); {values['passes']:,.4g} passes")


def _estimate(estimate: dict[str, Any]) -> str:
    """A value with its error. None is a squared length whose estimate is not positive, and what is divided by it."""
    if estimate["value"] is None:
        return "not told from 0"
    error = estimate["error"]
    return number(estimate["value"]) + ("" if error is None else f" ± {error:.2g}")
