"""The class that a run's model gives each test image, beside the right one: `predictions.npz` of a run that has ended.

Comparisons of runs read it (study/). Torch is not needed here.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noiseless.files.atomic import write_bytes

FILE = "predictions.npz"
DAMAGED = (
    OSError, EOFError, RuntimeError, ValueError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""what numpy raises for a file that is no archive of plain arrays"""


class Predictions(NamedTuple):
    """Predicted and right class of each of M evaluated images."""

    predicted: NDArray[np.integer]
    """`[M]`, the class with the largest score"""
    target: NDArray[np.integer]
    """`[M]`, the image's label"""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, `[M]`."""
        return self.predicted == self.target


def write(run: Path, predictions: Predictions) -> None:
    """Writes `predictions.npz` in one stroke, with the smallest unsigned integers that hold the classes.

    Args:
        run: directory of the run.
        predictions: of its final state; classes count from 0.
    """
    dtype = np.min_scalar_type(max(int(array.max()) for array in predictions))
    content = io.BytesIO()
    np.savez_compressed(content, **{name: array.astype(dtype) for name, array in predictions._asdict().items()})
    write_bytes(run / FILE, content.getvalue())


def read(run: Path) -> Predictions:
    """Reads `predictions.npz`. Nothing in it is unpickled.

    Args:
        run: directory of the run.

    Returns:
        The predictions.

    Raises:
        ValueError: if there is no such file, or its arrays are not those that a run writes.
    """
    path = run / FILE
    if not path.exists():
        raise ValueError(f"{run} has no {FILE}: write it with noiseless evaluate {run}")
    remedy = f"write it again with noiseless evaluate {run}"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in Predictions._fields if name in file}
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as an npz file ({error}): {remedy}") from None
    for name in Predictions._fields:
        if name not in arrays:
            raise ValueError(f"{path} has no array {name}: {remedy}")
        array = arrays[name]
        if array.dtype.kind != "u" or array.ndim != 1 or not len(array):
            raise ValueError(
                f"{path}: {name} must be unsigned integers of shape [images], not {array.dtype} of shape"
                f" {list(array.shape)}: {remedy}"
            )
    counts = [len(arrays[name]) for name in Predictions._fields]
    if len(set(counts)) > 1:
        raise ValueError(f"{path} has {counts[0]} predictions for {counts[1]} images: {remedy}")
    return Predictions(**arrays)


def keep(run: Path, predictions: Predictions) -> int | None:
    """Writes a run's predictions, unless its own are there: those of another device may differ in some images.

    Args:
        run: directory of the run.
        predictions: of its final state, computed now.

    Returns:
        Number of images for which the file's prediction is another; None where the file was written.
    """
    try:
        there = read(run)
    except ValueError:
        there = None
    if there is None or not np.array_equal(there.target, predictions.target):
        write(run, predictions)
        return None
    return int((there.predicted != predictions.predicted).sum())
