"""What the results of the analyses share: one line as text, plain values for JSON, and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseless.report.figures import AnyFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
APART = {"json": False}
"""metadata of a field that `to_dict` leaves out, because it is large"""
SHOWN = 3
"""largest number of elements of an array in a `repr`"""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result:
    """The result of an analysis of a module."""

    examples: int
    """number of examples"""
    block: int
    """number of examples that were forwarded together"""
    training: bool
    """whether the module ran in `train()` mode"""
    passes: float
    """cost, in gradient evaluations over the whole data set"""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values that `json` can write; None for a number that is not finite."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.metadata.get("json", True)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the result as a run's report draws it.

        Args:
            ax: axes of matplotlib; None: new ones of `matplotlib.pyplot`.

        Returns:
            The axes.

        Raises:
            ValueError: if no value is finite.
        """
        return drawn(self._figures(), ax, self._lack())

    def _figures(self) -> Sequence[AnyFigure]:
        """The figure in a list; empty if there is no value to draw."""
        raise NotImplementedError

    def _lack(self) -> str:
        """Why there is no figure, where there is none."""
        return "no value is finite"

    def _brief(self) -> str:
        """The numbers that `repr` shows."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._brief()})"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OfMatrix(Result):
    """The result of an analysis of a curvature matrix."""

    curvature: str
    """which matrix: `"hessian"`, `"ggn"`, `"fisher"` or `"empirical-fisher"`"""
    of: str | None = None
    """pattern of the parameters to whose block it was restricted; None: all"""

    @property
    def _matrix(self) -> str:
        """The matrix, for a title."""
        block = "" if self.of is None else f", block of {self.of}"
        return f"{MATRICES[self.curvature]}{block}"


MATRICES = {
    "hessian": "the Hessian", "ggn": "the Gauss-Newton matrix", "fisher": "the Fisher matrix",
    "empirical-fisher": "the empirical Fisher matrix",
}  # fmt: skip


def drawn(figures: Sequence[AnyFigure], ax: Axes | None, lack: str) -> Axes:
    """Draws a figure.

    Args:
        figures: the figure in a list; empty if there is no value to draw.
        ax: axes of matplotlib; None: new ones of `matplotlib.pyplot`.
        lack: why there is no figure, where there is none.

    Returns:
        The axes.

    Raises:
        ValueError: if there is no value to draw.
    """
    from noiseless.report.drawing import draw_on  # matplotlib takes long to import

    if not figures:
        raise ValueError(f"there is nothing to draw: {lack}")
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(7, 4.8), layout="constrained")
    draw_on(ax, figures[0])
    return ax


def plain(value: Any) -> Any:
    """A value as numbers, texts, lists and dicts; None for a number that is not finite."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def shown(values: Numbers) -> str:
    """The first elements of an array `[n]` as text."""
    texts = [f"{value:.4g}" for value in values[:SHOWN].tolist()]
    return f"[{', '.join(texts)}{', ...' if len(values) > SHOWN else ''}]"


def optional(value: float | None) -> str:
    """A number with four digits, or None, as text."""
    return "None" if value is None else f"{value:.4g}"


def gaps(values: Numbers) -> list[float | None]:
    """The elements of an array `[n]`, with None for those that are not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
