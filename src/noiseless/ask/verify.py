"""Whether a run's gradient has the same bits however it is computed, and what a plain float32 sum would differ by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.objective import Evaluation, risk_of
from noiseless.objective.exactsum import ExactSum
from noiseless.objective.partial import Partial
from noiseless.objective.workers import Alone, Workers
from noiseless.recipes.config import Config
from noiseless.run import team

WORKERS = (1, 2, 3)
SHARES = (2, 3)
"""numbers of workers whose plain float32 all-reduce is imitated"""


@dataclass(frozen=True)
class GradientDigest:
    """The digest of a gradient that was computed in one of several ways."""

    way: str
    digest: str
    """SHA-256 of gradient, loss, hits and statistics"""


@dataclass(frozen=True)
class RoundingDifference:
    """The difference of a vector from a reference by rounding, as of plain float32 sums in two orders."""

    way: str
    largest: float
    """largest difference of an element"""
    relative: float
    """L2 norm of the difference over that of the reference"""


def verify(directory: RunDirectory) -> tuple[list[GradientDigest], list[RoundingDifference]]:
    """Computes the gradient at a run's newest state in several ways.

    Twice in the order of the blocks, in a permuted order, and in jobs of 1, 2 and 3 workers; in chunks of at most an
    eighth of the blocks, so that there are several to be permuted and shared.

    Args:
        directory: of the run.

    Returns:
        The digests, which should be equal, and the differences between plain float32 sums.
    """
    in_order, repeated, permuted = _Watching(False), _Watching(False), _Watching(True)
    ways = {"in order": in_order, "again": repeated, "blocks in another order": permuted}
    digests = [GradientDigest(way, _digest(gradient(directory, workers))) for way, workers in ways.items()]
    with TemporaryDirectory(prefix="noiseless-") as place:
        for count in WORKERS:
            path = Path(place) / str(count)
            team.launch(count, ["verify", str(directory.path), "--part", str(path)], restarts=0)
            digest = json.loads(path.read_text()) if path.exists() else "the job failed"
            digests.append(GradientDigest(f"{count} worker{'s' if count > 1 else ''}", digest))
    plain = in_order.sums[1]
    differences = [rounding_difference("again, in the same order", repeated.sums[1], plain)]
    differences += [rounding_difference("blocks in another order", permuted.sums[1], plain)]
    differences += [rounding_difference(f"{count} workers", in_order.sums[count], plain) for count in SHARES]
    return digests, differences


def write_digest(directory: RunDirectory, path: Path, workers: Workers) -> None:
    """Computes the gradient as one of a job's workers; the first of them writes its digest into a file."""
    evaluation = gradient(directory, workers)
    if workers.rank == 0:
        path.write_text(json.dumps(_digest(evaluation)))


def gradient(
    directory: RunDirectory, workers: Workers, change: Callable[[Config], Config] = lambda config: config
) -> Evaluation:
    """The evaluation of a run's objective at its newest state.

    Args:
        directory: of the run.
        workers: who compute.
        change: makes the config with which it is computed from the run's.

    Returns:
        The evaluation, of the objective of the step that would come next (see `RunState.objective`).
    """
    state = load_state(StateAddress(directory, None), workers, change)
    workers.begin(state.objective_step)
    objective = state.objective
    risk = risk_of(objective)
    small = min(risk.execution.chunk, max(1, len(risk.blocks) // 8))
    return objective.over(replace(risk, execution=replace(risk.execution, chunk=small))).evaluate()


def _digest(evaluation: Evaluation) -> str:
    scalars = torch.tensor([evaluation.loss, evaluation.penalty, float(evaluation.hits or 0)], dtype=torch.float64)
    return checkpoint.digest({"gradient": evaluation.gradient, "statistics": evaluation.statistics, "scalars": scalars})


def rounding_difference(way: str, vector: Tensor, reference: Tensor) -> RoundingDifference:
    """The difference of a vector from a reference, both `[P]`, in float64."""
    difference = vector.double() - reference.double()
    return RoundingDifference(
        way, difference.abs().max().item(), (difference.norm() / reference.double().norm()).item()
    )


class _Watching(Alone):
    """One process that also sums the block gradients in plain float32: in its order, and dealt out to workers.

    Args:
        permuted: computes the chunks in a permuted order.
    """

    def __init__(self, permuted: bool):
        super().__init__()
        self._permuted = permuted
        self.sums: dict[int, Tensor] = {}

    def share(self, partial: Partial) -> Iterator[int]:
        """All chunks.

        Yields:
            Chunk numbers.
        """
        numbers = list(super().share(partial))
        if self._permuted:
            numbers = [numbers[k] for k in keyed.permutation(0, "verify", 0, len(numbers)).tolist()]
        partial.vectors["gradient"] = watched = _Watched(partial.vectors["gradient"])
        yield from numbers
        partial.vectors["gradient"] = watched.inner
        self.sums = watched.plain()


class _Watched(ExactSum):
    """An exact sum, with float32 sums beside it."""

    def __init__(self, inner: ExactSum):
        super().__init__(0)
        self.inner = inner
        self._plain: dict[int, list[Tensor]] = {count: [] for count in (1, *SHARES)}
        self._seen = 0

    def add(self, terms: Tensor, weights: Tensor) -> None:
        self.inner.add(terms, weights)
        for term, weight in zip(terms, weights, strict=True):
            weighted = term.float() * weight.float()
            for count, shares in self._plain.items():
                if len(shares) < count:
                    shares.append(weighted.clone())
                else:
                    shares[self._seen % count] += weighted
            self._seen += 1

    def plain(self) -> dict[int, Tensor]:
        """Number of workers -> the sum of their sums."""
        return {count: torch.stack(shares).cumsum(0)[-1] for count, shares in self._plain.items()}
