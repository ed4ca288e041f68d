"""The loss landscape of any module, and its flatness: values of the mean loss around the module's parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from noiseless.analysis import (
    Hessian,
    Normalised,
    average_flatness,
    difference,
    normalise,
    random_direction,
    scaling_text,
    top_eigenvalues,
)
from noiseless.analysis import loss_landscape as landscape_of
from noiseless.analysis.landscape import spread
from noiseless.api.preparing import Options, Prepared, prepared, with_options
from noiseless.api.results import Numbers, Result, drawn, gaps, optional
from noiseless.documented import documented
from noiseless.errors import UnknownNameError
from noiseless.losses.terms import PerExample
from noiseless.objective import EmpiricalRisk
from noiseless.report.figures import AnyFigure, Axis, Curves, Level, Series, View
from noiseless.report.landscapes import SHOWN, grid_figure, line_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Directions = Literal["random", "eigen"]
State = nn.Module | Mapping[str, Tensor]
QUANTITIES = ("loss", "accuracy")


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LossLandscape(Result):
    """Values of a module's mean loss on a line or in a plane of its parameter space."""

    axes: tuple[Numbers, ...]
    """coordinates along each direction, `[n]` or `[n]` and `[m]`; 0 is the module itself"""
    labels: tuple[str, ...]
    """what each direction is"""
    loss: Numbers
    """mean loss at each point, `[n]` or `[n, m]`; NaN where it is not finite"""
    accuracy: Numbers | None
    """share of correct predictions at each point, of the same shape; None where this is no classification"""

    def plot(self, ax: Axes | None = None, of: Literal["loss", "accuracy"] = "loss") -> Axes:
        """Draws the landscape: a curve, or contours (in axes of the projection "3d", a surface).

        Args:
            ax: axes of matplotlib; None: new ones of `matplotlib.pyplot`.
            of: what is drawn.

        Returns:
            The axes.

        Raises:
            UnknownNameError: for another quantity.
            ValueError: if there is no value to draw.
        """
        if of not in QUANTITIES:
            raise UnknownNameError("quantity", of, QUANTITIES)
        lack = "this is no classification" if of == "accuracy" and self.accuracy is None else self._lack()
        return drawn(self._figures_of(of), ax, lack)

    def _brief(self) -> str:
        size = " x ".join(str(len(axis)) for axis in self.axes)
        known = self.loss[np.isfinite(self.loss)]
        values = f"loss from {known.min():.4g} to {known.max():.4g}" if len(known) else "no finite loss"
        return f"{size} points, {values}, passes={self.passes:.4g}"

    def _figures_of(self, of: str) -> Sequence[AnyFigure]:
        values = self.loss if of == "loss" else self.accuracy
        if values is None or not np.isfinite(values).any():
            return []
        title = next(title for key, title, _ in SHOWN if key == of)
        if len(self.axes) == 1:
            series = Series(of, self.axes[0].tolist(), gaps(values))
            return line_figure(f"landscape-{of}", title, of, of, self.labels[0], [series], False)
        z = [gaps(values[:, j]) for j in range(len(self.axes[1]))]
        xs, ys = (axis.tolist() for axis in self.axes)
        return [grid_figure(f"landscape-{of}", title, of, (self.labels[0], self.labels[1], of), xs, ys, z)]


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Flatness(Result):
    """The mean rise of a module's loss along random directions."""

    value: float | None
    """mean of the increases; None if one of them is not finite"""
    error: float | None
    """its standard error; None if an increase is not finite"""
    increases: Numbers
    """increase of the loss along each direction, `[n]`; NaN where it is not finite"""
    radius: float
    """length of the steps, as a multiple of the normalised directions"""
    stopped: str
    """why no further direction was evaluated: `converged`, `bound` or `not finite`"""

    def _brief(self) -> str:
        value, error = optional(self.value), "None" if self.error is None else f"{self.error:.2g}"
        return f"{value} ± {error}, radius={self.radius:g}, directions={len(self.increases)}, {self.stopped}"

    def _figures(self) -> Sequence[AnyFigure]:
        if not np.isfinite(self.increases).any():
            return []
        places = [float(number) for number in range(1, len(self.increases) + 1)]
        points = Series("one direction", places, gaps(self.increases), 0, "points")
        levels = [] if self.value is None else [Level(self.value, "mean", 1)]
        title, view = f"Flatness at radius {self.radius:g}", {"": View(Axis("direction"), [points])}
        return [Curves("flatness", title, Axis("increase of the loss"), view, levels, legend=True)]


