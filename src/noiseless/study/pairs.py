"""On which test images two single runs differ: the paired table of a comparison, and the images themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from noiseless.files import predictions
from noiseless.study import comparison

CONFIDENCE = 0.95


def paired(first: Path, second: Path) -> dict[str, Any] | None:
    """Compares the predictions of two runs on the same test images.

    Args:
        first: directory of a finished run.
        second: of another one.

    Returns:
        Number of images, how many both, one or neither of the runs has right, the accuracy of the second minus that of
        the first in points with its interval over images, and for each image whose class differs its number, its label,
        and both predictions. None if a run has no predictions, because it does not classify or has no test images.

    Raises:
        ValueError: if the runs were evaluated on different images.
    """
    if not all((run / predictions.FILE).exists() for run in (first, second)):
        return None
    one, other = predictions.read(first), predictions.read(second)
    if not np.array_equal(one.target, other.target):
        raise ValueError(f"{first} and {second} were evaluated on different images")
    right = other.correct[None], one.correct[None]
    counts = comparison.agreement(*right, paired=True)
    compared = comparison.compare(*right, paired=True)
    differ = np.flatnonzero(one.predicted != other.predicted)
    return {
        "images": len(one.target),
        "both": int(counts.both),
        "only_first": int(counts.only_second),
        "only_second": int(counts.only_first),
        "neither": int(counts.neither),
        "difference": compared.difference,
        "interval": list(compared.interval(CONFIDENCE)),
        "p": compared.p,
        "differ": [[int(k), *(int(a[k]) for a in (one.target, one.predicted, other.predicted))] for k in differ],
    }
