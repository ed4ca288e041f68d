"""The result of `fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noiseless.api.results import Numbers, drawn, plain
from noiseless.documented import documented
from noiseless.errors import UnknownNameError
from noiseless.files.columns import COLUMNS, Column
from noiseless.files.directory import Row
from noiseless.objective import Measurement
from noiseless.report.figures import Axis, Curves, Series, View, number, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@documented
@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """What `fit` returns; the trained parameters are in the module."""

    train: Measurement
    """loss, hits and metrics on the training data at the end, in `eval()` mode"""
    validation: Measurement | None
    """the same on the validation data; None without them"""
    history: list[Row]
    """the rows of the record, one for each step: numbers by column, as in a run's `metrics.jsonl`"""
    digest: str
    """SHA-256 of the final parameters and buffers, as `noiseless digest` prints it"""
    run_dir: Path | None
    """directory of the run; None: nothing was written"""

    def column(self, name: str) -> Numbers:
        """A column of the history.

        Args:
            name: such as `train_loss`, `gradient_norm`, `test_loss`.

        Returns:
            float64 `[steps]`, with NaN where a row has no such number.

        Raises:
            UnknownNameError: if no row has the column.
        """
        names = {key for row in self.history for key in row}
        if name not in names:
            raise UnknownNameError("column", name, sorted(names))
        values = [number(row.get(name)) for row in self.history]
        return np.array([np.nan if value is None else value for value in values])

    def plot(self, ax: Axes | None = None, column: str = "train_loss") -> Axes:
        """Draws a column over the steps.

        Args:
            ax: axes of matplotlib; None: new ones of `matplotlib.pyplot`.
            column: of the history.

        Returns:
            The axes.
        """
        values, shown = self.column(column), COLUMNS.get(column, Column())
        known = [(step, value) for step, value in enumerate(values.tolist()) if np.isfinite(value)]
        points = [value for _, value in known]
        line = Series(column, [float(step) for step, _ in known], points)
        label = shown.axis or column.replace("_", " ")
        axis = Axis(label, scale(points) if shown.log and all(value > 0 for value in points) else "linear")
        figure = Curves(column, shown.title or label, axis, {"steps": View(Axis("steps"), [line])})
        return drawn([figure] if known else [], ax, f"{column} has no finite value")

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values that `json` can write; None for a number that is not finite."""
        return {
            "train": _numbers(self.train),
            "validation": self.validation and _numbers(self.validation),
            "history": plain(self.history),
            "digest": self.digest,
            "run_dir": self.run_dir and str(self.run_dir),
        }

    def __repr__(self) -> str:
        parts = [f"{len(self.history)} steps", _text("train", self.train)]
        parts += [_text("validation", self.validation)] if self.validation else []
        parts += [f"run_dir={str(self.run_dir)!r}"] if self.run_dir else []
        return f"{type(self).__name__}({', '.join(parts)})"


def _numbers(measured: Measurement) -> dict[str, Any]:
    return plain({"loss": measured.loss, "accuracy": measured.accuracy, "count": measured.count, **measured.metrics})


def _text(name: str, measured: Measurement) -> str:
    """Loss, accuracy and metrics in a few words."""
    accuracy = "" if measured.accuracy is None else f", {name}_accuracy={measured.accuracy:.4g}"
    metrics = "".join(f", {name}_{metric}={value:.4g}" for metric, value in measured.metrics.items())
    return f"{name}_loss={measured.loss:.4g}{accuracy}{metrics}"
