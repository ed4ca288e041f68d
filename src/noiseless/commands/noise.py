"""The commands `noise` and `weights`, which measure gradient noise and parameter norms at a state of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.options import NoiseOptions
from noiseless.commands.asking import StateFlags, answer_question, load
from noiseless.commands.console import console
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


@dataclass(frozen=True)
class NoiseFlags(StateFlags):
    """Measure how noisy block gradients are at a state of a run: noise scale, signal to noise, alignment."""

    noise: NoiseOptions = field(default_factory=NoiseOptions)
    layers: bool = False
    """also print the numbers of each parameter tensor"""


def noise(arguments: list[str]) -> int:
    """Measures the gradient noise at a state of a run."""
    return answer_question("noise", arguments, NoiseFlags, _noise, _print_noise)


def _noise(args: NoiseFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.noise import noise

    yield noise(load(address, workers), args.noise)


@dataclass(frozen=True)
class WeightFlags(StateFlags):
    """Compute the norm, distance from the start, gradient norm and next update of each parameter tensor."""


def weights(arguments: list[str]) -> int:
    """Measures the parameters at a state of a run."""
    return answer_question("weights", arguments, WeightFlags, _weights, _print_weights)


def _weights(args: WeightFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.weights import weights

    yield weights(load(address, workers))


def _print_weights(args: WeightFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    table = Table(
        title=f"{address.directory.path} after {values['step']} steps: L2 norms, update at lr {values['lr']:.3g}"
    )
    table.add_column("parameter", overflow="fold")
    headings = {
        "norm": "norm", "distance": "from start", "gradient_norm": "gradient", "update_norm": "update",
        "update_ratio": "update / norm",
    }  # fmt: skip
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for name, numbers in [*values["layers"].items(), ("all", values["whole"])]:
        table.add_row(name, *(number(numbers[key]) for key in headings))
    console.print(table)
    for reason in values["reasons"]:
        console.print(reason, style="yellow")
    console.print(f"{values['passes']:.3g} passes")


def _print_noise(args: NoiseFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    norm = values["norm_block"]
    table = Table(
        title=f"{address.directory.path} after {values['step']} steps: {values['blocks']} blocks of {values['block']}"
        f"{', shuffled' if values['shuffled'] else ''}, batch norm {'on ' + str(norm) if norm else 'fixed, or none'}",
        show_header=False,
    )
    for key, label in (
        ("gradient_norm", "norm of the full gradient"),
        ("block_norms", "norms of block gradients"),
        ("cosines", "their cosines with the full gradient"),
        ("alignment", "mean cosine of two blocks' gradients"),
        ("momentum_cosine", "cosine of momentum and full gradient"),
        ("covariance_trace", "tr(Sigma), variance of one example"),
        ("signal", "|G|^2, without noise (95 % interval)"),
        ("noise_scale", "noise scale tr(Sigma) / |G|^2, examples"),
        ("signal_to_noise", f"signal to noise of a block of {values['block']}"),
    ):
        value = values[key]
        interval = values.get(f"{key}_interval")
        text = _spread(value) if isinstance(value, list) else number(value)
        table.add_row(label, f"{text} ({number(interval[0])} to {number(interval[1])})" if interval else text)
    console.print(table)
    if values["reason"]:
        console.print(f"no noise scale: {values['reason']}", style="yellow")
    console.print(_predicted(values))
    if args.layers:
        console.print(_by_layer(values))
    console.print(f"{values['passes']:.3g} passes")


def _predicted(values: dict[str, Any]) -> Table:
    table = Table(title="prediction for other block sizes")
    for heading in ("examples", "signal to noise", "distance from the full gradient, rms"):
        table.add_column(heading, justify="right")
    for row in values["by_block"]:
        table.add_row(str(row["block"]), number(row["signal_to_noise"]), number(row["noise_norm"]))
    return table


def _by_layer(values: dict[str, Any]) -> Table:
    table = Table(title=f"each parameter tensor, signal to noise of a block of {values['block']}")
    table.add_column("parameter", overflow="fold")
    for heading in ("gradient", "tr(Sigma)", "noise scale", "signal to noise"):
        table.add_column(heading, justify="right")
    for name, numbers in values["layers"].items():
        keys = ("gradient_norm", "covariance_trace", "noise_scale", "signal_to_noise")
        table.add_row(name, *(number(numbers[key]) for key in keys))
    return table


def _spread(values: list[float]) -> str:
    """Smallest, largest and median of the values that are not NaN."""
    known = [value for value in values if value == value]
    if not known:
        return "-"
    return f"{number(min(known))} to {number(max(known))}, median {number(median(known))}"
