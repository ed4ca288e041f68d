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
from noiseless.ask.asking import Place, ask
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
class Finding:
    """One way to compute the gradient."""

    way: str
    digest: str
    """SHA-256 of gradient, loss, hits and statistics"""


@dataclass(frozen=True)
class Noise:
    """How far a vector is from a reference: a plain float32 sum of block gradients from the one in order."""

    way: str
    largest: float
    """largest difference of an element"""
    relative: float
    """L2 norm of the difference over that of the reference"""


def verify(directory: RunDirectory) -> tuple[list[Finding], list[Noise]]:
    """Computes the gradient at a run's newest state in several ways.

    Twice in the order of the blocks, in a permuted order, and in jobs of 1, 2 and 3 workers; in chunks of at most an
    eighth of the blocks, so that there are several to be permuted and shared.

    Args:
        directory: of the run.

    Returns:
        The digests, which should be equal, and the noise of plain float32 sums, which is what they lack.
    """
    in_order, repeated, permuted = _Watching(False), _Watching(False), _Watching(True)
    first, again, other = (gradient(directory, workers) for workers in (in_order, repeated, permuted))
    findings = [Finding("in order", _digest(first)), Finding("again", _digest(again))]
    findings.append(Finding("blocks in another order", _digest(other)))
    with TemporaryDirectory(prefix="noiseless-") as place:
        for count in WORKERS:
            told = Path(place) / str(count)
            team.launch(count, ["verify", str(directory.path), "--part", str(told)], restarts=0)
            digest = json.loads(told.read_text()) if told.exists() else "the job failed"
            findings.append(Finding(f"{count} worker{'s' if count > 1 else ''}", digest))
    plain = in_order.sums[1]
    noises = [noise("again, in the same order", repeated.sums[1], plain)]
    noises += [noise("blocks in another order", permuted.sums[1], plain)]
    noises += [noise(f"{count} workers", in_order.sums[count], plain) for count in SHARES]
    return findings, noises


def part(directory: RunDirectory, told: Path) -> None:
    """As one worker of a job: computes the gradient with the others; the first tells its digest."""
    workers = team.join(lambda: False)
    found = gradient(directory, workers)
    if workers.rank == 0:
        told.write_text(json.dumps(_digest(found)))


def gradient(
    directory: RunDirectory, workers: Workers, change: Callable[[Config], Config] = lambda config: config
) -> Evaluation:
    """What the objective of a run's newest state answers.

    Args:
        directory: of the run.
        workers: who compute.
        change: makes the config with which it is computed from the run's.

    Returns:
        The evaluation, of the objective of the step that would come next (see `Asked.objective`).
    """
    asked = ask(Place(directory, None), workers, change)
    workers.begin(asked.seen)
    objective = asked.objective
    risk = risk_of(objective)
    small = min(risk.execution.chunk, max(1, len(risk.blocks) // 8))
    return objective.over(replace(risk, execution=replace(risk.execution, chunk=small))).evaluate()


def _digest(found: Evaluation) -> str:
    scalars = torch.tensor([found.loss, found.penalty, float(found.hits or 0)], dtype=torch.float64)
    return checkpoint.digest({"gradient": found.gradient, "statistics": found.statistics, "scalars": scalars})


def noise(way: str, found: Tensor, reference: Tensor) -> Noise:
    """How far a vector is from the one that it should be, `[P]` each; differences are taken in float64."""
    difference = found.double() - reference.double()
    return Noise(way, difference.abs().max().item(), (difference.norm() / reference.double().norm()).item())


class _Watching(Alone):
    """One process that also sums the block gradients plainly, in float32: in its order, and dealt out to workers.

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
        """Number of workers -> the sum of the sums of each."""
        return {count: torch.stack(shares).cumsum(0)[-1] for count, shares in self._plain.items()}
