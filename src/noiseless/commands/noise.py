"""The commands that ask a run's state about gradient noise, and about its weights."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.table import Table

from noiseless.commands.arguments import take
from noiseless.commands.asking import in_job
from noiseless.commands.console import console

if TYPE_CHECKING:
    from noiseless.objective.workers import Workers

RunAt = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]


@dataclass(frozen=True)
class Noise:
    """How noisy the gradients of a run's blocks are at one of its states: noise scale, signal to noise, alignment."""

    run: RunAt
    """directory of the run, with @STEP for the state after that many steps; none: its end"""
    block: int | None = None
    """examples a block; none: the run's"""
    sizes: tuple[int, ...] = ()
    """blocks for which signal to noise is predicted; none: powers of 8, the block, all examples"""
    batch_norm: Literal["block", "running"] = "block"
    """block: batch norm on norm blocks, as in training; running: by its running statistics"""
    shuffle: bool = False
    """blocks are cut from a random order: for data that are sorted, by class for instance"""
    layers: bool = False
    """print each parameter tensor's numbers, too"""
    workers: int = 1
    """processes that share the work, with the same bits"""


def noise(arguments: list[str]) -> int:
    """Measures the gradient noise of a run at one of its states."""
    given = list(arguments)
    asked_for = tyro.cli(Noise, args=arguments, prog="noiseless noise")
    for flag, sizes in (("--workers", (asked_for.workers,)), ("--sizes", asked_for.sizes)):
        if wrong := [size for size in sizes if size < 1]:
            raise ValueError(f"{flag} must be whole numbers of at least 1, not {wrong[0]}")
    from noiseless.ask.asking import Place, ask
    from noiseless.ask.noise import Cut
    from noiseless.ask.noise import noise as measure
    from noiseless.files import answers
    from noiseless.run import team

    place = Place.read(asked_for.run)
    if asked_for.workers > 1 and not team.in_job():
        return team.launch(asked_for.workers, ["noise", *take(given, "--workers")[1]], restarts=0)

    def work(workers: Workers) -> int:
        cut = Cut(asked_for.block, asked_for.batch_norm, asked_for.shuffle)
        answer = measure(ask(place, workers), cut, asked_for.sizes)
        if workers.rank == 0:
            path = answers.write(place.directory, answer)
            _print_noise(place, answer.found, asked_for.layers)
            console.print(f"kept: {path}")
        return 0

    return in_job(work, ["noise", *given], "nothing is kept; start again with")


@dataclass(frozen=True)
class WeightSpace:
    """Norm, distance from the start, gradient and next update of each parameter tensor of a run at a state."""

    run: RunAt
    """directory of the run, with @STEP for the state after that many steps; none: its end"""


def weights(arguments: list[str]) -> int:
    """Measures the weight space of a run at one of its states."""
    asked_for = tyro.cli(WeightSpace, args=arguments, prog="noiseless weights")
    from noiseless.ask.asking import Place, ask
    from noiseless.ask.noise import layers
    from noiseless.files import answers

    place = Place.read(asked_for.run)
    answer = layers(ask(place))
    path = answers.write(place.directory, answer)
    found = answer.found
    made = Table(title=f"{place.directory.path} after {found['step']} steps: L2 norms, update at lr {found['lr']:.3g}")
    made.add_column("parameter", overflow="fold")
    headings = {
        "norm": "norm", "distance": "from start", "gradient_norm": "gradient", "update_norm": "update",
        "update_ratio": "update / norm",
    }  # fmt: skip
    for heading in headings.values():
        made.add_column(heading, justify="right")
    for name, numbers in [*found["layers"].items(), ("all", found["whole"])]:
        made.add_row(name, *(_shown(numbers[key]) for key in headings))
    console.print(made)
    for reason in found["reasons"]:
        console.print(reason, style="yellow")
    console.print(f"{found['passes']:.3g} passes; kept: {path}")
    return 0


def _print_noise(place: Any, found: dict[str, Any], layers: bool) -> None:
    norm = found["norm_block"]
    made = Table(
        title=f"{place.directory.path} after {found['step']} steps: {found['blocks']} blocks of {found['block']}"
        f"{', shuffled' if found['shuffled'] else ''}, batch norm {'on ' + str(norm) if norm else 'fixed, or none'}",
        show_header=False,
    )
    for key, name in (
        ("gradient_norm", "norm of the full gradient"),
        ("block_norms", "norms of block gradients"),
        ("cosines", "their cosines with the full gradient"),
        ("alignment", "mean cosine of two blocks' gradients"),
        ("momentum_cosine", "cosine of momentum and full gradient"),
        ("covariance_trace", "tr(Sigma), variance of one example"),
        ("signal", "|G|^2, squared norm without noise"),
        ("noise_scale", "noise scale tr(Sigma) / |G|^2, examples"),
        ("signal_to_noise", f"signal to noise of a block of {found['block']}"),
    ):
        value = found[key]
        made.add_row(name, _spread(value) if isinstance(value, list) else _shown(value))
    console.print(made)
    if found["reason"]:
        console.print(f"no noise scale: {found['reason']}", style="yellow")
    beside = Table(title="a block of other sizes")
    for heading in ("examples", "signal to noise", "distance from the full gradient, rms"):
        beside.add_column(heading, justify="right")
    for each in found["by_block"]:
        beside.add_row(str(each["block"]), _shown(each["signal_to_noise"]), _shown(each["noise_norm"]))
    console.print(beside)
    if layers:
        rows = Table(title=f"each parameter tensor, signal to noise of a block of {found['block']}")
        rows.add_column("parameter", overflow="fold")
        for heading in ("gradient", "tr(Sigma)", "noise scale", "signal to noise"):
            rows.add_column(heading, justify="right")
        for name, numbers in found["layers"].items():
            keys = ("gradient_norm", "covariance_trace", "noise_scale", "signal_to_noise")
            rows.add_row(name, *(_shown(numbers[key]) for key in keys))
        console.print(rows)
    console.print(f"{found['passes']:.3g} passes")


def _spread(values: list[float]) -> str:
    """Smallest, largest and median of those that are numbers."""
    known = [value for value in values if value == value]
    if not known:
        return "-"
    return f"{_shown(min(known))} to {_shown(max(known))}, median {_shown(median(known))}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
