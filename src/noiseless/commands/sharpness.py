"""The command that asks a run how sharp its states are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from noiseless.ask.question import Question
from noiseless.commands.arguments import take, take_count
from noiseless.commands.asking import bar, in_job
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import at_once
from noiseless.exits import first_worker

if TYPE_CHECKING:
    from noiseless.ask.asking import Asked, Place
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


@dataclass(frozen=True)
class Sharpness:
    """How sharp a run's states are: the ends of the Hessian's spectrum, exact over all training examples."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]
    """the run, at its end or newest checkpoint; or at the checkpoint of a step"""
    question: Question = field(default_factory=Question)
    every_checkpoint: bool = False
    """ask at each checkpoint that the run has kept, see noiseless train --keep-every"""
    estimate: bool = False
    """only tell what it would cost"""


def sharpness(arguments: list[str]) -> int:
    """The ends of the Hessian's spectrum, its density and its trace, at one or all states of a run."""
    given = ["sharpness", *arguments]
    workers, arguments = take_count(arguments, "--workers")
    wanted = tyro.cli(
        Sharpness, args=arguments, prog="noiseless sharpness [--workers W]", config=(tyro.conf.OmitArgPrefixes,)
    )
    wanted.question.check()
    from noiseless.ask import asking
    from noiseless.ask import sharpness as asks
    from noiseless.files import answers
    from noiseless.run import team

    place = asking.Place.read(wanted.run)
    places = _places(place) if wanted.every_checkpoint else [place]
    if workers > 1 and not team.in_job():
        return team.launch(workers, take(given, "--workers")[1], restarts=0)

    def work(joined: Workers) -> int:
        with at_once():
            first = asking.ask(places[0], joined)
            _tell_cost(first, wanted.question, len(places))
        if wanted.estimate:
            return 0
        with bar("products, at most") as shown:
            shown.begin(0, len(places) * wanted.question.products)

            def tell(state: Asked, answer: Answer) -> None:
                if first_worker():
                    path = answers.write(place.directory, asks.with_earlier(place.directory, answer))
                    console.print(_table(answer.found, str(state.place)))
                    _tell_rest(answer.found)
                    console.print(f"kept in {path}; noiseless report {place.directory.path} draws it")

            asks.along(first, places, wanted.question, tell, shown.advance)
        return 0

    return in_job(work, given, "answers are kept; start again with")


def _places(place: Place) -> list[Place]:
    from noiseless.ask.asking import steps_kept

    if place.step is not None:
        raise ValueError(f"{place} is one state and --every-checkpoint asks all of a run: give one or the other")
    steps = steps_kept(place.directory)
    if not steps:
        raise ValueError(f"{place} has no checkpoint: there is no state to be asked")
    return [type(place)(place.directory, step) for step in steps]


def _tell_cost(asked: Asked, question: Question, states: int) -> None:
    from noiseless.ask.sharpness import cost

    found, most = cost(asked, question), states * question.products
    norm = "blocks" if question.batch_norm == "block" else "running statistics"
    at = f" at {states} states" if states > 1 else ""
    console.print(
        f"{len(asked.experiment.space):,} parameters, {len(asked.experiment.train):,} examples, batch norm by {norm}: a"
        f" Hessian product is {found.product_passes:g} passes, about {duration(found.product_seconds)}; at most"
        f" {most} of them{at}, {duration(most * found.product_seconds)}; about {found.bytes / 2**20:,.0f} MiB of memory"
    )


def _table(found: dict[str, object], title: str) -> Table:
    what = {"loss": "training loss", "objective": "objective, with its penalty"}[str(found["of"])]
    seen = ", as its optimizer sees it" if found["preconditioned"] else ""
    table = Table(title=f"{title}: eigenvalues of the Hessian of the {what}{seen}")
    for heading in ("", "eigenvalue", "residual"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("largest", "smallest"):
        values, residuals = found[name], found.get(f"{name}_residuals", [])
        assert isinstance(values, list)
        assert isinstance(residuals, list)
        for number, (value, residual) in enumerate(zip(values, residuals, strict=True), 1):
            table.add_row(f"{name} {number}" if len(values) > 1 else name, f"{value:.6g}", f"{residual:.2g}")
    return table


def _tell_rest(found: dict[str, object]) -> None:
    products = f"{found['products']} products, " if "products" in found else ""
    console.print(f"step {found['step']}: {products}{found['passes']:g} passes, {found['seconds']:g} s")
    if not found["converged"]:
        console.print("not converged: residuals are above --tolerance; give more with --most", style="yellow")
    edge = found["stability"]
    if isinstance(edge, float):
        console.print(f"the edge of stability at lr {found['lr']:g} is {edge:.6g}")
    trace = found["trace"]
    if isinstance(trace, dict):
        console.print(f"trace {trace['value']:.6g} ± {trace['error']:.2g} (standard error)")
