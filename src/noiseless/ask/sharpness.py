"""The sharpness of a run's states: eigenvalues, density and trace of a curvature matrix, and their estimated cost."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from noiseless.analysis import (
    BatchNorm,
    GaussNewton,
    Hessian,
    Operator,
    Part,
    Restricted,
    curvature_matrix,
    density,
    matching_part,
    module_mode,
    preconditioned,
    top_eigenvalues,
    trace,
)
from noiseless.analysis.operator import VectorSpace
from noiseless.analysis.spectrum import room
from noiseless.ask.layers import by_layer, eigenvalues
from noiseless.ask.options import SharpnessOptions
from noiseless.ask.state import RunState, load_optimizer, load_state
from noiseless.files import answers
from noiseless.files.address import StateAddress
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.files.state import restored_from
from noiseless.objective import GradientPenalty, Objective, ParameterSpace, risk_of
from noiseless.optim.groups import set_rate
from noiseless.run.updates import edge_of_stability
from noiseless.system import peak_memory

FUNCTIONS: Mapping[str, Literal["loss", "objective"]] = {"loss": "loss", "objective": "objective"}
"""values of `--of` that name a function; the others name blocks of the loss' matrix"""
BIN_BYTES = 24
"""bytes of an exact sum, per element"""


@dataclass(frozen=True)
class ProductCost:
    """Estimated cost of one product."""

    passes: float
    """gradient evaluations over the full data set that cost as much"""
    seconds: float
    """extrapolated from the measured time of one block"""
    bytes: float
    """memory: vectors, exact sums, and what the product of one block took"""


def operator(state: RunState, options: SharpnessOptions) -> Operator:
    """The matrix whose spectrum is computed.

    Args:
        state: of the run.
        options: which matrix.

    Returns:
        The curvature matrix of the loss or the objective, preconditioned or restricted to a block if the options say
        so.

    Raises:
        ValueError: if the optimizer has no preconditioner at this state, the objective has no such matrix, or no
            parameter matches a pattern.
    """
    matrix: Operator = _matrix(state, options)
    space = state.experiment.space
    part = None if options.of in (*FUNCTIONS, "layer") else _part(space, options.of)
    if options.preconditioned:
        load_optimizer(state)
        with restored_from(state.address):
            matrix = preconditioned(matrix, state.experiment.optimizer, space)
    return matrix if part is None else Restricted(matrix, part)


def _part(space: ParameterSpace, pattern: str) -> Part:
    """The parameters that a pattern names."""
    try:
        return matching_part(space, pattern)
    except ValueError as error:
        raise ValueError(f"{error}; or loss, objective or layer") from None


def _matrix(state: RunState, options: SharpnessOptions) -> Hessian | GaussNewton:
    objective: Objective = (state.penalised or state.risk) if options.of == "objective" else state.risk
    if isinstance(objective, GradientPenalty) and objective.full_strength:
        raise ValueError(
            "Hessian products of the penalty on the full gradient are not available, as it couples all blocks:"
            " choose --of loss"
        )
    return curvature_matrix(objective, options.curvature, options.batch_norm)


def cost(state: RunState, options: SharpnessOptions) -> ProductCost:
    """Estimates the cost of a product by timing the product of one block.

    Args:
        state: of the run.
        options: what is to be computed.

    Returns:
        The estimate.

    Raises:
        ValueError: as `operator`.
    """
    operator(state, options)  # raises where the spectrum cannot be computed
    matrix = _matrix(state, options)
    objective, risk = matrix.objective, risk_of(matrix.objective)
    first = replace(risk.selection.head(risk.blocks.size), examples_per_pass=risk.blocks.count)
    part = replace(matrix, objective=objective.over(replace(risk, data=first, block=len(first))))
    space, before = risk.space, peak_memory() or 0.0
    vector = torch.ones(1, len(space), dtype=space.theta.dtype, device=space.device)
    part.product(vector)
    start = time.perf_counter()
    part.product(vector)
    seconds = (time.perf_counter() - start) * len(risk.blocks) / risk.execution.workers.count
    count = options.largest + options.smallest
    stored = max(2 * room(count) if count else 0, 2 * options.steps if options.density else 0)
    vectors = len(space) * (stored * space.theta.element_size() + max(1, count) * BIN_BYTES)
    return ProductCost(matrix.passes(1), seconds, vectors + (peak_memory() or 0.0) - before)


@dataclass(frozen=True)
class _Timed:
    """An operator that reports the time of each product."""

    inner: Operator
    on_product: Callable[[float], None]
    """called with the seconds of each product, once for each vector"""

    @property
    def space(self) -> VectorSpace:
        return self.inner.space

    def product(self, V: Tensor) -> Tensor:
        start = time.perf_counter()
        images = self.inner.product(V)
        for _ in V:
            self.on_product((time.perf_counter() - start) / len(V))
        return images

    def passes(self, vectors: int) -> float:
        return self.inner.passes(vectors)


