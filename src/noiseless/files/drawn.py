"""The measured noise of a run's updates, as its directory keeps it for the report: answers of the kind `draws`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.plain import typed

KIND = "draws"
"""kind of the answers"""


@dataclass(frozen=True)
class DrawnNoise:
    """The noise of an update's gradient at a state of a run."""

    step: int
    """steps done"""
    share: float
    """share of the updates done"""
    variance: float
    """E ||g - E g||^2 of one update's gradient: over draws; of a constant objective with autocast, its squared distance
    from float64"""
    signal: float | None
    """||E g||^2; None where it is not distinguished from zero"""
    covariance_trace: float
    """tr(Sigma): variance of the gradient of a single example, from the norm blocks of this state"""
    examples: int
    """N, number of training examples"""
    passes: float
    """cost of the measurement"""

    @property
    def noise_to_signal(self) -> float | None:
        """Variance divided by signal; None where the signal is not distinguished from zero."""
        return None if self.signal is None else self.variance / self.signal

    @property
    def like_batch(self) -> float:
        """The size b of mini-batches whose gradient has this variance; N for none.

        Without replacement, b of N examples give the variance `tr(Sigma) / b (1 - b / N)`, so `1 / b` is
        `variance / tr(Sigma) + 1 / N`.
        """
        if self.covariance_trace == 0:
            return self.examples if self.variance == 0 else math.nan
        return 1 / (self.variance / self.covariance_trace + 1 / self.examples)


def measured(directory: RunDirectory, steps: Sequence[int]) -> list[DrawnNoise]:
    """The noise that has been measured in a run at some of these steps, by step."""
    if not directory.path.is_dir():
        return []
    known = [typed(DrawnNoise, answer.values, "") for answer in answers.read(directory, KIND)]
    return [noise for noise in known if noise.step in steps]


def write(directory: RunDirectory, noise: DrawnNoise) -> None:
    """Keeps a measurement in the directory of its run."""
    values = {field.name: getattr(noise, field.name) for field in fields(noise)}
    answers.write(directory, Answer(KIND, f"{noise.step:08d}", values))