@with_options
def loss_landscape(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    points: int | tuple[int, int] = 21,
    *,
    directions: Directions | Tensor = "random",
    towards: State | Sequence[State] | None = None,
    reach: float | None = None,
    normalised: Normalised | None = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> LossLandscape:
    """The mean loss on a line or in a plane around a module's parameters, each point over all examples.

    The module is not changed. Its batch-norm buffers are the same at all points.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`.
        data: as for `sharpness`.
        points: number of points along the direction, or along each of two: `(21, 21)`.
        directions: `"random"` (Li et al., arXiv 1712.09913), `"eigen"`, the Hessian's eigenvectors of the largest
            eigenvalues, or vectors `[1, P]` or `[2, P]` in the order of `noiseless.parameter_space(model)`.
        towards: one module or state dict for each direction, in place of `directions`: at coordinate 1 the parameters
            are its parameters.
        reach: the line is from -reach to reach, with `towards` from -reach to 1 + reach; None: 1, with `towards` 0.5.
        normalised: scaling of the directions, see `noiseless.analysis.normalise`; None: `"filter"` for random ones,
            `"none"` (length of the parameters) for eigenvectors. Vectors and `towards` keep their length.
        seed: of random directions.
        **options: see `Options`.

    Returns:
        Loss and accuracy at each point.

    Raises:
        ValueError: if points, directions or reach do not make a landscape.
    """
    counts = (points,) if isinstance(points, int) else tuple(points)
    if len(counts) not in (1, 2):
        raise ValueError(f"points must be one number or two, for a line or a plane, not {points}")
    with prepared("loss landscape", model, loss, data, **options) as work:
        if towards is not None:
            vectors, labels = _towards(work.risk, towards)
        elif isinstance(directions, Tensor):
            vectors, labels = directions, [f"direction {number}" for number in range(len(directions))]
        else:
            vectors, labels = _directions(work, directions, len(counts), normalised, seed)
        if len(vectors) != len(counts):
            raise ValueError(f"points {points} are for {len(counts)} directions, and there are {len(vectors)}")
        if reach is None:
            reach = 0.5 if towards is not None else 1.0
        high = 1 + reach if towards is not None else reach
        axes = [spread(-reach, high, count) for count in counts]
        work.bar.total = work.bar.done + math.prod(counts) * work.chunks
        values = landscape_of(work.risk, vectors, *axes, batch_norm=work.batch_norm)
        accuracy = None if values.accuracy.isnan().all() else values.accuracy.numpy()
        return LossLandscape(
            axes=tuple(np.array(axis) for axis in axes), labels=tuple(labels), loss=values.loss.numpy(),
            accuracy=accuracy, **work.common(values.passes),
        )  # fmt: skip


@with_options
def flatness(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    *,
    radius: float = 0.5,
    normalised: Normalised = "filter",
    tolerance: float = 0.1,
    most: int = 100,
    seed: int = 0,
    **options: Unpack[Options],
) -> Flatness:
    """The mean rise of a module's loss along random directions, with its standard error.

    See `noiseless.analysis.average_flatness`. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`.
        data: as for `sharpness`.
        radius: length of the steps, as a multiple of the directions.
        normalised: scaling of the directions, see `noiseless.analysis.normalise`.
        tolerance: it ends when the standard error is at most this share of the mean; 0: after `most` directions.
        most: largest number of directions.
        seed: of the directions.
        **options: see `Options`.

    Returns:
        Mean and standard error.
    """
    with prepared("flatness", model, loss, data, **options) as work:
        measured = average_flatness(
            work.risk, radius, normalised, seed=seed, batch_norm=work.batch_norm, tolerance=tolerance, most=most
        )
        return Flatness(
            value=measured.mean,
            error=measured.standard_error,
            increases=np.array([math.nan if value is None else value for value in measured.increases]),
            radius=radius,
            stopped=measured.stopped,
            **work.common(measured.passes),
        )


def _directions(
    work: Prepared, kind: str, count: int, normalised: Normalised | None, seed: int
) -> tuple[Tensor, list[str]]:
    """Random directions or eigenvectors, scaled, with their labels."""
    space = work.risk.space
    if kind == "random":
        scaling: Normalised = normalised or "filter"
        vectors = [random_direction(space, seed, number, scaling) for number in range(count)]
        return torch.stack(vectors), [f"random direction {k} ({scaling_text(scaling)})" for k in range(count)]
    if kind != "eigen":
        raise UnknownNameError("directions", kind, ("random", "eigen"))
    scaling = normalised or "none"
    eigenvectors = top_eigenvalues(Hessian(work.risk, work.batch_norm), count).largest.vectors
    vectors = [normalise(vector, space, scaling) for vector in eigenvectors]
    return torch.stack(vectors), [f"Hessian eigenvector {k + 1} ({scaling_text(scaling)})" for k in range(count)]


def _towards(risk: EmpiricalRisk, towards: State | Sequence[State]) -> tuple[Tensor, list[str]]:
    """The directions to other states, with their labels."""
    states = [towards] if isinstance(towards, (nn.Module, Mapping)) else list(towards)
    vectors, space = [], risk.space
    for number, state in enumerate(states):
        tensors = dict(state.named_parameters()) if isinstance(state, nn.Module) else dict(state)
        for name, shape in zip(space.names, space.shapes, strict=True):
            if name not in tensors or tensors[name].shape != shape:
                found = f"of shape {list(tensors[name].shape)}" if name in tensors else "missing"
                raise ValueError(f"no line leads to state {number}: its {name} is {found}, and must be {list(shape)}")
        other = torch.cat([tensors[name].detach().reshape(-1) for name in space.names]).to(space.device)
        vectors.append(difference(space.theta.detach(), other))
    names = ["the other state"] if len(states) == 1 else [f"state {number}" for number in range(len(states))]
    return torch.stack(vectors), [f"towards {name}" for name in names]