def sharpness(
    state: RunState,
    options: SharpnessOptions,
    start: Tensor | None = None,
    on_product: Callable[[float], None] = lambda seconds: None,
) -> tuple[Answer, Tensor | None]:
    """Computes eigenvalues, density and trace of a curvature matrix at a state, and the training loss there.

    Args:
        state: of the run; every worker must call this.
        options: what is computed.
        start: vectors from which the search for eigenvalues starts, `[k, P]`, such as the eigenvectors of a nearby
            state; None: one random vector.
        on_product: called with the seconds of each product.

    Returns:
        The answer, and the eigenvectors `[k, P]` (None if no eigenvalues were computed, or those of layers). The loss
        is without penalty.
    """
    start_time, matrix = time.perf_counter(), _Timed(operator(state, options), on_product)
    values: dict[str, Any] = {"step": state.step, **asdict(options), "passes": 0.0, "converged": True}
    values |= {"density": None, "trace": None, "largest": [], "smallest": [], "layers": None}
    with module_mode(state.experiment.model, options.batch_norm):
        here = state.risk.measure()
    values |= {"loss": here.loss, "passes": here.passes}
    vectors = None
    if options.of == "layer":
        blocks = by_layer(matrix, state.experiment.space, options)
        values |= blocks | {"passes": values["passes"] + blocks["passes"]}
    elif options.largest + options.smallest:
        top = top_eigenvalues(
            matrix, options.largest, options.smallest, tolerance=options.tolerance, most=options.most,
            start=start, seed=options.seed,
        )  # fmt: skip
        vectors = torch.cat((top.largest.vectors, top.smallest.vectors))
        values |= eigenvalues("largest", top.largest) | eigenvalues("smallest", top.smallest)
        values |= {"converged": top.converged, "products": top.products}
        values["passes"] += top.passes
    if options.density:
        spectrum = density(matrix, options.probes, options.steps, options.seed)
        grid, width = spectrum.grid()
        shape = {"grid": grid.tolist(), "density": spectrum.at(grid, width).tolist(), "width": width}
        values["density"] = shape | {"probes": options.probes, "steps": options.steps}
        values["passes"] += spectrum.passes
    if options.trace and options.of != "layer":
        estimate = trace(matrix, options.trace, options.seed)
        values["trace"] = {"value": estimate.value, "error": estimate.error}
        values["passes"] += estimate.passes
    lr = state.experiment.schedule(state.objective_step)
    with restored_from(state.address):
        set_rate(state.experiment.optimizer, lr)
    recipe = state.experiment.config.recipe
    of = FUNCTIONS.get(options.of) if options.curvature == "hessian" else None  # the steps follow no other matrix
    edge = None if of is None else edge_of_stability(recipe, state.experiment.optimizer, of)
    values |= {"lr": lr, "stability": edge}
    values["penalised"] = recipe.objective.penalised
    values["seconds"] = round(time.perf_counter() - start_time, 3)
    return Answer("sharpness", _name(state, options), values), vectors


def sharpness_along(
    first: RunState,
    addresses: list[StateAddress],
    options: SharpnessOptions,
    on_product: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Answer]:
    """Computes the sharpness at several states of a run. Each search starts from the eigenvectors of the state before.

    Args:
        first: the state at the first address; its workers compute the other states as well.
        addresses: states of one run.
        options: what is computed at each state.
        on_product: called with the seconds of each Hessian product.

    Yields:
        The answer of each state. A density or trace that is not computed now is taken from the run's earlier answer.
    """
    start = None
    for address in addresses:
        state = first if address == first.address else load_state(address, first.experiment.workers)
        answer, start = sharpness(state, options, start, on_product)
        yield _with_earlier(address.directory, answer)


def _with_earlier(directory: RunDirectory, answer: Answer) -> Answer:
    """An answer completed with the density and trace of the earlier answer that it replaces."""
    earlier = [old.values for old in answers.read(directory, answer.kind) if old.name == answer.name]
    added = {name: old[name] for old in earlier for name in ("density", "trace") if answer.values[name] is None}
    return replace(answer, values=answer.values | added)


def eigenvectors(state: RunState, count: int, batch_norm: BatchNorm | None) -> Tensor:
    """The eigenvectors of the largest Hessian eigenvalues of the loss, `[count, P]`."""
    return top_eigenvalues(Hessian(state.risk, batch_norm), count).largest.vectors


def _name(state: RunState, options: SharpnessOptions) -> str:
    """Name of an answer: the step, and the matrix if it is not the Hessian of the loss in training mode."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", options.of)
    of = plain if plain == options.of else f"{plain[:60]}-{zlib.crc32(options.of.encode()):08x}"  # a pattern
    parts = [f"step-{state.step}", of if of != "loss" else ""]
    parts += [options.curvature if options.curvature != "hessian" else ""]
    parts += ["preconditioned" if options.preconditioned else "", "running" * (options.batch_norm == "running")]
    return "-".join(part for part in parts if part)
