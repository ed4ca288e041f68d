"""Whether a run's gradient has the same bits however it is computed, and how much plain float32 sums differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from noiseless import keyed, trust
from noiseless.ask.state import load_state
from noiseless.exits import INTERRUPTED
from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.objective import Evaluation, risk_of
from noiseless.objective.exactsum import ExactSum
from noiseless.objective.partial import Partial
from noiseless.objective.workers import Alone, WorkerLostError, Workers
from noiseless.recipes.config import Config
from noiseless.run import team

WORKERS = (1, 2, 3)
"""numbers of workers that compute the gradient"""
FLOAT32_WORKERS = (2, 3)
"""numbers of workers whose plain float32 all-reduce is simulated"""


@dataclass(frozen=True)
class GradientDigest:
    """The digest of a gradient, computed in one of several ways."""

    way: str
    """how it was computed, as text"""
    digest: str
    """SHA-256 of gradient, loss, hits and statistics"""


@dataclass(frozen=True)
class RoundingDifference:
    """The rounding difference between a vector and a reference, such as float32 sums in two orders."""

    way: str
    """how the vector was computed, as text"""
    largest: float
    """largest absolute difference of an element"""
    relative: float
    """L2 norm of the difference, divided by the L2 norm of the reference"""
    loss: float | None = None
    """absolute difference of the losses, divided by the reference's; None: losses are not compared"""


def verify(address: StateAddress) -> tuple[list[GradientDigest], list[RoundingDifference]]:
    """Computes the gradient at a state of a run in several ways.

    It is computed twice in the order of the blocks, once in a permuted order, and in jobs of 1, 2 and 3 workers. Chunks
    have at most an eighth of the blocks, so that there are several to permute and to share.

    Args:
        address: which run, and which of its states.

    Returns:
        The digests, which should be equal, and the differences between plain float32 sums.

    Raises:
        KeyboardInterrupt: if a job was stopped by a signal.
    """
    in_order, repeated, permuted = _RecordingAlone(False), _RecordingAlone(False), _RecordingAlone(True)
    ways = {"in order": in_order, "again": repeated, "blocks in another order": permuted}
    digests = [GradientDigest(way, _digest(gradient(address, workers))) for way, workers in ways.items()]
    with TemporaryDirectory(prefix="noiseless-") as folder:
        for count in WORKERS:
            path = Path(folder) / str(count)
            with suppress(WorkerLostError):
                words = ["verify", str(address), "--part", str(path), *trust.flags()]
                code = team.launch(count, words, restarts=0)
                if code == INTERRUPTED:
                    raise KeyboardInterrupt
            digest = json.loads(path.read_text()) if path.exists() else "the job failed"
            digests.append(GradientDigest(f"{count} worker{'s' if count > 1 else ''}", digest))
    plain = in_order.sums[1]
    differences = [rounding_difference("again, in the same order", repeated.sums[1], plain)]
    differences += [rounding_difference("blocks in another order", permuted.sums[1], plain)]
    differences += [rounding_difference(f"{count} workers", in_order.sums[count], plain) for count in FLOAT32_WORKERS]
    return digests, differences


def write_digest(address: StateAddress, path: Path, workers: Workers) -> None:
    """Computes the gradient as one worker of a job; the first worker writes the digest to a file."""
    evaluation = gradient(address, workers)
    if workers.rank == 0:
        path.write_text(json.dumps(_digest(evaluation)))


def gradient(
    address: StateAddress, workers: Workers, change: Callable[[Config], Config] = lambda config: config
) -> Evaluation:
    """Evaluates a run's objective at one of its states.

    Args:
        address: which run, and which of its states.
        workers: that share the sweep.
        change: maps the run's config to the one that is used.

    Returns:
        The evaluation of the next step's objective (see `RunState.objective`).
    """
    state = load_state(address, workers, change)
    workers.begin(state.objective_step)
    objective = state.objective
    risk = risk_of(objective)
    small = min(risk.execution.chunk, max(1, len(risk.blocks) // 8))
    return objective.over(replace(risk, execution=replace(risk.execution, chunk=small))).evaluate()


def _digest(evaluation: Evaluation) -> str:
    scalars = torch.tensor([evaluation.loss, evaluation.penalty, float(evaluation.hits or 0)], dtype=torch.float64)
    return checkpoint.digest({"gradient": evaluation.gradient, "statistics": evaluation.statistics, "scalars": scalars})


def rounding_difference(way: str, vector: Tensor, reference: Tensor) -> RoundingDifference:
    """The difference between a vector and a reference, both `[P]`, taken in float64."""
    difference = vector.double() - reference.double()
    return RoundingDifference(
        way, difference.abs().max().item(), (difference.norm() / reference.double().norm()).item()
    )


class _RecordingAlone(Alone):
    """A single process that also sums the block gradients in plain float32, as 1, 2 and 3 workers would.

    Attributes:
        sums: the plain float32 sum `[P]` for each number of workers.

    Args:
        permuted: computes the chunks in a permuted order.
    """

    def __init__(self, permuted: bool):
        super().__init__()
        self._permuted = permuted
        self.sums: dict[int, Tensor] = {}

    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of all chunks, in the order in which they are computed.

        Yields:
            Chunk numbers.
        """
        numbers = list(super().share(partial))
        if self._permuted:
            numbers = [numbers[k] for k in keyed.permutation(0, "verify", 0, len(numbers)).tolist()]
        partial.vectors["gradient"] = recording = _RecordingSum(partial.vectors["gradient"])
        yield from numbers
        partial.vectors["gradient"] = recording.inner
        self.sums = recording.plain()


class _RecordingSum(ExactSum):
    """An exact sum that also adds its terms in plain float32, dealt out in turn to 1, 2 and 3 workers."""

    def __init__(self, inner: ExactSum):
        super().__init__(0)
        self.inner = inner
        self._plain: dict[int, list[Tensor]] = {count: [] for count in (1, *FLOAT32_WORKERS)}
        self._terms = 0

    def add(self, terms: Tensor, weights: Tensor) -> None:
        self.inner.add(terms, weights)
        for term, weight in zip(terms, weights, strict=True):
            weighted = term.float() * weight.float()
            for count, shares in self._plain.items():
                if len(shares) < count:
                    shares.append(weighted.clone())
                else:
                    shares[self._terms % count] += weighted
            self._terms += 1

    def plain(self) -> dict[int, Tensor]:
        """The sum of the workers' sums, for each number of workers."""
        return {count: torch.stack(shares).cumsum(0)[-1] for count, shares in self._plain.items()}
