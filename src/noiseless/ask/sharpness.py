"""The sharpness of a run's states: eigenvalues, density and trace of a Hessian, with an estimate of their cost."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis import (
    BatchNorm,
    Hessian,
    Operator,
    density,
    preconditioned,
    stability_threshold,
    top_eigenvalues,
    trace,
)
from noiseless.analysis.spectrum import room
from noiseless.ask.options import SharpnessOptions
from noiseless.ask.state import RunState, StateAddress, load_state
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.objective import GradientPenalty, Objective, ParameterSpace, risk_of

BIN_BYTES = 24
"""bytes of an exact sum, for one number"""


@dataclass(frozen=True)
class ProductCost:
    """Estimated cost of Hessian products."""

    passes: float
    """passes of one product"""
    seconds: float
    """of one product, from that of one block, timed here"""
    bytes: float
    """memory: vectors, exact sums and what the block's product has taken"""


def operator(state: RunState, options: SharpnessOptions) -> Operator:
    """The matrix of which the spectrum is computed.

    Args:
        state: of the run.
        options: which matrix.

    Returns:
        The operator.

    Raises:
        ValueError: if the optimizer has no preconditioner there, or the objective no Hessian.
    """
    hessian = _hessian(state, options)
    if not options.preconditioned:
        return hessian
    optimizer = state.experiment.optimizer
    if state.optimizer_state is not None:
        optimizer.load_state_dict(state.optimizer_state)
    return preconditioned(hessian, optimizer, state.experiment.space)


def _hessian(state: RunState, options: SharpnessOptions) -> Hessian:
    objective: Objective = (state.penalised or state.risk) if options.of == "objective" else state.risk
    if isinstance(objective, GradientPenalty) and objective.full_strength:
        raise ValueError(
            "the penalty on the full gradient has no Hessian here, as it couples all blocks: choose --of loss"
        )
    return Hessian(objective, options.batch_norm)


def cost(state: RunState, options: SharpnessOptions) -> ProductCost:
    """Estimates the cost of a Hessian product from the product of one block.

    Args:
        state: of the run.
        options: what is to be computed.

    Returns:
        The estimate.

    Raises:
        ValueError: as `operator`.
    """
    operator(state, options)  # what cannot be computed is refused here
    hessian = _hessian(state, options)
    objective, risk = hessian.objective, risk_of(hessian.objective)
    first = replace(risk.selection.head(risk.blocks.size), whole=risk.blocks.count)
    part = Hessian(objective.over(replace(risk, data=first, block=len(first))), hessian.batch_norm)
    space, before = risk.space, _high_water()
    vector = torch.ones(1, len(space), dtype=space.theta.dtype, device=space.device)
    part.product(vector)
    began = time.perf_counter()
    part.product(vector)
    seconds = (time.perf_counter() - began) * len(risk.blocks) / risk.execution.workers.count
    eigenvalues = options.largest + options.smallest
    held = max(2 * room(eigenvalues) if eigenvalues else 0, 2 * options.steps if options.density else 0)
    vectors = len(space) * (held * space.theta.element_size() + max(1, eigenvalues) * BIN_BYTES)
    return ProductCost(objective.hvp_passes(1), seconds, vectors + _high_water() - before)


@dataclass(frozen=True)
class _Timed:
    """An operator that reports how long each product took."""

    inner: Operator
    on_product: Callable[[float], None]
    """called with seconds, once for each vector"""

    @property
    def space(self) -> ParameterSpace:
        return self.inner.space

    def product(self, V: Tensor) -> Tensor:
        began = time.perf_counter()
        images = self.inner.product(V)
        for _ in V:
            self.on_product((time.perf_counter() - began) / len(V))
        return images

    def passes(self, vectors: int) -> float:
        return self.inner.passes(vectors)


