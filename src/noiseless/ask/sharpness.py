"""The sharpness of a run's states, with what it will cost before it is computed."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis import Hessian, Operator, density, preconditioned, stability_threshold, top_eigenvalues, trace
from noiseless.analysis.spectrum import room
from noiseless.ask.asking import Asked, Place, ask
from noiseless.ask.question import Question
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.objective import GradientPenalty, Objective, ParameterSpace, risk_of

BIN_BYTES = 24
"""of an exact sum, for each number"""


@dataclass(frozen=True)
class Cost:
    """What a question will take."""

    product_passes: float
    """of one Hessian product"""
    product_seconds: float
    """of one, from the product of one block, timed here"""
    bytes: float
    """of memory: vectors, exact sums and what the block's product has taken"""


def operator(asked: Asked, question: Question) -> Operator:
    """The matrix that a question is about.

    Args:
        asked: the state.
        question: about it.

    Returns:
        The operator.

    Raises:
        ValueError: if the optimizer has no preconditioner there, or the objective no Hessian.
    """
    objective: Objective = (asked.penalised or asked.risk) if question.of == "objective" else asked.risk
    if isinstance(objective, GradientPenalty) and objective.full_strength:
        raise ValueError(
            "the penalty on the full gradient has no Hessian here, as it couples all blocks: ask for --of loss"
        )
    hessian = Hessian(objective, question.batch_norm)
    if not question.preconditioned:
        return hessian
    optimizer = asked.experiment.optimizer
    if asked.optimizer is not None:
        optimizer.load_state_dict(asked.optimizer)
    return preconditioned(hessian, optimizer, asked.experiment.space)


def cost(asked: Asked, question: Question) -> Cost:
    """What a question will take, from the product of one block.

    Args:
        asked: the state.
        question: about it.

    Returns:
        The estimate.
    """
    hessian = _hessian(operator(asked, question))
    objective, risk = hessian.objective, risk_of(hessian.objective)
    first = replace(risk.selection.head(risk.blocks.size), whole=risk.blocks.count)
    part = Hessian(objective.over(replace(risk, data=first, block=len(first))), hessian.batch_norm)
    space, before = risk.space, _high_water()
    vector = torch.ones(1, len(space), dtype=space.theta.dtype, device=space.device)
    part.product(vector)
    began = time.perf_counter()
    part.product(vector)
    seconds = (time.perf_counter() - began) * len(risk.blocks) / risk.execution.workers.count
    wanted = question.largest + question.smallest
    held = max(2 * room(wanted) if wanted else 0, 2 * question.steps if question.density else 0)
    vectors = len(space) * (held * space.theta.element_size() + max(1, wanted) * BIN_BYTES)
    return Cost(objective.hvp_passes(1), seconds, vectors + _high_water() - before)


@dataclass(frozen=True)
class _Told:
    """An operator that tells how long each product took."""

    inner: Operator
    tell: Callable[[float], None]
    """gets seconds, once for each vector"""

    @property
    def space(self) -> ParameterSpace:
        return self.inner.space

    def product(self, V: Tensor) -> Tensor:
        began = time.perf_counter()
        found = self.inner.product(V)
        for _ in V:
            self.tell((time.perf_counter() - began) / len(V))
        return found

    def passes(self, vectors: int) -> float:
        return self.inner.passes(vectors)


def sharpness(
    asked: Asked,
    question: Question,
    start: Tensor | None = None,
    on_product: Callable[[float], None] = lambda seconds: None,
) -> tuple[Answer, Tensor | None]:
    """Answers a question about a state.

    Args:
        asked: the state.
        question: about it.
        start: eigenvectors of a state nearby, `[k, P]`.
        on_product: gets the seconds of each Hessian product.

    Returns:
        The answer, and the eigenvectors at the upper end, to start from at the next state.
    """
    began, asks = time.perf_counter(), _Told(operator(asked, question), on_product)
    found: dict[str, Any] = {"step": asked.step, **asdict(question), "passes": 0.0, "converged": True}
    found |= {"density": None, "trace": None, "largest": [], "smallest": []}
    vectors = None
    if question.largest + question.smallest:
        got = top_eigenvalues(
            asks, question.largest, question.smallest, tolerance=question.tolerance, most=question.most,
            start=start, seed=question.seed,
        )  # fmt: skip
        vectors = torch.cat((got.largest.vectors, got.smallest.vectors))
        for name, pairs in (("largest", got.largest), ("smallest", got.smallest)):
            found |= {name: pairs.values.tolist(), f"{name}_residuals": pairs.residuals.tolist()}
        found |= {"converged": got.converged, "products": got.products, "passes": got.passes}
    if question.density:
        spectrum = density(asks, question.probes, question.steps, question.seed)
        grid, width = spectrum.grid()
        shape = {"grid": grid.tolist(), "density": spectrum.at(grid, width).tolist(), "width": width}
        found["density"] = shape | {"probes": question.probes, "steps": question.steps}
        found["passes"] += spectrum.passes
    if question.trace:
        estimate = trace(asks, question.trace, question.seed)
        found["trace"] = {"value": estimate.value, "error": estimate.error}
        found["passes"] += estimate.passes
    lr = asked.experiment.schedule(asked.seen)
    for group in asked.experiment.optimizer.param_groups:
        group["lr"] = lr
    found |= {"lr": lr, "stability": stability_threshold(asked.experiment.optimizer)}
    found["seconds"] = round(time.perf_counter() - began, 3)
    return Answer("sharpness", _name(asked, question), found), vectors


def along(
    first: Asked,
    places: list[Place],
    question: Question,
    tell: Callable[[Asked, Answer], None],
    on_product: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Answers a question about several states of a run in turn, each search begun with the eigenvectors before it.

    Args:
        first: the state at the first place.
        places: of one run.
        question: about each.
        tell: gets each answer as it is found.
        on_product: gets the seconds of each Hessian product.
    """
    start = None
    for place in places:
        asked = first if place == first.place else ask(place, first.experiment.workers)
        answer, start = sharpness(asked, question, start, on_product)
        tell(asked, answer)


def with_earlier(directory: RunDirectory, answer: Answer) -> Answer:
    """An answer with the density and the trace that are known of its state already, where it has none itself."""
    known = [old.found for old in answers.read(directory, answer.kind) if old.name == answer.name]
    kept = {name: old[name] for old in known for name in ("density", "trace") if answer.found[name] is None}
    return replace(answer, found=answer.found | kept)


def eigenvectors(asked: Asked, count: int) -> Tensor:
    """The eigenvectors of the loss' largest Hessian eigenvalues, `[count, P]`, for directions of a landscape."""
    return top_eigenvalues(Hessian(asked.risk), count).largest.vectors


def _name(asked: Asked, question: Question) -> str:
    """The step, and what tells the answer from those of other questions about it."""
    parts = [f"step-{asked.step}", question.of if question.of != "loss" else ""]
    parts += ["preconditioned" if question.preconditioned else "", "running" * (question.batch_norm == "running")]
    return "-".join(part for part in parts if part)


def _hessian(asks: Operator) -> Hessian:
    inner = getattr(asks, "operator", asks)
    assert isinstance(inner, Hessian)
    return inner


def _high_water() -> float:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
