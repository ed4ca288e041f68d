"""The average-direction flatness of a run at one of its states, kept as an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from noiseless.analysis import BatchNorm, Flatness, Normalised, average_flatness
from noiseless.ask.asking import Place, ask
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.objective.workers import Workers
from noiseless.run.team import refuse_disagreement

KIND = "flatness"


def measure(
    place: Place,
    workers: Workers,
    radius: float,
    normalised: Normalised,
    *,
    seed: int,
    batch_norm: BatchNorm,
    tolerance: float,
    most: int,
    on_start: Callable[[int], None] = lambda step: None,
    on_direction: Callable[[float | None], None] = lambda increase: None,
) -> tuple[Flatness, Path]:
    """Asks the training loss of a run, as the step sees it, without penalty; see `average_flatness`.

    Args:
        place: the run, and which of its states.
        workers: who share each sweep; each of them calls this.
        radius: length of the step, in directions.
        normalised: of the directions.
        seed: of the directions.
        batch_norm: see `BatchNorm`.
        tolerance: of the standard error, relative to the mean.
        most: bound on the directions.
        on_start: told the step of the state, once it is there.
        on_direction: told of each increase.

    Returns:
        What was found, and the file of the answer.

    Raises:
        ValueError: if the run has no such state, or a number is out of range.
    """
    asked = ask(place, workers)
    if workers.count > 1:
        refuse_disagreement(workers, asked.experiment)
    on_start(asked.step)
    found = average_flatness(
        asked.risk, radius, normalised, seed=seed, batch_norm=batch_norm, tolerance=tolerance, most=most,
        on_direction=on_direction,
    )  # fmt: skip
    name = f"step{asked.step}-{normalised}-radius{radius:g}-{batch_norm}-seed{seed}"
    answer = Answer(
        KIND,
        name,
        {
            "step": asked.step,
            "radius": radius,
            "normalised": normalised,
            "seed": seed,
            "batch_norm": batch_norm,
            "tolerance": tolerance,
            "directions": len(found.increases),
            "mean_increase": found.mean,
            "standard_error": found.standard_error,
            "increases": found.increases,
            "stopped": found.stopped,
            "passes": found.passes,
        },
    )
    path = answers.write(place.directory, answer) if workers.rank == 0 else place.directory.path
    return found, path
