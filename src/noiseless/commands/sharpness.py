"""The command `sharpness`: eigenvalues, density and trace of the Hessian, or another matrix, at states of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noiseless.ask.options import SharpnessOptions
from noiseless.commands.asking import CostlyFlags, answer_question, bar, load
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import interruptible

if TYPE_CHECKING:
    from noiseless.ask.state import RunState
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers

MATRICES = {
    "hessian": "Hessian", "ggn": "Gauss-Newton", "fisher": "Fisher", "empirical-fisher": "empirical Fisher",
}  # fmt: skip
"""values of `--curvature`, as they are printed"""


@dataclass(frozen=True)
class SharpnessFlags(CostlyFlags):
    """Compute eigenvalues of the Hessian, or of another curvature matrix, over all training examples at a state."""

    sharpness: SharpnessOptions = field(default_factory=SharpnessOptions)
    every_checkpoint: bool = False
    """compute them at every checkpoint that the run has kept, see --keep-every of noiseless train"""


def sharpness(arguments: list[str]) -> int:
    """Computes eigenvalues, density and trace of the Hessian at one or all states of a run."""
    stopped = "results of finished states are saved; start again with"
    return answer_question("sharpness", arguments, SharpnessFlags, _sharpness, _print, stopped)


def _sharpness(args: SharpnessFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.ask.sharpness import sharpness_along

    addresses = _checkpoints(address) if args.every_checkpoint else [address]
    first = load(addresses[0], workers)
    with interruptible():
        _print_cost(first, args.sharpness, len(addresses))
    if args.estimate:
        return
    with bar("products, at most") as progress:
        progress.begin(0, len(addresses) * _products(first, args.sharpness))
        yield from sharpness_along(first, addresses, args.sharpness, progress.advance)


def _checkpoints(address: StateAddress) -> list[StateAddress]:
    """The states of all checkpoints that a run has kept."""
    from noiseless.files.stored import checkpoint_steps

    if address.step is not None:
        raise ValueError(f"{address} is one state, and --every-checkpoint means all of the run: give only one of them")
    steps = checkpoint_steps(address.directory)
    if not steps:
        raise ValueError(f"{address} has no checkpoint, so there is no state to analyse")
    return [type(address)(address.directory, step) for step in steps]


def _products(state: RunState, options: SharpnessOptions) -> int:
    """Largest number of products at one state."""
    from noiseless.analysis import layer_parts

    return options.most_products(len(layer_parts(state.experiment.space)))


def _print_cost(state: RunState, options: SharpnessOptions, states: int) -> None:
    """Prints passes, seconds and memory of a product, and the largest number of products."""
    from noiseless.ask.sharpness import cost

    product, most = cost(state, options), states * _products(state, options)
    norm = "blocks" if options.batch_norm == "block" else "running statistics"
    at = f" at {states} states" if states > 1 else ""
    console.print(
        f"{len(state.experiment.space):,} parameters, {len(state.experiment.train):,} examples, batch norm by {norm}: a"
        f" {MATRICES[options.curvature]} product is {product.passes:.3g} passes, about {duration(product.seconds)}; at"
        f" most {most} of them{at}, {duration(most * product.seconds)}; {product.bytes / 2**20:,.0f} MiB of memory"
    )


def _print(args: SharpnessFlags, address: StateAddress, answer: Answer) -> None:
    from noiseless.run.updates import unknown_edge

    values = answer.values
    console.print(_table(values, f"{address.directory.path}@{values['step']}"))
    products = f"{values['products']} products, " if "products" in values else ""
    where = f"step {values['step']}, training loss {values['loss']:.4g}"
    console.print(f"{where}: {products}{values['passes']:.3g} passes, {values['seconds']:g} s")
    if not values["converged"]:
        console.print("not converged: residuals are above --tolerance; allow more products with --most", style="yellow")
    threshold = values["stability"]
    if threshold is not None:
        console.print(f"the edge of stability at lr {values['lr']:g} is {threshold:.6g}")
    elif values["of"] == "loss" and values.get("penalised"):
        console.print("steps follow the Hessian of the penalised objective: --of objective has its edge of stability")
    elif reason := unknown_edge(address.directory.config().recipe):
        console.print(reason)
    trace = values["trace"]
    if trace is not None:
        console.print(f"trace {trace['value']:.6g} ± {trace['error']:.2g} (standard error)")


def _table(values: dict[str, Any], title: str) -> Table:
    functions = {"objective": "objective, with its penalty"}
    what = functions.get(str(values["of"]), "training loss")
    block = "" if values["of"] in ("loss", "objective", "layer") else f", block of {values['of']}"
    seen = ", preconditioned by its optimizer" if values["preconditioned"] else ""
    matrix = f"{MATRICES[values['curvature']]} matrix" if values["curvature"] != "hessian" else "Hessian"
    title = f"{title}: eigenvalues of the {matrix} of the {what}{block}{seen}"
    if values["layers"] is not None:
        return _layers(values["layers"], f"{title}, by layer")
    table = Table(title=title)
    for heading in ("", "eigenvalue", "residual"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("largest", "smallest"):
        eigenvalues, residuals = values[name], values.get(f"{name}_residuals", [])
        for number, (value, residual) in enumerate(zip(eigenvalues, residuals, strict=True), 1):
            table.add_row(f"{name} {number}" if len(eigenvalues) > 1 else name, f"{value:.6g}", f"{residual:.2g}")
    return table


def _layers(layers: list[dict[str, Any]], title: str) -> Table:
    """A row for each layer: number of parameters, outermost eigenvalues, trace."""
    table = Table(title=title)
    ends = [name for name in ("largest", "smallest") if any(layer.get(name) for layer in layers)]
    traces = any(layer["trace"] for layer in layers)
    for heading in ("layer", "parameters", *ends, *(["trace"] if traces else [])):
        table.add_column(heading, justify="left" if heading == "layer" else "right", overflow="fold")
    for layer in layers:
        outer = [layer[name][0] if layer.get(name) else None for name in ends]
        cells = ["" if value is None else f"{value:.4g}" for value in outer]
        if traces:
            cells.append(f"{layer['trace']['value']:.4g} ± {layer['trace']['error']:.2g}")
        table.add_row(layer["name"] or "(module)", f"{layer['parameters']:,}", *cells)
    return table
