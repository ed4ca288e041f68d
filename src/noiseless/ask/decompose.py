"""What one pass of mini-batches does beyond the full batch, at a state of a run; each order is saved when done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis.decompose import Comparison, OnePass, check_batch, compare_orders, drawn_order
from noiseless.ask.onepass import DecomposeOptions
from noiseless.ask.state import RunState
from noiseless.files import answers, checkpoint
from noiseless.files.answers import Answer
from noiseless.files.parameters import read_parameters, write_parameters
from noiseless.files.unfinished import Unfinished
from noiseless.run.session import in_first

KIND = "decompose"
ORDER_PASSES = {False: 6.0, True: 3.0}
"""passes of an order: both ways and the implicit drift; with replacement, both ways and the gradients at the state"""
STATE_PASSES = 4.0
"""passes of the full gradient and its Hessian product"""


@dataclass(frozen=True, eq=False)
class DecomposeJob:
    """A decomposition that can be carried out, and continued."""

    state: RunState
    options: DecomposeOptions
    one_pass: OnePass
    sizes: list[int]
    """batch sizes, in descending order"""

    @property
    def examples(self) -> int:
        """N."""
        return self.one_pass.risk.blocks.count

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Without and with replacement."""
        return (False, True) if self.options.replacement else (False,)

    @property
    def passes(self) -> float:
        """Cost of all of it, in passes."""
        orders = len(self.sizes) * self.options.orders * sum(ORDER_PASSES[kind] for kind in self.kinds)
        return STATE_PASSES + max(self.examples // size for size in self.sizes) + orders

    @property
    def folder(self) -> Path:
        """Folder of the vectors that are done; its name holds what they depend on."""
        digest = checkpoint.digest(self.state.experiment.model.state_dict())[:12]
        name = f"{KIND}-{self.state.step}-lr-{self.one_pass.lr!r}-seed-{self.options.seed}-{digest}"
        return self.state.address.directory.path / answers.FOLDER / name


def prepare(state: RunState, options: DecomposeOptions) -> DecomposeJob:
    """Builds a decomposition. It computes nothing and writes nothing.

    Args:
        state: of the run; every worker must call this.
        options: batch sizes, orders, rate.

    Returns:
        The job.

    Raises:
        ValueError: if a batch size does not divide the number of examples, or the rate is 0.
    """
    recipe = state.experiment.config.recipe
    if recipe.objective.max_up > 1:
        raise ValueError("the run minimises the largest loss of several draws (--max-up), which is no mean over images")
    risk = state.risk
    lr = state.experiment.schedule(state.objective_step) if options.lr is None else options.lr
    if not lr:
        raise ValueError(f"the run's learning rate at step {state.objective_step} is 0: give --lr")
    sizes = options.sizes(risk.blocks.count)
    for size in sizes:
        check_batch(size, risk.blocks.count)
    risk = replace(risk, execution=replace(risk.execution, compiler=None))  # batches of many sizes are not compiled
    return DecomposeJob(state, options, OnePass(risk, lr), sizes)


def carry_out(job: DecomposeJob, tick: Callable[[float], None] = lambda passes: None) -> Answer:
    """Computes what is missing; each order is written as soon as it is done.

    Args:
        job: the decomposition; every worker must call this.
        tick: called with the passes of each part that is done.

    Returns:
        The answer.

    Raises:
        ValueError: if another process computes it, a gradient or displacement is not finite, or the loss gives examples
            weights.
        SweepStoppedError: if a worker was told to stop; all workers raise it.
    """
    workers, store = job.state.experiment.workers, Store(job)
    if workers.rank == 0:
        answers.folder(job.state.address.directory)
    with in_first(workers, store.unfinished.locked):
        return _computed(job, store, tick)


def _computed(job: DecomposeJob, store: Store, tick: Callable[[float], None]) -> Answer:
    """The answer, from vectors that are stored or computed now."""
    one_pass, options = job.one_pass, job.options
    updates = sorted(job.examples // size for size in job.sizes)

    def at_state() -> dict[str, Tensor]:
        gradient = one_pass.gradient(one_pass.risk, one_pass.start)
        return {"gradient": gradient, "curvature": one_pass.curvature(1, gradient)}

    here = store.get("state", at_state, STATE_PASSES, tick)
    full = store.get(
        f"full-{'-'.join(map(str, updates))}",
        lambda: {str(m): end for m, end in one_pass.full(updates).items()}, updates[-1], tick,
    )  # fmt: skip
    parts = []
    for size in job.sizes:
        m = job.examples // size
        found = {kind: _orders(job, store, size, kind, here["gradient"], tick) for kind in job.kinds}
        parts.append(_part(job, m, full[str(m)], here["curvature"] * m, found))
    values = {
        "step": job.state.step,
        "lr": one_pass.lr,
        "examples": job.examples,
        "orders": options.orders,
        "seed": options.seed,
        "gradient_norm": float(here["gradient"].norm()),
        "batches": parts,
        "passes": job.passes,
    }
    store.remove()
    sizes = "-".join(map(str, job.sizes))
    name = f"{job.state.step}-lr-{one_pass.lr:g}-batches-{sizes}-orders-{options.orders}-seed-{options.seed}"
    return Answer(KIND, name, values)


def _orders(
    job: DecomposeJob, store: Store, size: int, replacement: bool, gradient: Tensor, tick: Callable[[float], None]
) -> list[dict[str, Tensor]]:
    """The vectors of all orders of one batch size."""
    kind = "with" if replacement else "without"
    return [
        store.get(
            f"batch-{size}-{kind}-{number}", partial(_order, job, number, size, replacement, gradient),
            ORDER_PASSES[replacement], tick,
        )
        for number in range(job.options.orders)
    ]  # fmt: skip


def _order(job: DecomposeJob, number: int, size: int, replacement: bool, gradient: Tensor) -> dict[str, Tensor]:
    """The vectors of one order, `[P]` each."""
    one_pass, numbers = job.one_pass, job.one_pass.risk.selection.numbers
    drawn = drawn_order(job.options.seed, number, job.examples, replacement)
    cut = one_pass.batches(numbers[drawn], size)
    end = one_pass.both_ways(cut)
    if not replacement:
        return {"end": end, "implicit": one_pass.implicit(cut)}
    at_start = one_pass.gradient(cut, one_pass.start)  # takes out the first-order noise, whose mean over draws is 0
    return {"end": end + one_pass.lr * len(cut.blocks) * (at_start - gradient)}


def _part(
    job: DecomposeJob, updates: int, full: Tensor, curvature: Tensor, found: dict[bool, list[dict[str, Tensor]]]
) -> dict[str, Any]:
    """The numbers of one batch size."""
    ends = torch.stack([order["end"] for order in found[False]]) - full
    implicit = torch.stack([order["implicit"] for order in found[False]])
    if not all(vectors.isfinite().all() for vectors in (ends, implicit, curvature)):
        raise ValueError(
            f"{updates} steps of rate {job.one_pass.lr:g} do not stay finite from this state: give a smaller --lr"
        )
    predicted = implicit + curvature
    drift = torch.stack([curvature] * len(ends))
    values: dict[str, Any] = {
        "batch": job.examples // updates,
        "updates": updates,
        "full_norm": float(full.norm()),
        "implicit_norm": asdict(compare_orders(implicit, implicit).displacement),
        "curvature_norm": float(curvature.norm()),
        "without": _plain(compare_orders(ends, predicted)),
        "implicit_alone": _plain(compare_orders(ends - drift, implicit)),
        "with": None,
    }
    if True in found:
        drawn = torch.stack([order["end"] for order in found[True]]) - full
        values["with"] = _plain(compare_orders(drawn, predicted.mean(0).expand_as(drawn)))
    return values


def _plain(comparison: Comparison) -> dict[str, Any]:
    return asdict(comparison)


class Store:
    """The vectors that are done, in files that an interrupted decomposition goes on with.

    Args:
        job: the decomposition.
    """

    def __init__(self, job: DecomposeJob):
        self.unfinished = Unfinished(job.folder, {})
        self._workers = job.state.experiment.workers

    def get(
        self, name: str, compute: Callable[[], dict[str, Tensor]], passes: float, tick: Callable[[float], None]
    ) -> dict[str, Tensor]:
        """Vectors from their file, or computed and written.

        Args:
            name: of the file.
            compute: returns the vectors; all workers call it.
            passes: that it takes.
            tick: called with them at the end.

        Returns:
            The vectors by name, float64 `[P]`.
        """
        path = self.unfinished.path / f"{name}.safetensors"
        vectors: dict[str, Tensor] | None = None
        if self._workers.exchange(str(int(path.exists())))[0] == "1":
            try:
                vectors = read_parameters(path, sealed=True)
            except ValueError:  # damaged: computed again
                vectors = None
        if self._workers.any(vectors is None):
            vectors = {key: vector.cpu() for key, vector in compute().items()}
            if self._workers.rank == 0:
                self.unfinished.path.mkdir(exist_ok=True)
                write_parameters(path, vectors)
        assert vectors is not None
        tick(passes)
        return vectors

    def remove(self) -> None:
        """Removes the files, once all workers have read them."""
        self._workers.exchange("")
        if self._workers.rank == 0:
            self.unfinished.remove()