def sharpness(
    state: RunState,
    options: SharpnessOptions,
    start: Tensor | None = None,
    on_product: Callable[[float], None] = lambda seconds: None,
) -> tuple[Answer, Tensor | None]:
    """Eigenvalues, density and trace of a Hessian at a state.

    Args:
        state: of the run; each of its workers calls this.
        options: what is computed.
        start: eigenvectors of a state nearby, `[k, P]`.
        on_product: called with the seconds of each Hessian product.

    Returns:
        The answer, and the eigenvectors, to start from at the next state.
    """
    began, matrix = time.perf_counter(), _Timed(operator(state, options), on_product)
    values: dict[str, Any] = {"step": state.step, **asdict(options), "passes": 0.0, "converged": True}
    values |= {"density": None, "trace": None, "largest": [], "smallest": []}
    vectors = None
    if options.largest + options.smallest:
        top = top_eigenvalues(
            matrix, options.largest, options.smallest, tolerance=options.tolerance, most=options.most,
            start=start, seed=options.seed,
        )  # fmt: skip
        vectors = torch.cat((top.largest.vectors, top.smallest.vectors))
        for name, pairs in (("largest", top.largest), ("smallest", top.smallest)):
            values |= {name: pairs.values.tolist(), f"{name}_residuals": pairs.residuals.tolist()}
        values |= {"converged": top.converged, "products": top.products, "passes": top.passes}
    if options.density:
        spectrum = density(matrix, options.probes, options.steps, options.seed)
        grid, width = spectrum.grid()
        shape = {"grid": grid.tolist(), "density": spectrum.at(grid, width).tolist(), "width": width}
        values["density"] = shape | {"probes": options.probes, "steps": options.steps}
        values["passes"] += spectrum.passes
    if options.trace:
        estimate = trace(matrix, options.trace, options.seed)
        values["trace"] = {"value": estimate.value, "error": estimate.error}
        values["passes"] += estimate.passes
    lr = state.experiment.schedule(state.objective_step)
    for group in state.experiment.optimizer.param_groups:
        group["lr"] = lr
    values |= {"lr": lr, "stability": stability_threshold(state.experiment.optimizer)}
    values["seconds"] = round(time.perf_counter() - began, 3)
    return Answer("sharpness", _name(state, options), values), vectors


def sharpness_along(
    first: RunState,
    addresses: list[StateAddress],
    options: SharpnessOptions,
    on_product: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Answer]:
    """The sharpness of several states of a run in turn, each search begun with the eigenvectors of the one before.

    Args:
        first: the state at the first address; its workers share the others, too.
        addresses: states of one run.
        options: what is computed at each.
        on_product: called with the seconds of each Hessian product.

    Yields:
        Each state's answer, with the density and the trace that the run's files have of it already.
    """
    start = None
    for address in addresses:
        state = first if address == first.address else load_state(address, first.experiment.workers)
        answer, start = sharpness(state, options, start, on_product)
        yield _with_earlier(address.directory, answer)


def _with_earlier(directory: RunDirectory, answer: Answer) -> Answer:
    """An answer with the density and the trace of the one that it replaces, where it has none itself."""
    earlier = [old.values for old in answers.read(directory, answer.kind) if old.name == answer.name]
    added = {name: old[name] for old in earlier for name in ("density", "trace") if answer.values[name] is None}
    return replace(answer, values=answer.values | added)


def eigenvectors(state: RunState, count: int, batch_norm: BatchNorm | None) -> Tensor:
    """The eigenvectors of the loss' largest Hessian eigenvalues, `[count, P]`, for directions of a landscape."""
    return top_eigenvalues(Hessian(state.risk, batch_norm), count).largest.vectors


def _name(state: RunState, options: SharpnessOptions) -> str:
    """The step, and what tells the answer from those of other matrices there."""
    parts = [f"step-{state.step}", options.of if options.of != "loss" else ""]
    parts += ["preconditioned" if options.preconditioned else "", "running" * (options.batch_norm == "running")]
    return "-".join(part for part in parts if part)


def _high_water() -> float:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
