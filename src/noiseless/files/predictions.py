"""The predicted and the right class of each test image: `predictions.npz` at a run's end, others in `analysis/`.

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

from noiseless.errors import command
from noiseless.files.atomic import write_bytes
from noiseless.plain import open_file

FILE = "predictions.npz"
DAMAGED = (
    OSError, EOFError, RuntimeError, ValueError, AttributeError, TypeError, MemoryError, OverflowError, SyntaxError,
    KeyError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""what numpy raises for a file that is not an archive of plain arrays"""


class Predictions(NamedTuple):
    """Predicted and right class of each of M evaluated images."""

    predicted: NDArray[np.integer]
    """`[M]`, the class with the largest score"""
    target: NDArray[np.integer]
    """`[M]`, the image's label"""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, bool `[M]`."""
        return self.predicted == self.target


def place(run: Path, step: int | None = None) -> Path:
    """The file of the predictions of a run's end, or of its state after a number of steps."""
    return run / FILE if step is None else run / "analysis" / f"predictions-{step:08d}.npz"


def write(run: Path, predictions: Predictions, step: int | None = None) -> None:
    """Writes a file of predictions atomically, in the smallest unsigned integer dtype that holds the classes.

    Args:
        run: directory of the run.
        predictions: of the state; classes count from 0.
        step: steps done; None: the run's final state.
    """
    dtype = np.min_scalar_type(max(int(array.max()) for array in predictions))
    content = io.BytesIO()
    np.savez_compressed(content, **{name: array.astype(dtype) for name, array in predictions._asdict().items()})
    file = place(run, step)
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, content.getvalue())


def read(run: Path, step: int | None = None) -> Predictions:
    """Reads a file of predictions. Nothing in it is unpickled.

    Args:
        run: directory of the run.
        step: steps done; None: the run's final state.

    Returns:
        The predictions.

    Raises:
        ValueError: if there is no such file, or if its arrays are not like those that a run writes.
    """
    path, state = place(run, step), run if step is None else f"{run}@{step}"
    if not path.exists():
        raise ValueError(f"{state} has no {path.relative_to(run)}: write it with {command('evaluate', state)}")
    remedy = f"write it again with {command('evaluate', state)}"
    try:
        with open_file(path) as stream, np.load(stream, allow_pickle=False) as file:
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


def keep(run: Path, predictions: Predictions, step: int | None = None) -> int | None:
    """Writes predictions of a run, unless the run has written its own, which may differ on another device.

    Args:
        run: directory of the run.
        predictions: of the state, computed now.
        step: steps done; None: the run's final state.

    Returns:
        Number of images whose prediction differs from the one in the file; None if the file was written now.
    """
    try:
        existing = read(run, step)
    except ValueError:
        existing = None
    if existing is None or not np.array_equal(existing.target, predictions.target):
        write(run, predictions, step)
        return None
    return int((existing.predicted != predictions.predicted).sum())
